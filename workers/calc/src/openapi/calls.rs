//! Every call: what it is asked, what it answers, what it needs.

use sluice_http::openapi::{ANY, Call, Parameter};

const JSON: &str = "application/json";
const ARROW: &str = "application/vnd.apache.arrow.stream";
const COLUMNS: &str = "application/x-sluice-columns";
const CSV: &str = "text/csv";
const STREAM: &str = "text/event-stream";

/// The other forms of an answer with columns.
const FORMS: &[(&str, &str)] = &[(ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")];

const REQUEST: &[Parameter] =
    &[("request", "string", "with a body of text/csv: the other members of the request, as JSON")];
const PAGE: &[Parameter] =
    &[("limit", "integer", "at most so many"), ("cursor", "string", "the `next_cursor` of the page before")];
const ROWS: &[Parameter] = &[
    ("from", "string", "bars that begin then or later: ISO 8601 or milliseconds since 1970"),
    ("to", "string", "bars that begin before"),
    ("last", "integer", "of those the newest so many"),
];
const STATUS: &[Parameter] = &[("status", "queued|running|done|failed|cancelled", "jobs that stand so")];
const NAMES: &[Parameter] = &[
    ("names", "string", "indicators: names with commas between, or a JSON list as in `indicators`"),
    ("compat", "talib|tradpal|tradingview", "whose conventions; talib without it"),
];
const LAST: &[Parameter] = &[("last", "integer", "the newest so many bars; 1 without it")];

const READ: &str = "read";
const WRITE: &str = "write";

const fn call(method: &'static str, path: &'static str, summary: &'static str, scope: &'static str) -> Call {
    Call::new(method, path, summary, scope)
}

const fn signals(path: &'static str) -> Call {
    call("post", path, "Signals of a strategy on bars", READ)
        .query(&[REQUEST])
        .needs(&[(JSON, "SignalsWish"), (ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")])
        .answers("Signals of the bars asked for.", "Signals")
        .or(FORMS)
}

const fn ensemble(path: &'static str) -> Call {
    call("post", path, "Weights of strategies", READ)
        .needs(&[(JSON, "EnsembleWish")])
        .answers("A weight for each.", "Ensemble")
}

const fn rotation(path: &'static str) -> Call {
    call("post", path, "Which strategies run next", READ)
        .needs(&[(JSON, "RotationWish")])
        .answers("Who stays, comes and goes.", "Rotation")
}

/// Every call of the worker's port.
pub(super) const CALLS: &[Call] = &[
    call("post", "/calculations/indicators", "Indicators of bars", READ)
        .query(&[REQUEST])
        .needs(&[(JSON, "IndicatorsWish"), (ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")])
        .answers("A column of each output, as long as the data unless less was asked for.", "Indicators")
        .or(FORMS),
    signals("/calculations/signals"),
    signals("/calculations/signals/generate"),
    call("post", "/calculations/risk", "Risk figures of returns, equity, prices, bars or trades", READ)
        .query(&[REQUEST])
        .needs(&[(JSON, "RiskWish"), (ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")])
        .answers("Figures; null with a reason where one is not defined.", "Risk"),
    call("post", "/calculations/performance", "Everything about an account or its trades", READ)
        .needs(&[(JSON, "PerformanceWish")])
        .answers("Figures, the deepest falls, months.", "Performance"),
    call("post", "/calculations/search", "Search a strategy's parameters", READ)
        .query(&[REQUEST])
        .needs(&[(JSON, "SearchWish"), (ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")])
        .answers("Taken; `url` tells how far it is.", "JobTaken")
        .by("202", JSON),
    call("get", "/calculations/search", "Jobs, newest first: the caller's, or all for `admin`", READ)
        .query(&[PAGE, STATUS])
        .answers("A page.", "Jobs"),
    call("get", "/calculations/search/{job}", "A job, and its result once it has one", READ)
        .answers("How far it is; with `Accept: text/event-stream` told as it changes.", "Job")
        .or(&[(STREAM, "Frames")]),
    call("delete", "/calculations/search/{job}", "Cancel a job, or remove one that has ended", READ)
        .answers("What became of it.", "JobEnded"),
    call("post", "/calculations/position-size", "How much of one symbol to hold", READ)
        .needs(&[(JSON, "SizeWish")])
        .answers("A quantity, and each limit that cut it, in order.", "Size"),
    call("post", "/calculations/portfolio/size", "How much of many symbols to hold", READ)
        .needs(&[(JSON, "PortfolioWish")])
        .answers("A quantity for each, and each limit that cut it.", "Sizes"),
    call("post", "/calculations/strategies/score", "Scores of strategies", READ)
        .needs(&[(JSON, "ScoreWish")])
        .answers("Best first.", "Scores"),
    ensemble("/calculations/strategies/ensemble"),
    ensemble("/calculations/ensemble"),
    rotation("/calculations/strategies/rotate"),
    rotation("/calculations/rotate"),
    call("get", "/calculations/catalog", "Every indicator: parameters, defaults, outputs, lookback", READ)
        .answers("All of them.", "Catalogue"),
    call("get", "/calculations/universe", "The symbols worth looking at, by rank", READ)
        .answers("The universe.", "Universe"),
    call("put", "/calculations/universe", "Replace the universe", WRITE)
        .needs(&[(JSON, "UniverseWish")])
        .answers("What it is now.", "Universe"),
    call("get", "/calculations/strategies", "Strategies that signal, with their parameters", READ)
        .answers("All of them.", "Strategies"),
    call("post", "/calculations/strategies/discover", "Search parameters of strategies by name", WRITE)
        .query(&[REQUEST])
        .needs(&[(JSON, "DiscoveryWish"), (ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")])
        .answers("Taken; what is found is published as `strategy_discovered`.", "JobTaken")
        .by("202", JSON),
    call(
        "get",
        "/calculations/strategies/{id}",
        "A strategy: one of the catalogue, or one that was found",
        READ,
    )
    .answers("What it is.", "Strategy"),
    call("get", "/series", "Stored series", READ).query(&[PAGE]).answers("A page.", "SeriesPage"),
    call("get", "/series/{symbol}/{timeframe}", "Candles of a series, oldest first", READ)
        .query(&[ROWS, PAGE])
        .answers("A page.", "Candles")
        .or(FORMS),
    call("put", "/series/{symbol}/{timeframe}", "Begin a series, or replace it", WRITE)
        .query(&[REQUEST])
        .needs(&[(JSON, "CandlesGiven"), (ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")])
        .answers("It is on the disk: 201 where there was none.", "SeriesPut")
        .by("2XX", JSON),
    call("delete", "/series/{symbol}/{timeframe}", "Remove a series", WRITE)
        .answers("It is gone.", "SeriesGone"),
    call(
        "post",
        "/series/{symbol}/{timeframe}/candles",
        "Append candles; repeating it changes nothing",
        WRITE,
    )
    .query(&[REQUEST])
    .needs(&[(JSON, "CandlesGiven"), (ARROW, "Arrow"), (COLUMNS, "Columns"), (CSV, "Csv")])
    .answers("They are on the disk.", "Applied"),
    call("get", "/series/{symbol}/{timeframe}/gaps", "Bars that are missing", READ)
        .query(&[PAGE])
        .answers("A page.", "Gaps"),
    call("get", "/series/{symbol}/{timeframe}/indicators", "Indicators of the newest bars", READ)
        .query(&[NAMES, LAST])
        .answers("Their values, and those with the open bar.", "LiveIndicators"),
    call(
        "get",
        "/series/{symbol}/{timeframe}/indicators/stream",
        "Indicators of each bar as it closes",
        READ,
    )
    .query(&[NAMES])
    .answers("Server-sent events `indicator`; `Last-Event-ID` goes on behind a bar.", "Frames")
    .by("200", STREAM),
    call("get", "/openapi.json", "This document", ANY).open().answers("OpenAPI 3.1.", "Document"),
];
