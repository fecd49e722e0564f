//! Who may try a password now. Pure: time is an argument.
//!
//! Tries are counted for the user from one source, for the source, and for the user from everywhere. [`PAIR_MAX`] wrong
//! ones shut that user out from that source for [`WINDOW_MS`]: nobody locks another out from where that one sits. A source
//! that goes through names is shut out after [`SOURCE_MAX`]; a user whom many sources try after [`USER_MAX`], but not
//! for a source from which it got in lately. Tries while shut out do not count, so every lock ends. A try counts from its
//! beginning, so many at once are no more than many after another: one too many waits for the outcome of those before it.
//! Names count whether or not there is such a user.
//!
//! LIMIT: [`MARKS_MAX`] counters; beyond, what is over goes, then the oldest. To push out a counter one needs hundreds of
//! sources, each of which pays a hash a try. Cost: counters are lost with the process.

use std::collections::BTreeMap;
use std::ops::Bound;

use ring::digest;

/// Wrong tries for one user from one source.
pub(super) const PAIR_MAX: u32 = 5;
/// Wrong tries from one source, whoever it names.
pub(super) const SOURCE_MAX: u32 = 50;
/// Wrong tries for one user, wherever they come from.
pub(super) const USER_MAX: u32 = 200;
/// How long wrong tries count, and how long a lock lasts.
pub(super) const WINDOW_MS: i64 = 15 * 60 * 1_000;
/// How long a source counts as one from which a user gets in.
const KNOWN_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// LIMIT: counters.
const MARKS_MAX: usize = 16_384;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    marks: BTreeMap<Key, Mark>,
}

/// What the counters say of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may go on, and must be told its end.
    Open,
    /// Others have to end first.
    Wait,
    /// Shut until then, ms.
    Shut(i64),
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Right,
    Wrong,
    /// It was not judged.
    Dropped,
}

/// Digests of user and source: their length does not depend on what an attacker sends.
type Key = Vec<u8>;

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Beginning of the window; of the lock, where the bound is reached.
    since_ms: i64,
    wrong: u32,
    under_way: u32,
    /// Until when this source is known to the user (pairs only).
    known_until_ms: i64,
}

impl Mark {
    fn count(&self, now_ms: i64) -> u32 {
        if now_ms < self.since_ms + WINDOW_MS { self.wrong } else { 0 }
    }

    fn gate(&self, most: u32, now_ms: i64) -> Gate {
        let wrong = self.count(now_ms);
        if wrong >= most {
            Gate::Shut(self.since_ms + WINDOW_MS)
        } else if wrong + self.under_way >= most {
            Gate::Wait
        } else {
            Gate::Open
        }
    }

    fn add(&mut self, most: u32, now_ms: i64) {
        let wrong = self.count(now_ms) + 1;
        if wrong == 1 || wrong >= most {
            self.since_ms = now_ms;
        }
        self.wrong = wrong;
    }

    fn is_over(&self, now_ms: i64) -> bool {
        self.under_way == 0 && self.count(now_ms) == 0 && now_ms >= self.known_until_ms
    }
}

impl Lockout {
    /// Whether `user` may be tried from `source`; [`Gate::Open`] begins a try.
    pub(super) fn begin(&mut self, user: &str, source: &str, now_ms: i64) -> Gate {
        let keys = keys(user, source);
        let known = self.marks.get(&keys[0].0).is_some_and(|mark| now_ms < mark.known_until_ms);
        let judged = if known { &keys[..2] } else { &keys[..] };
        let mut gate = Gate::Open;
        for (key, most) in judged {
            match self.marks.get(key).map_or(Gate::Open, |mark| mark.gate(*most, now_ms)) {
                Gate::Shut(until) => return Gate::Shut(until),
                Gate::Wait => gate = Gate::Wait,
                Gate::Open => {}
            }
        }
        if gate == Gate::Open {
            for (key, _) in keys {
                self.mark(key, now_ms).under_way += 1;
            }
        }
        gate
    }

    /// Ends a try; whether it was the one that shuts this user out from this source.
    pub(super) fn end(&mut self, user: &str, source: &str, end: End, now_ms: i64) -> bool {
        let keys = keys(user, source);
        for (key, most) in keys.clone() {
            let mark = self.mark(key, now_ms);
            mark.under_way = mark.under_way.saturating_sub(1);
            if end == End::Wrong {
                mark.add(most, now_ms);
            }
        }
        let [(pair, _), ..] = keys;
        let pair = self.mark(pair, now_ms);
        if end == End::Right {
            *pair = Mark { known_until_ms: now_ms + KNOWN_MS, under_way: pair.under_way, ..Mark::default() };
        }
        end == End::Wrong && pair.count(now_ms) == PAIR_MAX
    }

    /// Lets a user in again, from everywhere: its password is another one.
    pub(super) fn forget(&mut self, user: &str) {
        let part = digest_of(user);
        let whole = |fill| [part.as_slice(), &[fill; 16]].concat();
        let range: (Vec<u8>, Vec<u8>) = (whole(0), whole(u8::MAX));
        for (_, mark) in
            self.marks.range_mut::<[u8], _>((Bound::Included(&range.0[..]), Bound::Included(&range.1[..])))
        {
            mark.wrong = 0;
        }
    }

    fn mark(&mut self, key: Key, now_ms: i64) -> &mut Mark {
        if self.marks.len() >= MARKS_MAX && !self.marks.contains_key(&key) {
            self.make_room(now_ms);
        }
        self.marks.entry(key).or_default()
    }

    fn make_room(&mut self, now_ms: i64) {
        self.marks.retain(|_, mark| !mark.is_over(now_ms));
        if self.marks.len() < MARKS_MAX {
            return;
        }
        let idle = self.marks.iter().filter(|(_, mark)| mark.under_way == 0);
        let oldest = idle.min_by_key(|(_, mark)| mark.since_ms.max(mark.known_until_ms - KNOWN_MS));
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.marks.remove(&key);
        }
    }
}

/// The counters of a try, the pair's first, with their bounds.
fn keys(user: &str, source: &str) -> [(Key, u32); 3] {
    let (user, source) = (digest_of(user), digest_of(source));
    // No name and no source has this digest.
    let any = [0; 16];
    [(key(user, source), PAIR_MAX), (key(any, source), SOURCE_MAX), (key(user, any), USER_MAX)]
}

fn key(user: [u8; 16], source: [u8; 16]) -> Key {
    [user, source].concat()
}

fn digest_of(text: &str) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000;

    fn wrong(lockout: &mut Lockout, user: &str, source: &str, now_ms: i64) -> Gate {
        let gate = lockout.begin(user, source, now_ms);
        if gate == Gate::Open {
            lockout.end(user, source, End::Wrong, now_ms);
        }
        gate
    }

    #[test]
    fn five_wrong_tries_shut_one_user_out_from_one_source_for_fifteen_minutes() {
        let mut lockout = Lockout::default();
        for now in 0..5 {
            assert_eq!(wrong(&mut lockout, "alice", "a", now), Gate::Open);
        }
        // Tries while it is shut do not prolong it.
        for now in [5, MINUTE, WINDOW_MS + 3] {
            assert_eq!(lockout.begin("alice", "a", now), Gate::Shut(WINDOW_MS + 4));
        }
        assert_eq!(lockout.begin("alice", "b", MINUTE), Gate::Open, "from elsewhere she gets in");
        assert_eq!(lockout.begin("bob", "a", MINUTE), Gate::Open);
        lockout.forget("bob");
        assert!(matches!(lockout.begin("alice", "a", MINUTE), Gate::Shut(_)));
        lockout.forget("alice");
        assert_eq!(lockout.begin("alice", "a", MINUTE), Gate::Open);
    }

    #[test]
    fn many_at_once_are_no_more_than_many_after_another() {
        let mut lockout = Lockout::default();
        for _ in 0..5 {
            assert_eq!(lockout.begin("alice", "a", 0), Gate::Open);
        }
        assert_eq!(lockout.begin("alice", "a", 0), Gate::Wait);
        assert!(!lockout.end("alice", "a", End::Dropped, 0));
        assert_eq!(lockout.begin("alice", "a", 0), Gate::Open);
        let shuts: Vec<bool> = (0..5).map(|_| lockout.end("alice", "a", End::Wrong, 0)).collect();
        assert_eq!(shuts, [false, false, false, false, true]);
        assert_eq!(lockout.begin("alice", "a", 0), Gate::Shut(WINDOW_MS));
    }

    #[test]
    fn a_source_that_goes_through_names_and_a_user_whom_many_try_are_shut() {
        let mut lockout = Lockout::default();
        let opened =
            (0..100).filter(|n| wrong(&mut lockout, &format!("user{n}"), "a", 0) == Gate::Open).count();
        assert_eq!(opened, SOURCE_MAX as usize);
        assert_eq!(lockout.begin("bob", "home", 0), Gate::Open);
        lockout.end("bob", "home", End::Right, 0);
        let opened =
            (0..500).filter(|n| wrong(&mut lockout, "bob", &format!("s{n}"), 1) == Gate::Open).count();
        assert_eq!(opened, USER_MAX as usize);
        assert!(matches!(lockout.begin("bob", "new", 2), Gate::Shut(_)));
        assert_eq!(lockout.begin("bob", "home", 2), Gate::Open, "a botnet keeps nobody from his own desk");
        assert_eq!(lockout.begin("bob", "new", 2 + WINDOW_MS), Gate::Open);
    }

    #[test]
    fn counters_are_bounded() {
        let mut lockout = Lockout::default();
        // Three counters a try: a few more tries than there is room for.
        for n in 0..(MARKS_MAX / 3 + 50) as i64 {
            wrong(&mut lockout, &format!("u{n}"), &format!("s{n}"), n);
            assert!(lockout.marks.len() <= MARKS_MAX);
        }
        assert_eq!(lockout.marks.len(), MARKS_MAX);
        wrong(&mut lockout, "late", "late", 2 * WINDOW_MS + MARKS_MAX as i64);
        assert!(lockout.marks.len() <= 4, "what is over goes first");
    }

    proptest! {
        /// A naive model: the list of all wrong tries of one pair.
        #[test]
        fn one_pair_is_judged_as_a_list_of_its_tries_is(
            steps in proptest::collection::vec((0..10 * MINUTE, 0_u8..6), 1..60),
        ) {
            let mut lockout = Lockout::default();
            // The tries of the window, and until when it is shut.
            let (mut tries, mut shut, mut now) = (Vec::<i64>::new(), None::<i64>, 0);
            for (gap, kind) in steps {
                now += gap;
                if tries.first().is_some_and(|first| now >= first + WINDOW_MS) && shut.is_none() {
                    tries.clear();
                }
                if shut.is_some_and(|until| now >= until) {
                    (tries, shut) = (Vec::new(), None);
                }
                let gate = lockout.begin("u", "s", now);
                prop_assert_eq!(gate, shut.map_or(Gate::Open, Gate::Shut));
                if gate != Gate::Open {
                    continue;
                }
                let end = match kind { 0 => End::Right, 1 => End::Dropped, _ => End::Wrong };
                let shuts = lockout.end("u", "s", end, now);
                match end {
                    End::Right => tries.clear(),
                    End::Wrong => tries.push(now),
                    End::Dropped => {}
                }
                if tries.len() == PAIR_MAX as usize {
                    shut = Some(now + WINDOW_MS);
                }
                prop_assert_eq!(shuts, end == End::Wrong && shut.is_some());
            }
        }
    }
}
