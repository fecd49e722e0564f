//! What becomes of candles that arrive. Pure: it sees the series as it is and says what is to be written.
//!
//! - Newer than the last closed row: it is added. Bars may be missing between two rows; that is told, never filled.
//! - Of the time of a closed row: with the same numbers it is a repetition, with others a conflict, and the row stays.
//! - Older than the last row where no row is: too late; rows are never put between others.
//! - The open bar takes any numbers until it is closed: by itself, as closed, or by the begin of a later bar.

use super::candle::Candle;
use super::gaps::{Gap, Step};

/// How candles arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Append {
    /// The last one is of the bar that is still forming.
    pub(crate) last_is_open: bool,
    /// A later bar closes the open one with the numbers that it has; otherwise those are forgotten, since whoever sends
    /// will send the closed one too.
    pub(crate) closes_open: bool,
}

impl Append {
    /// Closed bars of a client.
    pub(crate) const CLOSED: Self = Self { last_is_open: false, closes_open: true };
    /// Bars of a client, the last one open.
    pub(crate) const LAST_OPEN: Self = Self { last_is_open: true, closes_open: true };
}

/// The series as it is, for deciding.
pub(crate) trait Known {
    /// Begin of the newest closed row.
    fn last_ms(&self) -> Option<i64>;
    /// The bar that is forming.
    fn open(&self) -> Option<Candle>;
    /// The closed row that begins at a time.
    fn at(&self, time_ms: i64) -> Option<Candle>;
}

/// What became of candles.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Applied {
    /// Rows added, with that of an open bar that was closed.
    pub(crate) added: usize,
    /// Candles that were there already, with the same numbers.
    pub(crate) repeated: usize,
    /// Updates of the open bar.
    pub(crate) updated_open: usize,
    /// Begins of closed rows for which other numbers came.
    pub(crate) conflicts: Vec<i64>,
    /// Begins of candles older than the last row that have no row.
    pub(crate) late: Vec<i64>,
    /// Bars that are missing before the rows added.
    pub(crate) gaps: Vec<Gap>,
    /// Closed rows afterwards.
    pub(crate) rows: usize,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Candle>,
    pub(crate) open: Option<Candle>,
    pub(crate) applied: Applied,
}

/// Decides what becomes of candles, which ascend.
pub(crate) fn plan(known: &impl Known, candles: &[Candle], how: Append, step: Step) -> Plan {
    let mut planner = Planner {
        known,
        step,
        last_ms: known.last_ms(),
        plan: Plan { rows: Vec::new(), open: known.open(), applied: Applied::default() },
    };
    for (at, candle) in candles.iter().enumerate() {
        if how.last_is_open && at + 1 == candles.len() {
            planner.take_open(candle, how.closes_open);
        } else {
            planner.take_closed(candle, how.closes_open);
        }
    }
    planner.plan
}

struct Planner<'a, K> {
    known: &'a K,
    step: Step,
    last_ms: Option<i64>,
    plan: Plan,
}

impl<K: Known> Planner<'_, K> {
    fn take_closed(&mut self, candle: &Candle, closes_open: bool) {
        if self.is_past(candle) {
            return;
        }
        if let Some(open) = self.plan.open.filter(|open| open.time_ms <= candle.time_ms) {
            self.leave_open(open, candle.time_ms, closes_open);
        }
        self.add(*candle);
    }

    fn take_open(&mut self, candle: &Candle, closes_open: bool) {
        if self.is_past(candle) {
            return;
        }
        match self.plan.open {
            Some(open) if open == *candle => self.plan.applied.repeated += 1,
            Some(open) if open.time_ms > candle.time_ms => self.plan.applied.late.push(candle.time_ms),
            other => {
                if let Some(open) = other {
                    self.leave_open(open, candle.time_ms, closes_open);
                }
                self.plan.open = Some(*candle);
                self.plan.applied.updated_open += 1;
            }
        }
    }

    /// Whether a candle is of a time that the closed rows have passed; then it is counted.
    fn is_past(&mut self, candle: &Candle) -> bool {
        if self.last_ms.is_none_or(|last| last < candle.time_ms) {
            return false;
        }
        let applied = &mut self.plan.applied;
        // Candles ascend: what this call added is older than all that follow.
        match self.known.at(candle.time_ms) {
            Some(row) if row == *candle => applied.repeated += 1,
            Some(_) => applied.conflicts.push(candle.time_ms),
            None => applied.late.push(candle.time_ms),
        }
        true
    }

    /// What becomes of the open bar when one arrives that begins at `time_ms`.
    fn leave_open(&mut self, open: Candle, time_ms: i64, closes_open: bool) {
        self.plan.open = None;
        if closes_open && open.time_ms < time_ms {
            self.add(open);
        }
    }

    fn add(&mut self, candle: Candle) {
        if let Some(gap) = self.last_ms.and_then(|last| self.step.gap(last, candle.time_ms)) {
            self.plan.applied.gaps.push(gap);
        }
        self.last_ms = Some(candle.time_ms);
        self.plan.rows.push(candle);
        self.plan.applied.added += 1;
    }
}
