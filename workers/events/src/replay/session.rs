//! Replay sessions: a window with a clock that its owner sets while somebody watches.
//!
//! A session has one place in its window and one viewer: who opens the stream takes it over, and the one before is
//! told so. Nothing plays while nobody watches. A session that is not watched and not asked about for
//! [`IDLE_MAX`] is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sluice_http::Reject;
use sluice_wire::code::Code;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::clock::{Due, MarketClock};
use super::request::Speed;
use super::window::Window;
use crate::log::Record;

/// LIMIT: sessions at a time.
const SESSIONS_MAX: usize = 256;
/// LIMIT: sessions of one caller at a time.
const SESSIONS_OF_ONE_MAX: usize = 16;
/// How long a session lives that nobody watches.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How long any session lives.
const LIFE_MAX: Duration = Duration::from_secs(86_400);

/// Every session of this worker.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<Uuid, Arc<Session>>>);

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Uuid,
    /// Subject of its creator.
    pub(super) owner: String,
    pub(super) window: Window,
    /// Oldest seq that was kept when it was made.
    pub(super) first: u64,
    begun: Instant,
    state: Mutex<State>,
    /// Wakes the viewer.
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    clock: MarketClock,
    /// Seq of the next event.
    next: u64,
    /// Counts the places it was set to: what a viewer has read ahead is worth nothing after.
    seeks: u64,
    /// Number of the newest viewer.
    viewer: u64,
    watched: bool,
    /// Once a viewer has had everything: from this seq on the window has no event.
    end: Option<u64>,
    deleted: bool,
    /// When it was last asked about.
    touched: Instant,
}

/// A viewer's right to the session: the newest one has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    number: u64,
    /// The place it was given; another number means that the session was set elsewhere since.
    pub(super) seeks: u64,
    /// Where it goes on.
    pub(super) next: u64,
}

/// What a viewer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Go on.
    On,
    /// Forget what was read ahead and go on elsewhere.
    Elsewhere,
    /// End, for this reason.
    End(&'static str),
}

/// What the calls tell of a session.
#[derive(Serialize)]
pub(super) struct Told {
    replay_id: Uuid,
    url: String,
    state: &'static str,
    speed: Speed,
    paused: bool,
    /// Seq of the next event.
    next_seq: u64,
    /// Newest seq of the window.
    last_seq: u64,
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session.
    pub(super) fn begin(
        &self,
        owner: &str,
        window: Window,
        first: u64,
        speed: Speed,
    ) -> Result<Arc<Session>, Reject> {
        let now = Instant::now();
        self.expire(now);
        let mut all = self.all();
        if all.len() >= SESSIONS_MAX {
            return Err(Reject::new(
                Code::Overloaded,
                format!("there are {SESSIONS_MAX} replay sessions already"),
            ));
        }
        if all.values().filter(|other| other.owner == owner).count() >= SESSIONS_OF_ONE_MAX {
            return Err(Reject::new(
                Code::RateLimited,
                format!("this caller has {SESSIONS_OF_ONE_MAX} replay sessions already; delete one"),
            ));
        }
        let session = Arc::new(Session::new(owner, window, first, speed, now));
        all.insert(session.id, Arc::clone(&session));
        Ok(session)
    }

    /// The session with an id.
    pub(super) fn find(&self, id: Uuid) -> Option<Arc<Session>> {
        self.all().get(&id).cloned()
    }

    /// Ends a session and its stream.
    pub(super) fn remove(&self, id: Uuid) {
        let removed = self.all().remove(&id);
        if let Some(session) = removed {
            session.end();
        }
    }

    /// Drops what nobody uses; the number of sessions left.
    pub(crate) fn expire(&self, now: Instant) -> usize {
        let mut all = self.all();
        all.retain(|_, session| {
            let kept = !session.is_over(now);
            if !kept {
                session.end();
            }
            kept
        });
        all.len()
    }
}

impl Session {
    fn new(owner: &str, window: Window, first: u64, speed: Speed, now: Instant) -> Self {
        let state = State {
            clock: MarketClock::new(speed, false),
            next: first,
            seeks: 0,
            viewer: 0,
            watched: false,
            end: None,
            deleted: false,
            touched: now,
        };
        Self {
            id: Uuid::new_v4(),
            owner: owner.to_owned(),
            window,
            first,
            begun: now,
            state: Mutex::new(state),
            changes: watch::Sender::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the viewer of changes made after the last look.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Takes the session over, at a place of the viewer's own or where it stands; `None` when it is at its end.
    pub(super) fn watch(&self, from: Option<u64>, now: Instant) -> Option<Seat> {
        let mut state = self.state();
        state.touched = now;
        // Who has had the last event is behind the end, whatever else was stored before the window was closed.
        if state.end.is_some_and(|end| from.unwrap_or(state.next) >= end) {
            return None;
        }
        state.next = from.unwrap_or(state.next).max(self.first);
        state.viewer += 1;
        state.watched = true;
        state.end = None;
        state.clock.restart();
        let seat = Seat { number: state.viewer, seeks: state.seeks, next: state.next };
        drop(state);
        self.changes.send_replace(());
        Some(seat)
    }

    /// Gives the seat up.
    pub(super) fn leave(&self, seat: &Seat, now: Instant) {
        let mut state = self.state();
        if state.viewer == seat.number {
            state.watched = false;
            state.touched = now;
        }
    }

    /// What the viewer is to do; a seat that was set elsewhere is moved.
    pub(super) fn turn(&self, seat: &mut Seat) -> Turn {
        let state = self.state();
        if state.deleted {
            return Turn::End("deleted");
        }
        if state.viewer != seat.number {
            return Turn::End("taken_over");
        }
        if state.seeks == seat.seeks {
            return Turn::On;
        }
        seat.seeks = state.seeks;
        seat.next = state.next;
        Turn::Elsewhere
    }

    /// When an event is due; one that is due counts as sent.
    pub(super) fn due(&self, seat: &Seat, record: &Record, now: Instant) -> Option<Due> {
        let mut state = self.state();
        // Set elsewhere, taken over or deleted between two looks: nothing of it is sent any more.
        if state.deleted || state.viewer != seat.number || state.seeks != seat.seeks {
            return None;
        }
        let due = state.clock.due(record.time_us, now);
        if due == Due::Now {
            state.next = record.stamp.seq + 1;
        }
        Some(due)
    }

    /// The viewer has had everything, and behind `last` there was nothing; `false` when it was set elsewhere meanwhile.
    pub(super) fn complete(&self, seat: &Seat, last: u64) -> bool {
        let mut state = self.state();
        let ended = state.viewer == seat.number && state.seeks == seat.seeks;
        if ended {
            state.end = Some(last + 1);
            state.next = self.window.upto + 1;
        }
        ended
    }

    /// Sets speed, pause and place, each where one is given.
    pub(super) fn set(&self, speed: Option<Speed>, paused: Option<bool>, next: Option<u64>, now: Instant) {
        let mut state = self.state();
        state.touched = now;
        if let Some(speed) = speed {
            state.clock.set_speed(speed, now);
        }
        if let Some(paused) = paused {
            state.clock.set_paused(paused, now);
        }
        if let Some(next) = next {
            state.next = next.max(self.first);
            state.seeks += 1;
            state.end = None;
            state.clock.restart();
        }
        drop(state);
        self.changes.send_replace(());
    }

    /// Counts a call about the session as use of it.
    pub(super) fn told(&self, now: Instant) -> Told {
        let mut state = self.state();
        state.touched = now;
        let word = match () {
            () if state.end.is_some() => "complete",
            () if state.clock.is_paused() => "paused",
            () if state.watched => "playing",
            () => "waiting",
        };
        Told {
            replay_id: self.id,
            url: format!("/events/replay/{}/stream", self.id),
            state: word,
            speed: state.clock.speed(),
            paused: state.clock.is_paused(),
            next_seq: state.next,
            last_seq: self.window.upto,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let state = self.state();
        let idle = !state.watched && now.saturating_duration_since(state.touched) > IDLE_MAX;
        idle || now.saturating_duration_since(self.begun) > LIFE_MAX
    }

    fn end(&self) {
        self.state().deleted = true;
        self.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Filter;
    use crate::log::tests::record;

    fn window() -> Window {
        Window { filter: Filter::default(), upto: 9 }
    }

    #[test]
    fn sessions_are_bounded_and_end_when_nobody_uses_them() {
        let sessions = Sessions::default();
        let begin = |owner: &str| sessions.begin(owner, window(), 1, Speed::Max);
        for _ in 0..SESSIONS_OF_ONE_MAX {
            begin("alice").unwrap();
        }
        assert_eq!(begin("alice").unwrap_err().problem().code, Code::RateLimited);
        for n in SESSIONS_OF_ONE_MAX..SESSIONS_MAX {
            begin(&format!("caller {n}")).unwrap();
        }
        assert_eq!(begin("bob").unwrap_err().problem().code, Code::Overloaded);
        let watched = sessions.all().values().next().cloned().unwrap();
        let seat = watched.watch(None, Instant::now()).unwrap();
        let later = Instant::now() + IDLE_MAX + Duration::from_secs(1);
        assert_eq!(sessions.expire(later), 1);
        watched.leave(&seat, later);
        assert_eq!(sessions.expire(later), 1);
        assert_eq!(sessions.expire(later + IDLE_MAX + Duration::from_secs(1)), 0);
        assert!(sessions.find(watched.id).is_none());
    }

    #[test]
    fn nothing_lives_for_ever() {
        let sessions = Sessions::default();
        let session = sessions.begin("alice", window(), 1, Speed::Max).unwrap();
        let mut seat = session.watch(None, Instant::now()).unwrap();
        assert_eq!(sessions.expire(Instant::now() + LIFE_MAX + Duration::from_secs(1)), 0);
        assert_eq!(session.turn(&mut seat), Turn::End("deleted"));
    }

    #[test]
    fn the_newest_viewer_has_the_session() {
        let session = Session::new("alice", window(), 1, Speed::Max, Instant::now());
        let now = Instant::now();
        let mut first = session.watch(None, now).unwrap();
        assert_eq!(session.due(&first, &record(3, "x"), now), Some(Due::Now));
        let mut second = session.watch(None, now).unwrap();
        assert_eq!((second.next, session.turn(&mut first)), (4, Turn::End("taken_over")));
        assert_eq!(session.due(&first, &record(4, "x"), now), None);
        session.leave(&first, now);
        assert_eq!(session.turn(&mut second), Turn::On);
        session.set(None, None, Some(2), now);
        assert_eq!((session.turn(&mut second), second.next), (Turn::Elsewhere, 2));
        assert!(session.complete(&second, 6) && !session.complete(&first, 9));
        // At the end, which is behind the last event, there is nothing to see, unless it is set back.
        assert!(session.watch(None, now).is_none() && session.watch(Some(7), now).is_none());
        assert_eq!(session.watch(Some(5), now).unwrap().next, 5);
    }
}
