//! The records on the disk: by key, by the time they are forgotten, and how many there are.

use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};
use sluice_policy::idempotency::{
    Answer, Change, End, KeyId, Owner, Record, State, Verdict, conclude, judge,
};

use super::record::{decode, encode};
use super::{BYTES_MAX, KeysError, RECORDS_MAX, Wanted};

const KEYS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("idempotency");
const EXPIRY: TableDefinition<'_, (u64, &[u8; 32]), ()> = TableDefinition::new("idempotency_expiry");
const TOTALS: TableDefinition<'_, &str, u64> = TableDefinition::new("idempotency_totals");
/// LIMIT: records forgotten in one pass, so that no commit waits long.
const SWEEP_MAX: usize = 256;

/// The tables within one transaction.
pub(super) struct Tables<'t> {
    keys: Table<'t, &'static [u8; 32], &'static [u8]>,
    expiry: Table<'t, (u64, &'static [u8; 32]), ()>,
    totals: Table<'t, &'static str, u64>,
    records: u64,
    bytes: u64,
    changed: bool,
}

/// What lies under a key.
enum Found {
    Nothing,
    Record(Record, u64),
    /// Of another version.
    Unreadable,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let totals = transaction.open_table(TOTALS)?;
        let total = |name: &str| -> Result<u64, redb::Error> {
            Ok(totals.get(name)?.map_or(0, |total| total.value()))
        };
        let (records, bytes) = (total("records")?, total("bytes")?);
        let (keys, expiry) = (transaction.open_table(KEYS)?, transaction.open_table(EXPIRY)?);
        Ok(Self { keys, expiry, totals, records, bytes, changed: false })
    }

    /// Writes the totals; says whether there is anything to commit, and how many records there are.
    pub(super) fn close(mut self) -> Result<(bool, u64), redb::Error> {
        if self.changed {
            self.totals.insert("records", self.records)?;
            self.totals.insert("bytes", self.bytes)?;
        }
        Ok((self.changed, self.records))
    }

    /// Decides about a request and records it where it goes on.
    pub(super) fn claim(
        &mut self,
        wanted: &Wanted,
        owner: Owner,
        now_ms: u64,
        lives: impl Fn(u64) -> bool,
    ) -> Result<Result<Verdict, KeysError>, redb::Error> {
        let record = match self.find(&wanted.id)? {
            Found::Nothing => None,
            Found::Record(record, _) => Some(record),
            Found::Unreadable => return Ok(Err(KeysError::Unreadable)),
        };
        let verdict = judge(record.as_ref(), &wanted.fingerprint, now_ms, lives);
        if verdict == Verdict::Claim {
            if record.is_none() && self.records >= RECORDS_MAX {
                return Ok(Err(KeysError::Full));
            }
            let ttl_ms = u64::try_from(wanted.ttl.as_millis()).unwrap_or(u64::MAX);
            let expires_at_ms = now_ms.saturating_add(ttl_ms);
            let record = Record::claimed(wanted.fingerprint, owner, wanted.until_ms, expires_at_ms);
            self.put(&wanted.id, &record)?;
        }
        Ok(Ok(verdict))
    }

    /// Records how a request ended.
    pub(super) fn finish(&mut self, id: &KeyId, owner: Owner, end: End) -> Result<(), redb::Error> {
        let Found::Record(record, _) = self.find(id)? else { return Ok(()) };
        match conclude(Some(&record), owner, self.fitting(end)) {
            Change::Keep => Ok(()),
            Change::Remove => self.remove(id),
            Change::Put(record) => self.put(id, &record),
        }
    }

    /// Of an answer for which there is no room the status is kept.
    fn fitting(&self, end: End) -> End {
        match end {
            End::Answered(answer) if self.bytes + answer.bytes() as u64 > BYTES_MAX => {
                End::Answered(Answer::Status(answer.status()))
            }
            end => end,
        }
    }

    /// Forgets what is over, a bounded number at a time; says whether more may be.
    pub(super) fn sweep(&mut self, now_ms: u64, lives: impl Fn(u64) -> bool) -> Result<bool, redb::Error> {
        let mut over: Vec<(u64, KeyId)> = Vec::new();
        for row in self.expiry.range(..(now_ms.saturating_add(1), &[0; 32]))?.take(SWEEP_MAX) {
            let (row, _) = row?;
            let (at, id) = row.value();
            over.push((at, *id));
        }
        for (at, id) in &over {
            match self.find(id)? {
                Found::Record(record, _) if record.expires_at_ms > *at => {
                    drop(self.expiry.remove((*at, id))?);
                }
                Found::Nothing => drop(self.expiry.remove((*at, id))?),
                Found::Record(record, _) if record.is_over(now_ms, &lives) => self.remove(id)?,
                // Its request takes longer than its key is kept: both end together.
                Found::Record(record, _) => {
                    let expires_at_ms = match record.state {
                        State::InFlight { until_ms, .. } => until_ms,
                        State::Done(_) | State::Unknown => now_ms + 1,
                    };
                    self.put(id, &Record { expires_at_ms, ..record })?;
                }
                Found::Unreadable => {
                    drop(self.keys.remove(id)?);
                    drop(self.expiry.remove((*at, id))?);
                    self.records = self.records.saturating_sub(1);
                }
            }
            self.changed = true;
        }
        Ok(over.len() == SWEEP_MAX)
    }

    fn find(&self, id: &KeyId) -> Result<Found, redb::Error> {
        let Some(bytes) = self.keys.get(id)? else { return Ok(Found::Nothing) };
        Ok(match decode(bytes.value()) {
            Some(record) => {
                let kept = kept_bytes(&record);
                Found::Record(record, kept)
            }
            None => Found::Unreadable,
        })
    }

    fn put(&mut self, id: &KeyId, record: &Record) -> Result<(), redb::Error> {
        match self.find(id)? {
            Found::Record(earlier, kept) => {
                self.bytes = self.bytes.saturating_sub(kept);
                if earlier.expires_at_ms != record.expires_at_ms {
                    self.expiry.remove((earlier.expires_at_ms, id))?;
                }
            }
            Found::Nothing | Found::Unreadable => self.records += 1,
        }
        self.keys.insert(id, encode(record).as_slice())?;
        self.expiry.insert((record.expires_at_ms, id), ())?;
        self.bytes += kept_bytes(record);
        self.changed = true;
        Ok(())
    }

    fn remove(&mut self, id: &KeyId) -> Result<(), redb::Error> {
        if let Found::Record(record, kept) = self.find(id)? {
            self.keys.remove(id)?;
            self.expiry.remove((record.expires_at_ms, id))?;
            self.records = self.records.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(kept);
            self.changed = true;
        }
        Ok(())
    }
}

fn kept_bytes(record: &Record) -> u64 {
    match &record.state {
        State::Done(answer) => answer.bytes() as u64,
        State::InFlight { .. } | State::Unknown => 0,
    }
}
