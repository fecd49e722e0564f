//! The shapes of bodies, as JSON Schema.

use serde_json::{Map, Value, json};
use sluice_http::openapi::{any, count, list, object, shape, text};

mod bars;
mod figures;
mod kept;

type Shapes = Vec<(&'static str, Value)>;
type Members<'a> = [(&'a str, Value)];

/// Every shape by its name.
pub(super) fn all() -> Map<String, Value> {
    let groups = [
        common(),
        bars::indicators(),
        bars::signals(),
        figures::figures(),
        figures::sizes(),
        figures::scores(),
        kept::jobs(),
        kept::series(),
    ];
    groups.into_iter().flatten().map(|(name, shape)| (name.to_owned(), shape)).collect()
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn numbers() -> Value {
    list(number())
}

fn or_null(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn words(words: &[&str]) -> Value {
    json!({ "enum": words })
}

fn either(shapes: &[Value]) -> Value {
    json!({ "anyOf": shapes })
}

fn success() -> (&'static str, Value) {
    ("success!", json!({ "const": true }))
}

/// Figures by name; null where one is not defined, which `warnings` explains.
fn by_name() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": ["number", "null"] } })
}

fn moment() -> Value {
    json!({ "type": ["integer", "string"], "description": "milliseconds since 1970, or like 2026-01-31T12:00:00Z" })
}

fn join(parts: &[&Members<'_>]) -> Value {
    object(&parts.concat())
}

/// Where the bars are: in `data`, or stored.
fn source() -> Vec<(&'static str, Value)> {
    vec![
        ("symbol", text()),
        ("timeframe", text()),
        ("data", shape("Data")),
        (
            "series",
            json!({ "type": "string", "description": "a stored series, SYMBOL/TIMEFRAME, in place of data" }),
        ),
        ("from", moment()),
        ("to", moment()),
        ("last", count()),
    ]
}

fn nan() -> Value {
    words(&["reject", "skip_leading", "propagate", "ffill"])
}

fn compat() -> Value {
    words(&["talib", "tradpal", "tradingview"])
}

fn output() -> Value {
    json!({ "type": "string", "pattern": "^(full|last|tail:[0-9]+)$" })
}

fn common() -> Shapes {
    let cell = || json!({ "type": ["number", "string", "null"] });
    let problem = object(&[
        ("type!", text()),
        ("title!", text()),
        ("status!", count()),
        ("code!", text()),
        ("detail", text()),
        ("instance", text()),
        ("request_id", text()),
        (
            "index",
            json!({ "type": "integer", "minimum": 0, "description": "the row or member at fault, from 0" }),
        ),
    ]);
    let binary = |about: &str| json!({ "type": "string", "description": about });
    vec![
        ("Problem", problem),
        ("Document", any()),
        (
            "Data",
            json!({
                "description": "Rows [time, open, high, low, close, volume]; records; columns by name; or a split frame.",
                "anyOf": [list(list(cell())), list(any()), any()],
            }),
        ),
        (
            "Arrow",
            binary(
                "Arrow's IPC stream; the request's other members stand in the schema's metadata, `sluice.request`",
            ),
        ),
        ("Columns", binary("SLCOLS1, a header as JSON, columns of f64 and i64; see the worker's DESIGN.md")),
        (
            "Csv",
            binary("a header, then a line a row; the request's other members stand in the query, `request`"),
        ),
        ("Frames", binary("server-sent events")),
        ("Warning", object(&[("metric!", text()), ("reason!", text()), ("detail!", text())])),
        (
            "Trade",
            object(&[
                ("pnl!", number()),
                ("return", or_null("number")),
                ("entry_time", or_null("integer")),
                ("exit_time", or_null("integer")),
                ("symbol", text()),
                ("side", words(&["buy", "sell", "long", "short"])),
            ]),
        ),
    ]
}
