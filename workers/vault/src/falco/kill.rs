//! Kill switches that alerts bring about: edges refuse what the configuration names, but for cancels, until the time is
//! over or somebody lets go.
//!
//! The vault speaks as edges do among each other (`kill_switch` on the event stream, [`Change`]), under a number of its own:
//! what it puts on holds beside what others put on, and it takes back nothing but its own. An operator at an edge takes
//! back both. What is on is a row, so it ends in time through restarts; a vault that is away ends nothing: then it stays
//! on until an operator lets go. ON and OFF are queued in the commit of the row and go before every other event.
//!
//! LIMIT: one row a scope, and scopes are those of the configuration.

use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluice_identity::kill::KillKey;
use sluice_wire::event::{EventType, NewEvent};
use sluice_wire::kill::{Change as Switch, EdgeId, REASON_BYTES_MAX};
use sluice_wire::role::Role;

use super::quarantine::{Cause, administrator};
use super::watch::{Response, Stop};
use crate::context::Vault;
use crate::error::VaultError;
use crate::request::Act;
use crate::store::{Change, Range, Table, View};

/// The vault's number among those that switch.
const PARTY: &[u8] = b"sys/kill-switch";
/// Rows of what is on.
const PREFIX: &[u8] = b"kill/";
/// LIMIT: rows looked at; there are no more than responses that were ever configured.
const ROWS_MAX: usize = 1_000;
/// Who puts it on, as edges name it.
const BY: &str = "role/vault";
/// What is on is told again at this pace, for edges whose stream begins later.
const TOLD_AGAIN: SignedDuration = SignedDuration::from_hours(1);
/// Nothing is told again while so many events wait.
const WAITING_MAX: u64 = 1_000;

/// The vault's number, and that of its last change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Party {
    id: EdgeId,
    last: u64,
}

/// A switch that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    stop: Stop,
    since: Timestamp,
    until: Timestamp,
    rule: String,
    host: String,
    epoch: u64,
    told: Timestamp,
}

/// What is on, as far as the vault put it on and has not let it go.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    switches: Vec<Shown>,
    count: usize,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    stop: Stop,
    since: Timestamp,
    until: Timestamp,
    rule: String,
    host: String,
}

/// What is to be done about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    Tell,
    End,
}

impl Party {
    fn new() -> Result<Self, VaultError> {
        let mut bytes = [0; 4];
        SystemRandom::new().fill(&mut bytes).map_err(|_| VaultError::Crypto("random numbers"))?;
        Ok(Self { id: EdgeId::of_vault(u32::from_be_bytes(bytes)), last: 0 })
    }

    /// The number of the next change: it rises, also when the clock steps back.
    fn next(&mut self, now: Timestamp) -> u64 {
        self.last = u64::try_from(now.as_microsecond()).unwrap_or(0).max(self.last + 1);
        self.last
    }
}

impl Row {
    /// The row that holds for a cause, unless the one before holds as long.
    fn held(before: Option<&Self>, stop: &Stop, cause: &Cause, now: Timestamp) -> Option<Self> {
        let until = now + SignedDuration::from_millis(cause.ttl_ms);
        if before.is_some_and(|before| before.until >= until) {
            return None;
        }
        Some(Self {
            stop: stop.clone(),
            since: before.map_or(now, |before| before.since),
            until,
            rule: cause.rule.clone(),
            host: cause.host.clone(),
            epoch: 0,
            told: now,
        })
    }

    fn next(&self, now: Timestamp) -> Next {
        match () {
            () if self.until <= now => Next::End,
            () if now.duration_since(self.told) >= TOLD_AGAIN => Next::Tell,
            () => Next::Nothing,
        }
    }

    fn key(stop: &Stop) -> Vec<u8> {
        [PREFIX, name(stop).as_bytes()].concat()
    }

    /// What edges are told while it is on.
    fn on(&self, party: EdgeId) -> Switch {
        let reason = format!("falco: {} at {} until {}", self.rule, self.host, self.until);
        self.switch(party, true, self.epoch, self.told, &reason)
    }

    /// What edges are told when it ends: that this ON is taken back, and no other.
    fn off(&self, party: EdgeId, epoch: u64, now: Timestamp, reason: &str) -> Switch {
        let mut switch = self.switch(party, false, epoch, now, reason);
        switch.seen.insert(party, self.epoch);
        switch
    }

    fn switch(&self, party: EdgeId, on: bool, epoch: u64, at: Timestamp, reason: &str) -> Switch {
        let ms = |at: Timestamp| u64::try_from(at.as_millisecond()).unwrap_or(0);
        let mut reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        Switch {
            scope: self.stop.scope.clone(),
            target: self.stop.target.clone(),
            on,
            cancel_lane_open: true,
            reason,
            by: BY.to_owned(),
            at_ms: ms(at),
            since_ms: ms(self.since),
            edge: party,
            epoch,
            seen: [].into(),
        }
    }
}

/// How a scope is named: `all`, `service:orders`.
pub(super) fn name(stop: &Stop) -> String {
    match &stop.target {
        Some(target) => format!("{}:{target}", stop.scope),
        None => stop.scope.clone(),
    }
}

fn event(switch: &Switch, key: Option<&KillKey>, now: Timestamp) -> NewEvent {
    let data = serde_json::to_value(switch).ok().and_then(|value| match value {
        Value::Object(data) => Some(data),
        _ => None,
    });
    let mut data = data.expect("a switch is a JSON object");
    if let Some(key) = key {
        key.seal(Role::Vault, &mut data);
    }
    NewEvent {
        event_type: EventType::parse("kill_switch").expect("the name is in the catalogue"),
        event_id: Some(uuid::Uuid::new_v4()),
        timestamp: Some(now),
        source: Role::Vault.as_str().to_owned(),
        data,
        metadata: Map::new(),
    }
}

fn rows(view: &impl View) -> Result<Vec<Row>, VaultError> {
    let keys = view.keys(Table::Logical, &Range::prefix(PREFIX, ROWS_MAX))?;
    keys.iter().map(|key| view.require(Table::Logical, key)).collect()
}

/// Ends a switch: removes the row and tells edges.
fn end(
    change: &mut Change<'_>,
    row: &Row,
    key: Option<&KillKey>,
    now: Timestamp,
    why: &str,
) -> Result<(), VaultError> {
    let mut party: Party = change.require(Table::Logical, PARTY)?;
    let off = row.off(party.id, party.next(now), now, why);
    change.save(Table::Logical, PARTY, &party);
    change.remove(Table::Logical, &Row::key(&row.stop));
    change.emit(&event(&off, key, now))
}

impl Vault {
    /// Has edges stop what a response names; one that is stopped already stays so for the longer of both times.
    pub(super) fn kill(&self, act: &Act, stop: &Stop, cause: Cause) -> Result<(), VaultError> {
        let entry = act.entry("falco", "kill_switch_on", format!("falco/kill-switch/{}", name(stop)));
        let (stop, now, key) = (stop.clone(), act.now, self.settings.falco.kill_key.clone());
        self.write(entry, move |change| {
            let place = Row::key(&stop);
            let before: Option<Row> = change.load(Table::Logical, &place)?;
            let Some(mut row) = Row::held(before.as_ref(), &stop, &cause, now) else { return Ok(()) };
            let mut party = match change.load(Table::Logical, PARTY)? {
                Some(party) => party,
                None => Party::new()?,
            };
            row.epoch = party.next(now);
            change.save(Table::Logical, PARTY, &party);
            change.save(Table::Logical, &place, &row);
            change.emit(&event(&row.on(party.id), key.as_ref(), now))
        })
    }

    /// Ends switches whose time is over, and tells of the others again where it is time.
    pub(crate) fn tend_kills(&self, now: Timestamp) -> Result<(), VaultError> {
        let view = self.store.snapshot()?;
        let may_tell = view.count(Table::Outbox)? <= WAITING_MAX;
        let due: Vec<(Row, Next)> = rows(&view)?
            .into_iter()
            .map(|row| {
                let next = row.next(now);
                (row, next)
            })
            .collect();
        drop(view);
        for (row, next) in due {
            let op = match next {
                Next::End => "kill_switch_off",
                Next::Tell if may_tell => "kill_switch_again",
                _ => continue,
            };
            let entry = Act::own(now).entry("falco", op, format!("falco/kill-switch/{}", name(&row.stop)));
            let key = self.settings.falco.kill_key.clone();
            self.write(entry, move |change| {
                let place = Row::key(&row.stop);
                // Somebody may have released or prolonged it meanwhile.
                let Some(mut row) = change.load::<Row>(Table::Logical, &place)? else { return Ok(()) };
                match row.next(now) {
                    Next::Nothing => Ok(()),
                    Next::End => end(change, &row, key.as_ref(), now, "its time is over"),
                    Next::Tell => {
                        row.told = now;
                        change.save(Table::Logical, &place, &row);
                        let party: Party = change.require(Table::Logical, PARTY)?;
                        change.emit(&event(&row.on(party.id), key.as_ref(), now))
                    }
                }
            })?;
        }
        Ok(())
    }

    /// What alerts have stopped.
    pub(super) fn kills(&self, act: &Act) -> Result<Page, VaultError> {
        let entry = act.entry("falco", "list", "falco/kill-switch");
        if let Err(error) = administrator(act) {
            return Err(self.refuse(entry, error));
        }
        self.read(entry, || {
            let shown = |row: Row| Shown {
                stop: row.stop,
                since: row.since,
                until: row.until,
                rule: row.rule,
                host: row.host,
            };
            let switches: Vec<Shown> = rows(&self.store.snapshot()?)?.into_iter().map(shown).collect();
            Ok(Page { count: switches.len(), switches })
        })
    }

    /// Lets go before the time is over.
    pub(super) fn release_kill(&self, act: &Act, stop: &Stop) -> Result<(), VaultError> {
        let shown: String = name(stop).chars().take(64).collect();
        let entry = act.entry("falco", "kill_switch_off", format!("falco/kill-switch/{shown}"));
        if let Err(error) = administrator(act) {
            return Err(self.refuse(entry, error));
        }
        let (released, now, key) = (stop.clone(), act.now, self.settings.falco.kill_key.clone());
        self.write(entry, move |change| match change.load::<Row>(Table::Logical, &Row::key(&released))? {
            Some(row) => end(change, &row, key.as_ref(), now, "released by an administrator"),
            None => Err(VaultError::NotFound("no alert has stopped this".into())),
        })?;
        let is_it = |response: &Response| response.stop.as_ref() == Some(stop);
        self.watch().rearm(&self.settings.falco.responses, is_it);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap()
    }

    fn cause(ttl_ms: i64) -> Cause {
        Cause { rule: "Shell\nstarted".repeat(50), host: "node-1".into(), ttl_ms }
    }

    fn stop() -> Stop {
        Stop { scope: "service".into(), target: Some("orders".into()) }
    }

    #[test]
    fn what_edges_are_told_is_sound_and_the_vaults_own() {
        let party = Party::new().unwrap().id;
        let mut row = Row::held(None, &stop(), &cause(1_000), at(0)).unwrap();
        row.epoch = 9;
        let (on, off) = (row.on(party), row.off(party, 10, at(5), "its time is over"));
        for switch in [&on, &off] {
            assert!(switch.is_sound() && switch.may_be_of(Role::Vault), "{switch:?}");
            assert!(!switch.reason.contains('\n'));
        }
        assert!(on.on && on.cancel_lane_open && on.seen.is_empty() && on.by == BY);
        assert_eq!((off.on, off.seen.get(&party)), (false, Some(&9)));
        let key = KillKey::new(b"0123456789abcdef0123456789abcdef");
        let mut data = event(&on, Some(&key), at(0)).data;
        assert_eq!(key.check(Role::Vault, &mut data), Ok(()));
        assert!(!event(&on, None, at(0)).data.contains_key("mac"));
    }

    proptest! {
        /// The naive model keeps every cause and looks through all of them.
        #[test]
        fn it_is_on_as_long_as_the_longest_cause_and_numbers_rise(
            steps in proptest::collection::vec((0i64..5_000, 1i64..20_000), 1..40),
        ) {
            let (mut row, mut party, mut now) = (None::<Row>, Party::new().unwrap(), 0);
            let mut causes: Vec<(i64, i64)> = Vec::new();
            for (pause, ttl_ms) in steps {
                now += pause;
                if row.as_ref().is_some_and(|row| row.next(at(now)) == Next::End) {
                    row = None;
                }
                let last = party.last;
                if let Some(held) = Row::held(row.as_ref(), &stop(), &cause(ttl_ms), at(now)) {
                    // A clock that steps back makes no lower number.
                    let epoch = party.next(at(now % 7_000));
                    prop_assert!(epoch > last);
                    row = Some(Row { epoch, ..held });
                }
                causes.push((now, now + ttl_ms));
                let longest = causes.iter().map(|(_, until)| *until).max().unwrap();
                prop_assert_eq!(row.as_ref().map(|row| row.until), Some(at(longest)));
            }
        }
    }
}
