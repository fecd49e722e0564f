//! The shapes of bodies, as JSON Schema.

use serde_json::{Map, Value, json};
use sluice_http::openapi::{any, count, flag, list, object, shape, text};

/// Every shape by its name.
pub(super) fn all() -> Map<String, Value> {
    [publishing(), reading(), groups(), keeping()].into_iter().flatten().collect()
}

type Shapes = Vec<(String, Value)>;

fn named(shapes: Vec<(&str, Value)>) -> Shapes {
    shapes.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect()
}

fn maybe_text() -> Value {
    json!({ "type": ["string", "null"] })
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn time() -> Value {
    json!({ "type": ["string", "integer"], "description": "ISO 8601, without a zone UTC, or milliseconds since 1970" })
}

fn one_or_many() -> Value {
    json!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
}

const COMMON: [&str; 4] = ["source", "event_id", "timestamp", "metadata"];

/// A body of a call that knows the type: its own member beside the common ones.
fn convenience(own: &[(&str, Value)]) -> Value {
    let mut members = own.to_vec();
    for name in COMMON {
        let shape = match name {
            "timestamp" => time(),
            "metadata" => any(),
            _ => text(),
        };
        members.push((name, shape));
    }
    object(&members)
}

fn publishing() -> Shapes {
    let event = |more: &[(&'static str, Value)]| {
        let own = [
            ("event_type!", json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })),
            ("event_id", json!({ "type": "string", "format": "uuid" })),
            ("timestamp", time()),
            ("source", text()),
            ("data", any()),
            ("metadata", any()),
        ];
        object(&[&own[..], more].concat())
    };
    let placed = [("message_id!", text()), ("seq!", count()), ("partition!", count())];
    let durability = json!({ "enum": ["fsync", "aof_always", "aof_everysec", "memory", "spooled"] });
    let published = [
        ("message_id!", text()),
        ("event_id!", text()),
        ("status!", json!({ "enum": ["published"] })),
        ("durability!", durability),
        ("duplicate!", flag()),
    ];
    let failed = object(&[
        ("index!", count()),
        ("status!", json!({ "enum": ["failed"] })),
        ("code!", text()),
        ("detail", text()),
        ("pointer", text()),
    ]);
    let stored = object(&[&[("index!", count())], &published[..]].concat());
    let result = json!({ "oneOf": [stored, failed] });
    let problem = object(&[
        ("type!", text()),
        ("title!", text()),
        ("status!", count()),
        ("code!", text()),
        ("detail", text()),
        ("request_id", text()),
        ("index", count()),
        ("pointer", text()),
    ]);
    named(vec![
        ("Problem", problem),
        ("Event", event(&[])),
        ("Stored", event(&placed)),
        (
            "CloudEvent",
            object(&[
                ("specversion!", json!({ "enum": ["1.0"] })),
                ("type!", text()),
                ("id!", text()),
                ("source!", text()),
                ("data", json!({})),
            ]),
        ),
        ("CloudEvents", list(shape("CloudEvent"))),
        ("MarketData", convenience(&[("symbol!", text()), ("market_data!", any())])),
        ("TradingSignal", convenience(&[("signal", any())])),
        ("PortfolioUpdate", convenience(&[("updates!", any())])),
        ("Published", object(&published)),
        (
            "Batch",
            object(&[
                ("events!", json!({ "type": "array", "maxItems": 1000, "items": shape("Event") })),
                ("atomic", flag()),
            ]),
        ),
        (
            "BatchDone",
            object(&[
                ("published!", count()),
                ("duplicates!", count()),
                ("failed!", count()),
                ("results!", list(result)),
            ]),
        ),
    ])
}

fn reading() -> Shapes {
    let speed =
        json!({ "oneOf": [{ "type": "number", "minimum": 0.1, "maximum": 1000 }, { "enum": ["max"] }] });
    let group = object(&[
        ("name!", text()),
        ("consumers!", count()),
        ("pending!", count()),
        ("last-delivered-id!", maybe_text()),
        ("lag!", count()),
        ("lag_seconds!", number()),
        ("dlq_depth!", count()),
    ]);
    let redis_group = object(&[
        ("name!", text()),
        ("consumers!", count()),
        ("pending!", count()),
        ("last-delivered-id!", text()),
        ("lag!", json!({ "type": ["integer", "null"] })),
    ]);
    let stats = object(&[
        ("stream!", text()),
        ("stream_length!", count()),
        ("last_seq!", count()),
        ("partitions!", count()),
        ("first_entry!", maybe_text()),
        ("last_entry!", maybe_text()),
        ("consumer_groups!", count()),
        ("groups!", list(group)),
        ("redis_groups", list(redis_group)),
        ("types!", json!({ "type": "object", "additionalProperties": count() })),
        ("bytes!", count()),
        ("segments!", count()),
        ("oldest_age_seconds!", number()),
        ("store!", json!({ "enum": ["embedded", "redis"] })),
    ]);
    let state = object(&[
        ("symbol!", text()),
        ("seq!", count()),
        ("partition!", count()),
        ("message_id!", text()),
        ("valid_at_seq", count()),
        ("timestamp!", text()),
        ("source!", text()),
        ("market_data!", any()),
    ]);
    let states = object(&[
        ("states!", list(shape("State"))),
        ("count!", count()),
        ("next_cursor!", maybe_text()),
        ("valid_at_seq!", count()),
        ("complete!", flag()),
    ]);
    let window = [
        ("event_type", one_or_many()),
        ("source", text()),
        ("symbol", text()),
        ("start_time", time()),
        ("end_time", time()),
        ("speed", speed.clone()),
        ("into", text()),
        ("session", flag()),
    ];
    named(vec![
        (
            "Events",
            object(&[
                ("events!", list(shape("Stored"))),
                ("count!", count()),
                ("next_cursor!", maybe_text()),
            ]),
        ),
        ("Replay", object(&window)),
        (
            "Replayed",
            object(&[
                ("status!", text()),
                ("events_replayed!", count()),
                ("republished_to!", maybe_text()),
                ("duplicates", count()),
            ]),
        ),
        (
            "Session",
            object(&[
                ("replay_id!", text()),
                ("url!", text()),
                ("state!", text()),
                ("speed!", speed.clone()),
                ("paused!", flag()),
                ("next_seq!", count()),
                ("last_seq!", count()),
            ]),
        ),
        ("SessionChange", object(&[("speed", speed), ("paused", flag()), ("seek", time())])),
        ("Stats", stats),
        (
            "Types",
            object(&[
                ("event_types!", list(text())),
                ("aliases!", json!({ "type": "object", "additionalProperties": text() })),
            ]),
        ),
        ("State", state),
        ("States", json!({ "oneOf": [shape("State"), states] })),
    ])
}

fn groups() -> Shapes {
    let filter = object(
        &["event_type", "source", "symbol", "start_time", "end_time"].map(|name| (name, one_or_many())),
    );
    let settings = [
        ("ack_wait", text()),
        ("max_deliver", count()),
        ("backoff", list(text())),
        ("order_key", json!({ "enum": ["symbol", "none"] })),
        ("filter", shape("GroupFilter")),
    ];
    let figures = [
        "lag",
        "pending",
        "waiting",
        "consumers",
        "delivered",
        "acked",
        "redeliveries",
        "dead_letters",
        "dlq_depth",
        "dlq_bytes",
        "skipped",
        "next_seq",
    ];
    let mut group = vec![("name", text()), ("created_at", text()), ("lag_seconds", number())];
    group.extend(settings.clone());
    group.extend(figures.map(|name| (name, count())));
    group.extend([("last-delivered-id", maybe_text()), ("consumer_list", list(any())), ("created", flag())]);
    let message = object(&[("message_id!", text()), ("delivery!", count()), ("event!", shape("Stored"))]);
    let letter = object(&[
        ("message_id!", text()),
        ("event!", any()),
        ("cause!", text()),
        ("attempts!", count()),
        ("consumer", maybe_text()),
        ("dead_at", text()),
    ]);
    let settle = [("consumer!", text()), ("ids!", list(text())), ("delay_ms", count()), ("reason", text())];
    let settled =
        [("acked", count()), ("nacked", count()), ("extended", count()), ("unknown!", list(text()))];
    named(vec![
        ("GroupFilter", filter),
        ("GroupSettings", object(&[&[("start", text())], &settings[..]].concat())),
        ("Group", object(&group)),
        (
            "Groups",
            object(&[("count!", count()), ("groups!", list(shape("Group"))), ("next_cursor!", maybe_text())]),
        ),
        ("Removed", object(&[("group!", text()), ("deleted!", flag())])),
        ("LeaseAsk", object(&[("consumer!", text()), ("max", count()), ("wait_ms", count())])),
        (
            "Lease",
            object(&[
                ("messages!", list(message)),
                ("lease_until!", maybe_text()),
                ("gap!", json!({ "type": ["object", "null"] })),
            ]),
        ),
        ("Settle", object(&settle)),
        ("Settled", object(&settled)),
        (
            "DeadLetters",
            object(&[("events!", list(letter)), ("count!", count()), ("next_cursor!", maybe_text())]),
        ),
        ("Purged", object(&[("deleted!", count())])),
        ("Redrive", object(&[("filter", shape("GroupFilter")), ("max", count()), ("rate", number())])),
        ("Redriven", object(&[("redriven!", count()), ("remaining!", count()), ("completes_at!", text())])),
    ])
}

fn keeping() -> Shapes {
    let mode = json!({ "enum": ["off", "warn", "enforce"] });
    let removed = object(&[("segments!", count()), ("events!", count()), ("bytes!", count())]);
    named(vec![
        (
            "Trim",
            object(&[
                ("age", text()),
                ("before", time()),
                ("bytes", count()),
                ("count", count()),
                ("stream", text()),
            ]),
        ),
        (
            "Trimmed",
            object(&[
                ("removed!", removed),
                ("stream_length!", count()),
                ("first_entry!", maybe_text()),
                ("last_entry!", maybe_text()),
                ("bytes!", count()),
            ]),
        ),
        (
            "Archived",
            object(&[
                ("archived!", list(any())),
                ("segments!", count()),
                ("events!", count()),
                ("bytes!", count()),
                ("held!", count()),
                ("left!", count()),
            ]),
        ),
        (
            "SchemaChange",
            object(&[("schema", json!({ "type": ["object", "boolean"] })), ("mode", mode.clone())]),
        ),
        (
            "Schema",
            object(&[
                ("event_type!", text()),
                ("version!", count()),
                ("mode!", mode),
                ("schema!", json!({ "type": ["object", "boolean"] })),
                ("versions!", list(any())),
            ]),
        ),
        ("Schemas", object(&[("count!", count()), ("schemas!", list(any()))])),
    ])
}
