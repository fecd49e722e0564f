//! Figures, sizes, scores.

use serde_json::{Value, json};
use sluice_http::openapi::{any, count, list, object, shape, text};

use super::{Shapes, by_name, join, moment, number, numbers, or_null, success, words};

pub(super) fn figures() -> Shapes {
    let terms = [
        ("periods_per_year", number()),
        ("timeframe", text()),
        ("rf", number()),
        ("alpha", number()),
        ("required_return", number()),
    ];
    let own = [
        ("returns", numbers()),
        ("equity", numbers()),
        ("prices", numbers()),
        ("trades", list(shape("Trade"))),
        ("benchmark", numbers()),
        ("trials", count()),
        ("trials_sharpe_variance", number()),
        ("value", number()),
        ("horizon", number()),
        ("metrics", list(text())),
    ];
    let bars = [
        ("data", shape("Data")),
        ("series", text()),
        ("from", moment()),
        ("to", moment()),
        ("last", count()),
    ];
    let told = [success(), ("metrics!", by_name()), ("warnings!", list(shape("Warning")))];
    let rows = |what: Value| json!({ "anyOf": [{ "type": "null" }, what] });
    vec![
        ("RiskWish", join(&[&own, &bars, &terms])),
        ("Risk", join(&[&told, &[("periods", count())]])),
        (
            "PerformanceWish",
            join(&[
                &[
                    ("trades", list(shape("Trade"))),
                    ("initial_equity", number()),
                    ("equity", numbers()),
                    ("times", list(json!({ "type": "integer" }))),
                ],
                &terms,
            ]),
        ),
        (
            "Performance",
            join(&[
                &told,
                &[
                    ("periods!", count()),
                    ("trades!", rows(any())),
                    ("drawdowns!", list(any())),
                    ("monthly!", rows(list(any()))),
                ],
            ]),
        ),
    ]
}

pub(super) fn sizes() -> Shapes {
    let wanted = [
        ("side!", words(&["buy", "sell"])),
        ("price!", number()),
        ("method!", text()),
        ("risk", number()),
        ("stop", number()),
        ("atr", number()),
        ("multiple", number()),
        ("point_value", number()),
        ("win_rate", number()),
        ("avg_win", number()),
        ("avg_loss", number()),
        ("fraction", number()),
        ("volatility", number()),
        ("target_volatility", number()),
        ("score", number()),
    ];
    let account = [
        ("equity!", number()),
        ("caps", shape("Caps")),
        ("lot_size", number()),
        ("min_quantity", number()),
        ("positions", list(object(&[("symbol!", text()), ("quantity!", number()), ("price!", number())]))),
        ("covariance", list(numbers())),
    ];
    let sized = [("quantity!", number()), ("bound!", or_null("string")), ("caps!", list(shape("Cut")))];
    let of_one = join(&[&[("id", text()), ("symbol!", text())], &wanted]);
    let told = join(&[&[("id!", text()), ("symbol!", text())], &sized]);
    vec![
        (
            "Caps",
            object(&[
                ("position_risk", number()),
                ("symbol_exposure", number()),
                ("gross_leverage", number()),
                ("net_leverage", number()),
                ("portfolio_var", number()),
                ("alpha", number()),
            ]),
        ),
        (
            "Cut",
            object(&[
                ("cap!", text()),
                ("limit!", or_null("number")),
                ("before!", number()),
                ("after!", number()),
            ]),
        ),
        ("SizeWish", join(&[&account, &[("symbol", text())], &wanted])),
        (
            "Size",
            join(&[
                &[
                    success(),
                    ("notional!", number()),
                    ("risk_amount!", or_null("number")),
                    ("stop!", or_null("number")),
                    ("target!", or_null("number")),
                    ("warnings!", list(shape("Warning"))),
                ],
                &sized,
            ]),
        ),
        ("PortfolioWish", join(&[&account, &[("positions_wanted!", list(of_one))]])),
        ("Sizes", object(&[success(), ("sizes!", list(told)), ("scale!", number())])),
    ]
}

pub(super) fn scores() -> Shapes {
    let given =
        ["sharpe", "max_drawdown", "win_rate", "cagr", "profit_factor"].map(|name| (name, or_null("number")));
    let scored = object(&[
        ("id!", text()),
        ("metrics", object(&given)),
        ("equity", numbers()),
        ("trades", list(shape("Trade"))),
        ("count", number()),
        ("days", number()),
        ("performance", number()),
    ]);
    let told = object(&[
        ("id!", text()),
        ("score!", number()),
        ("confidence", or_null("number")),
        ("parts!", by_name()),
        ("reasons!", list(any())),
    ]);
    let weight = object(&[("id!", text()), ("weight!", number())]);
    let change =
        |other: &'static str| object(&[("id!", text()), (other, or_null("string")), ("reason!", text())]);
    vec![
        (
            "ScoreWish",
            object(&[
                ("strategies!", list(scored)),
                ("max_count", number()),
                ("periods_per_year", number()),
                ("timeframe", text()),
                ("rf", number()),
            ]),
        ),
        ("Scores", object(&[success(), ("scores!", list(told))])),
        (
            "EnsembleWish",
            object(&[
                ("members!", list(object(&[("id!", text()), ("score!", number()), ("returns", numbers())]))),
                ("method!", words(&["score", "correlation"])),
                ("power", number()),
                ("max_weight", number()),
            ]),
        ),
        (
            "Ensemble",
            object(&[success(), ("weights!", list(weight)), ("method!", text()), ("effective!", number())]),
        ),
        (
            "RotationWish",
            object(&[
                (
                    "candidates!",
                    list(object(&[
                        ("id!", text()),
                        ("symbol", text()),
                        ("score!", number()),
                        ("held", count()),
                    ])),
                ),
                ("slots!", count()),
                ("floor", number()),
                ("margin", number()),
                ("min_hold", count()),
                ("max_changes", count()),
                ("per_symbol", count()),
            ]),
        ),
        (
            "Rotation",
            object(&[
                success(),
                ("keep!", list(text())),
                ("add!", list(change("replaces"))),
                ("drop!", list(change("replaced_by"))),
            ]),
        ),
    ]
}
