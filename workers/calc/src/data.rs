//! Candles as they arrive: rows, records, columns, pandas split; numbers may be quoted.
//!
//! A visitor of its own turns any of them into columns while parsing: a tree of generic values of
//! a million rows would take ten times the memory of the rows.

use std::fmt;
use std::ops::Range;
use std::slice::SliceIndex;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sluice_calc::{Bars, Column, Columns, RowFaultKind};
use sluice_wire::event::parse_time;

use crate::error::Refusal;
use crate::series::View;

/// A series in columns; every column that is there has the same length.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Series {
    pub(crate) time_ms: Option<Vec<f64>>,
    pub(crate) open: Option<Vec<f64>>,
    pub(crate) high: Option<Vec<f64>>,
    pub(crate) low: Option<Vec<f64>>,
    pub(crate) close: Vec<f64>,
    pub(crate) volume: Option<Vec<f64>>,
}

/// What to do about values that are not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NanRule {
    /// Refuse them, with the row.
    #[default]
    Reject,
    /// Begin after the leading ones; refuse others.
    SkipLeading,
    /// Compute over them.
    Propagate,
    /// Repeat the value before.
    Ffill,
}

impl Series {
    /// Rows of a stored series.
    pub(crate) fn of(view: &View, rows: Range<usize>) -> Self {
        let column = |column| view.column(column)[rows.clone()].to_vec();
        Self {
            time_ms: Some(view.times()[rows.clone()].iter().map(|time| *time as f64).collect()),
            open: Some(column(Column::Open)),
            high: Some(column(Column::High)),
            low: Some(column(Column::Low)),
            close: column(Column::Close),
            volume: Some(column(Column::Volume)),
        }
    }

    /// The view that kernels take.
    pub(crate) fn bars(&self, from: usize) -> Result<Bars<'_>, Refusal> {
        // Columns of other lengths are for the check to find: none is cut at the end.
        self.slice(from..)
    }

    /// The view of some rows, which are there.
    pub(crate) fn slice<R>(&self, rows: R) -> Result<Bars<'_>, Refusal>
    where
        R: SliceIndex<[f64], Output = [f64]> + Clone,
    {
        let cut = |column| <[f64]>::get(column, rows.clone()).unwrap_or_default();
        let columns = Columns {
            open: self.open.as_deref().map(cut),
            high: self.high.as_deref().map(cut),
            low: self.low.as_deref().map(cut),
            close: cut(&self.close),
            volume: self.volume.as_deref().map(cut),
        };
        Bars::new(columns).map_err(|error| Refusal::Series { row: None, text: error.to_string() })
    }

    /// Checks lengths, order and values; returns the row at which computing begins.
    pub(crate) fn check(&mut self, rows_max: usize, rule: NanRule) -> Result<usize, Refusal> {
        let rows = self.close.len();
        if rows > rows_max {
            return Err(Refusal::TooMuch(format!("{rows} rows are more than the limit of {rows_max}")));
        }
        self.check_times(rows)?;
        if rule == NanRule::Ffill {
            for column in self.columns_mut() {
                fill(column);
            }
        }
        let from = if rule == NanRule::SkipLeading { self.leading_nans() } else { 0 };
        let fault = self.bars(from)?.first_fault();
        match fault {
            Some(fault) if rule == NanRule::Propagate && matches!(fault.kind, RowFaultKind::NotFinite(_)) => {
                Ok(from)
            }
            Some(mut fault) => {
                fault.row += from;
                Err(Refusal::Series { row: Some(fault.row), text: fault.to_string() })
            }
            None => Ok(from),
        }
    }

    fn check_times(&self, rows: usize) -> Result<(), Refusal> {
        let Some(times) = &self.time_ms else { return Ok(()) };
        if times.len() != rows {
            let text = format!("timestamp has {} values where {rows} are needed", times.len());
            return Err(Refusal::Series { row: None, text });
        }
        if let Some(row) = times.iter().position(|time| !time.is_finite()) {
            return Err(Refusal::Series { row: Some(row), text: format!("row {row}: timestamp is missing") });
        }
        if let Some(before) = times.windows(2).position(|pair| pair[0] >= pair[1]) {
            let row = before + 1;
            let word = if times[before] == times[row] { "repeats" } else { "is before" };
            let text = format!("row {row}: timestamp {word} the row before; rows must be in ascending order");
            return Err(Refusal::Series { row: Some(row), text });
        }
        Ok(())
    }

    fn leading_nans(&self) -> usize {
        let columns = [
            Some(&self.close),
            self.open.as_ref(),
            self.high.as_ref(),
            self.low.as_ref(),
            self.volume.as_ref(),
        ];
        let first =
            |column: &Vec<f64>| column.iter().position(|value| value.is_finite()).unwrap_or(column.len());
        columns.into_iter().flatten().map(first).max().unwrap_or(0)
    }

    fn columns_mut(&mut self) -> impl Iterator<Item = &mut Vec<f64>> {
        [
            Some(&mut self.close),
            self.open.as_mut(),
            self.high.as_mut(),
            self.low.as_mut(),
            self.volume.as_mut(),
        ]
        .into_iter()
        .flatten()
    }

    /// The column of a name, made when it is not there yet; `None` for names of other things.
    pub(crate) fn column(&mut self, name: &str) -> Option<&mut Vec<f64>> {
        Some(match kind(name)? {
            Kind::Time => self.time_ms.get_or_insert_default(),
            Kind::Open => self.open.get_or_insert_default(),
            Kind::High => self.high.get_or_insert_default(),
            Kind::Low => self.low.get_or_insert_default(),
            Kind::Close => &mut self.close,
            Kind::Volume => self.volume.get_or_insert_default(),
        })
    }

    /// Whether a name is that of a column.
    pub(crate) fn is_column(name: &str) -> bool {
        kind(name).is_some()
    }

    /// Whether two names are of one column.
    pub(crate) fn is_same_column(one: &str, other: &str) -> bool {
        kind(one).is_some() && kind(one) == kind(other)
    }

    fn push_row(&mut self, row: &Row, at: usize) -> Result<(), String> {
        if !(5..=12).contains(&row.len) {
            return Err(format!(
                "row {at}: {} values where [timestamp, open, high, low, close, volume] are expected",
                row.len
            ));
        }
        let [time, open, high, low, close, volume] = row.values;
        let with_volume = row.len > 5;
        if at > 0 && with_volume != self.volume.is_some() {
            return Err(format!("row {at}: it has other columns than the rows before"));
        }
        self.time_ms.get_or_insert_default().push(time);
        self.open.get_or_insert_default().push(open);
        self.high.get_or_insert_default().push(high);
        self.low.get_or_insert_default().push(low);
        self.close.push(close);
        if with_volume {
            self.volume.get_or_insert_default().push(volume);
        }
        Ok(())
    }
}

/// What a column is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Time,
    Open,
    High,
    Low,
    Close,
    Volume,
}

/// Names of columns, in any case.
const NAMES: [(&str, Kind); 16] = [
    ("timestamp", Kind::Time),
    ("open", Kind::Open),
    ("high", Kind::High),
    ("low", Kind::Low),
    ("close", Kind::Close),
    ("volume", Kind::Volume),
    ("time", Kind::Time),
    ("date", Kind::Time),
    ("datetime", Kind::Time),
    ("ts", Kind::Time),
    ("t", Kind::Time),
    ("o", Kind::Open),
    ("h", Kind::High),
    ("l", Kind::Low),
    ("c", Kind::Close),
    ("v", Kind::Volume),
];

fn kind(name: &str) -> Option<Kind> {
    NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, kind)| *kind)
}

fn fill(column: &mut [f64]) {
    let mut last = f64::NAN;
    for value in column {
        if value.is_finite() {
            last = *value;
        } else {
            *value = last;
        }
    }
}

/// A number, a quoted number, a time, or null (not a number).
#[derive(Debug, Clone, Copy)]
struct Loose(f64);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct LooseVisitor;
        impl Visitor<'_> for LooseVisitor {
            type Value = Loose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E>(self, value: f64) -> Result<Loose, E> {
                Ok(Loose(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
                Ok(Loose(value as f64))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
                Ok(Loose(value as f64))
            }

            fn visit_unit<E>(self) -> Result<Loose, E> {
                Ok(Loose(f64::NAN))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Loose, E> {
                let number = text.parse::<f64>().ok();
                let time = || parse_time(text).map(|time| time.as_millisecond() as f64);
                number
                    .or_else(time)
                    .map(Loose)
                    .ok_or_else(|| E::custom("a text is neither a number nor a time"))
            }
        }
        raw.deserialize_any(LooseVisitor)
    }
}

/// The first six values of a row, and how many there were.
#[derive(Debug, Clone, Copy)]
struct Row {
    values: [f64; 6],
    len: usize,
}

/// A row or a record: the first element tells which.
enum Item {
    Row(Row),
    Record(Vec<(String, f64)>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row [timestamp, open, high, low, close, volume] or a record")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
                let mut row = Row { values: [f64::NAN; 6], len: 0 };
                while row.len < 6 {
                    let Some(Loose(value)) = seq.next_element()? else { return Ok(Item::Row(row)) };
                    row.values[row.len] = value;
                    row.len += 1;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    row.len += 1;
                }
                Ok(Item::Row(row))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                let mut record = Vec::with_capacity(6);
                let mut known = Series::default();
                while let Some(name) = map.next_key::<String>()? {
                    if known.column(&name).is_some() {
                        let Loose(value) = map.next_value()?;
                        record.push((name, value));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Item::Record(record))
            }
        }
        raw.deserialize_any(ItemVisitor)
    }
}

impl<'de> Deserialize<'de> for Series {
    fn deserialize<D: Deserializer<'de>>(raw: D) -> Result<Self, D::Error> {
        raw.deserialize_any(SeriesVisitor)
    }
}

struct SeriesVisitor;

impl<'de> Visitor<'de> for SeriesVisitor {
    type Value = Series;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows, records, columns or a split frame")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Series, A::Error> {
        let mut series = Series::default();
        let mut fields = 0;
        let mut at = 0;
        while let Some(item) = seq.next_element::<Item>()? {
            match item {
                Item::Row(row) => series.push_row(&row, at).map_err(de::Error::custom)?,
                Item::Record(record) => {
                    if at > 0 && record.len() != fields {
                        return Err(de::Error::custom(format!(
                            "row {at}: it has other columns than the rows before"
                        )));
                    }
                    fields = record.len();
                    for (name, value) in record {
                        if let Some(column) = series.column(&name) {
                            column.push(value);
                        }
                    }
                    if series.close.len() != at + 1 {
                        return Err(de::Error::custom(format!("row {at}: close is missing")));
                    }
                }
            }
            at += 1;
        }
        Ok(series)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Series, A::Error> {
        let mut series = Series::default();
        let mut names: Option<Vec<String>> = None;
        let mut index: Option<Vec<Loose>> = None;
        let mut rows: Option<Vec<Vec<Loose>>> = None;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "columns" => names = Some(map.next_value()?),
                "index" => index = Some(map.next_value()?),
                "data" => rows = Some(map.next_value()?),
                _ => match series.column(&name) {
                    Some(column) => {
                        let values = map.next_value::<Vec<Loose>>()?;
                        *column = values.into_iter().map(|Loose(value)| value).collect();
                    }
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                },
            }
        }
        if let (Some(names), Some(rows)) = (names, rows) {
            return split(&names, index, rows).map_err(de::Error::custom);
        }
        Ok(series)
    }
}

/// The split form of pandas: column names, index, rows of values.
fn split(names: &[String], index: Option<Vec<Loose>>, rows: Vec<Vec<Loose>>) -> Result<Series, String> {
    let mut series = Series::default();
    for (at, row) in rows.iter().enumerate() {
        if row.len() != names.len() {
            return Err(format!("row {at}: {} values where {} columns are named", row.len(), names.len()));
        }
        for (name, Loose(value)) in names.iter().zip(row) {
            if let Some(column) = series.column(name) {
                column.push(*value);
            }
        }
    }
    if series.time_ms.is_none() {
        // A default index counts rows: it ascends just as times do.
        series.time_ms = index.map(|index| index.into_iter().map(|Loose(value)| value).collect());
    }
    Ok(series)
}

#[cfg(test)]
mod tests;
