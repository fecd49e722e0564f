//! `application/x-sluice-columns`: a header and plain columns, for clients that hold arrays anyway.
//!
//! ```text
//! "SLCOLS1\n"              8 bytes
//! header length            u32, little-endian
//! header                   JSON, padded with spaces so that the data begin at a multiple of 64
//! data                     each column at a multiple of 64 from the beginning of the data, little-endian
//! ```
//!
//! The header is `{"rows":N,"columns":[{"name":"close","type":"f64","offset":0},…]}`; `type` is `f64` or `i64`, and times
//! are `timestamp`, `i64` milliseconds. A request has its other fields in `request`. An answer has the columns `ID.OUTPUT`
//! and beside them `symbol`, `timeframe`, `count`, `lookback` and `begin`; what is not there yet is NaN. Candles of a stored
//! series have such members in `answer`, so that they can be sent back as they came.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use sluice_wire::json;

use crate::bounds::{COLUMNS_MAX, HEADER_BYTES_MAX};
use crate::data::Series;
use crate::error::Refusal;

/// What every body of this kind begins with.
const MAGIC: &[u8; 8] = b"SLCOLS1\n";
/// Where columns begin: a cache line, and what the widest vectors want.
const ALIGNMENT: usize = 64;
/// Magic and length.
const PREFIX: usize = 12;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    rows: usize,
    columns: Vec<Place>,
    #[serde(default)]
    request: Map<String, Json>,
    /// What stands beside candles of a stored series: they may come back as they went out.
    #[serde(default, rename = "answer")]
    _answer: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    name: String,
    r#type: Kind,
    offset: usize,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    F64,
    I64,
}

/// Reads a body: the other fields of the request, and the series.
pub(crate) fn read(body: &[u8], rows_max: usize) -> Result<(Map<String, Json>, Series), Refusal> {
    let (header, data) = open(body)?;
    if header.rows > rows_max {
        let rows = header.rows;
        return Err(Refusal::TooMuch(format!("{rows} rows are more than the limit of {rows_max}")));
    }
    if header.columns.len() > COLUMNS_MAX {
        return Err(Refusal::TooMuch(format!("more than {COLUMNS_MAX} columns")));
    }
    let mut series = Series::default();
    let mut names: Vec<&str> = Vec::with_capacity(header.columns.len());
    for place in &header.columns {
        let values = values(place, header.rows, data)?;
        let Some(column) = series.column(&place.name) else { continue };
        if names.iter().any(|name| Series::is_same_column(name, &place.name)) {
            return Err(Refusal::Shape(format!("column `{}` is there twice", place.name.escape_default())));
        }
        names.push(&place.name);
        *column = match place.r#type {
            Kind::F64 => values.map(f64::from_le_bytes).collect(),
            Kind::I64 => values.map(|bytes| i64::from_le_bytes(bytes) as f64).collect(),
        };
    }
    Ok((header.request, series))
}

fn open(body: &[u8]) -> Result<(Header, &[u8]), Refusal> {
    let shape = |text: &str| Refusal::Shape(format!("the body is no sluice-columns: {text}"));
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| shape("it does not begin with SLCOLS1"))?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(|| shape("it ends within its header"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(Refusal::TooMuch(format!("a header of more than {HEADER_BYTES_MAX} bytes")));
    }
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| shape("it ends within its header"))?;
    if !(PREFIX + length).is_multiple_of(ALIGNMENT) {
        return Err(shape("the data must begin at a multiple of 64 bytes; pad the header with spaces"));
    }
    Ok((json::from_slice(header)?, data))
}

/// The eight bytes of each value of a column.
fn values<'a>(
    place: &Place,
    rows: usize,
    data: &'a [u8],
) -> Result<impl Iterator<Item = [u8; 8]> + use<'a>, Refusal> {
    let shape = |text: String| Refusal::Shape(format!("column `{}`: {text}", place.name.escape_default()));
    if !place.offset.is_multiple_of(ALIGNMENT) {
        return Err(shape(format!("offset {} is not a multiple of {ALIGNMENT}", place.offset)));
    }
    let end = rows.checked_mul(8).and_then(|bytes| bytes.checked_add(place.offset));
    let column = end.and_then(|end| data.get(place.offset..end));
    let column = column.ok_or_else(|| shape(format!("{rows} rows do not fit into the body")))?;
    Ok(column.as_chunks::<8>().0.iter().copied())
}

/// Writes a body column by column.
pub(crate) struct Writer {
    out: Vec<u8>,
    rows: usize,
    data: usize,
}

impl Writer {
    /// Begins a body in `out`, whose columns of `rows` values will come in the order of their names.
    pub(crate) fn begin(
        mut out: Vec<u8>,
        rows: usize,
        names: &[(String, bool)],
        more: Map<String, Json>,
    ) -> Self {
        let stride = (rows * 8).next_multiple_of(ALIGNMENT);
        let places: Vec<Json> = names
            .iter()
            .enumerate()
            .map(|(at, (name, is_time))| {
                json!({"name": name, "type": if *is_time { "i64" } else { "f64" }, "offset": at * stride})
            })
            .collect();
        let mut header =
            Map::from_iter([("rows".to_owned(), json!(rows)), ("columns".to_owned(), json!(places))]);
        header.extend(more);
        let mut header = Json::from(header).to_string().into_bytes();
        header.resize((PREFIX + header.len()).next_multiple_of(ALIGNMENT) - PREFIX, b' ');
        out.reserve(PREFIX + header.len() + names.len() * stride);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
        out.extend_from_slice(&header);
        let data = out.len();
        Self { out, rows, data }
    }

    /// Appends a column: `skipped` that are not there, then the values.
    pub(crate) fn column(&mut self, skipped: usize, values: &[f64]) {
        debug_assert_eq!(skipped + values.len(), self.rows, "every column has as many values");
        self.pad();
        let missing = std::iter::repeat_n(f64::NAN.to_le_bytes(), skipped);
        self.out.extend(missing.flatten());
        self.out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Appends a column of times.
    pub(crate) fn times(&mut self, values: &[f64]) {
        self.pad();
        self.out.extend(values.iter().flat_map(|value| (*value as i64).to_le_bytes()));
    }

    /// The body.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.pad();
        self.out
    }

    fn pad(&mut self) {
        let written = self.out.len() - self.data;
        self.out.resize(self.data + written.next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(header: &Json, data: &[u8]) -> Vec<u8> {
        let mut header = header.to_string().into_bytes();
        header.resize((PREFIX + header.len()).next_multiple_of(ALIGNMENT) - PREFIX, b' ');
        [MAGIC.as_slice(), &(header.len() as u32).to_le_bytes(), &header, data].concat()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let names =
            [("timestamp".to_owned(), true), ("close".to_owned(), false), ("volume".to_owned(), false)];
        let mut writer = Writer::begin(Vec::new(), 3, &names, Map::new());
        writer.times(&[1.0, 2.0, 3.0]);
        writer.column(1, &[0.1, -0.0]);
        writer.column(0, &[f64::MAX, f64::MIN_POSITIVE, 5e-324]);
        let (request, series) = read(&writer.finish(), 3).unwrap();
        assert!(request.is_empty());
        assert_eq!(series.time_ms.unwrap(), [1.0, 2.0, 3.0]);
        assert!(series.close[0].is_nan() && series.close[2].is_sign_negative());
        assert_eq!((series.close[1], series.volume.unwrap()[2]), (0.1, 5e-324));
    }

    #[test]
    fn headers_that_cannot_be_are_refused() {
        let place = |name: &str, offset: usize| json!({"name": name, "type": "f64", "offset": offset});
        let refused = |header: Json, text: &str| match read(&body(&header, &[0; 128]), 10) {
            Err(Refusal::Shape(said) | Refusal::TooMuch(said) | Refusal::Json(said)) => {
                assert!(said.contains(text), "{header}: {said}");
            }
            other => panic!("{header}: {other:?}"),
        };
        refused(json!({"rows": 11, "columns": []}), "limit of 10");
        refused(json!({"rows": 9, "columns": [place("close", 64)]}), "do not fit");
        refused(json!({"rows": 9, "columns": [place("close", 8)]}), "multiple of 64");
        refused(json!({"rows": 9, "columns": [place("close", usize::MAX - 63)]}), "do not fit");
        refused(json!({"rows": 8, "columns": [place("close", 0), place("c", 0)]}), "twice");
        refused(json!({"rows": 1, "columns": vec![place("x", 0); 65]}), "64 columns");
        refused(json!({"rows": 1, "columns": [], "strange": 1}), "unknown field");
        assert!(matches!(read(b"SLCOLS1\n\xff\xff\xff\x7f", 10), Err(Refusal::TooMuch(_))));
        assert!(matches!(read(b"SLCOLS2\n", 10), Err(Refusal::Shape(_))));
        assert!(matches!(read(b"SLCOLS1\n\x10\0\0\0{}", 10), Err(Refusal::Shape(_))));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), from_good: bool) {
            if from_good {
                bytes = body(&json!({"rows": 8, "columns": [{"name": "close", "type": "f64", "offset": 0}]}), &[0; 64]);
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let _any_outcome = read(&bytes, 100).is_ok();
        }
    }
}
