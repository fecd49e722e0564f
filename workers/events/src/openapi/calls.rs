//! Every call: what it is asked, what it answers, what it needs.

use sluice_http::openapi::{ANY, Call, Parameter};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const STREAM: &str = "text/event-stream";
const CLOUD: &str = "application/cloudevents+json";
const CLOUDS: &str = "application/cloudevents-batch+json";

const WINDOW: &[Parameter] = &[
    ("event_type", "strings", "any of these types"),
    ("source", "string", "this source"),
    ("symbol", "string", "this symbol"),
    ("start_time", "string", "happened then or later: ISO 8601 or milliseconds since 1970"),
    ("end_time", "string", "happened then or before"),
];
const PAGE: &[Parameter] = &[
    ("limit", "integer", "at most so many; each call has its bound"),
    ("cursor", "string", "the `next_cursor` of the page before"),
];
const PLACES: &[Parameter] = &[
    ("order", "asc|desc", "oldest or newest first; asc without it"),
    ("after", "string", "stored behind this message id"),
    ("before", "string", "stored before this message id"),
    ("stream", "string", "a stream that a replay filled, in place of the main one"),
];
const SUBSCRIPTION: &[Parameter] = &[
    ("event_type", "strings", "any of these types"),
    ("source", "strings", "any of these sources"),
    ("symbol", "strings", "any of these symbols"),
    ("start_time", "string", "happened then or later"),
    ("end_time", "string", "happened then or before"),
    ("from", "string", "now, earliest, behind a message id, or stored at a time; now without it"),
    ("last_event_id", "string", "as the header Last-Event-ID, which wins: go on behind this event"),
    ("mode", "all|conflate", "each event, or the newest of each type and symbol"),
    ("max_rate", "number", "events a second at most; with conflate of each type and symbol"),
    ("snapshot", "true", "begin with the newest market data of each symbol"),
    ("on_slow", "catch_up|conflate|drop|disconnect", "what becomes of a subscriber that falls behind"),
];
const REPLAY: &[Parameter] = &[
    ("speed", "string", "market time divided by 0.1 to 1000, or max"),
    (
        "into",
        "string",
        "stream:NAME: store copies there; group:NAME: hand them out to a group again, which needs events:admin",
    ),
    ("session", "true", "begin a session whose clock can be set"),
];
const AT: &[Parameter] = &[("at", "string", "as of this event time")];

const EVENT: &[(&str, &str)] = &[(JSON, "Event"), (CLOUD, "CloudEvent"), (CLOUDS, "CloudEvents")];

const fn call(method: &'static str, path: &'static str, summary: &'static str, scope: &'static str) -> Call {
    Call::new(method, path, summary, scope)
}

const PUBLISH: &str = "events:publish";
const READ: &str = "events:read";
const ADMIN: &str = "events:admin";
/// Either of two.
const MAKE: &str = "events:admin` or `events:group:NAME";

/// Every call of the worker's port.
pub(super) const CALLS: &[Call] = &[
    call("post", "/events", "Publish an event", PUBLISH).needs(EVENT).answers("Stored.", "Published"),
    call("get", "/events", "List events", READ)
        .query(&[WINDOW, PAGE, PLACES])
        .answers("A page; NDJSON and CloudEvents by Accept.", "Events"),
    call("post", "/events/market-data", "Publish market data of a symbol", PUBLISH)
        .needs(&[(JSON, "MarketData")])
        .answers("Stored.", "Published"),
    call("post", "/events/trading-signal", "Publish a signal", PUBLISH)
        .needs(&[(JSON, "TradingSignal")])
        .answers("Stored.", "Published"),
    call("post", "/events/portfolio-update", "Publish changes of a portfolio", PUBLISH)
        .needs(&[(JSON, "PortfolioUpdate")])
        .answers("Stored.", "Published"),
    call("post", "/events/batch", "Publish up to 1000 events", PUBLISH)
        .query(&[&[("atomic", "true", "all or nothing; for NDJSON, which has no place for it")]])
        .needs(&[(JSON, "Batch"), (LINES, "Event")])
        .answers("What became of each.", "BatchDone"),
    call(
        "post",
        "/events/replay",
        "Count, send, store elsewhere, or begin a session over a window of events",
        READ,
    )
    .query(&[WINDOW, REPLAY])
    .takes(&[(JSON, "Replay")])
    .answers(
        "Counted or stored; with an Accept of event stream or NDJSON the events; 202 with a session.",
        "Replayed",
    ),
    call("get", "/events/replay/{id}", "How a replay session is", READ).answers("The session.", "Session"),
    call("patch", "/events/replay/{id}", "Set speed, pause or place of a session", READ)
        .needs(&[(JSON, "SessionChange")])
        .answers("The session.", "Session"),
    call("delete", "/events/replay/{id}", "End a session", READ).answers("Ended.", "").by("204", ""),
    call("get", "/events/replay/{id}/stream", "Watch a session", READ)
        .query(&[&[("last_event_id", "string", "as the header Last-Event-ID, which wins")]])
        .answers("Events, then `replay_complete`; 204 behind the end.", "")
        .by("200", STREAM),
    call("post", "/admin/archive", "Close the segment being written and copy every full one", ADMIN)
        .answers("What was copied.", "Archived"),
    call("get", "/events/stats", "What the stream holds", READ)
        .query(&[&[("stream", "string", "a stream that a replay filled, in place of the main one")]])
        .answers("Figures.", "Stats"),
    call("get", "/events/types", "Types of the catalogue", ANY).answers("Names and aliases.", "Types"),
    call("get", "/events/stream", "Follow the stream as server-sent events", READ)
        .query(&[SUBSCRIPTION])
        .answers("Frames with `id`, `event` and `data`; `gap` and `disconnect` tell what is missed.", "")
        .by("200", STREAM),
    call("get", "/events/ws", "Follow the stream over a WebSocket", READ)
        .answers(
            "The protocol is changed; what is wanted is said in messages, with the names of /events/stream.",
            "",
        )
        .by("101", ""),
    call("get", "/events/{id}", "One event, by event id or message id", READ).answers("The event.", "Stored"),
    call("post", "/admin/retention", "Drop whole segments by hand", ADMIN)
        .needs(&[(JSON, "Trim")])
        .answers("What went, what is left.", "Trimmed"),
    call("get", "/schemas", "Event types with a schema", READ)
        .answers("Each with its mode and figures.", "Schemas"),
    call("get", "/schemas/{event_type}", "The schema of a type", READ)
        .query(&[&[("version", "integer", "an older one")]])
        .answers("The schema.", "Schema"),
    call("put", "/schemas/{event_type}", "Set schema or mode of a type", ADMIN)
        .needs(&[(JSON, "SchemaChange")])
        .answers("The schema in force.", "Schema"),
    call("delete", "/schemas/{event_type}", "Take the schema of a type away", ADMIN)
        .answers("Gone.", "")
        .by("204", ""),
    call("get", "/state", "Newest market data of a symbol, or of all in pages", READ)
        .query(&[&[("symbol", "string", "of this symbol alone")], AT, PAGE])
        .answers("A state; without a symbol a page of them.", "States"),
    call("get", "/state/{symbol}", "Newest market data of a symbol", READ)
        .query(&[AT])
        .answers("The state.", "State"),
    call("get", "/groups", "Consumer groups", READ).query(&[PAGE]).answers("A page.", "Groups"),
    call("get", "/groups/{group}", "One consumer group", READ)
        .answers("The group with its consumers.", "Group"),
    call("put", "/groups/{group}", "Create or change a group", MAKE)
        .needs(&[(JSON, "GroupSettings")])
        .answers("The group.", "Group"),
    call("delete", "/groups/{group}", "Remove a group", ADMIN).answers("Removed.", "Removed"),
    call("post", "/groups/{group}/lease", "Take messages", READ)
        .needs(&[(JSON, "LeaseAsk")])
        .answers("Messages until a time.", "Lease"),
    call("post", "/groups/{group}/ack", "Messages are done", READ)
        .needs(&[(JSON, "Settle")])
        .answers("Those that were held, and ids that were not.", "Settled"),
    call("post", "/groups/{group}/nack", "Messages failed", READ)
        .needs(&[(JSON, "Settle")])
        .answers("Those that were held, and ids that were not.", "Settled"),
    call("post", "/groups/{group}/extend", "Messages take longer", READ)
        .needs(&[(JSON, "Settle")])
        .answers("Those that were held, and ids that were not.", "Settled"),
    call("get", "/groups/{group}/dlq", "Dead letters of a group", READ)
        .query(&[WINDOW, PAGE])
        .answers("A page, each with cause and attempts.", "DeadLetters"),
    call("delete", "/groups/{group}/dlq", "Throw dead letters away", ADMIN).answers("How many.", "Purged"),
    call("post", "/groups/{group}/dlq/redrive", "Hand dead letters out again", ADMIN)
        .needs(&[(JSON, "Redrive")])
        .answers("How many, and until when.", "Redriven"),
    call("get", "/openapi.json", "This document", ANY).open().answers("OpenAPI 3.1.", ""),
];
