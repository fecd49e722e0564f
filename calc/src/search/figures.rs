//! What a combination is judged by.

use std::cmp::Ordering;

use super::backtest::{Tally, Terms};
use crate::risk::{Figure, Undefined};

/// What a backtest came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Equity at the end less 1.
    pub total_return: f64,
    /// The same a year, compounded.
    pub annual_return: Figure,
    /// Mean of the bars' returns over their deviation, a year.
    pub sharpe: Figure,
    /// Deepest fall from a peak of the equity, a share of it; 0 or negative.
    pub max_drawdown: f64,
    /// Annual return over the deepest fall.
    pub calmar: Figure,
    /// Positions entered; one that is open at the end is closed at the last price.
    pub trades: u32,
    /// Share of the trades that gained.
    pub win_rate: Figure,
    /// Gains over losses of the trades.
    pub profit_factor: Figure,
    /// Share of the bars in the market.
    pub exposure: f64,
}

/// By which figure combinations are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rank {
    /// Sharpe ratio.
    #[default]
    Sharpe,
    /// [`Figures::score`].
    Score,
    /// Calmar ratio.
    Calmar,
    /// Total return.
    TotalReturn,
}

impl Rank {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sharpe, Self::Score, Self::Calmar, Self::TotalReturn];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sharpe => "sharpe",
            Self::Score => "score",
            Self::Calmar => "calmar",
            Self::TotalReturn => "total_return",
        }
    }

    /// The figure, where there is one.
    #[must_use]
    pub fn of(self, figures: &Figures) -> Option<f64> {
        let value = match self {
            Self::Sharpe => figures.sharpe.ok(),
            Self::Score => Some(figures.score()),
            Self::Calmar => figures.calmar.ok(),
            Self::TotalReturn => Some(figures.total_return),
        };
        value.filter(|value| value.is_finite())
    }
}

/// A combination that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Its number in the space.
    pub number: u64,
    /// What it came to.
    pub figures: Figures,
}

impl Figures {
    pub(super) fn of(tally: &Tally, terms: &Terms) -> Self {
        let count = tally.bars as f64;
        let annual_return = annual(tally.equity, count, terms.periods_per_year);
        let max_drawdown = tally.worst - 1.0;
        Self {
            total_return: tally.equity - 1.0,
            annual_return,
            sharpe: sharpe(tally, terms.periods_per_year),
            max_drawdown,
            calmar: annual_return.and_then(|value| ratio(value, -max_drawdown, Undefined::NoDrawdown)),
            trades: tally.trades,
            win_rate: ratio(f64::from(tally.wins), f64::from(tally.trades), Undefined::NoTrades),
            profit_factor: ratio(tally.gained, tally.lost, Undefined::NoLosses),
            exposure: tally.held as f64 / count.max(1.0),
        }
    }

    /// A weighted mean of Sharpe ratio, drawdown, share of winning trades, annual return and profit factor, from 0
    /// to 1; a figure that is not defined counts as 0, a profit factor without losses as the best.
    #[must_use]
    pub fn score(&self) -> f64 {
        let unit = |value: f64| ((value + 1.0) / 3.0).clamp(0.0, 1.0);
        let part = |figure: Figure| figure.map_or(0.0, unit);
        let profit = match self.profit_factor {
            Err(Undefined::NoLosses) if self.trades > 0 => 1.0,
            figure => part(figure),
        };
        0.25 * part(self.sharpe)
            + 0.20 * (1.0 + self.max_drawdown).clamp(0.0, 1.0)
            + 0.20 * self.win_rate.unwrap_or(0.0)
            + 0.20 * part(self.annual_return)
            + 0.15 * profit
    }
}

fn ratio(above: f64, below: f64, without: Undefined) -> Figure {
    if below > 0.0 { finite(above / below) } else { Err(without) }
}

fn finite(value: f64) -> Figure {
    if value.is_finite() { Ok(value) } else { Err(Undefined::NotFinite) }
}

fn annual(equity: f64, count: f64, periods_per_year: f64) -> Figure {
    if count < 1.0 {
        return Err(Undefined::TooFewPeriods);
    }
    finite(equity.powf(periods_per_year / count) - 1.0)
}

fn sharpe(tally: &Tally, periods_per_year: f64) -> Figure {
    let count = tally.bars as f64;
    if tally.bars < 2 {
        return Err(Undefined::TooFewPeriods);
    }
    let mean = tally.sum / count;
    let spread = tally.squares - count * mean * mean;
    // What is left of a sum of squares after rounding is no deviation.
    if spread <= tally.squares * 1e-12 {
        return Err(Undefined::NoVariation);
    }
    finite(mean / (spread / (count - 1.0)).sqrt() * periods_per_year.sqrt())
}

/// The better first; where none is, the lower number.
pub(super) fn better(rank: Rank, a: &Found, b: &Found) -> Ordering {
    let value = |found: &Found| rank.of(&found.figures).unwrap_or(f64::NEG_INFINITY);
    value(b).total_cmp(&value(a)).then(a.number.cmp(&b.number))
}

/// The best of what was found, best first, and how much there was.
#[derive(Clone, Debug)]
pub struct Best {
    rank: Rank,
    keep: usize,
    found: Vec<Found>,
    tried: u64,
    /// Sharpe ratios: how many, their mean, the sum of their squared distances from it.
    ratios: (f64, f64, f64),
}

impl Best {
    /// Keeps so many.
    #[must_use]
    pub const fn new(rank: Rank, keep: usize) -> Self {
        Self { rank, keep, found: Vec::new(), tried: 0, ratios: (0.0, 0.0, 0.0) }
    }

    /// Takes one in, if it is among the best; one that is there already stays once.
    pub fn add(&mut self, found: Found) {
        self.tried += 1;
        if let Ok(ratio) = found.figures.sharpe {
            let (count, mean, squares) = &mut self.ratios;
            let distance = ratio - *mean;
            *count += 1.0;
            *mean += distance / *count;
            *squares += distance * (ratio - *mean);
        }
        let at = self.found.binary_search_by(|kept| better(self.rank, kept, &found));
        if let Err(at) = at
            && at < self.keep
        {
            self.found.insert(at, found);
            self.found.truncate(self.keep);
        }
    }

    /// Combinations that were tried.
    #[must_use]
    pub const fn tried(&self) -> u64 {
        self.tried
    }

    /// How much their Sharpe ratios vary, those of a year; 0 where fewer than two have one.
    #[must_use]
    pub fn sharpe_variance(&self) -> f64 {
        let (count, _, squares) = self.ratios;
        if count < 2.0 { 0.0 } else { squares / (count - 1.0) }
    }

    /// The best, best first.
    #[must_use]
    pub fn found(&self) -> &[Found] {
        &self.found
    }
}
