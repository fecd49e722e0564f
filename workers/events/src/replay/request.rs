//! What a replay is asked for: the window, the speed, in the query or in the body.

use http::HeaderMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sluice_http::Reject;
use sluice_wire::event::parse_time;

use crate::body::document;
use crate::json::OneOrMany;
use crate::log::Filter;
use crate::params::{Params, Selection, bad, time};

/// How fast a replay goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Speed {
    /// As fast as events are read and taken.
    Max,
    /// Market time divided by this, 0.1 to 1000.
    Times(f64),
}

impl Speed {
    fn new(times: f64) -> Option<Self> {
        (0.1..=1_000.0).contains(&times).then_some(Self::Times(times))
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "max" { Some(Self::Max) } else { text.parse().ok().and_then(Self::new) }
    }
}

impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Max => out.serialize_str("max"),
            Self::Times(times) => out.serialize_f64(*times),
        }
    }
}

/// What is asked for, from the query or the body.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Request {
    event_type: OneOrMany,
    source: Option<String>,
    symbol: Option<String>,
    #[serde(deserialize_with = "loose_time")]
    start_time: Option<jiff::Timestamp>,
    #[serde(deserialize_with = "loose_time")]
    end_time: Option<jiff::Timestamp>,
    #[serde(deserialize_with = "given_speed")]
    pub(super) speed: Option<Speed>,
    pub(super) into: Option<String>,
    pub(super) session: Option<bool>,
}

impl Request {
    /// From the body when there is one, else from the query; both at once would leave open which one wins.
    pub(super) fn read(
        pairs: Vec<(String, String)>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, Reject> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Self::from_query(Params::new(pairs));
        }
        if !pairs.is_empty() {
            return Err(bad("name the window in the query or in the body, not in both"));
        }
        document(headers, body)
    }

    fn from_query(mut params: Params) -> Result<Self, Reject> {
        let request = Self {
            event_type: OneOrMany(params.all("event_type")),
            source: params.one("source")?,
            symbol: params.one("symbol")?,
            start_time: params.one("start_time")?.map(|text| time("start_time", &text)).transpose()?,
            end_time: params.one("end_time")?.map(|text| time("end_time", &text)).transpose()?,
            speed: match params.one("speed")? {
                Some(text) => Some(Speed::parse(&text).ok_or_else(|| bad("speed is 0.1 to 1000, or `max`"))?),
                None => None,
            },
            into: params.one("into")?,
            session: match params.one("session")?.as_deref() {
                None => None,
                Some("true") => Some(true),
                Some("false") => Some(false),
                Some(_) => return Err(bad("session is `true` or `false`")),
            },
        };
        params.finish()?;
        Ok(request)
    }

    pub(super) fn filter(self, granted: Filter) -> Result<Filter, Reject> {
        Selection {
            event_type: self.event_type.0,
            source: self.source,
            symbol: self.symbol,
            start_time: self.start_time,
            end_time: self.end_time,
        }
        .filter(granted)
    }
}

fn loose_time<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Millis(i64),
        Text(String),
    }
    let time = match Option::<Raw>::deserialize(raw)? {
        None => return Ok(None),
        Some(Raw::Millis(ms)) => jiff::Timestamp::from_millisecond(ms).ok(),
        Some(Raw::Text(text)) => parse_time(&text),
    };
    time.map(Some)
        .ok_or_else(|| serde::de::Error::custom("a time is ISO 8601 or whole milliseconds since 1970"))
}

/// A speed as a number or as `max`.
pub(super) fn given_speed<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Speed>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Times(f64),
        Text(String),
    }
    let speed = match Option::<Raw>::deserialize(raw)? {
        None => return Ok(None),
        Some(Raw::Times(times)) => Speed::new(times),
        Some(Raw::Text(text)) => Speed::parse(&text),
    };
    speed.map(Some).ok_or_else(|| serde::de::Error::custom("speed is 0.1 to 1000, or \"max\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_bounded() {
        assert_eq!(Speed::parse("max"), Some(Speed::Max));
        assert_eq!(Speed::parse("2.5"), Some(Speed::Times(2.5)));
        for bad in ["0", "0.09", "1001", "-1", "nan", "inf", "fast", ""] {
            assert_eq!(Speed::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_body_or_a_query_but_not_both() {
        let pairs = || vec![("event_type".to_owned(), "a".to_owned())];
        let headers = HeaderMap::new();
        assert_eq!(Request::read(pairs(), &headers, b"").unwrap().event_type.0, ["a"]);
        let body =
            br#"{"event_type":["a","b"],"start_time":1000,"end_time":"1970-01-01T00:00:02","speed":"max"}"#;
        let request = Request::read(Vec::new(), &headers, body).unwrap();
        assert_eq!((request.event_type.0.len(), request.speed), (2, Some(Speed::Max)));
        assert!(Request::read(pairs(), &headers, body).is_err());
        for bad in [&br#"{"colour":1}"#[..], br#"{"speed":0}"#, br#"{"start_time":"x"}"#, b"[", b"7"] {
            assert!(Request::read(Vec::new(), &headers, bad).is_err());
        }
    }
}
