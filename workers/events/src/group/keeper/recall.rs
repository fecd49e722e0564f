//! The groups as the journal tells them.

use std::collections::{BTreeMap, VecDeque};

use super::super::command::Ask;
use super::super::error::GroupError;
use super::super::fact::Fact;
use super::super::journal::Read;
use super::super::shelf::Shelf;
use super::super::state::State;
use super::{Group, Keeper};
use crate::engine::ReadError;
use crate::log::MessageId;

impl Keeper {
    /// Reads everything back from the journal; the newest time in it, in milliseconds since 1970. Who waits goes on
    /// waiting.
    pub(super) fn load(&mut self) -> Result<u64, ReadError> {
        let mut waiting: BTreeMap<Box<str>, VecDeque<Ask>> =
            std::mem::take(&mut self.groups).into_iter().map(|(name, group)| (name, group.waiters)).collect();
        self.shelf = Shelf::default();
        let newest_ms = self.read_journal(true);
        for (name, group) in &mut self.groups {
            if let Some(waiters) = waiting.remove(name) {
                group.waiters = waiters;
            }
        }
        let why = || if newest_ms.is_ok() { GroupError::Unknown } else { GroupError::Failed };
        for ask in waiting.into_values().flatten() {
            drop(ask.answer.send(Err(why())));
        }
        newest_ms
    }

    /// Reads what others wrote since; the newest time in it.
    pub(super) fn catch_up(&mut self) -> Result<u64, ReadError> {
        self.read_journal(false)
    }

    fn read_journal(&mut self, whole: bool) -> Result<u64, ReadError> {
        let (mut groups, mut shelf) = (std::mem::take(&mut self.groups), std::mem::take(&mut self.shelf));
        let (mut gone, mut newest_ms) = (Vec::new(), 0);
        let each = |read: Read, seq, bytes, at_ms| match read {
            Read::Letter { head } => {
                newest_ms = newest_ms.max(head.at_ms);
                let id = MessageId { ms: head.id.0, n: head.id.1 };
                if let Some(group) = groups.get_mut(&head.group).filter(|_| !head.moved) {
                    group.state.bury(id);
                }
                gone.extend(shelf.restore(&head, seq, bytes));
            }
            Read::Fact { group, fact } => {
                newest_ms = newest_ms.max(at_ms);
                read_back(&mut groups, &mut shelf, &mut gone, group, fact, seq, at_ms);
            }
        };
        let done = if whole { self.journal.replay(each) } else { self.journal.catch_up(each) };
        for seq in gone {
            self.journal.forget(seq);
        }
        for group in groups.values_mut() {
            group.written_place = group.state.place();
        }
        (self.groups, self.shelf) = (groups, shelf);
        done.map(|()| newest_ms)
    }
}

/// Applies a fact of the journal; where stood what does not count any longer goes into `gone`.
fn read_back(
    groups: &mut BTreeMap<Box<str>, Group>,
    shelf: &mut Shelf,
    gone: &mut Vec<u64>,
    name: Box<str>,
    fact: Fact,
    seq: u64,
    at_ms: u64,
) {
    let state = match fact {
        Fact::Created { settings, place, at_ms } => State::new(settings, place, at_ms),
        Fact::Snapshot(snapshot) => State::restored(*snapshot),
        Fact::Deleted => {
            if let Some(group) = groups.remove(&name) {
                gone.push(group.origin);
                for ask in group.waiters {
                    drop(ask.answer.send(Err(GroupError::Unknown)));
                }
            }
            gone.extend(shelf.drop_group(&name));
            return;
        }
        fact => {
            match &fact {
                Fact::Purged => gone.extend(shelf.purge(&name)),
                Fact::Redriven { letters } => {
                    for letter in letters {
                        shelf.lend(&name, letter.fresh.id);
                    }
                }
                Fact::Acked { ids } | Fact::Lost { ids } => {
                    gone.extend(ids.iter().filter_map(|id| shelf.done(&name, *id)));
                }
                _ => {}
            }
            if let Some(group) = groups.get_mut(&name) {
                group.state.apply(&fact, at_ms);
            }
            return;
        }
    };
    let mut group = Group { origin: seq, ..Group::new(state) };
    if let Some(before) = groups.remove(&name) {
        gone.push(before.origin);
        group.waiters = before.waiters;
    }
    groups.insert(name, group);
}
