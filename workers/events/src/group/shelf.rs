//! The dead letters of all groups: where each stands in the journal. Their events stay on the disk.

use std::collections::BTreeMap;

use crate::log::MessageId;

use super::journal::Head;

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Where it stands in the journal; 0 until it is written.
    pub(crate) at: u64,
    /// Bytes of its record.
    pub(crate) bytes: usize,
    /// Deliveries, over every redrive.
    pub(crate) attempts: u32,
    /// When it died, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// It is a message again.
    pub(crate) out: bool,
}

/// The dead letters of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rack {
    letters: BTreeMap<MessageId, Kept>,
    bytes: u64,
    out: usize,
}

/// The dead letters of every group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    racks: BTreeMap<Box<str>, Rack>,
    bytes: u64,
}

impl Rack {
    /// Dead letters that are not messages again.
    pub(crate) fn depth(&self) -> usize {
        self.letters.len() - self.out
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many there are, those that are messages again included.
    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    /// Those that are not messages again, oldest message first, after an id.
    pub(crate) fn after(&self, after: Option<MessageId>) -> impl Iterator<Item = (MessageId, &Kept)> {
        let first = after.map_or(MessageId::default(), |id| id.next(0));
        self.letters.range(first..).filter(|(_, kept)| !kept.out).map(|(id, kept)| (*id, kept))
    }
}

impl Shelf {
    /// The dead letters of a group.
    pub(crate) fn rack(&self, group: &str) -> Option<&Rack> {
        self.racks.get(group)
    }

    /// One dead letter.
    pub(crate) fn kept(&self, group: &str, id: MessageId) -> Option<&Kept> {
        self.racks.get(group)?.letters.get(&id)
    }

    /// Bytes of every group's.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Every dead letter with its group.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, MessageId, &Kept)> {
        self.racks
            .iter()
            .flat_map(|(group, rack)| rack.letters.iter().map(|(id, kept)| (&**group, *id, kept)))
    }

    /// Puts a dead letter in, in place of an earlier one of the same message; where that one stood.
    pub(crate) fn put(&mut self, group: &str, id: MessageId, kept: Kept) -> Option<u64> {
        let before = self.take(group, id);
        let rack = self.racks.entry(group.into()).or_default();
        rack.bytes += kept.bytes as u64;
        self.bytes += kept.bytes as u64;
        rack.out += usize::from(kept.out);
        rack.letters.insert(id, kept);
        before.map(|kept| kept.at)
    }

    /// Puts in what was read back.
    pub(crate) fn restore(&mut self, head: &Head, at: u64, bytes: usize) -> Option<u64> {
        let id = MessageId { ms: head.id.0, n: head.id.1 };
        let kept = Kept { at, bytes, attempts: head.attempts, at_ms: head.at_ms, out: head.out };
        self.put(&head.group, id, kept)
    }

    /// Notes where a dead letter stands; where it stood before.
    pub(crate) fn placed(&mut self, group: &str, id: MessageId, at: u64) -> Option<u64> {
        let kept = self.racks.get_mut(group)?.letters.get_mut(&id)?;
        Some(std::mem::replace(&mut kept.at, at)).filter(|before| *before != 0 && *before != at)
    }

    /// A dead letter becomes a message again.
    pub(crate) fn lend(&mut self, group: &str, id: MessageId) {
        let Some(rack) = self.racks.get_mut(group) else { return };
        if let Some(kept) = rack.letters.get_mut(&id).filter(|kept| !kept.out) {
            kept.out = true;
            rack.out += 1;
        }
    }

    /// A redriven message is done: its letter is not needed any longer. Where it stood.
    pub(crate) fn done(&mut self, group: &str, id: MessageId) -> Option<u64> {
        self.kept(group, id).filter(|kept| kept.out)?;
        self.take(group, id).map(|kept| kept.at)
    }

    /// Drops the dead letters of a group that are not messages again; where they stood.
    pub(crate) fn purge(&mut self, group: &str) -> Vec<u64> {
        let Some(rack) = self.racks.get(group) else { return Vec::new() };
        let ids: Vec<MessageId> = rack.after(None).map(|(id, _)| id).collect();
        ids.into_iter().filter_map(|id| self.take(group, id)).map(|kept| kept.at).collect()
    }

    /// Drops everything of a group; where it stood.
    pub(crate) fn drop_group(&mut self, group: &str) -> Vec<u64> {
        let Some(rack) = self.racks.remove(group) else { return Vec::new() };
        self.bytes -= rack.bytes;
        rack.letters.values().map(|kept| kept.at).collect()
    }

    fn take(&mut self, group: &str, id: MessageId) -> Option<Kept> {
        let rack = self.racks.get_mut(group)?;
        let kept = rack.letters.remove(&id)?;
        rack.bytes -= kept.bytes as u64;
        self.bytes -= kept.bytes as u64;
        rack.out -= usize::from(kept.out);
        Some(kept)
    }
}
