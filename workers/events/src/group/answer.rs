//! What clients are answered about groups.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::json;

use super::command::{Lease, Letters, Report};
use super::fact::Gap;
use super::journal::Letter;
use super::settings::{OrderKey, Selector};

/// One group.
#[derive(Debug, Serialize)]
pub(super) struct Group<'a> {
    name: &'a str,
    created_at: String,
    ack_wait: String,
    max_deliver: u32,
    backoff: Vec<String>,
    order_key: OrderKey,
    filter: Value,
    lag: u64,
    lag_seconds: f64,
    pending: usize,
    waiting: usize,
    consumers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_list: Option<Vec<Consumer<'a>>>,
    delivered: u64,
    acked: u64,
    redeliveries: u64,
    dead_letters: u64,
    dlq_depth: usize,
    dlq_bytes: u64,
    skipped: u64,
    next_seq: u64,
    #[serde(rename = "last-delivered-id")]
    last_delivered_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<bool>,
}

/// One consumer of a group.
#[derive(Debug, Serialize)]
struct Consumer<'a> {
    name: &'a str,
    pending: usize,
    last_seen: String,
}

/// A dead letter.
#[derive(Serialize)]
struct Buried<'a> {
    message_id: String,
    event: &'a RawValue,
    cause: Box<str>,
    attempts: u32,
    consumer: Option<Box<str>>,
    dead_at: String,
}

impl<'a> Group<'a> {
    /// A group in a list.
    pub(super) fn of(report: &'a Report) -> Self {
        let settings = &report.settings;
        Self {
            name: &report.group,
            created_at: time(report.created_ms),
            ack_wait: duration(settings.ack_wait_ms),
            max_deliver: settings.max_deliver,
            backoff: settings.backoff_ms.iter().map(|ms| duration(*ms)).collect(),
            order_key: settings.order_key,
            filter: filter(&settings.filter),
            lag: report.lag_events,
            lag_seconds: report.lag_ms as f64 / 1e3,
            pending: report.pending,
            waiting: report.waiting,
            consumers: report.consumers.len(),
            consumer_list: None,
            delivered: report.totals.delivered,
            acked: report.totals.acked,
            redeliveries: report.totals.redelivered,
            dead_letters: report.totals.dead,
            dlq_depth: report.dead,
            dlq_bytes: report.dead_bytes,
            skipped: report.totals.skipped,
            next_seq: report.place,
            last_delivered_id: report.last.map(|id| id.to_string()),
            created: None,
        }
    }

    /// A group on its own, with its consumers.
    pub(super) fn whole(report: &'a Report, created: Option<bool>) -> Self {
        let consumer = |(name, pending, seen_ms): &'a (Box<str>, usize, u64)| Consumer {
            name,
            pending: *pending,
            last_seen: time(*seen_ms),
        };
        Self {
            consumer_list: Some(report.consumers.iter().map(consumer).collect()),
            created,
            ..Self::of(report)
        }
    }
}

/// Messages handed out.
pub(super) fn lease(lease: &Lease) -> Vec<u8> {
    let mut body = b"{\"messages\":[".to_vec();
    for (at, message) in lease.messages.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        let head =
            format!("{{\"message_id\":\"{}\",\"delivery\":{},\"event\":", message.id, message.attempts);
        body.extend_from_slice(head.as_bytes());
        message.event.write(&mut body);
        body.push(b'}');
    }
    body.extend_from_slice(b"],\"lease_until\":");
    if lease.messages.is_empty() {
        body.extend_from_slice(b"null");
    } else {
        json::string(&time(lease.until_ms), &mut body);
    }
    let gap = lease.gap.map_or(Value::Null, |Gap { expected, got, events }| {
        json!({ "expected": expected, "got": got, "events": events, "reason": "trimmed" })
    });
    body.extend_from_slice(format!(",\"gap\":{gap}}}").as_bytes());
    body
}

/// A page of dead letters.
pub(super) fn letters(found: &Letters) -> Vec<u8> {
    let mut body = b"{\"events\":[".to_vec();
    let mut count = 0;
    for letter in found.records.iter().filter_map(Letter::of) {
        if count > 0 {
            body.push(b',');
        }
        count += 1;
        let (ms, n) = letter.head.id;
        let dead = Buried {
            message_id: crate::log::MessageId { ms, n }.to_string(),
            event: letter.event,
            cause: letter.head.cause,
            attempts: letter.head.attempts,
            consumer: letter.head.consumer,
            dead_at: time(letter.head.at_ms),
        };
        serde_json::to_writer(&mut body, &dead).expect("texts and numbers always serialize");
    }
    let next = found.next.map_or(Value::Null, |id| id.to_string().into());
    body.extend_from_slice(format!("],\"count\":{count},\"next_cursor\":{next}}}").as_bytes());
    body
}

/// A time as clients read it.
pub(super) fn time(ms: u64) -> String {
    Timestamp::from_millisecond(ms as i64).map_or_else(|_| ms.to_string(), |time| time.to_string())
}

fn duration(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// The filter as it was given: the names of `GET /events`.
fn filter(selector: &Selector) -> Value {
    let mut members = serde_json::Map::new();
    for (name, list) in
        [("event_type", &selector.kinds), ("source", &selector.sources), ("symbol", &selector.symbols)]
    {
        if !list.is_empty() {
            members.insert(name.to_owned(), json!(list));
        }
    }
    for (name, us) in [("start_time", selector.from_us), ("end_time", selector.to_us)] {
        if let Some(time) = us.and_then(|us| Timestamp::from_microsecond(us).ok()) {
            members.insert(name.to_owned(), time.to_string().into());
        }
    }
    Value::Object(members)
}
