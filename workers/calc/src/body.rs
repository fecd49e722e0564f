//! Bodies with a series in them: the series is read where it stands, the rest strictly.
//!
//! A million candles are 60 MB of text. Read as any other body they would be scanned twice, once for what hostile JSON
//! may not do and once for the numbers, and the second time by a parser that knows nothing of them. Here the members of
//! the body are passed one by one; `data` is parsed in that pass by [`scan`], and the other members, a few hundred bytes,
//! go to the strict parser with `null` in its place. What this does not understand is read whole by the strict parser,
//! so that every refusal is worded there, with the line and column of the body as it came.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use sluice_wire::json::{self, JsonError, Refused, Scanner};

use crate::data::Series;
use crate::error::Refusal;
use crate::negotiate::Format;
use crate::{arrow, columns, csv, scan};

/// A body as it came.
pub(crate) struct Incoming {
    pub(crate) format: Format,
    pub(crate) bytes: Bytes,
    /// The fields beside the data, of a form that has no place for them.
    pub(crate) query: Option<String>,
}

#[cfg(test)]
impl Incoming {
    /// A body of JSON.
    pub(crate) fn of_json(body: &Json) -> Self {
        Self { format: Format::Json, bytes: body.to_string().into_bytes().into(), query: None }
    }
}

/// A request with a series in its member `data`.
pub(crate) trait WithData: DeserializeOwned {
    /// Where the series belongs; `None` where the body had none.
    fn data(&mut self) -> &mut Option<Series>;
}

/// Reads a body of any form.
pub(crate) fn read<T: WithData>(incoming: Incoming, rows_max: usize) -> Result<T, Refusal> {
    let Incoming { format, bytes, query } = incoming;
    let (fields, series) = match format {
        Format::Json => return Ok(parse(&bytes)?),
        Format::Columns => columns::read(&bytes, rows_max)?,
        Format::Arrow => arrow::read(bytes, rows_max)?,
        Format::Csv => {
            let fields = query.map_or_else(|| Ok(Map::new()), |query| json::from_slice(query.as_bytes()))?;
            (fields, csv::read(&bytes, rows_max)?)
        }
    };
    if fields.contains_key("data") {
        return Err(Refusal::Shape(
            "`data` stands in the columns of this body, not in its request".to_owned(),
        ));
    }
    let mut request: T = json::from_slice(Json::Object(fields).to_string().as_bytes())?;
    *request.data() = Some(series);
    Ok(request)
}

/// Parses a body of JSON.
pub(crate) fn parse<T: WithData>(body: &[u8]) -> Result<T, JsonError> {
    if let Ok((rest, series)) = split(body)
        && let Ok(mut request) = json::from_slice::<T>(&rest)
    {
        *request.data() = Some(series);
        return Ok(request);
    }
    json::from_slice(body)
}

/// The body with `null` for its data, and the data.
fn split(body: &[u8]) -> Result<(Vec<u8>, Series), Refused> {
    let mut scanner = Scanner::new(body)?;
    let mut found = None;
    scanner.object(|own, name| {
        if name != "data" {
            return own.value().map(|_| ());
        }
        own.by(|text| {
            let (series, taken) = scan::series(text)?;
            let begin = body.len() - text.len();
            found = Some((series, begin..begin + taken));
            Ok(taken)
        })
    })?;
    scanner.end()?;
    let (series, range) = found.ok_or(Refused)?;
    Ok(([&body[..range.start], b"null", &body[range.end..]].concat(), series))
}

#[cfg(test)]
mod tests;
