//! `POST /calculations/signals`.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use sluice_calc::signal::{Action, Context, MEMBERS_MAX, Previous, STRATEGIES, Signal, Strategy};
use sluice_calc::{Bars, Compat, Param, Range, Value};
use sluice_wire::symbol::{Symbol, Timeframe};

use crate::body::{self, Incoming, WithData};
use crate::bounds::{COOL_DOWN_MS_MAX, ID_BYTES_MAX, SIGNALS_MAX};
use crate::data::{NanRule, Series};
use crate::encode;
use crate::error::Refusal;
use crate::indicators::{Answer, Output, compat_named, parameters, refusal};
use crate::negotiate::Format;
use crate::series::SeriesKey;
use crate::series::query::When;
use crate::series::source::{Means, Named, Source, missing};

/// The strategy that is a vote of others.
const COMBINED: &str = "combined";

/// The strategy of a request that names none.
const STRATEGY: &str = "ema_crossover";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    symbol: Option<Symbol>,
    timeframe: Option<Timeframe>,
    data: Option<Series>,
    /// A stored series in its place, and which of its rows.
    series: Option<String>,
    from: Option<When>,
    to: Option<When>,
    last: Option<usize>,
    #[serde(default)]
    strategy_config: Map<String, Json>,
    /// `full`: every bar whose signal is BUY or SELL; otherwise the newest bar.
    #[serde(default = "newest")]
    output: Output,
    #[serde(default)]
    nan: NanRule,
    compat: Option<String>,
    /// Sent by the platforms' older clients; a strategy brings its own indicators.
    #[serde(default, rename = "indicators")]
    _indicators: Option<serde::de::IgnoredAny>,
}

impl WithData for Request {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

impl Request {
    /// Its data, or rows of a stored series.
    fn source(&mut self, means: Means<'_>) -> Result<Source, Refusal> {
        let named = Named { series: self.series.take(), from: self.from, to: self.to, last: self.last };
        let (source, key) = named.or(self.data.take(), means)?.ok_or_else(missing)?;
        if let Some(SeriesKey { symbol, timeframe }) = key {
            self.symbol.get_or_insert(symbol);
            self.timeframe.get_or_insert(timeframe);
        }
        Ok(source)
    }
}

const fn newest() -> Output {
    Output::Tail(1)
}

/// A signal that is told, and the begin of its bar.
type Told = (Signal, Option<f64>);

/// Computes a body.
pub(crate) fn answer(
    incoming: Incoming,
    accepted: Option<Format>,
    means: Means<'_>,
) -> Result<Answer, Refusal> {
    let mut request: Request = body::read(incoming, means.rows_max)?;
    let compat = match &request.compat {
        Some(name) => compat_named(name)?,
        None => Compat::TaLib,
    };
    let cool_down_ms = take_cool_down(&mut request.strategy_config)?;
    let name = match request.strategy_config.get("name") {
        None => STRATEGY.to_owned(),
        Some(Json::String(name)) if name.len() <= ID_BYTES_MAX => name.clone(),
        Some(_) => {
            return Err(Refusal::Shape("strategy_config.name is a text of at most 64 bytes".to_owned()));
        }
    };
    let strategy = strategy(&name, compat, &mut request.strategy_config)?;
    let mut data = request.source(means)?;
    let from = data.check(means.rows_max, request.nan)?;
    let bars = data.bars(from)?;
    if let Some(missing) = strategy.columns().iter().find(|column| bars.column(**column).is_none()) {
        return Err(Refusal::Shape(format!("{name} needs the column {}", missing.name())));
    }
    let rows = bars.len();
    let first = match request.output {
        Output::Full => 0,
        Output::Tail(wanted) => rows - wanted.min(rows),
    };
    let time = |row: usize| data.time(from + row);
    let signals = evaluate(&request, &strategy, (&bars, &time), first, cool_down_ms)?;
    let format = accepted.unwrap_or(Format::Json);
    let bytes = if format == Format::Json {
        let told: Vec<Json> = signals.iter().map(|told| to_json(&request, told)).collect();
        let answer = json!({"success": true, "count": told.len(), "strategy": name, "signals": told});
        answer.to_string().into_bytes()
    } else {
        let about = [
            ("symbol", json!(request.symbol)),
            ("timeframe", json!(request.timeframe)),
            ("count", json!(signals.len())),
            ("strategy", json!(name)),
        ];
        table(format, &signals, about.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())?
    };
    Ok(Answer { bytes, format, rows, room: None })
}

/// Signals as columns, which hold numbers: an action is 1 to buy, -1 to sell, 0 to hold; `valid` is 1 or 0. Words of
/// reasons have no place in them.
fn table(format: Format, signals: &[Told], about: Map<String, Json>) -> Result<Vec<u8>, Refusal> {
    let column = |value: &dyn Fn(&Signal) -> f64| signals.iter().map(|(signal, _)| value(signal)).collect();
    let action = |signal: &Signal| match signal.action {
        Action::Buy => 1.0,
        Action::Sell => -1.0,
        Action::Hold => 0.0,
    };
    let mut columns: Vec<(String, Vec<f64>)> = vec![
        ("action".to_owned(), column(&action)),
        ("confidence".to_owned(), column(&|signal| signal.confidence)),
        ("price".to_owned(), column(&|signal| signal.price)),
        ("valid".to_owned(), column(&|signal| f64::from(u8::from(signal.validation.ok)))),
    ];
    // A strategy shows the same figures at every bar.
    for (name, _) in signals.first().map_or(&[][..], |(signal, _)| signal.figures.as_slice()) {
        let figure = |signal: &Signal| {
            let found = signal.figures.as_slice().iter().find(|(known, _)| known == name);
            found.map_or(f64::NAN, |(_, value)| *value)
        };
        columns.push((format!("indicators.{name}"), column(&figure)));
    }
    let times: Option<Vec<f64>> = signals.iter().map(|(_, time)| *time).collect();
    let (names, columns): (Vec<String>, Vec<Vec<f64>>) = columns.into_iter().unzip();
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    encode::table(Vec::new(), format, times.as_deref(), names, &columns, about)
}

fn take_cool_down(config: &mut Map<String, Json>) -> Result<u64, Refusal> {
    match config.remove("cool_down_ms") {
        None => Ok(0),
        Some(value) => value
            .as_u64()
            .filter(|ms| *ms <= COOL_DOWN_MS_MAX)
            .ok_or_else(|| Refusal::Parameter(format!("cool_down_ms is 0 to {COOL_DOWN_MS_MAX}"))),
    }
}

/// A strategy by name; a vote's members are strategies with a weight each.
fn strategy(name: &str, compat: Compat, config: &mut Map<String, Json>) -> Result<Strategy, Refusal> {
    let members = match config.remove("members") {
        None => {
            return Strategy::parse(name, compat, &parameters(config)?).map_err(|e| refusal(e, "strategy"));
        }
        Some(_) if name != COMBINED => Err("members belong to the strategy `combined`"),
        Some(Json::Array(members)) if members.len() <= MEMBERS_MAX => Ok(members),
        Some(_) => Err("strategy_config.members is a list of at most 8 strategies"),
    };
    let members = members.map_err(|text| Refusal::Shape(text.to_owned()))?;
    let members: Vec<(Strategy, f64)> =
        members.into_iter().map(|member| self::member(member, compat)).collect::<Result<_, _>>()?;
    Strategy::vote(members, compat, &parameters(config)?).map_err(|error| refusal(error, "strategy"))
}

fn member(given: Json, compat: Compat) -> Result<(Strategy, f64), Refusal> {
    let shape = || Refusal::Shape("a member is {\"name\": …, \"weight\": 1, …parameters}".to_owned());
    let Json::Object(mut config) = given else { return Err(shape()) };
    let weight = config.remove("weight").map_or(Some(1.0), |weight| weight.as_f64()).ok_or_else(shape)?;
    let name = config.remove("name").and_then(|name| Some(name.as_str()?.to_owned())).ok_or_else(shape)?;
    if name.len() > ID_BYTES_MAX || config.contains_key("members") {
        return Err(shape());
    }
    Ok((strategy(&name, compat, &mut config)?, weight))
}

/// Every bar is evaluated once; told are the wanted ones that act, and the newest unless all were
/// asked for.
fn evaluate(
    request: &Request,
    strategy: &Strategy,
    (bars, time_of): (&Bars<'_>, &impl Fn(usize) -> Option<f64>),
    first: usize,
    cool_down_ms: u64,
) -> Result<Vec<Told>, Refusal> {
    let newest = bars.len().checked_sub(1);
    let mut previous = None;
    let mut signals = Vec::new();
    let mut watcher = strategy.watcher();
    for (row, bar) in (0..bars.len()).filter_map(|row| Some((row, bars.bar(row)?))) {
        let time = time_of(row);
        let bar_time_ms = time.map_or(row as i64, |time| time as i64);
        let signal = watcher.next(bar, &Context { bar_time_ms, previous, cool_down_ms });
        if row < first {
            continue;
        }
        let acts = signal.action != Action::Hold;
        if acts && signal.validation.ok {
            previous = Some(Previous { action: signal.action, bar_time_ms });
        }
        if acts || (request.output != Output::Full && Some(row) == newest) {
            signals.push((signal, time));
        }
        if signals.len() > SIGNALS_MAX {
            return Err(Refusal::TooMuch(format!("more than {SIGNALS_MAX} signals; ask for fewer bars")));
        }
    }
    Ok(signals)
}

fn to_json(request: &Request, (signal, time): &Told) -> Json {
    let figures: Map<String, Json> = signal
        .figures
        .as_slice()
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Json::from(*value)))
        .collect();
    let reasons: Vec<&str> = signal.validation.faults.iter().map(sluice_calc::signal::Fault::code).collect();
    json!({
        "timestamp": time.map(|time| time as i64), "symbol": request.symbol, "timeframe": request.timeframe,
        "action": signal.action.name(), "confidence": signal.confidence, "indicators": figures,
        "price": signal.price, "reason": signal.reason.code(),
        "validation": {"ok": signal.validation.ok, "reasons": reasons},
    })
}

/// Every strategy with its parameters.
pub(crate) fn strategies() -> Json {
    let listed: Vec<Json> = STRATEGIES
        .iter()
        .map(|entry| json!({"name": entry.name, "summary": entry.summary, "parameters": describe(entry.params)}))
        .collect();
    json!({"count": listed.len(), "strategies": listed})
}

/// Parameters with default and range.
pub(crate) fn describe(params: &[Param]) -> Vec<Json> {
    let value = |value: Value<'_>| match value {
        Value::Number(number) => json!(number),
        Value::Word(word) => json!(word),
    };
    let range = |range: &Range| match range {
        Range::Whole { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Range::Real { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
        Range::Words(words) => json!({"enum": words}),
    };
    params
        .iter()
        .map(|param| {
            json!({"name": param.name, "default": value(param.default_under(Compat::TaLib)), "range": range(&param.range)})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &Json) -> Result<Json, Refusal> {
        let answer = answer(Incoming::of_json(body), None, Means { rows_max: 10_000, series: None })?;
        Ok(serde_json::from_slice(&answer.bytes).unwrap())
    }

    fn rows(closes: impl IntoIterator<Item = f64>) -> Vec<Json> {
        closes
            .into_iter()
            .enumerate()
            .map(|(at, close)| json!([at * 60_000, close, close, close, close, 1.0]))
            .collect()
    }

    #[test]
    fn the_newest_bar_is_answered_with_its_validation() {
        let falling = rows((0..40).map(|at| 100.0 - f64::from(at)));
        let answer = ask(
            &json!({"symbol": "X", "timeframe": "1m", "data": falling, "strategy_config": {"name": "rsi"}}),
        );
        let answer = answer.unwrap();
        let signal = &answer["signals"][0];
        assert_eq!((signal["action"].as_str(), signal["reason"].as_str()), (Some("BUY"), Some("oversold")));
        assert_eq!(signal["timestamp"], 39 * 60_000);
        assert_eq!(signal["validation"]["ok"], true);
        let flat = ask(&json!({"data": rows(vec![5.0; 40]), "strategy_config": {"name": "rsi"}})).unwrap();
        assert_eq!(flat["signals"][0]["action"], "HOLD");
        assert_eq!(flat["signals"][0]["validation"]["reasons"][0], "flat_window");
        let short = ask(&json!({"data": rows([1.0, 2.0])})).unwrap();
        assert_eq!(short["signals"][0]["validation"]["reasons"][0], "warm_up");
    }

    #[test]
    fn full_lists_every_bar_that_acts() {
        let wave = rows((0..300).map(|at| 100.0 + 10.0 * (f64::from(at) / 15.0).sin()));
        let answer = ask(&json!({"data": wave, "output": "full"})).unwrap();
        let signals = answer["signals"].as_array().unwrap();
        assert!(signals.len() >= 4, "{}", signals.len());
        assert!(signals.windows(2).all(|pair| pair[0]["action"] != pair[1]["action"]));
        let cooled = json!({"data": rows((0..300).map(|at| 100.0 + 10.0 * (f64::from(at) / 15.0).sin())), "output": "full",
                            "strategy_config": {"name": "ema_crossover", "cool_down_ms": 86_400_000}});
        let cooled = ask(&cooled).unwrap();
        assert_eq!(cooled["signals"][1]["validation"]["reasons"][0], "cool_down");
    }

    #[test]
    fn unknown_strategies_are_refused_with_a_hint() {
        match ask(&json!({"data": rows([1.0]), "strategy_config": {"name": "ema_crosover"}})) {
            Err(Refusal::Unknown { kind: "strategy", nearest, .. }) => {
                assert_eq!(nearest.as_deref(), Some("ema_crossover"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_bar_of_a_long_series_is_evaluated() {
        let wave = rows((0..10_000).map(|at| 100.0 + 10.0 * (f64::from(at) / 15.0).sin()));
        let answer = ask(&json!({"data": wave, "output": "full"})).unwrap();
        assert!(answer["count"].as_u64().unwrap() > 150, "{}", answer["count"]);
    }

    #[test]
    fn members_vote() {
        let falling = rows((0..60).map(|at| 200.0 - f64::from(at)));
        let config = |members: Json| {
            json!({"data": falling, "strategy_config":
                {"name": "combined", "threshold": 0.2, "members": members}})
        };
        let answer = ask(&config(json!([{"name": "rsi", "weight": 2}, {"name": "bb_reversal"}]))).unwrap();
        let signal = &answer["signals"][0];
        assert_eq!((signal["action"].as_str(), signal["reason"].as_str()), (Some("BUY"), Some("voted_buy")));
        assert_eq!(signal["indicators"], json!({"rsi": 1.0, "bb_reversal": 0.0}));
        assert_eq!(signal["confidence"], 2.0 * 0.6 / 3.0);
        let refused = |members: Json| ask(&config(members)).unwrap_err();
        assert!(matches!(refused(json!([])), Refusal::Parameter(_)));
        assert!(matches!(refused(json!("rsi")), Refusal::Shape(_)));
        assert!(matches!(refused(json!([{"weight": 1}])), Refusal::Shape(_)));
        assert!(matches!(refused(json!([{"name": "rsi"}, {"name": "rsi"}])), Refusal::Parameter(_)));
        assert!(matches!(refused(json!([{"name": "rsi", "weight": 0}])), Refusal::Parameter(_)));
        assert!(matches!(refused(json!([{"name": "rsj"}])), Refusal::Unknown { .. }));
        assert!(matches!(refused(json!([{"name": "combined", "members": []}])), Refusal::Shape(_)));
        let odd = json!({"data": falling, "strategy_config": {"name": "rsi", "members": []}});
        assert!(matches!(ask(&odd), Err(Refusal::Shape(_))));
    }

    #[test]
    fn a_missing_column_is_named() {
        let closes = json!({"data": {"close": vec![1.0; 50]}, "strategy_config": {"name": "breakout"}});
        assert_eq!(ask(&closes), Err(Refusal::Shape("breakout needs the column high".to_owned())));
    }
}
