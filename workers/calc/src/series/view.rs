//! A series as it was at a moment. Closed rows never change, so a view is a length, the open bar and the file.

use std::ops::Range;
use std::sync::Arc;

use sluice_calc::{Bars, Column, Columns};

use super::candle::Candle;
use super::mapping::Mapping;
use super::space::Taken;

/// A file that readers see.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) mapping: Mapping,
    /// Given back with the last reader.
    pub(crate) _taken: Taken,
}

/// What readers see of a series.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Changes when the series is replaced: rows before and after are not of one series.
    pub(crate) generation: u64,
    rows: usize,
    open: Option<Candle>,
    file: Arc<Mapped>,
}

impl View {
    /// INVARIANT: the first `rows` rows of the file are written, and are not written again.
    pub(super) const fn new(generation: u64, rows: usize, open: Option<Candle>, file: Arc<Mapped>) -> Self {
        Self { generation, rows, open, file }
    }

    /// Closed rows.
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    /// The bar that is still forming.
    pub(crate) const fn open(&self) -> Option<Candle> {
        self.open
    }

    pub(crate) fn capacity(&self) -> usize {
        self.file.mapping.capacity()
    }

    /// Bytes that its file takes.
    pub(crate) fn bytes(&self) -> u64 {
        super::mapping::bytes_of(self.capacity() as u64)
    }

    pub(super) fn file(&self) -> Arc<Mapped> {
        Arc::clone(&self.file)
    }

    /// Begins of the rows, milliseconds since 1970, ascending.
    pub(crate) fn times(&self) -> &[i64] {
        self.file.mapping.column(0, self.rows)
    }

    /// The values of a column.
    pub(crate) fn column(&self, column: Column) -> &[f64] {
        let at = 1 + Column::ALL.iter().position(|known| *known == column).unwrap_or(0);
        self.file.mapping.column(at, self.rows)
    }

    /// A row.
    pub(crate) fn candle(&self, row: usize) -> Option<Candle> {
        let time_ms = *self.times().get(row)?;
        Some(Candle::of(time_ms, Column::ALL.map(|column| self.column(column)[row])))
    }

    /// The row that begins at a time.
    pub(crate) fn at(&self, time_ms: i64) -> Option<Candle> {
        self.candle(self.times().binary_search(&time_ms).ok()?)
    }

    /// Rows that begin at `from` or later and before `to`.
    pub(crate) fn between(&self, from: Option<i64>, to: Option<i64>) -> Range<usize> {
        let row = |time: i64| self.times().partition_point(|begin| *begin < time);
        let end = to.map_or(self.rows, row);
        from.map_or(0, row).min(end)..end
    }

    /// Rows as indicators take them.
    pub(crate) fn bars(&self, rows: Range<usize>) -> Bars<'_> {
        let cut = |column| self.column(column).get(rows.clone()).unwrap_or_default();
        let columns = Columns {
            open: Some(cut(Column::Open)),
            high: Some(cut(Column::High)),
            low: Some(cut(Column::Low)),
            close: cut(Column::Close),
            volume: Some(cut(Column::Volume)),
        };
        Bars::new(columns).expect("columns cut at the same rows have one length")
    }
}
