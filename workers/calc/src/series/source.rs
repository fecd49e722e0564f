//! The data of a request: what came with it, or rows of a stored series, read where they lie.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use sluice_calc::Bars;

use super::query::{Span, When};
use super::{SeriesKey, Store, View};
use crate::data::{NanRule, Series};
use crate::error::Refusal;

/// Where the bars of a request are.
#[derive(Debug)]
pub(crate) enum Source {
    /// In the request.
    Given(Series),
    /// In the mapped file of a stored series.
    Stored { view: Arc<View>, rows: Range<usize> },
}

/// What a request is read with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) rows_max: usize,
    /// Where stored series are.
    pub(crate) series: Option<&'a Store>,
}

/// The fields of a request that name stored rows.
pub(crate) struct Named {
    /// As `BTC/USDT/1m`.
    pub(crate) series: Option<String>,
    pub(crate) from: Option<When>,
    pub(crate) to: Option<When>,
    pub(crate) last: Option<usize>,
}

impl Named {
    /// The data of a request: its own, or the rows that it names, and of which series; none where it has neither.
    pub(crate) fn or(
        self,
        data: Option<Series>,
        means: Means<'_>,
    ) -> Result<Option<(Source, Option<SeriesKey>)>, Refusal> {
        let span = Span { from: self.from, to: self.to, last: self.last };
        let Some(name) = self.series else {
            if span.from.is_some() || span.to.is_some() || span.last.is_some() {
                return Err(Refusal::Shape("`from`, `to` and `last` go with `series`".to_owned()));
            }
            return Ok(data.map(|data| (Source::Given(data), None)));
        };
        if data.is_some() {
            return Err(Refusal::Shape("a request has `data` or `series`".to_owned()));
        }
        let series = |text: String| Refusal::Series { row: None, text };
        let key =
            SeriesKey::parse(&name).ok_or_else(|| series("`series` is like `BTC/USDT/1m`".to_owned()))?;
        let view = means.series.and_then(|store| store.get(&key));
        let view = view.ok_or_else(|| series(format!("there is no stored series {}", key.text())))?;
        let rows = span.rows(&view);
        if rows.len() > means.rows_max {
            let (count, max) = (rows.len(), means.rows_max);
            return Err(Refusal::TooMuch(format!("{count} rows are more than the limit of {max}")));
        }
        Ok(Some((Source::Stored { view, rows }, Some(key))))
    }
}

impl Source {
    /// Rows.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Given(series) => series.close.len(),
            Self::Stored { rows, .. } => rows.len(),
        }
    }

    /// Checks what came with the request; returns the row at which computing begins. Stored rows were checked before
    /// they were stored.
    pub(crate) fn check(&mut self, rows_max: usize, rule: NanRule) -> Result<usize, Refusal> {
        match self {
            Self::Given(series) => series.check(rows_max, rule),
            Self::Stored { .. } => Ok(0),
        }
    }

    /// The view that kernels take, from a row on.
    pub(crate) fn bars(&self, from: usize) -> Result<Bars<'_>, Refusal> {
        match self {
            Self::Given(series) => series.bars(from),
            Self::Stored { view, rows } => Ok(view.bars((rows.start + from).min(rows.end)..rows.end)),
        }
    }

    /// Begin of a row, where the rows have times.
    pub(crate) fn time(&self, row: usize) -> Option<f64> {
        match self {
            Self::Given(series) => series.time_ms.as_ref()?.get(row).copied(),
            Self::Stored { view, rows } => view.times()[rows.clone()].get(row).map(|time| *time as f64),
        }
    }

    /// Begins of the rows from one on, where the rows have times.
    pub(crate) fn times(&self, from: usize) -> Option<Cow<'_, [f64]>> {
        match self {
            Self::Given(series) => series.time_ms.as_ref()?.get(from..).map(Cow::Borrowed),
            Self::Stored { view, rows } => {
                let times = view.times()[rows.clone()].get(from..)?;
                Some(Cow::Owned(times.iter().map(|time| *time as f64).collect()))
            }
        }
    }

    /// The bars for themselves, for what outlasts the request.
    pub(crate) fn into_series(self) -> Series {
        match self {
            Self::Given(series) => series,
            Self::Stored { view, rows } => Series::of(&view, rows),
        }
    }
}

/// The refusal of a request that has neither.
pub(crate) fn missing() -> Refusal {
    Refusal::Shape("missing field `data`".to_owned())
}
