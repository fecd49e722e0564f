//! Indicators and signals of bars.

use serde_json::{Value, json};
use sluice_http::openapi::{any, count, flag, list, object, shape, text};

use super::{
    Shapes, by_name, compat, either, join, nan, number, numbers, or_null, output, source, success, words,
};

pub(super) fn indicators() -> Shapes {
    let column = json!({ "type": "array", "items": { "type": ["number", "null"] } });
    let asked = either(&[
        text(),
        json!({
            "type": "object", "required": ["name"], "properties": { "name": text(), "id": text() },
            "additionalProperties": { "type": ["number", "string"] },
        }),
    ]);
    let of_id = json!({ "type": "object", "additionalProperties": { "type": "object", "additionalProperties": column } });
    let flat = json!({ "type": "object", "additionalProperties": column });
    let by_compat =
        |shape: Value| object(&["talib!", "tradpal!", "tradingview!"].map(|name| (name, shape.clone())));
    let value = || json!({ "type": ["number", "string"] });
    vec![
        (
            "IndicatorsWish",
            join(&[
                &source(),
                &[
                    ("indicators!", list(asked)),
                    ("output", output()),
                    ("nan", nan()),
                    ("compat", compat()),
                    ("unstable", count()),
                    ("reduce", words(&["none", "last"])),
                    ("format", words(&["json", "arrow", "columns", "csv"])),
                    ("strategy_config", json!({})),
                ],
            ]),
        ),
        (
            "Indicators",
            object(&[
                success(),
                ("symbol", or_null("string")),
                ("timeframe", or_null("string")),
                ("count!", count()),
                ("begin", json!({ "type": "object", "additionalProperties": count() })),
                ("indicators!", either(&[of_id, flat])),
                ("lookback", json!({ "type": "object", "additionalProperties": count() })),
            ]),
        ),
        (
            "Parameter",
            object(&[
                ("name!", text()),
                ("default!", value()),
                ("defaults", by_compat(value())),
                (
                    "range!",
                    object(&[
                        ("type", words(&["integer", "number"])),
                        ("minimum", number()),
                        ("maximum", number()),
                        ("enum", list(text())),
                    ]),
                ),
            ]),
        ),
        (
            "Catalogue",
            object(&[
                ("count!", count()),
                (
                    "indicators!",
                    list(object(&[
                        ("name!", text()),
                        ("aliases!", list(text())),
                        ("summary!", text()),
                        ("columns!", list(text())),
                        ("parameters!", list(shape("Parameter"))),
                        ("outputs!", list(text())),
                        ("lookback!", by_compat(count())),
                        ("shift!", list(json!({ "type": "integer" }))),
                    ])),
                ),
            ]),
        ),
    ]
}

pub(super) fn signals() -> Shapes {
    let signal = object(&[
        ("timestamp!", or_null("integer")),
        ("symbol!", or_null("string")),
        ("timeframe!", or_null("string")),
        ("action!", words(&["BUY", "SELL", "HOLD"])),
        ("confidence!", number()),
        ("indicators!", by_name()),
        ("price!", number()),
        ("reason!", text()),
        ("validation!", object(&[("ok!", flag()), ("reasons!", list(text()))])),
    ]);
    let gene = object(&[
        ("name!", text()),
        ("min!", number()),
        ("max!", number()),
        ("whole!", flag()),
        ("range!", numbers()),
    ]);
    let of_rule = [
        ("kind", words(&["rule"])),
        ("name!", text()),
        ("summary!", text()),
        ("columns!", list(text())),
        ("parameters!", list(gene)),
    ];
    let signalling = [("name!", text()), ("summary!", text()), ("parameters!", list(shape("Parameter")))];
    vec![
        (
            "SignalsWish",
            join(&[
                &source(),
                &[
                    (
                        "strategy_config",
                        json!({
                            "type": "object", "description": "name, and the strategy's parameters; cool_down_ms; members of a vote",
                            "properties": { "name": text(), "cool_down_ms": count(), "members": list(any()) },
                            "additionalProperties": { "type": ["number", "string"] },
                        }),
                    ),
                    ("output", output()),
                    ("nan", nan()),
                    ("compat", compat()),
                    ("indicators", json!({})),
                ],
            ]),
        ),
        (
            "Signals",
            object(&[success(), ("count!", count()), ("strategy!", text()), ("signals!", list(signal))]),
        ),
        ("Strategies", object(&[("count!", count()), ("strategies!", list(object(&signalling)))])),
        (
            "Strategy",
            either(&[
                join(&[&signalling, &[("search", object(&of_rule))]]),
                object(&of_rule),
                shape("Discovered"),
            ]),
        ),
    ]
}
