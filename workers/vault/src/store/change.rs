//! One change: what an operation wants written, held back until it has succeeded.
//!
//! Operations of one batch share a transaction. Each sees the rows as the ones before it left them; its own
//! writes are kept beside the transaction and applied when it returns `Ok`, so a failed operation leaves
//! nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use sluice_audit::Digest;
use sluice_wire::event::NewEvent;
use sluice_wire::feed;
use zeroize::Zeroizing;

use super::open::Head;
use super::snapshot::{KeyBytes, Range, View};
use super::table::Table;
use super::tables::Stored;
use crate::error::VaultError;
use crate::outbox;
use crate::quota::Quotas;
use crate::seal::{Keyring, fingerprint};

/// LIMIT: events that wait for the event worker; when it is reached, further events are not queued (the audit
/// log has the fact in any case) and counted. The last of it is kept for grave ones (`outbox::kept_free`).
pub(crate) const OUTBOX_MAX: u64 = 10_000;

/// LIMIT: rows of the keyring, far above what [`crate::seal::KEKS_MAX`] keys need.
const KEYRING_ROWS_MAX: usize = 64;

pub(super) type Writes = BTreeMap<(Table, KeyBytes), Option<Vec<u8>>>;

/// A change in the making.
pub(crate) struct Change<'t> {
    tables: &'t dyn Stored,
    quotas: &'t Quotas,
    /// The keys as this change leaves them.
    pub(super) keyring: Arc<Keyring>,
    now: Timestamp,
    pub(super) head: Head,
    pub(super) writes: Writes,
    pub(super) messages: Vec<feed::Message>,
    pub(super) audit_path: Option<String>,
    pub(super) events_refused: u64,
}

impl<'t> Change<'t> {
    pub(super) fn new(
        tables: &'t dyn Stored,
        quotas: &'t Quotas,
        keyring: Arc<Keyring>,
        head: Head,
        now: Timestamp,
    ) -> Self {
        Self {
            tables,
            quotas,
            keyring,
            now,
            head,
            writes: Writes::new(),
            messages: Vec::new(),
            audit_path: None,
            events_refused: 0,
        }
    }

    /// How much an identity may hold.
    pub(crate) const fn quotas(&self) -> &'t Quotas {
        self.quotas
    }

    /// Seals and writes a row's content.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], plain: &[u8]) {
        let sealed = self.keyring.seal(table.place(key), self.now.as_microsecond(), plain);
        self.writes.insert((table, key.to_vec()), Some(sealed));
    }

    /// Seals and writes a row's record.
    pub(crate) fn save(&mut self, table: Table, key: &[u8], record: &impl Serialize) {
        let plain = Zeroizing::new(serde_json::to_vec(record).expect("records are plain structs"));
        self.put(table, key, &plain);
    }

    /// Seals a row with the newest key, when it is sealed with another; whether it was.
    pub(crate) fn rewrap(&mut self, table: Table, key: &[u8]) -> Result<bool, VaultError> {
        let Some(sealed) = self.raw(table, key)? else { return Ok(false) };
        let resealed = self.keyring.reseal(table.place(key), &sealed);
        let Some(resealed) = resealed.map_err(|_| VaultError::Integrity(table.name()))? else {
            return Ok(false);
        };
        self.writes.insert((table, key.to_vec()), Some(resealed));
        Ok(true)
    }

    /// Replaces the keys of the store; what is written from here on uses the new ones.
    pub(crate) fn replace_keyring(&mut self, keyring: Keyring) -> Result<(), VaultError> {
        let rows = keyring.rows(self.now.as_microsecond());
        let range = Range::prefix(b"", KEYRING_ROWS_MAX);
        for key in self.keys(Table::Keyring, &range)? {
            self.writes.insert((Table::Keyring, key), None);
        }
        self.head.keyring = Some(Digest(fingerprint(&rows)));
        for (name, row) in rows {
            self.writes.insert((Table::Keyring, name.into_bytes()), Some(row));
        }
        self.keyring = Arc::new(keyring);
        Ok(())
    }

    /// Writes an index row, which has no content.
    pub(crate) fn mark(&mut self, table: Table, key: &[u8]) {
        self.writes.insert((table, key.to_vec()), Some(Vec::new()));
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, table: Table, key: &[u8]) {
        self.writes.insert((table, key.to_vec()), None);
    }

    /// Tells every follower of the feed, once the change is durable.
    pub(crate) fn announce(&mut self, change: feed::Change) {
        self.head.feed_seq += 1;
        let delta = feed::Delta { epoch: self.head.epoch.clone(), seq: self.head.feed_seq, change };
        self.messages.push(feed::Message::Delta(delta));
    }

    /// Hands every follower the whole state anew, as this change leaves it.
    pub(crate) fn announce_all(&mut self) -> Result<(), VaultError> {
        let snapshot = crate::feed::snapshot(self, &self.head.epoch, self.head.feed_seq)?;
        self.messages.push(feed::Message::Snapshot(snapshot));
        Ok(())
    }

    /// Queues an event for the event worker.
    pub(crate) fn emit(&mut self, event: &NewEvent) -> Result<(), VaultError> {
        let is_full = self.count(Table::Outbox)? >= OUTBOX_MAX - outbox::kept_free(event);
        if is_full && !outbox::always_fits(event) {
            self.events_refused += 1;
            return Ok(());
        }
        self.head.outbox_seq += 1;
        let key = outbox::key(event, self.head.outbox_seq);
        self.save(Table::Outbox, &key, event);
        Ok(())
    }

    /// The next number of a revocation list: it rises, also when the clock steps back.
    pub(crate) fn next_crl_number(&mut self) -> u64 {
        let now = u64::try_from(self.now.as_microsecond()).unwrap_or(0);
        self.head.crl_number = now.max(self.head.crl_number + 1);
        self.head.crl_number
    }

    /// Names in the audit record what only the change itself found out (a new serial, a new id).
    pub(crate) fn audit_as(&mut self, path: impl Into<String>) {
        self.audit_path = Some(path.into());
    }
}

impl View for Change<'_> {
    fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        if let Some(written) = self.writes.get(&(table, key.to_vec())) {
            return Ok(written.clone());
        }
        self.tables.raw(table, key)
    }

    fn keys(&self, table: Table, range: &Range) -> Result<Vec<KeyBytes>, VaultError> {
        let own = self.own(table, range);
        // Every own removal may hide one stored key.
        let widened = Range { limit: range.limit.saturating_add(own.len()), ..range.clone() };
        let stored = self.tables.keys(table, &widened)?;
        let mut merged: BTreeMap<KeyBytes, bool> = stored.into_iter().map(|key| (key, true)).collect();
        merged.extend(own);
        let present = merged.into_iter().filter_map(|(key, present)| present.then_some(key));
        Ok(present.take(range.limit).collect())
    }

    fn last_key(&self, table: Table, range: &Range) -> Result<Option<KeyBytes>, VaultError> {
        let own = self.own(table, range);
        let mut narrowed = range.clone();
        let own_last = own.iter().rev().find(|(_, present)| **present).map(|(key, _)| key.clone());
        loop {
            let stored = self.tables.last_key(table, &narrowed)?;
            match stored {
                Some(key) if own.get(&key) == Some(&false) => narrowed.to = key,
                stored => return Ok(stored.max(own_last)),
            }
        }
    }

    fn count(&self, table: Table) -> Result<u64, VaultError> {
        let stored = self.tables.count(table)?;
        let added =
            self.writes.iter().filter(|((own, _), value)| *own == table && value.is_some()).count() as u64;
        Ok(stored + added)
    }
}

impl Change<'_> {
    /// The keys this change has written (true) or removed (false) in a range.
    fn own(&self, table: Table, range: &Range) -> BTreeMap<KeyBytes, bool> {
        let rows = self.writes.range((table, range.from.clone())..);
        rows.take_while(|((own, _), _)| *own == table)
            .filter(|((_, key), _)| range.contains(key))
            .map(|((_, key), value)| (key.clone(), value.is_some()))
            .collect()
    }
}
