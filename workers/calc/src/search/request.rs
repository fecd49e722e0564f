//! The body of a search, and its limits.

use std::collections::BTreeMap;

use serde::Deserialize;
use sluice_calc::Column;
use sluice_calc::search::{
    Gene, Genetic, Method, NAMED, RULES, Rank, Space, SpaceError, Task, Terms, VALUES_MAX, Walk, find,
};
use sluice_wire::symbol::{Symbol, Timeframe};

use super::{Plan, refused};
use crate::body::{self, Incoming, WithData};
use crate::bounds::{
    GENETIC_TRIED_MAX, ID_BYTES_MAX, SEARCH_BARS_MAX, SEARCH_COMBINATIONS_MAX, SEARCH_TOP_MAX, SEED_MAX,
    WALK_WINDOWS_MAX,
};
use crate::data::{NanRule, Series};
use crate::error::Refusal;
use crate::figures;
use crate::series::query::When;
use crate::series::source::{Means, Named, missing};

/// What is answered where nobody says how many.
const TOP: usize = 5;
/// WalkForward needed for a verdict where nobody says how many.
const WINDOWS_LEAST: usize = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default, rename = "symbol")]
    _symbol: Option<Symbol>,
    timeframe: Option<Timeframe>,
    data: Option<Series>,
    /// A stored series in its place, and which of its rows.
    series: Option<String>,
    from: Option<When>,
    to: Option<When>,
    last: Option<usize>,
    strategy: String,
    #[serde(default)]
    parameters: BTreeMap<String, Values>,
    #[serde(default)]
    method: Way,
    genetic: Option<Evolution>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    fee: f64,
    #[serde(default)]
    slippage: f64,
    periods_per_year: Option<f64>,
    rank: Option<String>,
    top_n: Option<usize>,
    seed: Option<u64>,
    walk_forward: Option<WalkForward>,
    #[serde(default)]
    nan: NanRule,
}

impl WithData for Request {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

/// Values of one parameter.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    One(f64),
    Listed(Vec<f64>),
    Ranged {
        /// First, last, step.
        range: [f64; 3],
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    #[default]
    Grid,
    Genetic,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Long,
    Both,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Evolution {
    population: Option<usize>,
    generations: Option<usize>,
    mutation: Option<f64>,
    crossover: Option<f64>,
    tournament: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WalkForward {
    train: usize,
    test: usize,
    step: Option<usize>,
    min_windows: Option<usize>,
}

impl Request {
    fn prices(&mut self, means: Means<'_>) -> Result<Series, Refusal> {
        let named = Named { series: self.series.take(), from: self.from, to: self.to, last: self.last };
        let (source, key) = named.or(self.data.take(), means)?.ok_or_else(missing)?;
        if let Some(key) = key {
            self.timeframe.get_or_insert(key.timeframe);
        }
        Ok(source.into_series())
    }
}

/// Reads and checks a body.
pub(crate) fn plan(incoming: Incoming, means: Means<'_>) -> Result<Plan, Refusal> {
    let rows_max = means.rows_max;
    let mut request: Request = body::read(incoming, rows_max)?;
    let mut series = request.prices(means)?;
    let rule = find(&request.strategy).ok_or_else(|| unknown(&request.strategy))?;
    let space = space(rule, &request.parameters)?;
    if request.nan == NanRule::Propagate {
        return Err(Refusal::Parameter("a search needs every value; nan is not `propagate`".to_owned()));
    }
    let from = series.check(rows_max, request.nan)?;
    keep(&mut series, from, &rule.columns())?;
    let rows = series.close.len();
    let walk = request.walk_forward.as_ref().map(|windows| windows.checked(rows)).transpose()?;
    let genetic = evolution(&request)?;
    let (method, tries) = match request.method {
        Way::Grid => (Method::Grid, space.size()),
        Way::Genetic => (Method::Genetic(genetic), tried(&genetic)),
    };
    let total = bounded(tries, rows, walk.as_ref(), request.method)?;
    let mut plan = Plan {
        terms: terms(&request)?,
        rank: rank(request.rank.as_deref())?,
        top: top(request.top_n)?,
        seed: 0,
        series,
        space,
        method,
        walk,
        total,
    };
    Task::new(&plan.space, plan.series.bars(0)?, plan.terms, plan.rank, 1)
        .map_err(|error| refused(&error))?;
    plan.seed = match request.seed {
        Some(seed) if seed > SEED_MAX => {
            return Err(Refusal::Parameter(format!("seed is a whole number up to {SEED_MAX}")));
        }
        Some(seed) => seed,
        None => digest(&plan),
    };
    if let Method::Genetic(how) = &mut plan.method {
        how.seed = plan.seed;
    }
    Ok(plan)
}

/// The refusal of a strategy that is not known.
pub(crate) fn unknown(name: &str) -> Refusal {
    let near = |rule: &&&sluice_calc::search::Rule| strsim::jaro_winkler(rule.name, name);
    let nearest = RULES.iter().chain(NAMED).max_by(|a, b| near(a).total_cmp(&near(b)));
    let nearest = nearest.filter(|rule| near(rule) > 0.8).map(|rule| rule.name.to_owned());
    Refusal::Unknown { kind: "strategy that is searched", name: name.to_owned(), nearest }
}

fn space(
    rule: &'static sluice_calc::search::Rule,
    given: &BTreeMap<String, Values>,
) -> Result<Space, Refusal> {
    let mut values = Vec::with_capacity(given.len());
    for (name, wanted) in given {
        if name.len() > ID_BYTES_MAX {
            return Err(Refusal::Parameter(format!("a parameter's name has at most {ID_BYTES_MAX} bytes")));
        }
        values.push((name.as_str(), wanted.listed(name)?));
    }
    let given: Vec<(&str, &[f64])> = values.iter().map(|(name, values)| (*name, values.as_slice())).collect();
    Space::new(rule, &given).map_err(|error| match error {
        SpaceError::UnknownGene { .. } => {
            let known: Vec<&str> = rule.genes.iter().map(|gene: &Gene| gene.name).collect();
            Refusal::Parameter(format!("{error}; its parameters are {}", known.join(", ")))
        }
        other => Refusal::Parameter(other.to_string()),
    })
}

impl Values {
    fn listed(&self, name: &str) -> Result<Vec<f64>, Refusal> {
        match self {
            Self::One(value) => Ok(vec![*value]),
            Self::Listed(values) => Ok(values.clone()),
            Self::Ranged { range: [first, last, step] } => {
                let fault =
                    |text: &str| Refusal::Parameter(format!("{name}: range is [first, last, step], {text}"));
                if *step <= 0.0 || last < first {
                    return Err(fault("upwards, with a step above 0"));
                }
                let steps = ((last - first) / step + 1e-9).floor();
                if steps >= VALUES_MAX as f64 {
                    return Err(fault(&format!("at most {VALUES_MAX} values")));
                }
                Ok((0..=steps as usize).map(|index| first + step * index as f64).collect())
            }
        }
    }
}

impl WalkForward {
    fn checked(&self, rows: usize) -> Result<Walk, Refusal> {
        let step = self.step.unwrap_or(self.test);
        if self.train < 2 || self.test < 2 || step == 0 {
            let text = "walk_forward: train and test are 2 bars or more, step is 1 or more";
            return Err(Refusal::Parameter(text.to_owned()));
        }
        let walk = Walk {
            train: self.train,
            test: self.test,
            step,
            least: self.min_windows.unwrap_or(WINDOWS_LEAST),
        };
        if walk.windows(rows).nth(WALK_WINDOWS_MAX).is_some() {
            return Err(Refusal::TooMuch(format!("walk_forward has more windows than {WALK_WINDOWS_MAX}")));
        }
        Ok(walk)
    }
}

fn evolution(request: &Request) -> Result<Genetic, Refusal> {
    let given = match (&request.genetic, request.method) {
        (Some(_), Way::Grid) => {
            return Err(Refusal::Parameter("genetic goes with the method `genetic`".to_owned()));
        }
        (given, _) => given.clone().unwrap_or_default(),
    };
    let usual = Genetic::default();
    let how = Genetic {
        population: given.population.unwrap_or(usual.population),
        generations: given.generations.unwrap_or(usual.generations),
        mutation: given.mutation.unwrap_or(usual.mutation),
        crossover: given.crossover.unwrap_or(usual.crossover),
        tournament: given.tournament.unwrap_or(usual.tournament),
        seed: 0,
    };
    checked(&how)?;
    Ok(how)
}

/// Refuses an algorithm that cannot be, or would try too many.
pub(crate) fn checked(how: &Genetic) -> Result<(), Refusal> {
    let share = |value: f64| (0.0..=1.0).contains(&value);
    if how.population < 2 || how.generations < 1 || how.tournament < 1 || how.tournament > how.population {
        let text =
            "genetic: population is 2 or more, generations 1 or more, tournament from 1 to the population";
        return Err(Refusal::Parameter(text.to_owned()));
    }
    if !share(how.mutation) || !share(how.crossover) {
        return Err(Refusal::Parameter("genetic: mutation and crossover are from 0 to 1".to_owned()));
    }
    if tried(how) > GENETIC_TRIED_MAX {
        let text = format!("genetic: population times generations is more than {GENETIC_TRIED_MAX}");
        return Err(Refusal::TooMuch(text));
    }
    Ok(())
}

/// What an algorithm asks for at most.
pub(crate) fn tried(how: &Genetic) -> u64 {
    (how.population as u64).saturating_mul(how.generations as u64 + 1)
}

/// Combinations in all, when they and the bars they go through are not too many.
fn bounded(tries: u64, rows: usize, walk: Option<&Walk>, way: Way) -> Result<u64, Refusal> {
    let windows = walk.map_or(0, |walk| walk.windows(rows).count() as u64);
    let total = tries.saturating_mul(windows + 1);
    let most = if way == Way::Genetic { GENETIC_TRIED_MAX } else { SEARCH_COMBINATIONS_MAX };
    if total > most {
        return Err(Refusal::TooMuch(format!("{total} combinations, windows counted, are more than {most}")));
    }
    let train = walk.map_or(0, |walk| walk.train as u64);
    let bars = rows as u64 + windows * train;
    if tries.saturating_mul(bars) > SEARCH_BARS_MAX {
        let text =
            format!("{tries} combinations times {bars} bars are more than the limit of {SEARCH_BARS_MAX}");
        return Err(Refusal::TooMuch(text));
    }
    Ok(total)
}

fn terms(request: &Request) -> Result<Terms, Refusal> {
    let terms = figures::Terms {
        periods_per_year: request.periods_per_year,
        timeframe: request.timeframe.clone(),
        ..figures::Terms::default()
    };
    let cost = request.fee + request.slippage;
    if !(0.0..1.0).contains(&request.fee) || !(0.0..1.0).contains(&request.slippage) || cost >= 1.0 {
        let text = "fee and slippage are shares of the equity, 0 or more and together below 1";
        return Err(Refusal::Parameter(text.to_owned()));
    }
    let periods_per_year = terms.settings()?.periods_per_year();
    Ok(Terms { short: request.mode == Mode::Both, cost, periods_per_year })
}

fn rank(given: Option<&str>) -> Result<Rank, Refusal> {
    let Some(given) = given else { return Ok(Rank::default()) };
    Rank::ALL
        .into_iter()
        .find(|rank| rank.name() == given)
        .ok_or_else(|| Refusal::Parameter(format!("rank is one of {}", Rank::ALL.map(Rank::name).join(", "))))
}

pub(crate) fn top(given: Option<usize>) -> Result<usize, Refusal> {
    let top = given.unwrap_or(TOP);
    if (1..=SEARCH_TOP_MAX).contains(&top) {
        Ok(top)
    } else {
        Err(Refusal::Parameter(format!("top_n is 1 to {SEARCH_TOP_MAX}")))
    }
}

/// Keeps the rows and columns that are read: a job may wait long.
pub(crate) fn keep(series: &mut Series, from: usize, read: &[Column]) -> Result<(), Refusal> {
    series.close.drain(..from);
    if let Some(times) = &mut series.time_ms {
        times.drain(..from);
    }
    let columns = [
        (Column::Open, &mut series.open),
        (Column::High, &mut series.high),
        (Column::Low, &mut series.low),
        (Column::Volume, &mut series.volume),
    ];
    for (column, values) in columns {
        match values {
            Some(values) if read.contains(&column) => {
                values.drain(..from);
            }
            Some(_) => *values = None,
            None if read.contains(&column) => {
                return Err(Refusal::Shape(format!("the strategy needs the column {}", column.name())));
            }
            None => {}
        }
    }
    Ok(())
}

/// The seed of a search that gives none: of what it is, so that the same search finds the same. 53 bits, which every
/// client's numbers hold.
fn digest(plan: &Plan) -> u64 {
    let text = format!("{:?}{:?}{:?}{:?}{:?}", plan.space, plan.terms, plan.rank, plan.method, plan.walk);
    let prices = plan.series.close.iter().flat_map(|close| close.to_bits().to_le_bytes());
    fnv(text.into_bytes().into_iter().chain(prices)) & SEED_MAX
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo).
pub(crate) fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
