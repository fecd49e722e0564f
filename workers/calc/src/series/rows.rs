//! Writing candles of a series, in the form that the client wants.

use std::ops::Range;

use serde_json::{Map, Value as Json, json};
use sluice_calc::Column;

use super::{Candle, SeriesKey, View};
use crate::encode;
use crate::error::Refusal;
use crate::negotiate::Format;

/// Rows of a series, and what stands beside them.
pub(crate) struct Page<'a> {
    pub(crate) key: &'a SeriesKey,
    pub(crate) view: &'a View,
    pub(crate) rows: Range<usize>,
    pub(crate) next: Option<i64>,
}

impl Page<'_> {
    /// About how much memory the answer takes while it is written.
    pub(crate) fn bytes_about(&self) -> usize {
        self.rows.len() * 128 + 1_024
    }

    /// The answer, in a buffer.
    pub(crate) fn write(&self, format: Format, out: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        if format == Format::Json {
            return Ok(self.json(out));
        }
        let times: Vec<f64> = self.view.times()[self.rows.clone()].iter().map(|time| *time as f64).collect();
        let columns = Column::ALL.map(|column| &self.view.column(column)[self.rows.clone()]);
        let names = Column::ALL.map(|column| column.name().to_owned()).to_vec();
        encode::table(out, format, Some(&times), names, &columns, self.about())
    }

    /// What stands beside the candles.
    fn about(&self) -> Map<String, Json> {
        let mut about = Map::new();
        about.insert("symbol".to_owned(), json!(self.key.symbol));
        about.insert("timeframe".to_owned(), json!(self.key.timeframe));
        about.insert("count".to_owned(), json!(self.rows.len()));
        about.insert("total".to_owned(), json!(self.view.rows()));
        about.insert("open".to_owned(), open(self.view));
        about.insert("next_cursor".to_owned(), json!(self.next.map(|next| next.to_string())));
        about
    }

    fn json(&self, mut out: Vec<u8>) -> Vec<u8> {
        let about = Json::Object(self.about()).to_string();
        out.extend_from_slice(&about.as_bytes()[..about.len() - 1]);
        out.extend_from_slice(b",\"data\":[");
        let times = self.view.times();
        let numbers = Column::ALL.map(|column| self.view.column(column));
        for row in self.rows.clone() {
            out.extend_from_slice(if row == self.rows.start { b"[" } else { b",[" });
            out.extend_from_slice(times[row].to_string().as_bytes());
            for column in numbers {
                out.push(b',');
                encode::number(&mut out, column[row]);
            }
            out.push(b']');
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// The open bar as a row, or null.
pub(crate) fn open(view: &View) -> Json {
    view.open().map_or(Json::Null, |open| row(&open))
}

fn row(candle: &Candle) -> Json {
    let [open, high, low, close, volume] = candle.numbers();
    json!([candle.time_ms, open, high, low, close, volume])
}
