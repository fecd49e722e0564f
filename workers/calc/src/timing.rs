//! For the examples alone: the ways in, by name, without a socket before them, and stored series.

pub mod series;

use bytes::Bytes;
use serde::Deserialize;

use serde_json::Map;

use crate::body::{self, Incoming, WithData};
use crate::columns::Writer;
use crate::data::Series;
use crate::negotiate::Format;
use crate::{arrow, csv};

/// Names of the columns of a candle.
const NAMES: [&str; 6] = ["timestamp", "open", "high", "low", "close", "volume"];

#[derive(Deserialize)]
struct Body {
    data: Option<Series>,
}

impl WithData for Body {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

/// The same candles in every transport.
pub fn bodies(candles: &[[f64; 6]]) -> Vec<(&'static str, Vec<u8>)> {
    let row = |row: &[f64; 6]| {
        let [time, values @ ..] = row;
        format!("[{time},{}]", values.map(|value| value.to_string()).join(","))
    };
    let rows: Vec<String> = candles.iter().map(row).collect();
    let column = |at: usize| candles.iter().map(|row| row[at].to_string()).collect::<Vec<_>>().join(",");
    let columns: Vec<String> =
        NAMES.iter().enumerate().map(|(at, name)| format!("\"{name}\":[{}]", column(at))).collect();
    let json = |data: String| format!("{{\"data\":{data}}}").into_bytes();
    let values: Vec<Vec<f64>> = (0..6).map(|at| candles.iter().map(|row| row[at]).collect()).collect();
    let places = NAMES.map(|name| (name.to_owned(), name == "timestamp"));
    let mut writer = Writer::begin(Vec::new(), candles.len(), &places, Map::new());
    writer.times(&values[0]);
    for column in &values[1..] {
        writer.column(0, column);
    }
    let names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    let stream =
        arrow::write(Vec::new(), Some(&values[0]), names[1..].to_vec(), values[1..].to_vec(), &Map::new());
    vec![
        ("json rows", json(format!("[{}]", rows.join(",")))),
        ("json rows, spaced", json(format!("[{}]", rows.join(", ").replace(',', ", ")))),
        ("json columns", json(format!("{{{}}}", columns.join(",")))),
        ("json rows, strict parser", json(format!("[{}]", rows.join(",")))),
        ("csv", csv::write(Vec::new(), &names, &values, candles.len())),
        ("arrow", stream.unwrap_or_default()),
        ("columns", writer.finish()),
    ]
}

/// Reads one of them; the number of candles.
pub fn read(name: &str, body: &Bytes) -> usize {
    let format = match name {
        "json rows, strict parser" => {
            let parsed: Option<Body> = sluice_wire::json::from_slice(body).ok();
            return parsed.and_then(|body| body.data).map_or(0, |series| series.close.len());
        }
        "csv" => Format::Csv,
        "arrow" => Format::Arrow,
        "columns" => Format::Columns,
        _ => Format::Json,
    };
    let read = body::read::<Body>(Incoming { format, bytes: body.clone(), query: None }, usize::MAX);
    read.ok().and_then(|body| body.data).map_or(0, |series| series.close.len())
}
