//! What clients send about groups: read, and held against the bounds.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sluice_http::Reject;
use sluice_schema::form;
use sluice_wire::code::Code;
use sluice_wire::event::{EventType, parse_time};
use sluice_wire::problem::Problem;

use crate::json::OneOrMany;
use crate::log::MessageId;

use super::command::Start;
use super::settings::{OrderKey, Selector, Settings};

/// LIMIT: bytes of a group's name.
const NAME_BYTES_MAX: usize = 64;
/// LIMIT: bytes of a consumer's name.
const CONSUMER_BYTES_MAX: usize = 128;
/// LIMIT: bytes of the reason of a nack.
const REASON_BYTES_MAX: usize = 256;
/// LIMIT: the time a consumer has.
const ACK_WAIT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(12 * 3_600);
/// LIMIT: deliveries of a message.
const DELIVER_MAX: u32 = 1_000;
/// LIMIT: pauses named.
const BACKOFF_MAX: usize = 32;
/// LIMIT: one pause.
const PAUSE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// LIMIT: messages of a lease.
pub(super) const LEASE_MAX: usize = 1_000;
const LEASE_DEFAULT: usize = 10;
/// LIMIT: time a lease waits for its first message.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// LIMIT: ids of one call.
pub(super) const IDS_MAX: usize = 5_000;
/// LIMIT: dead letters of one redrive.
const REDRIVE_MAX: usize = 10_000;
const REDRIVE_DEFAULT: usize = 1_000;
/// LIMIT: redriven messages a second.
const RATE_MAX: f64 = 100_000.0;
/// LIMIT: values of one member of a filter.
const VALUES_MAX: usize = 64;
/// LIMIT: bytes of a symbol or source in a filter, as in an event.
const VALUE_BYTES_MAX: usize = 255;

/// Body of `PUT /groups/{g}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PutBody {
    start: Option<String>,
    ack_wait: Option<String>,
    max_deliver: Option<u64>,
    backoff: Option<Vec<String>>,
    order_key: Option<String>,
    filter: Option<Object<FilterBody>>,
}

/// A body, or a part of one, that is an object: serde would take an array of its members too.
#[derive(Debug, Default)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// What a group, or a redrive, is about: the names of `GET /events`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FilterBody {
    event_type: OneOrMany,
    source: OneOrMany,
    symbol: OneOrMany,
    start_time: OneOrMany,
    end_time: OneOrMany,
}

/// Body of `POST /groups/{g}/lease`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseBody {
    consumer: String,
    #[serde(default)]
    max: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
}

/// Body of the calls about messages that a consumer holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettleBody {
    consumer: String,
    ids: Vec<String>,
    #[serde(default)]
    delay_ms: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
}

/// Body of `POST /groups/{g}/dlq/redrive`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RedriveBody {
    filter: Object<FilterBody>,
    max: Option<u64>,
    rate: Option<f64>,
}

/// Ids of a call: those that can be, and the texts that no message is named by.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    pub(crate) known: Vec<MessageId>,
    pub(crate) other: Vec<String>,
}

/// What a consumer says of messages.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) consumer: Box<str>,
    pub(crate) ids: Ids,
    /// Pause of a nack.
    pub(crate) delay_ms: Option<u64>,
    /// Why, of a nack.
    pub(crate) reason: Option<Box<str>>,
}

/// A bound that is not kept.
fn beyond(pointer: &str, detail: impl Into<String>) -> Reject {
    Problem::new(Code::Unprocessable).detail(detail).pointer(pointer).into()
}

/// A value that is not of its form.
fn wrong(pointer: &str, detail: impl Into<String>) -> Reject {
    Problem::new(Code::BadRequest).detail(detail).pointer(pointer).into()
}

/// A group's name, as it stands in a path.
pub(crate) fn name(text: &str) -> Result<&str, Reject> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(letter) {
        let detail = format!("a group's name is 1 to {NAME_BYTES_MAX} of letters, digits and `._-`");
        return Err(Reject::new(Code::Unprocessable, detail));
    }
    Ok(text)
}

fn consumer(text: &str) -> Result<Box<str>, Reject> {
    if text.is_empty() || text.len() > CONSUMER_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let detail = format!("a consumer's name is 1 to {CONSUMER_BYTES_MAX} visible ASCII characters");
        return Err(beyond("/consumer", detail));
    }
    Ok(text.into())
}

fn duration(pointer: &str, text: &str) -> Result<Duration, Reject> {
    form::duration(text)
        .map_err(|_| wrong(pointer, format!("{pointer} is no duration such as \"30s\" or \"250ms\"")))
}

impl PutBody {
    /// The settings, and where a new group begins.
    pub(crate) fn read(self) -> Result<(Settings, Start), Reject> {
        let mut settings = Settings::default();
        let start = self.start.as_deref().map_or(Ok(Start::Now), start)?;
        if let Some(text) = &self.ack_wait {
            let wait = duration("/ack_wait", text)?;
            if !ACK_WAIT.contains(&wait) {
                return Err(beyond("/ack_wait", "ack_wait is from 100ms to 12h"));
            }
            settings.ack_wait_ms = wait.as_millis() as u64;
        }
        if let Some(max) = self.max_deliver {
            settings.max_deliver = u32::try_from(max)
                .ok()
                .filter(|max| (1..=DELIVER_MAX).contains(max))
                .ok_or_else(|| beyond("/max_deliver", format!("max_deliver is from 1 to {DELIVER_MAX}")))?;
        }
        if let Some(texts) = &self.backoff {
            settings.backoff_ms = backoff(texts)?;
        }
        settings.order_key = match self.order_key.as_deref() {
            None | Some("none") => OrderKey::None,
            Some("symbol") => OrderKey::Symbol,
            Some(_) => return Err(wrong("/order_key", "order_key is \"symbol\" or \"none\"")),
        };
        settings.filter = self.filter.unwrap_or_default().0.read()?;
        Ok((settings, start))
    }
}

fn start(text: &str) -> Result<Start, Reject> {
    match text {
        "now" => return Ok(Start::Now),
        "earliest" => return Ok(Start::Earliest),
        _ => {}
    }
    if let Ok(id) = text.parse() {
        return Ok(Start::After(id));
    }
    let time = parse_time(text)
        .ok_or_else(|| wrong("/start", "start is \"earliest\", \"now\", a message id or a time"))?;
    Ok(Start::Time(u64::try_from(time.as_millisecond()).unwrap_or(0)))
}

fn backoff(texts: &[String]) -> Result<Vec<u64>, Reject> {
    if texts.len() > BACKOFF_MAX {
        return Err(beyond("/backoff", format!("at most {BACKOFF_MAX} pauses can be named")));
    }
    let pause = |text: &String| {
        let pause = duration("/backoff", text)?;
        if pause > PAUSE_MAX {
            return Err(beyond("/backoff", "a pause is at most 24h"));
        }
        Ok(pause.as_millis() as u64)
    };
    texts.iter().map(pause).collect()
}

impl FilterBody {
    /// What is selected.
    pub(crate) fn read(self) -> Result<Selector, Reject> {
        let mut selector = Selector {
            sources: values("/filter/source", self.source.0)?,
            symbols: values("/filter/symbol", self.symbol.0)?,
            from_us: time("/filter/start_time", &self.start_time.0)?,
            to_us: time("/filter/end_time", &self.end_time.0)?,
            kinds: Vec::new(),
        };
        for text in values("/filter/event_type", self.event_type.0)? {
            let kind = EventType::parse(&text)
                .map_err(|error| wrong("/filter/event_type", format!("event_type: {error}")))?;
            selector.kinds.push(kind.as_str().into());
        }
        Ok(selector)
    }
}

fn values(pointer: &str, texts: Vec<String>) -> Result<Vec<Box<str>>, Reject> {
    if texts.len() > VALUES_MAX {
        return Err(beyond(pointer, format!("at most {VALUES_MAX} values can be named")));
    }
    if texts.iter().any(|text| text.is_empty() || text.len() > VALUE_BYTES_MAX) {
        return Err(beyond(pointer, format!("a value has 1 to {VALUE_BYTES_MAX} bytes")));
    }
    Ok(texts.into_iter().map(String::into_boxed_str).collect())
}

fn time(pointer: &str, texts: &[String]) -> Result<Option<i64>, Reject> {
    match texts {
        [] => Ok(None),
        [text] => match parse_time(text) {
            Some(time) => Ok(Some(time.as_microsecond())),
            None => Err(wrong(pointer, "a time is ISO 8601 or milliseconds since 1970, as text")),
        },
        _ => Err(wrong(pointer, "one time can be named")),
    }
}

impl LeaseBody {
    /// The consumer, how many messages it takes, and how long it waits for the first.
    pub(crate) fn read(self) -> Result<(Box<str>, usize, Duration), Reject> {
        let consumer = consumer(&self.consumer)?;
        let max = self.max.unwrap_or(LEASE_DEFAULT as u64);
        if !(1..=LEASE_MAX as u64).contains(&max) {
            return Err(beyond("/max", format!("max is from 1 to {LEASE_MAX}")));
        }
        let wait = Duration::from_millis(self.wait_ms);
        if wait > WAIT_MAX {
            return Err(beyond("/wait_ms", format!("wait_ms is at most {}", WAIT_MAX.as_millis())));
        }
        Ok((consumer, max as usize, wait))
    }
}

impl SettleBody {
    /// The consumer, the ids, the pause and the reason of a nack. Only a nack has the last two.
    pub(crate) fn read(self, is_nack: bool) -> Result<Said, Reject> {
        let consumer = consumer(&self.consumer)?;
        if !is_nack && (self.delay_ms.is_some() || self.reason.is_some()) {
            return Err(wrong("", "delay_ms and reason belong to a nack"));
        }
        if self.ids.len() > IDS_MAX {
            return Err(beyond("/ids", format!("at most {IDS_MAX} ids can be named at once")));
        }
        if self.delay_ms.is_some_and(|ms| Duration::from_millis(ms) > PAUSE_MAX) {
            return Err(beyond("/delay_ms", format!("delay_ms is at most {}", PAUSE_MAX.as_millis())));
        }
        if self.reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            return Err(beyond("/reason", format!("a reason has at most {REASON_BYTES_MAX} bytes")));
        }
        let mut ids = Ids::default();
        for text in self.ids {
            match text.parse() {
                Ok(id) => ids.known.push(id),
                Err(_) => ids.other.push(text.chars().take(64).collect()),
            }
        }
        let reason = self.reason.map(String::into_boxed_str);
        Ok(Said { consumer, ids, delay_ms: self.delay_ms, reason })
    }
}

impl RedriveBody {
    /// Which dead letters, how many, and how many a second.
    pub(crate) fn read(self) -> Result<(Selector, usize, Option<f64>), Reject> {
        let max = self.max.unwrap_or(REDRIVE_DEFAULT as u64);
        if !(1..=REDRIVE_MAX as u64).contains(&max) {
            return Err(beyond("/max", format!("max is from 1 to {REDRIVE_MAX}")));
        }
        if self.rate.is_some_and(|rate| !(0.001..=RATE_MAX).contains(&rate)) {
            return Err(beyond("/rate", format!("rate is from 0.001 to {RATE_MAX} a second")));
        }
        Ok((self.filter.0.read()?, max as usize, self.rate))
    }
}
