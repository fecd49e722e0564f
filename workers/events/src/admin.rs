//! What an operator does to a stream.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use sluice_http::{Authenticated, BodyBytes, Reject};
use sluice_wire::code::Code;
use sluice_wire::event::parse_time;

use crate::access;
use crate::body::document;
use crate::context::{Context, json_response};
use crate::log::{Clock, Retention, SystemClock};

/// Bounds to trim to, each where one is given. Whole segments go, never the one being written, so that what is left
/// may be more than asked for; the answer says what is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Trim {
    /// Age of the newest event of a segment at most: a number with `s`, `m`, `h` or `d`.
    age: Option<String>,
    /// Segments whose events were all stored before this time go.
    before: Option<Moment>,
    /// Bytes of the whole stream at most.
    bytes: Option<u64>,
    /// Events of the whole stream; as many are always kept.
    count: Option<u64>,
    /// A stream beside the main one.
    stream: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Moment {
    Millis(i64),
    Text(String),
}

/// `POST /admin/retention`
pub(crate) async fn retention(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    access::may_administer(&caller)?;
    let trim: Trim = document(&headers, &body)?;
    let bounds = trim.bounds(SystemClock.now_ms())?;
    let engine = context.engine_of(trim.stream.as_deref()).await?;
    let gone = engine.trim(bounds).await?;
    let stats = engine.reader().stats();
    tracing::info!(
        component = "admin",
        caller = caller.subject,
        stream = trim.stream.as_deref().unwrap_or(&context.settings.stream),
        events = gone.events,
        bytes = gone.bytes,
        "stream trimmed"
    );
    json_response(&json!({
        "removed": {"segments": gone.segments, "events": gone.events, "bytes": gone.bytes},
        "stream_length": stats.length,
        "first_entry": stats.first_id.map(|id| id.to_string()),
        "last_entry": stats.last_id.map(|id| id.to_string()),
        "bytes": stats.bytes,
    }))
}

impl Trim {
    fn bounds(&self, now_ms: u64) -> Result<Retention, Reject> {
        let age_ms = self.age.as_deref().map(|text| {
            age_ms(text).ok_or_else(|| bad("age is a number with `s`, `m`, `h` or `d` behind it"))
        });
        let before_ms = self.before.as_ref().map(|moment| {
            let time = match moment {
                Moment::Millis(ms) => jiff::Timestamp::from_millisecond(*ms).ok(),
                Moment::Text(text) => parse_time(text),
            };
            let ms = time.map(|time| u64::try_from(time.as_millisecond()).unwrap_or(0));
            // What was stored in the millisecond itself is not before it.
            ms.map(|ms| now_ms.saturating_sub(ms)).ok_or_else(|| bad("before is not a time"))
        });
        let ages = [age_ms.transpose()?, before_ms.transpose()?];
        let bounds =
            Retention { age_ms: ages.into_iter().flatten().min(), bytes: self.bytes, count: self.count };
        if bounds == Retention::default() {
            return Err(bad("name at least one of age, before, bytes and count"));
        }
        Ok(bounds)
    }
}

fn bad(detail: &str) -> Reject {
    Reject::new(Code::BadRequest, detail)
}

fn age_ms(text: &str) -> Option<u64> {
    let (number, unit_ms) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (number, "s") => (number, 1_000),
        (number, "m") => (number, 60_000),
        (number, "h") => (number, 3_600_000),
        (number, "d") => (number, 86_400_000),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_the_narrower_age_counts() {
        assert_eq!(age_ms("90s"), Some(90_000));
        assert_eq!(age_ms("30d"), Some(2_592_000_000));
        for bad in ["", "s", "5", "-1s", "5w", "1.5h", "ä", "99999999999999999999d"] {
            assert_eq!(age_ms(bad), None, "{bad}");
        }
        let trim =
            Trim { age: Some("1h".to_owned()), before: Some(Moment::Millis(4_000)), ..Trim::default() };
        assert_eq!(trim.bounds(10_000).unwrap().age_ms, Some(6_000));
        let trim =
            Trim { age: Some("1s".to_owned()), before: Some(Moment::Millis(4_000)), ..Trim::default() };
        assert_eq!(trim.bounds(10_000).unwrap().age_ms, Some(1_000));
        assert!(Trim::default().bounds(0).is_err());
        assert!(Trim { before: Some(Moment::Text("noon".to_owned())), ..Trim::default() }.bounds(0).is_err());
    }
}
