//! The event envelope and the catalogue of event types.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Longest accepted event type, bytes.
pub const TYPE_BYTES_MAX: usize = 64;

/// What the consumer groups begin with from which stored series are fed: each store has one of its own, named by
/// [`series_group`]. Alone it is the group that every store shared before.
pub const SERIES_GROUP: &str = "calc-series";

/// The consumer group from which calculation workers serve requests for discovery, each request one of them.
pub const DISCOVERY_GROUP: &str = "calc-discovery";

/// The consumer group of one store of series.
pub fn series_group(store: &str) -> String {
    format!("{SERIES_GROUP}-{store}")
}

/// Whether a consumer group feeds one store of series.
pub fn is_series_group(name: &str) -> bool {
    name.strip_prefix(SERIES_GROUP)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|store| !store.is_empty())
}

/// Types that only role identities may publish, beside every `security_*` and `service_*`.
pub const RESERVED: &[&str] =
    &["kill_switch", "config_changed", "circuit_breaker_state", "stream_gap", "dead_letter", "candle_closed"];

/// Every event type by name that Sluice and the platforms it fronts use.
pub const CATALOGUE: &[&str] = &[
    "market_data_update",
    "trading_signal",
    "order_executed",
    "portfolio_update",
    "risk_alert",
    "ml_model_update",
    "system_health",
    "rl_model_update",
    "rl_action_taken",
    "feature_vector_update",
    "alternative_data_update",
    "sentiment_data_update",
    "onchain_data_update",
    "economic_data_update",
    "market_regime_change",
    "backtest_request",
    "backtest_completed",
    "multi_symbol_backtest_request",
    "strategy_optimization_request",
    "backtest_failed",
    "multi_symbol_backtest_completed",
    "multi_symbol_backtest_failed",
    "multi_model_backtest_request",
    "multi_model_backtest_completed",
    "multi_model_backtest_failed",
    "walk_forward_backtest_request",
    "walk_forward_backtest_completed",
    "walk_forward_backtest_failed",
    "strategy_optimization_completed",
    "strategy_optimization_failed",
    "strategy_discovery_request",
    "strategy_discovered",
    "backtesting_worker_heartbeat",
    "order_submitted",
    "order_rejected",
    "order_cancelled",
    "candle_closed",
    "circuit_breaker_state",
    "security_event",
    "security_alert",
    "service_registered",
    "service_deregistered",
    "config_changed",
    "kill_switch",
    "stream_gap",
    "dead_letter",
];

/// Other spellings and the name they stand for.
pub const ALIASES: &[(&str, &str)] = &[("backtest_complete", "backtest_completed")];

/// An event type in its canonical spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(String);

/// The text is not an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event type is 1 to 64 of letters, digits and `._-`")]
pub struct EventTypeError;

impl EventType {
    /// Parses a type: lower snake names, upper-case constants of the catalogue, aliases, and any
    /// other text of the allowed form.
    pub fn parse(text: &str) -> Result<Self, EventTypeError> {
        let well_formed = (1..=TYPE_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !well_formed {
            return Err(EventTypeError);
        }
        if let Some((_, name)) = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text)) {
            return Ok(Self((*name).to_owned()));
        }
        let is_constant = text.bytes().all(|b| !b.is_ascii_lowercase());
        let named = CATALOGUE.iter().find(|name| is_constant && name.eq_ignore_ascii_case(text));
        Ok(Self(named.map_or(text, |name| *name).to_owned()))
    }

    /// The canonical spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the catalogue has it.
    pub fn is_catalogued(&self) -> bool {
        CATALOGUE.contains(&self.as_str())
    }

    /// Whether only role identities may publish it. Compared without case, so that a reserved
    /// name in another spelling does not slip past.
    pub fn is_reserved(&self) -> bool {
        let begins_with =
            |head: &str| self.0.get(..head.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(head));
        begins_with("security_")
            || begins_with("service_")
            || RESERVED.iter().any(|name| name.eq_ignore_ascii_case(&self.0))
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for EventType {
    type Error = EventTypeError;

    fn try_from(text: String) -> Result<Self, EventTypeError> {
        Self::parse(&text)
    }
}

impl From<EventType> for String {
    fn from(value: EventType) -> Self {
        value.0
    }
}

/// An event as clients publish it. Unknown members are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// What happened.
    pub event_type: EventType,
    /// Identity for deduplication; minted when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// When it happened; the time of arrival when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "loose_time")]
    pub timestamp: Option<Timestamp>,
    /// Who says so.
    #[serde(default)]
    pub source: String,
    /// The content.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// Free notes beside the content.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// An event as it is stored and read back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub event_type: EventType,
    /// Identity for deduplication.
    pub event_id: Uuid,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Who says so.
    pub source: String,
    /// The content.
    pub data: Map<String, Value>,
    /// Free notes beside the content.
    pub metadata: Map<String, Value>,
}

/// An event with its place in the stream, as the read calls answer it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// `<ms>-<n>`, strictly increasing over the stream.
    pub message_id: String,
    /// Contiguous number inside the partition.
    pub seq: u64,
    /// Partition of the stream.
    pub partition: u32,
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Place in the stream; `None` while the event waits for its store (`spooled`).
    pub message_id: Option<String>,
    /// Identity of the event.
    pub event_id: Uuid,
    /// Always `published`.
    pub status: Cow<'static, str>,
    /// What it survives: `fsync`, `memory`, `spooled`, ….
    pub durability: Cow<'static, str>,
    /// The id was known: nothing was stored again.
    pub duplicate: bool,
}

/// Accepts RFC 3339, and as the older clients send it, without a zone (then UTC) or as
/// milliseconds since the epoch.
mod loose_time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Millis(i64),
        Text(String),
    }

    #[expect(clippy::ref_option, reason = "serde's `with` hands a reference to the field")]
    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => out.collect_str(time),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Timestamp>, D::Error> {
        match Option::<Raw>::deserialize(raw)? {
            None => Ok(None),
            Some(Raw::Millis(ms)) => {
                Timestamp::from_millisecond(ms).map(Some).map_err(serde::de::Error::custom)
            }
            Some(Raw::Text(text)) => super::parse_time(&text).map(Some).ok_or_else(|| {
                serde::de::Error::custom("timestamp is neither ISO 8601 nor milliseconds since the epoch")
            }),
        }
    }
}

/// Parses an ISO 8601 time with or without zone (then UTC), or milliseconds since the epoch.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if text.len() > 64 {
        return None;
    }
    if let Ok(ms) = text.parse::<i64>() {
        return Timestamp::from_millisecond(ms).ok();
    }
    text.parse::<Timestamp>()
        .or_else(|_| {
            text.parse::<jiff::civil::DateTime>()
                .and_then(|local| local.to_zoned(jiff::tz::TimeZone::UTC))
                .map(|zoned| zoned.timestamp())
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_and_aliases_become_canonical() {
        assert_eq!(EventType::parse("TRADING_SIGNAL").unwrap().as_str(), "trading_signal");
        assert_eq!(EventType::parse("backtest_complete").unwrap().as_str(), "backtest_completed");
        assert_eq!(EventType::parse("trade-signals").unwrap().as_str(), "trade-signals");
        for bad in ["", "a b", "x/y", "ä", &"x".repeat(65)] {
            assert!(EventType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reserved_names_are_reserved_in_any_spelling() {
        for name in ["kill_switch", "Kill_Switch", "security_alert", "SERVICE_registered", "candle_closed"] {
            assert!(EventType::parse(name).unwrap().is_reserved(), "{name}");
        }
        assert!(!EventType::parse("trading_signal").unwrap().is_reserved());
    }

    #[test]
    fn times_without_zone_are_utc() {
        let expected: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        for text in
            ["2026-11-21T10:00:00", "2026-11-21T10:00:00.000Z", "2026-11-21T11:00:00+01:00", "1795255200000"]
        {
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
        assert_eq!(parse_time("yesterday"), None);
        let event: NewEvent =
            serde_json::from_str(r#"{"event_type":"risk_alert","timestamp":1795255200000}"#).unwrap();
        assert_eq!(event.timestamp, Some(expected));
    }

    #[test]
    fn unknown_members_are_refused() {
        assert!(serde_json::from_str::<NewEvent>(r#"{"event_type":"x","payload":{}}"#).is_err());
    }
}
