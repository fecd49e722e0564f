//! Which rows are asked for, and their pages.

use std::ops::Range;

use serde::Deserialize;
use sluice_wire::event::parse_time;

use super::{SeriesKey, View};
use crate::bounds::{SERIES_PAGE_MAX, SERIES_ROWS_MAX};

/// A moment: milliseconds since 1970, or a time as RFC 3339 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Told")]
pub(crate) struct When(pub(crate) i64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Ms(i64),
    Text(String),
}

impl TryFrom<Told> for When {
    type Error = String;

    fn try_from(told: Told) -> Result<Self, String> {
        match told {
            Told::Ms(ms) => Ok(Self(ms)),
            Told::Text(text) => parse_time(&text)
                .map(|time| Self(time.as_millisecond()))
                .ok_or_else(|| "a time is milliseconds since 1970 or like 2026-01-31T12:00:00Z".to_owned()),
        }
    }
}

/// Rows of a series: those that begin at `from` or later and before `to`, of them the last ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) from: Option<When>,
    pub(crate) to: Option<When>,
    pub(crate) last: Option<usize>,
}

impl Span {
    /// The rows of a view.
    pub(crate) fn rows(&self, view: &View) -> Range<usize> {
        let rows = view.between(self.from.map(|from| from.0), self.to.map(|to| to.0));
        let count = self.last.unwrap_or(usize::MAX).min(rows.len());
        rows.end - count..rows.end
    }
}

/// The query of a page of rows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowsQuery {
    pub(crate) from: Option<When>,
    pub(crate) to: Option<When>,
    pub(crate) last: Option<usize>,
    limit: Option<usize>,
    /// Begin of the first row of the page: `next_cursor` of the page before.
    cursor: Option<i64>,
}

impl RowsQuery {
    /// The rows of the page, and the begin of the row after it where there is one.
    pub(crate) fn page(&self, view: &View) -> Result<(Range<usize>, Option<i64>), String> {
        let limit = bounded("limit", self.limit.unwrap_or(1_000), SERIES_ROWS_MAX)?;
        if self.last == Some(0) {
            return Err("`last` is 1 or more".to_owned());
        }
        let mut rows = Span { from: self.from, to: self.to, last: self.last }.rows(view);
        if let Some(cursor) = self.cursor {
            rows.start = view.between(Some(cursor), None).start.clamp(rows.start, rows.end);
        }
        let end = rows.end.min(rows.start + limit);
        let next = (end < rows.end).then(|| view.times()[end]);
        Ok((rows.start..end, next))
    }
}

/// The query of a page of gaps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GapsQuery {
    limit: Option<usize>,
    /// Begin of the row before the first gap of the page.
    cursor: Option<i64>,
}

impl GapsQuery {
    /// The row to begin with, and how many gaps.
    pub(crate) fn page(&self, view: &View) -> Result<(usize, usize), String> {
        let limit = bounded("limit", self.limit.unwrap_or(100), SERIES_PAGE_MAX)?;
        Ok((self.cursor.map_or(0, |cursor| view.between(Some(cursor), None).start), limit))
    }
}

/// The query of a page of series.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    limit: Option<usize>,
    /// The last series of the page before.
    cursor: Option<String>,
}

impl ListQuery {
    /// The series to go on after, and how many.
    pub(crate) fn page(&self) -> Result<(Option<SeriesKey>, usize), String> {
        let limit = bounded("limit", self.limit.unwrap_or(100), SERIES_PAGE_MAX)?;
        let after = self.cursor.as_deref().map(|cursor| {
            SeriesKey::parse(cursor).ok_or_else(|| "cursor is the `next_cursor` of a page".to_owned())
        });
        Ok((after.transpose()?, limit))
    }
}

fn bounded(name: &str, count: usize, max: usize) -> Result<usize, String> {
    if (1..=max).contains(&count) { Ok(count) } else { Err(format!("`{name}` is 1 to {max}")) }
}
