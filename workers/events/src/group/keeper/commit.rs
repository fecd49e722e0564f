//! What happened is written down in one commit, and then answered and told.

use super::super::command::{Answer, Lease, Notice};
use super::super::error::GroupError;
use super::super::fact::Fact;
use super::super::journal::{Entry, Live};
use super::Keeper;
use crate::log::MessageId;

/// LIMIT: bytes of facts and dead letters in one commit.
const TURN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes moved for the cleaning of the journal in one turn.
const MOVE_BYTES: u64 = 1024 * 1024;
/// Dead letters younger than this are told of again at a start, in milliseconds: the worker may have ended before
/// it told of them. What was told is known by its event id.
const RETELL_MS: u64 = 300_000;

/// What one commit will write, and who is answered after it.
#[derive(Default)]
pub(in crate::group) struct Batch {
    pub(super) entries: Vec<Entry>,
    bytes: usize,
    pub(super) replies: Vec<Reply>,
    pub(in crate::group) notices: Vec<Notice>,
}

pub(super) enum Reply {
    Lease { group: Box<str>, consumer: Box<str>, lease: Lease, answer: Answer<Lease> },
    Other(Box<dyn FnOnce(Result<(), GroupError>) + Send>),
}

impl Batch {
    /// Takes an entry in.
    pub(in crate::group) fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }

    /// Whether the commit is large enough.
    pub(in crate::group) fn is_full(&self) -> bool {
        self.bytes >= TURN_BYTES_MAX
    }
}

impl Keeper {
    /// Notes what happened to a group; the state knows already.
    pub(in crate::group) fn note(&mut self, group: &str, fact: Fact) {
        if let (Fact::Taken { upto, .. }, Some(group)) = (&fact, self.groups.get_mut(group)) {
            group.written_place = *upto;
        }
        let now_ms = self.now_ms();
        for entry in Entry::facts(group, fact, now_ms) {
            self.batch.push(entry);
        }
    }

    /// Answers after the commit.
    pub(in crate::group) fn reply<T: Send + 'static>(
        &mut self,
        answer: Answer<T>,
        result: Result<T, GroupError>,
    ) {
        match result {
            Ok(value) => {
                let reply = move |stored: Result<(), GroupError>| drop(answer.send(stored.map(|()| value)));
                self.batch.replies.push(Reply::Other(Box::new(reply)));
            }
            // Nobody listening is no fault.
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    /// Writes down what happened and answers; whether that gave something to do.
    pub(in crate::group) fn flush(&mut self) -> bool {
        let batch = std::mem::take(&mut self.batch);
        let stored = if !batch.entries.is_empty() {
            self.store(batch.entries)
        } else if self.stale {
            Err(GroupError::Failed)
        } else {
            Ok(())
        };
        if stored.is_ok() {
            self.tell(batch.notices);
        }
        let mut released = false;
        for reply in batch.replies {
            match reply {
                Reply::Other(send) => send(stored.clone()),
                Reply::Lease { group, consumer, lease, answer } => {
                    let ids: Vec<MessageId> = lease.messages.iter().map(|message| message.id).collect();
                    if answer.send(stored.clone().map(|()| lease)).is_err() && stored.is_ok() {
                        released |= self.release(&group, &consumer, &ids);
                    }
                }
            }
        }
        released
    }

    fn store(&mut self, entries: Vec<Entry>) -> Result<(), GroupError> {
        if self.stale {
            return Err(GroupError::Failed);
        }
        match self.journal.append(entries) {
            Ok(stored) => {
                for (live, seq) in stored {
                    self.placed(&live, seq);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(component = "groups", error = %error, "what happened to the groups is not stored");
                if self.journal.is_shared() {
                    self.stale = true;
                    return Err(error);
                }
                // What was decided did not happen.
                if let Err(cause) = self.load() {
                    tracing::error!(component = "groups", error = %cause, "the groups cannot be read back");
                    self.broken = Some(GroupError::Failed);
                }
                if matches!(error, GroupError::Failed | GroupError::Closed) {
                    self.broken = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Notes where something that counts stands now.
    fn placed(&mut self, live: &Live, seq: u64) {
        let before = match live {
            Live::Group(name) => match self.groups.get_mut(name) {
                Some(group) => Some(std::mem::replace(&mut group.origin, seq)),
                None => Some(seq),
            },
            Live::Letter(name, id) if self.shelf.kept(name, *id).is_some() => {
                self.shelf.placed(name, *id, seq)
            }
            Live::Letter(..) => Some(seq),
        };
        if let Some(before) = before {
            self.journal.forget(before);
        }
    }

    /// Takes back what did not reach its consumer.
    fn release(&mut self, name: &str, consumer: &str, ids: &[MessageId]) -> bool {
        let now_ms = self.now_ms();
        let Some(group) = self.groups.get_mut(name) else { return false };
        let Some(fact) = group.state.release(consumer, ids, now_ms) else { return false };
        self.note(name, fact);
        true
    }

    /// Makes the journal shorter when there is much in it that does not count; whether it is to be done again.
    pub(super) fn clean(&mut self) -> bool {
        if self.broken.is_some() || self.stale {
            return false;
        }
        let moves = self.journal.to_move(MOVE_BYTES);
        if moves.is_empty() {
            return false;
        }
        for (at, live) in moves {
            match live {
                Live::Group(name) => {
                    let Some(group) = self.groups.get(&name) else { continue };
                    for fact in group.state.snapshot() {
                        self.note(&name, fact);
                    }
                }
                Live::Letter(name, id) => {
                    if let Some(entry) = self.moved(&name, id, at) {
                        self.batch.push(entry);
                    }
                }
            }
        }
        if self.batch.entries.is_empty() {
            return false;
        }
        let entries = std::mem::take(&mut self.batch.entries);
        self.batch.bytes = 0;
        if self.store(entries).is_err() {
            return false;
        }
        self.journal.trim();
        true
    }

    /// Tells of dead letters, as far as there is room.
    pub(super) fn tell(&self, notices: Vec<Notice>) {
        for notice in notices {
            if let Err(error) = self.notices.try_send(notice) {
                tracing::warn!(component = "groups", error = %error, "a dead letter is not told to the stream");
            }
        }
    }

    /// Tells of the youngest dead letters again.
    pub(super) fn retell(&mut self) {
        let since_ms = self.now_ms().saturating_sub(RETELL_MS);
        let young = self.shelf.iter().filter(|(_, _, kept)| kept.at_ms >= since_ms && !kept.out);
        let young: Vec<u64> = young.map(|(_, _, kept)| kept.at).collect();
        let notices = young.into_iter().filter_map(|at| self.notice_at(at)).collect();
        self.tell(notices);
    }
}
