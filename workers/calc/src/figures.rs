//! What risk and performance share: settings, returns out of what was sent, figures as JSON.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use sluice_calc::risk::{Figure, Outcomes, Settings, Summary, Undefined, returns_of_prices};
use sluice_wire::symbol::{Symbol, Timeframe};

use crate::error::Refusal;

/// Milliseconds of a year in which trading never stops.
const YEAR_MS: f64 = 365.0 * 86_400_000.0;

/// Settings as they are sent.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Terms {
    pub(crate) periods_per_year: Option<f64>,
    /// Gives the periods a year when they are not: those of 365 days without a pause.
    pub(crate) timeframe: Option<Timeframe>,
    pub(crate) rf: Option<f64>,
    pub(crate) alpha: Option<f64>,
    /// A year, for the Omega ratio.
    pub(crate) required_return: Option<f64>,
}

impl Terms {
    pub(crate) fn settings(&self) -> Result<Settings, Refusal> {
        let of_timeframe = self.timeframe.as_ref().map(|timeframe| YEAR_MS / timeframe.millis() as f64);
        let periods = self.periods_per_year.or(of_timeframe).unwrap_or(Settings::PERIODS_PER_YEAR);
        let (rf, alpha) = (self.rf.unwrap_or(0.0), self.alpha.unwrap_or(Settings::ALPHA));
        Settings::new(periods, rf, alpha)
            .and_then(|settings| settings.with_required_a_year(self.required_return.unwrap_or(0.0)))
            .map_err(|error| Refusal::Parameter(error.to_string()))
    }
}

/// A closed trade.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trade {
    /// Profit or loss in money.
    pub(crate) pnl: f64,
    /// The same as a share of the equity before it.
    #[serde(rename = "return")]
    pub(crate) share: Option<f64>,
    pub(crate) entry_time: Option<i64>,
    pub(crate) exit_time: Option<i64>,
    #[serde(default, rename = "symbol")]
    _symbol: Option<Symbol>,
    #[serde(default, rename = "side")]
    _side: Option<Side>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Buy,
    Sell,
    Long,
    Short,
}

/// Profits and losses of trades, in their order.
pub(crate) fn results(trades: &[Trade]) -> Vec<f64> {
    trades.iter().map(|trade| trade.pnl).collect()
}

/// The returns of trades, when every one of them has one.
pub(crate) fn shares(trades: &[Trade]) -> Option<Vec<f64>> {
    trades.iter().map(|trade| trade.share).collect()
}

/// The returns of a list of prices or equity.
pub(crate) fn returns_of(levels: &[f64], rows_max: usize) -> Result<Vec<f64>, Refusal> {
    bounded(levels.len(), rows_max)?;
    if let Some(row) = levels.iter().position(|level| *level <= 0.0) {
        return Err(Refusal::Series { row: Some(row), text: format!("row {row}: it is not above zero") });
    }
    let mut returns = vec![0.0; levels.len().saturating_sub(1)];
    let computed = returns_of_prices(levels, &mut returns);
    match computed.map_err(|error| Refusal::Series { row: None, text: error.to_string() })? {
        // Too short for a return: every figure then says so for itself.
        Ok(()) | Err(Undefined::TooFewPeriods) => Ok(returns),
        Err(undefined) => Err(Refusal::Series { row: None, text: undefined.to_string() }),
    }
}

pub(crate) fn bounded(rows: usize, rows_max: usize) -> Result<(), Refusal> {
    if rows > rows_max {
        return Err(Refusal::TooMuch(format!("{rows} rows are more than the limit of {rows_max}")));
    }
    Ok(())
}

/// The summary's wins and losses are those of the trades, not of the returns.
pub(crate) fn with_trades(found: &mut Summary, trades: &[Trade]) {
    found.outcomes = Outcomes::of(&results(trades));
}

/// Figures by name, those that do not exist as null, and what there is to say about them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) metrics: Map<String, Json>,
    pub(crate) warnings: Vec<Json>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &str, figure: Figure) {
        self.metrics.insert(name.to_owned(), figure.map_or(Json::Null, Json::from));
        if let Err(undefined) = figure {
            self.warn(name, undefined.code(), &undefined.to_string());
        }
    }

    pub(crate) fn warn(&mut self, name: &str, reason: &str, detail: &str) {
        self.warnings.push(json!({"metric": name, "reason": reason, "detail": detail}));
    }
}
