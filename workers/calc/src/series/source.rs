//! Rows of a stored series as the data of a request.

use super::query::{Span, When};
use super::{SeriesKey, Store};
use crate::data::Series;
use crate::error::Refusal;

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
    ) -> Result<Option<(Series, Option<SeriesKey>)>, Refusal> {
        let span = Span { from: self.from, to: self.to, last: self.last };
        let Some(name) = self.series else {
            if span.from.is_some() || span.to.is_some() || span.last.is_some() {
                return Err(Refusal::Shape("`from`, `to` and `last` go with `series`".to_owned()));
            }
            return Ok(data.map(|data| (data, None)));
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
        Ok(Some((Series::of(&view, rows), Some(key))))
    }
}

/// The refusal of a request that has neither.
pub(crate) fn missing() -> Refusal {
    Refusal::Shape("missing field `data`".to_owned())
}
