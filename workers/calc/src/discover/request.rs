//! Requests for discovery as they are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use sluice_calc::search::{Genetic, NOT_EXPRESSED, Rule, find};
use sluice_wire::symbol::{Symbol, Timeframe};

use super::{Ask, Plan, Prices};
use crate::body::{self, Incoming, WithData};
use crate::bounds::{
    DISCOVER_BARS_MAX, DISCOVER_REQUESTS_MAX, DISCOVER_TOP_MAX, DISCOVER_TRIED_MAX, SEED_MAX,
};
use crate::data::{NanRule, Series};
use crate::error::Refusal;
use crate::figures;
use crate::negotiate::Format;
use crate::search::{checked, fnv, top, tried};
use crate::series::query::When;
use crate::series::{SeriesKey, View};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Evolution {
    #[serde(default, alias = "maxGenerations")]
    max_generations: usize,
    #[serde(default, alias = "populationSize")]
    population_size: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    symbol: Symbol,
    #[serde(alias = "startTime")]
    start_time: Option<When>,
    #[serde(alias = "endTime")]
    end_time: Option<When>,
    #[serde(alias = "strategyName")]
    strategy_name: String,
    #[serde(default, alias = "topN")]
    top_n: usize,
    #[serde(alias = "gaConfig")]
    ga_config: Option<Evolution>,
    timeframe: Option<Timeframe>,
    seed: Option<u64>,
}

/// Requests with data beside them, or one with its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    requests: Option<Vec<Request>>,
    data: Option<Series>,
    symbol: Option<Symbol>,
    #[serde(alias = "startTime")]
    start_time: Option<When>,
    #[serde(alias = "endTime")]
    end_time: Option<When>,
    #[serde(alias = "strategyName")]
    strategy_name: Option<String>,
    #[serde(default, alias = "topN")]
    top_n: usize,
    #[serde(alias = "gaConfig")]
    ga_config: Option<Evolution>,
    timeframe: Option<Timeframe>,
    seed: Option<u64>,
}

impl WithData for Envelope {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

impl Envelope {
    /// The requests in it, and the data beside them.
    fn open(self) -> Result<(Vec<Request>, Option<Series>), Refusal> {
        let shape = |text: &str| Refusal::Shape(text.to_owned());
        let is_one = self.symbol.is_some() || self.strategy_name.is_some();
        let requests = match (self.requests, self.symbol, self.strategy_name) {
            (Some(_), ..) if is_one => return Err(shape("requests stand alone or one request, not both")),
            (Some(requests), ..) => requests,
            (None, Some(symbol), Some(strategy_name)) => vec![Request {
                symbol,
                start_time: self.start_time,
                end_time: self.end_time,
                strategy_name,
                top_n: self.top_n,
                ga_config: self.ga_config,
                timeframe: self.timeframe,
                seed: self.seed,
            }],
            _ => return Err(shape("symbol and strategyName are needed, or requests")),
        };
        Ok((requests, self.data))
    }
}

/// Reads and checks a body. `stored` finds stored series.
pub(crate) fn plan(
    incoming: Incoming,
    rows_max: usize,
    job: String,
    stored: &dyn Fn(&SeriesKey) -> Option<Arc<View>>,
) -> Result<Plan, Refusal> {
    let is_list = incoming.format == Format::Json && incoming.bytes.trim_ascii_start().starts_with(b"[");
    let (requests, data) = if is_list {
        (sluice_wire::json::from_slice::<Vec<Request>>(&incoming.bytes)?, None)
    } else {
        body::read::<Envelope>(incoming, rows_max)?.open()?
    };
    if !(1..=DISCOVER_REQUESTS_MAX).contains(&requests.len()) {
        return Err(Refusal::TooMuch(format!("1 to {DISCOVER_REQUESTS_MAX} requests are served at once")));
    }
    let bytes = data.as_ref().map_or(0, |data| data.close.len() * 6 * size_of::<f64>());
    let given = data.map(|data| given(data, rows_max)).transpose()?.map(Arc::new);
    let mut known: BTreeMap<String, Arc<Prices>> = BTreeMap::new();
    let mut prices = |request: &Request| match (&given, timeframe(request)) {
        (Some(given), _) => Arc::clone(given),
        (None, timeframe) => {
            let key = SeriesKey::new(request.symbol.clone(), timeframe);
            let found = || Arc::new(stored(&key).map_or(Prices::None, Prices::Stored));
            Arc::clone(known.entry(key.text()).or_insert_with(found))
        }
    };
    let mut asks = Vec::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate() {
        let ask = request.checked(prices(request)).map_err(|refusal| refusal.of_request(at))?;
        asks.push(ask);
    }
    let total = bounded(&asks)?;
    Ok(Plan { job, asks, total, bytes })
}

/// Data beside the requests, checked.
fn given(mut data: Series, rows_max: usize) -> Result<Prices, Refusal> {
    let from = data.check(rows_max, NanRule::Reject)?;
    debug_assert_eq!(from, 0, "nothing was left out");
    Ok(Prices::Given(Box::new(data)))
}

/// Combinations in all, when neither they nor the bars that they go through are too many.
fn bounded(asks: &[Ask]) -> Result<u64, Refusal> {
    let total: u64 = asks.iter().map(|ask| tried(&ask.how)).sum();
    let bars: u64 = asks.iter().map(|ask| tried(&ask.how).saturating_mul(ask.rows.len() as u64)).sum();
    let top: usize = asks.iter().map(|ask| ask.top).sum();
    let over = [
        (total > DISCOVER_TRIED_MAX, format!("{total} combinations are more than {DISCOVER_TRIED_MAX}")),
        (
            bars > DISCOVER_BARS_MAX,
            format!("{bars} bars of all combinations are more than {DISCOVER_BARS_MAX}"),
        ),
        (top > DISCOVER_TOP_MAX, format!("{top} strategies asked for are more than {DISCOVER_TOP_MAX}")),
    ];
    match over.into_iter().find(|(is_over, _)| *is_over) {
        Some((_, text)) => Err(Refusal::TooMuch(text)),
        None => Ok(total),
    }
}

fn timeframe(request: &Request) -> Timeframe {
    request.timeframe.clone().unwrap_or_else(|| Timeframe::parse("1m").expect("a minute is a timeframe"))
}

fn rule(name: &str) -> Result<&'static Rule, Refusal> {
    find(name).ok_or_else(|| {
        if NOT_EXPRESSED.contains(&name) {
            Refusal::NotAvailable(format!("strategy {name} is not expressed by the indicators there are"))
        } else {
            crate::search::unknown(name)
        }
    })
}

impl Request {
    fn checked(&self, prices: Arc<Prices>) -> Result<Ask, Refusal> {
        let rule = rule(&self.strategy_name)?;
        let (from_ms, to_ms) = (self.start_time.map(|time| time.0), self.end_time.map(|time| time.0));
        if from_ms.zip(to_ms).is_some_and(|(from, to)| from >= to) {
            return Err(Refusal::Parameter("startTime is before endTime".to_owned()));
        }
        let usual = Genetic::default();
        let config = self.ga_config.clone().unwrap_or_default();
        let or = |given: usize, usual: usize| if given == 0 { usual } else { given };
        let mut how = Genetic {
            population: or(config.population_size, usual.population),
            generations: or(config.max_generations, usual.generations),
            ..usual
        };
        how.tournament = how.tournament.min(how.population);
        checked(&how)?;
        how.seed = self.seed.unwrap_or_else(|| self.digest(from_ms, to_ms));
        if how.seed > SEED_MAX {
            return Err(Refusal::Parameter(format!("seed is a whole number up to {SEED_MAX}")));
        }
        let terms = figures::Terms { timeframe: Some(timeframe(self)), ..figures::Terms::default() };
        Ok(Ask {
            rule,
            symbol: self.symbol.as_str().to_owned(),
            rows: rows(&prices, rule, from_ms, to_ms)?,
            prices,
            from_ms,
            to_ms,
            top: top((self.top_n > 0).then_some(self.top_n))?,
            how,
            periods_per_year: terms.settings()?.periods_per_year(),
        })
    }

    /// The seed of a request that gives none: of what it is.
    fn digest(&self, from_ms: Option<i64>, to_ms: Option<i64>) -> u64 {
        let text =
            format!("{} {} {:?} {from_ms:?} {to_ms:?}", self.symbol, self.strategy_name, self.timeframe);
        fnv(text.into_bytes()) & SEED_MAX
    }
}

/// The rows from a time, inclusive, to another, exclusive.
fn rows(
    prices: &Prices,
    rule: &Rule,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
) -> Result<std::ops::Range<usize>, Refusal> {
    let series = match prices {
        Prices::None => return Ok(0..0),
        Prices::Stored(view) => return Ok(view.between(from_ms, to_ms)),
        Prices::Given(series) => series,
    };
    let bars = series.bars(0)?;
    if let Some(column) = rule.columns().into_iter().find(|column| bars.column(*column).is_none()) {
        return Err(Refusal::Shape(format!("the strategy needs the column {}", column.name())));
    }
    match &series.time_ms {
        None if from_ms.is_some() || to_ms.is_some() => {
            Err(Refusal::Shape("data without timestamps has no startTime and endTime".to_owned()))
        }
        None => Ok(0..series.close.len()),
        Some(times) => {
            let row = |time: i64| times.partition_point(|begin| *begin < time as f64);
            let end = to_ms.map_or(times.len(), row);
            Ok(from_ms.map_or(0, row).min(end)..end)
        }
    }
}
