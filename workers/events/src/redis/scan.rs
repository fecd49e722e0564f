//! Reading many events of the stream, in either direction, a stretch at a time.
//!
//! A seq is found over the nearest anchor before it: every few hundred events the writer's script notes a seq and
//! its message id. From there on a scan goes by message ids.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{self, Entry};
use super::link::{Link, Trouble};
use super::read::{ReadTrouble, range};
use super::shared::Shared;
use crate::log::{Filter, MessageId, Record, Trimmed};

/// Entries of the first answer; each further one has four times as many, up to [`COUNT_MAX`].
const COUNT_FIRST: usize = 64;
const COUNT_MAX: usize = 1_000;
/// Events taken out of memory at once.
const TAIL_COUNT: usize = 512;

/// A scan towards newer events.
#[derive(Debug)]
pub(crate) struct Forward {
    shared: Arc<Shared>,
    filter: Filter,
    /// No event before this seq is returned.
    next: u64,
    upto: u64,
    /// Message id of the last entry read.
    last: Option<MessageId>,
    count: usize,
    found: VecDeque<Record>,
    trimmed: Option<Trimmed>,
    /// It begins with the oldest event that is there, whichever that is: nothing is missing before it.
    from_oldest: bool,
    /// It follows the stream, and stops where seqs are missing.
    following: bool,
    /// It reads what is in memory.
    near: bool,
    left: u64,
    paused: bool,
}

impl Forward {
    pub(super) fn new(shared: Arc<Shared>, seq: u64, filter: Filter) -> Self {
        Self {
            upto: shared.head(),
            shared,
            filter,
            next: seq.max(1),
            last: None,
            count: COUNT_FIRST,
            found: VecDeque::new(),
            trimmed: None,
            from_oldest: seq == 0,
            following: false,
            near: false,
            left: u64::MAX,
            paused: false,
        }
    }

    /// The next event that the filter admits; `None` at the end. After an error it goes on where it was.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadTrouble> {
        while self.next <= self.upto {
            if self.found.is_empty() && !self.fill()? {
                break;
            }
            let Some(record) = self.found.pop_front() else { continue };
            let seq = record.stamp.seq;
            if seq < self.next {
                continue;
            }
            if seq > self.upto {
                self.found.clear();
                self.last = None;
                break;
            }
            if std::mem::take(&mut self.from_oldest) {
                self.next = seq;
            }
            if seq > self.next {
                self.trimmed.get_or_insert(Trimmed { expected: self.next, got: seq });
                self.next = seq;
                if self.following {
                    // Who follows the stream numbers what it was given: it begins anew behind what is missing.
                    self.found.push_front(record);
                    return Ok(None);
                }
            }
            self.next = seq + 1;
            if self.filter.admits(&record) {
                return Ok(Some(record));
            }
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.paused = true;
                return Ok(None);
            }
        }
        self.next = self.next.max(self.upto.saturating_add(1));
        Ok(None)
    }

    /// The seq from which the scan goes on.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// Lets the scan pause after so many records that the filter refused.
    #[must_use]
    pub(crate) fn pausing_after(mut self, records: u64) -> Self {
        self.left = records;
        self
    }

    /// Whether the scan ended early, to go on at [`Forward::position`].
    pub(crate) fn paused(&self) -> bool {
        self.paused
    }

    /// For who follows the stream closely: what is in memory is not read again.
    #[must_use]
    pub(crate) fn following(mut self) -> Self {
        self.near = true;
        self
    }

    /// Moves the end of the scan to the newest event that is known here.
    pub(crate) fn extend(&mut self) {
        let (newest, begin) = self.shared.tail_seqs();
        (self.following, self.near) = (true, true);
        self.upto = newest;
        if self.next <= begin {
            // Stored before Redis was first reached: nobody here waits for it.
            self.next = begin + 1;
            self.found.clear();
            self.last = None;
        }
    }

    /// What was missing in the scan since the last call.
    pub(crate) fn trimmed(&mut self) -> Option<Trimmed> {
        self.trimmed.take()
    }

    /// Reads the next stretch; `false` at the end.
    fn fill(&mut self) -> Result<bool, ReadTrouble> {
        if self.near {
            self.found = self.shared.tail_from(self.next, TAIL_COUNT).into();
            if let Some(last) = self.found.back() {
                self.last = Some(last.stamp.id);
                return Ok(true);
            }
        }
        let (shared, next, count) = (&self.shared, self.next, self.count);
        let last = self.last;
        let entries = shared.with_link(|link, _| {
            let from = match last {
                Some(last) => format!("({last}"),
                None => anchor(shared, link, next)?.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            };
            range(shared, link, &from, "+", count)
        })?;
        self.count = (self.count * 4).min(COUNT_MAX);
        let Some(newest) = entries.last() else { return Ok(false) };
        self.last = Some(newest.id);
        self.found = entries.into_iter().filter_map(|entry| entry.record).collect();
        Ok(true)
    }
}

/// A scan towards older events.
#[derive(Debug)]
pub(crate) struct Backward {
    shared: Arc<Shared>,
    filter: Filter,
    /// No event from this seq on is returned.
    before: u64,
    /// Message id of the last entry read.
    last: Option<MessageId>,
    count: usize,
    /// What was read, oldest first.
    found: Vec<Record>,
    ended: bool,
    left: u64,
    paused: bool,
}

impl Backward {
    pub(super) fn new(shared: Arc<Shared>, before: u64, filter: Filter) -> Self {
        Self {
            before: before.min(shared.head() + 1),
            shared,
            filter,
            last: None,
            count: COUNT_FIRST,
            found: Vec::new(),
            ended: false,
            left: u64::MAX,
            paused: false,
        }
    }

    /// The next older event that the filter admits; `None` at the end.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadTrouble> {
        loop {
            let Some(record) = self.found.pop() else {
                if self.ended || self.paused || self.before <= 1 {
                    return Ok(None);
                }
                self.fill()?;
                continue;
            };
            if record.stamp.seq >= self.before {
                continue;
            }
            self.before = record.stamp.seq;
            if self.filter.admits(&record) {
                return Ok(Some(record));
            }
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.paused = true;
                self.found.clear();
            }
        }
    }

    /// The seq before which the scan goes on.
    pub(crate) fn position(&self) -> u64 {
        self.before
    }

    /// Lets the scan pause after so many records that the filter refused.
    #[must_use]
    pub(crate) fn pausing_after(mut self, records: u64) -> Self {
        self.left = records;
        self
    }

    /// Whether the scan ended early, to go on at [`Backward::position`].
    pub(crate) fn paused(&self) -> bool {
        self.paused
    }

    fn fill(&mut self) -> Result<(), ReadTrouble> {
        let (shared, before, count) = (&self.shared, self.before, self.count);
        let last = self.last;
        let mut entries = shared.with_link(|link, _| match last {
            Some(last) => range_back(shared, link, &format!("({last}"), count),
            None => begin(shared, link, before, count),
        })?;
        self.count = (self.count * 4).min(COUNT_MAX);
        let Some(oldest) = entries.last() else {
            self.ended = true;
            return Ok(());
        };
        self.last = Some(oldest.id);
        entries.reverse();
        self.found = entries.into_iter().filter_map(|entry| entry.record).collect();
        Ok(())
    }
}

/// The first stretch backwards from a seq, newest first: it may hold newer events too.
fn begin(shared: &Shared, link: &mut Link, before: u64, count: usize) -> Result<Vec<Entry>, Trouble> {
    if before > shared.head() {
        return range_back(shared, link, "+", count);
    }
    // The anchor after it is an upper bound that is near.
    let mut command = redis::cmd("ZRANGE");
    command.arg(&shared.keys.anchors).arg(before).arg("+inf").arg("BYSCORE").arg("LIMIT").arg(0).arg(1);
    let found: Vec<String> = link.ask(&command)?;
    let Some(anchor) = found.into_iter().next() else {
        return range_back(shared, link, "+", COUNT_MAX);
    };
    range_back(shared, link, &anchor, COUNT_MAX)
}

fn range_back(shared: &Shared, link: &mut Link, from: &str, count: usize) -> Result<Vec<Entry>, Trouble> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(&shared.keys.stream).arg(from).arg("-").arg("COUNT").arg(count);
    entry::entries(link.call(&command)?)
}

/// Message id of the nearest anchor at or before a seq.
fn anchor(shared: &Shared, link: &mut Link, seq: u64) -> Result<Option<MessageId>, Trouble> {
    let mut command = redis::cmd("ZRANGE");
    command
        .arg(&shared.keys.anchors)
        .arg(seq)
        .arg("-inf")
        .arg("BYSCORE")
        .arg("REV")
        .arg("LIMIT")
        .arg(0)
        .arg(1);
    let found: Vec<String> = link.ask(&command)?;
    Ok(found.first().and_then(|id| id.parse().ok()))
}
