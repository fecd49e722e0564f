//! Events that a group is past become messages of it again.

use crate::log::Record;

use super::command::Replayed;
use super::error::GroupError;
use super::fact::{Fact, Fresh};
use super::keeper::Keeper;
use super::settings::OrderKey;

impl Keeper {
    /// Makes messages of events that the group's filter wants. What it has not looked at comes by itself, and what it
    /// holds is not doubled: both are counted as known.
    pub(super) fn replay(&mut self, name: &str, records: &[Record]) -> Result<Replayed, GroupError> {
        let now_ms = self.now_ms();
        let held: usize = self.groups.values().map(|group| group.state.held()).sum();
        let limits = self.limits;
        let state = &mut self.groups.get_mut(name).ok_or(GroupError::Unknown)?.state;
        let (selector, by_symbol) =
            (state.settings().filter.clone(), state.settings().order_key == OrderKey::Symbol);
        let filter = selector.scan_filter();
        let (mut done, mut fresh) = (Replayed::default(), Vec::new());
        for record in records.iter().filter(|record| filter.admits(record) && selector.admits(record)) {
            let (seq, id) = (record.stamp.seq, record.stamp.id);
            if seq >= state.place() || state.message(id).is_some() {
                done.known += 1;
                continue;
            }
            let key = (by_symbol && !record.symbol().is_empty()).then(|| record.symbol().into());
            fresh.push(Fresh { id, seq, key });
        }
        let room = limits.waiting.saturating_sub(state.waiting()).min(limits.held.saturating_sub(held));
        if fresh.len() > room {
            return Err(GroupError::Busy("the group has as many messages to hand out as it may hold"));
        }
        done.count = fresh.len() as u64;
        if !fresh.is_empty() {
            let fact = Fact::Replayed { fresh };
            state.apply(&fact, now_ms);
            self.note(name, fact);
        }
        Ok(done)
    }
}
