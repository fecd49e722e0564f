//! `POST /calculations/indicators`: what is asked for, checked.
//!
//! [`prepare`] makes of a body everything that computing needs; [`crate::coalesce`] computes, for one request or for
//! several of one kind at once.

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use sluice_calc::{Bars, CatalogError, Compat, ComputeError, Indicator, Job, Value, catalog, compute_all};
use sluice_wire::symbol::{Symbol, Timeframe};

use crate::answers::Room;
use crate::body::{self, Incoming, WithData};
use crate::bounds::{
    BINARY_CELLS_MAX, CELLS_MAX, ID_BYTES_MAX, INDICATORS_MAX, SWEEP_BARS_MAX, SWEEP_SETS_MAX, UNSTABLE_MAX,
};
use crate::data::{NanRule, Series};
use crate::error::Refusal;
use crate::negotiate::Format;
use crate::pool::Scratch;
use crate::series::SeriesKey;
use crate::series::query::When;
use crate::series::source::{Means, Named, Source, missing};
use crate::{coalesce, seeds, sweep};

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) symbol: Option<Symbol>,
    pub(crate) timeframe: Option<Timeframe>,
    /// Checked to be there before anything is computed.
    data: Option<Series>,
    /// A stored series in its place, as `BTC/USDT/1m`, and which of its rows.
    series: Option<String>,
    from: Option<When>,
    to: Option<When>,
    last: Option<usize>,
    pub(crate) indicators: Vec<Ask>,
    #[serde(default)]
    pub(crate) output: Output,
    #[serde(default)]
    nan: NanRule,
    compat: Option<String>,
    /// So many values more are left out after the lookback: those of recursions that still remember their seed.
    #[serde(default)]
    pub(crate) unstable: usize,
    #[serde(default)]
    pub(crate) reduce: Reduce,
    /// The form of the answer, where the client's `Accept` names none.
    format: Option<Format>,
    /// Sent by the platforms' older clients beside the indicators; it has no meaning here.
    #[serde(default, rename = "strategy_config")]
    _strategy_config: Option<serde::de::IgnoredAny>,
}

impl WithData for Request {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

/// One wished indicator: a name, or a name with parameters and an id.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Ask {
    /// `"rsi"`.
    Name(String),
    /// `{"name":"macd","fast":12,"id":"m1"}`.
    Full(Map<String, Json>),
}

/// How much of each output is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Output {
    /// Every bar.
    #[default]
    Full,
    /// The newest bars.
    Tail(usize),
}

/// How much of each output of a sweep is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reduce {
    /// As much as of any other.
    #[default]
    None,
    /// The newest value.
    Last,
}

impl TryFrom<String> for Output {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "full" => Ok(Self::Full),
            "last" => Ok(Self::Tail(1)),
            _ => text
                .strip_prefix("tail:")
                .and_then(|bars| bars.parse().ok())
                .filter(|bars| *bars > 0)
                .map(Self::Tail)
                .ok_or_else(|| "output is `full`, `last` or `tail:N`".to_owned()),
        }
    }
}

/// An indicator with the id it is answered under, once or for each set of parameters.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) id: String,
    pub(crate) is_swept: bool,
    pub(crate) points: Vec<Point>,
}

/// An indicator, and the parameters that were swept.
#[derive(Clone)]
pub(crate) struct Point {
    pub(crate) params: Map<String, Json>,
    pub(crate) indicator: Indicator,
}

/// A request that can be computed.
pub(crate) struct Prepared {
    pub(crate) request: Request,
    pub(crate) source: Source,
    /// Row at which computing begins.
    pub(crate) from: usize,
    pub(crate) compat: Compat,
    /// Empty under the older conventions, whose answers have a shape of their own.
    pub(crate) wishes: Vec<Wish>,
    pub(crate) format: Format,
}

/// An answer in its form.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) format: Format,
    /// Rows of the series.
    pub(crate) rows: usize,
    /// Room that it takes until it is read.
    pub(crate) room: Option<Room>,
}

/// Reads and checks a body. The form of the answer is what the client accepts, else what the body says.
pub(crate) fn prepare(
    incoming: Incoming,
    accepted: Option<Format>,
    means: Means<'_>,
) -> Result<Prepared, Refusal> {
    let mut request: Request = body::read(incoming, means.rows_max)?;
    bounded_asks(&request.indicators)?;
    if request.unstable > UNSTABLE_MAX {
        return Err(Refusal::Parameter(format!("unstable is 0 to {UNSTABLE_MAX}")));
    }
    let compat = compat(&request)?;
    let mut source = source(&mut request, means)?;
    let from = source.check(means.rows_max, request.nan)?;
    let format = accepted.or(request.format).unwrap_or(Format::Json);
    let wishes = if compat == Compat::TradPal { Vec::new() } else { wishes(&request.indicators, compat)? };
    let prepared = Prepared { request, source, from, compat, wishes, format };
    prepared.bounded()?;
    Ok(prepared)
}

/// The data of a request: its own, or rows of a stored series.
fn source(request: &mut Request, means: Means<'_>) -> Result<Source, Refusal> {
    let named =
        Named { series: request.series.take(), from: request.from, to: request.to, last: request.last };
    let (source, key) = named.or(request.data.take(), means)?.ok_or_else(missing)?;
    if let Some(SeriesKey { symbol, timeframe }) = key {
        request.symbol.get_or_insert(symbol);
        request.timeframe.get_or_insert(timeframe);
    }
    Ok(source)
}

/// Refuses too many indicators, and names that are longer than any.
pub(crate) fn bounded_asks(asks: &[Ask]) -> Result<(), Refusal> {
    if asks.len() > INDICATORS_MAX {
        return Err(Refusal::TooMuch(format!("more than {INDICATORS_MAX} indicators")));
    }
    if let Some(ask) = asks.iter().find(|ask| ask.name().len() > ID_BYTES_MAX) {
        let start: String = ask.name().chars().take(ID_BYTES_MAX).collect();
        return Err(Refusal::Unknown { kind: "indicator", name: start, nearest: None });
    }
    Ok(())
}

/// Computes a body.
pub(crate) fn answer(
    incoming: Incoming,
    accepted: Option<Format>,
    means: Means<'_>,
    scratch: &mut Scratch,
) -> Result<Answer, Refusal> {
    let prepared = prepare(incoming, accepted, means)?;
    let mut answers = coalesce::compute(std::slice::from_ref(&prepared), scratch);
    answers.pop().unwrap_or_else(|| Err(Refusal::Shape("nothing was asked for".to_owned())))
}

impl Prepared {
    /// Values in each column of a wish.
    pub(crate) fn rows_of(&self, wish: &Wish) -> usize {
        if wish.is_swept && self.request.reduce == Reduce::Last { self.rows().min(1) } else { self.rows() }
    }

    /// Values in each column.
    pub(crate) fn rows(&self) -> usize {
        let count = self.source.len();
        match self.request.output {
            Output::Full => count,
            Output::Tail(bars) => bars.min(count - self.from),
        }
    }

    /// Refuses a sweep of more bars, or an answer of more values, than the limits.
    fn bounded(&self) -> Result<(), Refusal> {
        let swept: usize =
            self.wishes.iter().filter(|wish| wish.is_swept).map(|wish| wish.points.len()).sum();
        if swept > SWEEP_SETS_MAX {
            return Err(Refusal::TooMuch(format!("a sweep has at most {SWEEP_SETS_MAX} sets of parameters")));
        }
        let bars = swept * self.source.len();
        if bars > SWEEP_BARS_MAX {
            let text = format!("a sweep over {bars} bars is more than the limit of {SWEEP_BARS_MAX}");
            return Err(Refusal::TooMuch(text));
        }
        self.bounded_cells(self.cells())
    }

    /// Values of the answer.
    fn cells(&self) -> usize {
        let columns =
            |wish: &Wish| -> usize { wish.points.iter().map(|point| point.indicator.outputs().len()).sum() };
        self.wishes.iter().map(|wish| columns(wish) * self.rows_of(wish)).sum()
    }

    /// About how much memory the answer takes while it is written.
    pub(crate) fn bytes_about(&self) -> usize {
        self.cells()
            * match self.format {
                Format::Json => 20,
                Format::Csv => 28,
                Format::Arrow => 16,
                Format::Columns => 8,
            }
    }

    /// Refuses an answer with more values than the limit of its form.
    pub(crate) fn bounded_cells(&self, cells: usize) -> Result<(), Refusal> {
        let max = match self.format {
            Format::Json | Format::Csv => CELLS_MAX,
            Format::Arrow | Format::Columns => BINARY_CELLS_MAX,
        };
        if cells > max {
            return Err(Refusal::TooMuch(format!("{cells} values are more than the limit of {max}")));
        }
        Ok(())
    }
}

/// The conventions asked for; the names of the older platform bring its conventions with them.
fn compat(request: &Request) -> Result<Compat, Refusal> {
    match &request.compat {
        Some(name) => compat_named(name),
        None if request.indicators.iter().any(|ask| seeds::is_seed_name(ask.name())) => Ok(Compat::TradPal),
        None => Ok(Compat::TaLib),
    }
}

/// The conventions of a name.
pub(crate) fn compat_named(name: &str) -> Result<Compat, Refusal> {
    Compat::find(name)
        .ok_or_else(|| Refusal::Parameter("compat is `talib`, `tradpal` or `tradingview`".to_owned()))
}

impl Ask {
    /// The name; empty when a full form has none.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Full(fields) => fields.get("name").and_then(Json::as_str).unwrap_or_default(),
        }
    }
}

/// The indicators of asks, each with its id.
pub(crate) fn wishes(asks: &[Ask], compat: Compat) -> Result<Vec<Wish>, Refusal> {
    let mut wishes: Vec<Wish> = Vec::with_capacity(asks.len());
    for ask in asks {
        let wish = match ask {
            Ask::Name(name) => {
                let point = point(name, compat, &Map::new(), Map::new())?;
                Wish { id: name.clone(), is_swept: false, points: vec![point] }
            }
            Ask::Full(fields) => wish(ask.name(), id(fields)?, fields, compat)?,
        };
        if wishes.iter().any(|known| known.id == wish.id) {
            let id: String = wish.id.chars().take(ID_BYTES_MAX).collect();
            return Err(Refusal::Shape(format!("id `{id}` is used twice")));
        }
        wishes.push(wish);
    }
    Ok(wishes)
}

fn wish(name: &str, id: &str, fields: &Map<String, Json>, compat: Compat) -> Result<Wish, Refusal> {
    let sets = sweep::sets(fields)?;
    let is_swept = sets.is_some();
    let points = match sets {
        None => vec![point(name, compat, fields, Map::new())?],
        Some(sets) => {
            let points = sets.into_iter().map(|set| point(name, compat, &set.all, set.own));
            points.collect::<Result<_, _>>()?
        }
    };
    Ok(Wish { id: id.to_owned(), is_swept, points })
}

fn point(
    name: &str,
    compat: Compat,
    fields: &Map<String, Json>,
    params: Map<String, Json>,
) -> Result<Point, Refusal> {
    let indicator = Indicator::parse(name, compat, &parameters(fields)?);
    Ok(Point { params, indicator: indicator.map_err(|error| refusal(error, "indicator"))? })
}

fn id(fields: &Map<String, Json>) -> Result<&str, Refusal> {
    let id = match fields.get("id").or_else(|| fields.get("name")) {
        Some(Json::String(id)) => id.as_str(),
        _ => return Err(Refusal::Shape("an indicator needs a `name`, and its `id` is a text".to_owned())),
    };
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(Refusal::Shape(format!("an id has 1 to {ID_BYTES_MAX} bytes")));
    }
    Ok(id)
}

/// The parameters among the fields of an indicator or strategy.
pub(crate) fn parameters(fields: &Map<String, Json>) -> Result<Vec<(&str, Value<'_>)>, Refusal> {
    let own = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "name" | "id"));
    own.map(|(name, value)| match value {
        Json::Number(number) => Ok((name.as_str(), Value::Number(number.as_f64().unwrap_or(f64::NAN)))),
        Json::String(word) => Ok((name.as_str(), Value::Word(word))),
        _ => Err(Refusal::Parameter(format!("parameter `{}` is a number or a word", name.escape_default()))),
    })
    .collect()
}

/// What the catalogue refuses, with the nearest name where one is unknown.
pub(crate) fn refusal(error: CatalogError, kind: &'static str) -> Refusal {
    match error {
        CatalogError::UnknownName { name } => {
            let known: Vec<&str> = if kind == "strategy" {
                sluice_calc::signal::STRATEGIES.iter().map(|entry| entry.name).collect()
            } else {
                catalog::entries().map(|entry| entry.name).collect()
            };
            let nearest = known
                .into_iter()
                .map(|known| (strsim::damerau_levenshtein(known, &name), known))
                .filter(|(distance, known)| *distance <= known.len().div_ceil(2))
                .min();
            Refusal::Unknown { kind, name, nearest: nearest.map(|(_, known)| known.to_owned()) }
        }
        other => Refusal::Parameter(other.to_string()),
    }
}

/// The part of an output that is answered, and how many nulls stand before it.
pub(crate) fn cut(output: Output, from: usize, values: &[f64]) -> (usize, &[f64]) {
    match output {
        Output::Full => (from, values),
        Output::Tail(bars) => (0, &values[values.len().saturating_sub(bars)..]),
    }
}

/// Computes an indicator over bars and hands each output to `take`, in the order of its names.
pub(crate) fn compute_over(
    indicator: &Indicator,
    bars: &Bars<'_>,
    scratch: &mut Scratch,
    mut take: impl FnMut(&'static str, &mut [f64]),
) -> Result<(), Refusal> {
    let done = compute_side_by_side(&[(indicator, *bars)], scratch, |_, name, values| take(name, values));
    done.into_iter().collect()
}

/// Computes indicators over series, side by side where they are of one kind and that is faster, and hands the outputs of
/// each to `take` with its place, in the order of their names. What cannot be computed is refused for itself.
pub(crate) fn compute_side_by_side(
    asked: &[(&Indicator, Bars<'_>)],
    scratch: &mut Scratch,
    mut take: impl FnMut(usize, &'static str, &mut [f64]),
) -> Vec<Result<(), Refusal>> {
    let mut buffers: Vec<Vec<Vec<f64>>> = Vec::with_capacity(asked.len());
    for (indicator, bars) in asked {
        buffers.push(indicator.outputs().iter().map(|_| scratch.take(bars.len())).collect());
    }
    let mut outs: Vec<Vec<&mut [f64]>> =
        buffers.iter_mut().map(|outs| outs.iter_mut().map(Vec::as_mut_slice).collect()).collect();
    let (mut jobs, mut done) = (Vec::with_capacity(asked.len()), Vec::with_capacity(asked.len()));
    for ((indicator, bars), outs) in asked.iter().zip(&mut outs) {
        let job = Job::new(indicator, bars, outs);
        done.push(job.map(|job| jobs.push(job)));
    }
    compute_all(scratch.workspace(), &mut jobs);
    drop(jobs);
    for (at, ((indicator, _), buffers)) in asked.iter().zip(buffers).enumerate() {
        for (name, mut buffer) in indicator.outputs().iter().zip(buffers) {
            if done[at].is_ok() {
                take(at, name, &mut buffer);
            }
            scratch.give(buffer);
        }
    }
    let refused = |error: ComputeError| Refusal::Series { row: None, text: error.to_string() };
    done.into_iter().map(|done| done.map_err(refused)).collect()
}

#[cfg(test)]
mod tests;
