//! For `examples/scan.rs` alone: the ways in, by name, without a socket before them.

use serde::Deserialize;

use crate::body::{self, WithData};
use crate::data::Series;

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
    let columns: Vec<String> = ["timestamp", "open", "high", "low", "close", "volume"]
        .iter()
        .enumerate()
        .map(|(at, name)| format!("\"{name}\":[{}]", column(at)))
        .collect();
    let json = |data: String| format!("{{\"data\":{data}}}").into_bytes();
    vec![
        ("json rows", json(format!("[{}]", rows.join(",")))),
        ("json rows, spaced", json(format!("[{}]", rows.join(", ").replace(',', ", ")))),
        ("json columns", json(format!("{{{}}}", columns.join(",")))),
        ("json rows, strict parser", json(format!("[{}]", rows.join(",")))),
    ]
}

/// Reads one of them; the number of candles.
pub fn read(name: &str, body: &[u8]) -> usize {
    let parsed: Result<Body, _> =
        if name.ends_with("strict parser") { sluice_wire::json::from_slice(body) } else { body::parse(body) };
    parsed.ok().and_then(|body| body.data).map_or(0, |series| series.close.len())
}
