//! Which form a body has and which one its answer gets, each by its own header.

use http::{HeaderMap, header};
use sluice_http::Reject;
use sluice_wire::code::Code;

/// A form of series and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Text, `null` for what is not a number.
    Json,
    /// Arrow's stream of record batches.
    Arrow,
    /// A header and plain columns; [`crate::columns`] has the layout.
    Columns,
    /// A row of names, then rows of numbers.
    Csv,
}

impl Format {
    /// Every form; the first is what a client gets that does not care.
    pub(crate) const ALL: [Self; 4] = [Self::Json, Self::Arrow, Self::Columns, Self::Csv];

    /// Its media type.
    pub(crate) const fn media(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Columns => "application/x-sluice-columns",
            Self::Csv => "text/csv",
        }
    }

    /// The word for it in metrics and in the field `format`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Arrow => "arrow",
            Self::Columns => "columns",
            Self::Csv => "csv",
        }
    }

    fn of(media: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.media().eq_ignore_ascii_case(media))
    }
}

fn known() -> String {
    Format::ALL.map(Format::media).join(", ")
}

/// The form of the body; one that says nothing is JSON, since the platforms' older clients say nothing.
pub(crate) fn of_body(headers: &HeaderMap) -> Result<Format, Reject> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Json) };
    let media = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    Format::of(media)
        .ok_or_else(|| Reject::new(Code::UnsupportedMediaType, format!("the body is one of {}", known())))
}

/// The form that the answer is to have; `None` where the client takes any.
pub(crate) fn of_answer(headers: &HeaderMap) -> Result<Option<Format>, Reject> {
    let mut said_something = false;
    // The wish of the greatest weight; among equals the one that was said first.
    let mut best: Option<(u32, Option<Format>)> = None;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
            let media = media.trim();
            if media.is_empty() {
                continue;
            }
            said_something = true;
            let format = match media {
                "*/*" | "application/*" => None,
                "text/*" => Some(Format::Csv),
                _ => match Format::of(media) {
                    Some(format) => Some(format),
                    None => continue,
                },
            };
            let weight = weight(parameters);
            if weight > 0 && best.is_none_or(|(found, _)| weight > found) {
                best = Some((weight, format));
            }
        }
    }
    match best {
        Some((_, format)) => Ok(format),
        None if !said_something => Ok(None),
        None => Err(Reject::new(Code::NotAcceptable, format!("answers are one of {}", known()))),
    }
}

/// The weight of a range in thousandths; one that is not a weight counts as 1.
fn weight(parameters: &str) -> u32 {
    let mut named = parameters.split(';').filter_map(|parameter| parameter.trim().split_once('='));
    let weight =
        named.find(|(name, _)| name.eq_ignore_ascii_case("q")).and_then(|(_, q)| q.parse::<f32>().ok());
    (weight.unwrap_or(1.0).clamp(0.0, 1.0) * 1_000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(accept: &str) -> Result<Option<Format>, u16> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        of_answer(&headers).map_err(|_| 406)
    }

    #[test]
    fn the_greatest_weight_wins_and_then_the_first() {
        assert_eq!(of_answer(&HeaderMap::new()).ok(), Some(None));
        assert_eq!(answer(""), Ok(None));
        assert_eq!(answer("*/*"), Ok(None));
        assert_eq!(answer("text/html, application/*;q=0.8"), Ok(None));
        assert_eq!(answer("Text/CSV"), Ok(Some(Format::Csv)));
        assert_eq!(answer("application/json;q=0.5, application/x-sluice-columns"), Ok(Some(Format::Columns)));
        assert_eq!(answer("application/vnd.apache.arrow.stream, application/json"), Ok(Some(Format::Arrow)));
        assert_eq!(answer("application/json;q=0, text/*;q=0.1"), Ok(Some(Format::Csv)));
        assert_eq!(answer("text/html"), Err(406));
        assert_eq!(answer("application/json;q=0"), Err(406));
    }

    #[test]
    fn a_body_is_what_it_says() {
        let body = |media: &str| {
            of_body(&HeaderMap::from_iter([(header::CONTENT_TYPE, media.parse().unwrap())])).ok()
        };
        assert_eq!(of_body(&HeaderMap::new()).ok(), Some(Format::Json));
        assert_eq!(body("application/json; charset=utf-8"), Some(Format::Json));
        for format in Format::ALL {
            assert_eq!(body(format.media()), Some(format));
        }
        assert_eq!(body("application/xml"), None);
    }
}
