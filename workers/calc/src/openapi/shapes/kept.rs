//! Jobs, the universe, stored series.

use serde_json::json;
use sluice_http::openapi::{any, count, flag, list, object, shape, text};

use super::{Shapes, by_name, either, join, moment, nan, number, numbers, or_null, source, success, words};

pub(super) fn jobs() -> Shapes {
    let values = either(&[number(), numbers(), object(&[("range!", numbers())])]);
    let status = words(&["queued", "running", "done", "failed", "cancelled"]);
    let progress = object(&[
        ("percent!", number()),
        ("done!", count()),
        ("total!", count()),
        ("combinations_per_s!", number()),
        ("best!", or_null("object")),
    ]);
    let record = [
        ("job!", text()),
        ("kind!", words(&["search", "discover"])),
        ("status!", status.clone()),
        ("owner!", text()),
        ("strategy!", text()),
        ("rows!", count()),
        ("combinations!", count()),
        ("total!", count()),
        ("done!", count()),
        ("combinations_per_s!", number()),
        ("seed!", count()),
        ("created!", count()),
        ("finished!", or_null("integer")),
        ("error", object(&[("code!", text()), ("detail!", text())])),
        ("request", text()),
        ("outbox", words(&["waits", "published", "refused"])),
        ("progress!", progress),
    ];
    // Both spellings of the platform are taken.
    let asked = [
        ("symbol", text()),
        ("strategyName", text()),
        ("startTime", moment()),
        ("endTime", moment()),
        ("topN", count()),
        ("gaConfig", object(&[("maxGenerations", count()), ("populationSize", count())])),
        ("timeframe", text()),
        ("seed", count()),
    ];
    let many = [("requests", list(object(&asked))), ("data", shape("Data"))];
    vec![
        (
            "SearchWish",
            join(&[
                &source(),
                &[
                    ("strategy!", text()),
                    ("parameters", json!({ "type": "object", "additionalProperties": values })),
                    ("method", words(&["grid", "genetic"])),
                    (
                        "genetic",
                        object(&[
                            ("population", count()),
                            ("generations", count()),
                            ("mutation", number()),
                            ("crossover", number()),
                            ("tournament", count()),
                        ]),
                    ),
                    ("mode", words(&["long", "both"])),
                    ("fee", number()),
                    ("slippage", number()),
                    ("periods_per_year", number()),
                    ("rank", words(&["sharpe", "score", "calmar", "total_return"])),
                    ("top_n", count()),
                    ("seed", count()),
                    (
                        "walk_forward",
                        object(&[
                            ("train!", count()),
                            ("test!", count()),
                            ("step", count()),
                            ("min_windows", count()),
                        ]),
                    ),
                    ("nan", nan()),
                ],
            ]),
        ),
        (
            "JobTaken",
            object(&[
                success(),
                ("job!", text()),
                ("status!", status.clone()),
                ("combinations!", count()),
                ("total!", count()),
                ("seed!", count()),
                ("url!", text()),
            ]),
        ),
        ("Job", join(&[&record, &[("result", any())]])),
        (
            "Jobs",
            object(&[
                success(),
                ("count!", count()),
                ("jobs!", list(object(&record))),
                ("next_cursor!", or_null("string")),
            ]),
        ),
        ("JobEnded", object(&[success(), ("job!", text()), ("status!", status), ("removed!", flag())])),
        ("DiscoveryWish", either(&[join(&[&asked, &many]), list(object(&asked))])),
        (
            "Discovered",
            object(&[
                ("kind", words(&["discovered"])),
                ("id!", text()),
                ("strategy!", object(&[("strategyName!", text()), ("parameters!", any())])),
                ("score!", or_null("number")),
                ("symbol!", text()),
                ("startTime!", or_null("string")),
                ("endTime!", or_null("string")),
                ("metrics!", by_name()),
            ]),
        ),
        (
            "Universe",
            object(&[
                ("symbols!", list(text())),
                ("updated!", or_null("string")),
                ("source!", or_null("string")),
                ("version!", count()),
            ]),
        ),
        (
            "UniverseWish",
            object(&[
                ("symbols!", list(text())),
                ("source", or_null("string")),
                ("version", or_null("integer")),
            ]),
        ),
    ]
}

pub(super) fn series() -> Shapes {
    let of = || [("symbol!", text()), ("timeframe!", text())];
    let gap = object(&[("from!", count()), ("to!", count()), ("missing!", count())]);
    let begins = list(object(&[("timestamp!", count())]));
    let open = json!({ "anyOf": [{ "type": "null" }, numbers()] });
    let cursor = || ("next_cursor!", or_null("string"));
    let ends = || [("first!", or_null("integer")), ("last!", or_null("integer"))];
    let kept = ("durability!", words(&["fsync"]));
    let listed =
        join(&[&of(), &[("rows!", count())], &ends(), &[("open!", or_null("integer")), ("bytes!", count())]]);
    let values = json!({ "type": "object", "additionalProperties": by_name() });
    let columns = json!({ "type": "object", "additionalProperties": {
        "type": "object", "additionalProperties": { "type": "array", "items": { "type": ["number", "null"] } },
    } });
    let with_open = object(&[("timestamp!", count()), ("values!", values)]);
    vec![
        (
            "CandlesGiven",
            object(&[("data!", shape("Data")), ("open", flag()), ("symbol", text()), ("timeframe", text())]),
        ),
        ("SeriesPage", object(&[("series!", list(listed)), cursor()])),
        (
            "Candles",
            join(&[
                &of(),
                &[
                    ("count!", count()),
                    ("total!", count()),
                    ("open!", open.clone()),
                    cursor(),
                    ("data!", list(numbers())),
                ],
            ]),
        ),
        (
            "SeriesPut",
            join(&[
                &of(),
                &[("rows!", count())],
                &ends(),
                &[("open!", open), ("gaps!", list(gap.clone())), ("more_gaps!", flag()), kept.clone()],
            ]),
        ),
        ("SeriesGone", object(&[("deleted!", json!({ "const": true })), ("rows!", count())])),
        (
            "Applied",
            join(&[
                &of(),
                &[
                    ("applied!", count()),
                    ("repeated!", count()),
                    ("updated_open!", count()),
                    ("conflicts!", begins.clone()),
                    ("conflict_count!", count()),
                    ("late!", begins),
                    ("late_count!", count()),
                    ("gaps!", list(gap.clone())),
                    ("gap_count!", count()),
                    ("rows!", count()),
                    kept,
                ],
            ]),
        ),
        ("Gaps", join(&[&of(), &[("rows!", count()), ("gaps!", list(gap)), cursor()]])),
        (
            "LiveIndicators",
            join(&[
                &of(),
                &[
                    ("rows!", count()),
                    ("count!", count()),
                    ("timestamps!", list(count())),
                    ("indicators!", columns),
                    ("open!", json!({ "anyOf": [{ "type": "null" }, with_open] })),
                ],
            ]),
        ),
    ]
}
