//! What the calls do to the groups.

use super::super::command::{Ask, How, Put, Settle, Settled, Start};
use super::super::error::GroupError;
use super::super::fact::Fact;
use super::super::report;
use super::super::settings::Settings;
use super::super::state::State;
use super::{Group, Keeper};
use crate::log::MessageId;

/// A consumer that holds nothing is forgotten after this, in milliseconds, when room is needed.
const CONSUMER_IDLE_MS: u64 = 600_000;

impl Keeper {
    pub(super) fn put(&mut self, name: &str, settings: Settings, start: Start) -> Result<Put, GroupError> {
        if let Some(group) = self.groups.get_mut(name) {
            if *group.state.settings() != settings {
                let fact = Fact::Changed { settings };
                group.state.apply(&fact, 0);
                self.note(name, fact);
            }
            return Ok(Put { created: false, report: self.report(name)? });
        }
        if self.groups.len() >= self.limits.groups {
            return Err(GroupError::Limit(format!("there are {} groups already", self.limits.groups)));
        }
        let place = match start {
            Start::Earliest => self.source.first_seq(),
            Start::Now => self.source.durable_seq() + 1,
            Start::After(id) => self.source.seq_after(id)?,
            Start::Time(ms) => self.source.seq_at(MessageId { ms, n: 0 })?,
        };
        let at_ms = self.now_ms();
        let state = State::new(settings.clone(), place, at_ms);
        self.groups.insert(name.into(), Group::new(state));
        self.note(name, Fact::Created { settings, place, at_ms });
        Ok(Put { created: true, report: self.report(name)? })
    }

    pub(super) fn delete(&mut self, name: &str) -> Result<(), GroupError> {
        let group = self.groups.remove(name).ok_or(GroupError::Unknown)?;
        self.note(name, Fact::Deleted);
        self.journal.forget(group.origin);
        for at in self.shelf.drop_group(name) {
            self.journal.forget(at);
        }
        for ask in group.waiters {
            drop(ask.answer.send(Err(GroupError::Unknown)));
        }
        Ok(())
    }

    /// Puts a wish for messages into its group's line; it is served in this turn.
    pub(super) fn queue(&mut self, name: &str, ask: Ask) {
        let waiters: usize = self.groups.values().map(|group| group.waiters.len()).sum();
        let (waiters_max, consumers_max) = (self.limits.waiters, self.limits.consumers);
        let now_ms = self.now_ms();
        let refused = match self.groups.get_mut(name) {
            None => GroupError::Unknown,
            Some(group) if !group.state.settings().filter.is_within(&ask.readable) => GroupError::NotReadable,
            Some(_) if waiters >= waiters_max => GroupError::Busy("too many consumers wait for messages"),
            Some(group) => {
                let state = &mut group.state;
                if state.consumers().len() >= consumers_max {
                    state.forget_before(now_ms.saturating_sub(CONSUMER_IDLE_MS));
                }
                if state.consumers().len() < consumers_max || state.consumers().contains_key(&*ask.consumer) {
                    state.see(&ask.consumer, now_ms);
                    group.waiters.push_back(ask);
                    return;
                }
                GroupError::Limit(format!("the group has {consumers_max} consumers already"))
            }
        };
        drop(ask.answer.send(Err(refused)));
    }

    pub(super) fn settle(&mut self, name: &str, settle: Settle) -> Result<Settled, GroupError> {
        let now_ms = self.now_ms();
        let group = self.groups.get_mut(name).ok_or(GroupError::Unknown)?;
        let state = &mut group.state;
        if !state.settings().filter.is_within(&settle.readable) {
            return Err(GroupError::NotReadable);
        }
        if state.consumers().contains_key(&*settle.consumer) {
            state.see(&settle.consumer, now_ms);
        }
        let Settle { consumer, ids, how, .. } = settle;
        let mut done =
            Settled { until_ms: now_ms.saturating_add(state.settings().ack_wait_ms), ..Settled::default() };
        let (found, facts): (_, Vec<Fact>) = match &how {
            How::Ack => {
                let (found, fact) = state.ack(&consumer, &ids, now_ms);
                (found, fact.into_iter().collect())
            }
            How::Nack { delay_ms, reason } => {
                let found = state.nack(&consumer, &ids, *delay_ms, reason.as_deref(), now_ms);
                let max = state.settings().max_deliver;
                let spent = |id| state.message(id).is_some_and(|message| message.attempts >= max);
                done.dead = found.0.known.iter().filter(|id| spent(**id)).count();
                found
            }
            How::Extend => {
                let (found, fact) = state.extend(&consumer, &ids, now_ms);
                (found, fact.into_iter().collect())
            }
        };
        if how == How::Ack {
            self.done(name, &found.known);
        }
        for fact in facts {
            self.note(name, fact);
        }
        done.known = found.known.len();
        done.unknown = found.unknown;
        Ok(done)
    }

    /// Messages are done: the letters of redriven ones are not needed any longer.
    pub(in crate::group) fn done(&mut self, name: &str, ids: &[MessageId]) {
        for id in ids {
            if let Some(at) = self.shelf.done(name, *id) {
                self.journal.forget(at);
            }
        }
    }

    pub(super) fn list(&mut self, after: Option<&str>, limit: usize) -> Vec<report::Report> {
        let names = self.groups.keys().filter(|name| after.is_none_or(|after| &***name > after));
        let names: Vec<Box<str>> = names.take(limit).cloned().collect();
        names.iter().filter_map(|name| self.report(name).ok()).collect()
    }
}
