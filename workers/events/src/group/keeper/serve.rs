//! What is due in a group, and who waits there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::command::Ask;
use super::super::error::GroupError;
use super::super::fact::Fact;
use super::{Keeper, Reply};

/// Events looked at in vain before the place is written down on its own.
const PLACE_STEP: u64 = 50_000;
/// How much longer than it waits somebody is kept while there is more to look at.
const LOOK_ON: Duration = Duration::from_secs(1);

impl Keeper {
    /// Does what is due in one group and serves who waits there; whether there is more to do at once.
    pub(in crate::group) fn tend(&mut self, name: &str) -> bool {
        let now_ms = self.now_ms();
        let Some(group) = self.groups.get_mut(name) else { return false };
        let place = group.state.place();
        let end = self.source.durable_seq() + 1;
        if place > end && place > self.source.first_seq() {
            // Nothing of the group's is in there: it begins at the beginning.
            let fact = group.state.rewind(self.source.first_seq());
            tracing::warn!(
                component = "groups",
                group = name,
                place,
                end,
                "the stream ends before the group's place"
            );
            self.note(name, fact);
        }
        let Some(group) = self.groups.get_mut(name) else { return false };
        if let Some(fact) = group.state.expire(now_ms) {
            self.note(name, fact);
        }
        let mut more = self.bury(name);
        let Some(group) = self.groups.get_mut(name) else { return more };
        let mut waiters = std::mem::take(&mut group.waiters);
        let mut left = VecDeque::with_capacity(waiters.len());
        while let Some(ask) = waiters.pop_front() {
            if self.event_room == 0 || self.batch.is_full() {
                more = true;
                left.push_back(ask);
                left.append(&mut waiters);
                break;
            }
            // Who went away takes nothing.
            if !ask.answer.is_closed() {
                more |= self.serve(name, ask, &mut left);
            }
        }
        if let Some(group) = self.groups.get_mut(name) {
            left.append(&mut group.waiters);
            group.waiters = left;
            let place = group.state.place();
            if place > group.written_place + PLACE_STEP {
                self.note(name, Fact::Taken { upto: place, fresh: Vec::new() });
            }
        }
        more
    }

    /// Gives a consumer what there is, or lets it wait; whether there is more to look at at once.
    fn serve(&mut self, name: &str, ask: Ask, left: &mut VecDeque<Ask>) -> bool {
        let (lease, ended) = match self.lease(name, &ask) {
            Ok(found) => found,
            Err(error) => {
                drop(ask.answer.send(Err(error)));
                return false;
            }
        };
        let is_empty = lease.messages.is_empty() && lease.gap.is_none();
        // Nothing found in one step is not nothing there: who does not wait is sent away at the end of the stream.
        let until = if ended { ask.until } else { ask.until + LOOK_ON };
        if is_empty && Instant::now() < until {
            left.push_back(ask);
            return !ended;
        }
        let pending = self.groups.get(name).map_or(0, |group| group.state.pending());
        if is_empty && pending >= self.limits.pending {
            let busy =
                GroupError::Busy("more messages of this group are unacknowledged than a group may have");
            drop(ask.answer.send(Err(busy)));
            return false;
        }
        let bytes: usize = lease.messages.iter().map(|message| message.event.len()).sum();
        self.event_room = self.event_room.saturating_sub(bytes);
        let Ask { consumer, answer, .. } = ask;
        self.batch.replies.push(Reply::Lease { group: name.into(), consumer, lease, answer });
        false
    }
}
