//! Wins and losses.

use super::sums::{Sums, Term};
use super::{Figure, Undefined, finite};
use crate::lanes::Lanes;

/// What a list of results adds up to: profits and losses of trades, or returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcomes {
    count: f64,
    wins: f64,
    losses: f64,
    won: f64,
    lost: f64,
}

struct Sides;

impl Term<4> for Sides {
    fn of<V: Lanes>(&self, value: V) -> [V; 4] {
        let (zero, one) = (V::splat(0.0), V::splat(1.0));
        let gain = V::select(zero.lt(value), one, zero);
        let loss = V::select(value.lt(zero), one, zero);
        [gain, loss, value.positive(), (zero - value).positive()]
    }
}

impl Outcomes {
    /// Fails when there is no result, or one is not finite.
    pub fn of(results: &[f64]) -> Result<Self, Undefined> {
        if results.is_empty() {
            return Err(Undefined::NoTrades);
        }
        super::moments::Scan::finite(results)?;
        let [wins, losses, won, lost] = Sums::over(results, &Sides);
        Ok(Self { count: results.len() as f64, wins, losses, won, lost })
    }

    /// Results above zero.
    #[must_use]
    pub const fn wins(&self) -> f64 {
        self.wins
    }

    /// Results below zero.
    #[must_use]
    pub const fn losses(&self) -> f64 {
        self.losses
    }

    /// Share of the wins among those that won or lost.
    pub fn win_rate(&self) -> Figure {
        let decided = self.wins + self.losses;
        if decided == 0.0 { Err(Undefined::NoTrades) } else { finite(self.wins / decided) }
    }

    /// All gains over all losses.
    pub fn profit_factor(&self) -> Figure {
        if self.lost == 0.0 { Err(Undefined::NoLosses) } else { finite(self.won / self.lost) }
    }

    /// Mean result.
    pub fn expectancy(&self) -> Figure {
        finite((self.won - self.lost) / self.count)
    }

    /// Mean gain of a win; nothing when there is none.
    pub fn average_win(&self) -> Figure {
        if self.wins == 0.0 { Err(Undefined::NoTrades) } else { finite(self.won / self.wins) }
    }

    /// Mean loss of a loss, negative.
    pub fn average_loss(&self) -> Figure {
        if self.losses == 0.0 { Err(Undefined::NoLosses) } else { finite(-self.lost / self.losses) }
    }

    /// Mean gain over mean loss.
    pub fn payoff(&self) -> Figure {
        let loss = self.average_loss()?;
        finite(if self.wins == 0.0 { 0.0 } else { self.won / self.wins / -loss })
    }

    /// The share of the equity that grows fastest, `p - (1 - p) / b`, by win rate and payoff.
    pub fn kelly(&self) -> Figure {
        let (rate, payoff) = (self.win_rate()?, self.payoff()?);
        if payoff == 0.0 { Err(Undefined::NoTrades) } else { finite(rate - (1.0 - rate) / payoff) }
    }
}

/// Longest rows of wins and of losses; a result of zero ends both.
#[must_use]
pub fn streaks(results: &[f64]) -> [usize; 2] {
    let (mut now, mut longest) = ([0_usize; 2], [0_usize; 2]);
    for &result in results {
        now = [if result > 0.0 { now[0] + 1 } else { 0 }, if result < 0.0 { now[1] + 1 } else { 0 }];
        longest = [longest[0].max(now[0]), longest[1].max(now[1])];
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wins_and_losses_are_weighed() {
        let all = Outcomes::of(&[3.0, -1.0, 0.0, 1.0, -1.0]).unwrap();
        assert_eq!((all.wins(), all.losses()), (2.0, 2.0));
        assert_eq!((all.win_rate(), all.profit_factor(), all.expectancy()), (Ok(0.5), Ok(2.0), Ok(0.4)));
        assert_eq!((all.average_win(), all.average_loss(), all.payoff()), (Ok(2.0), Ok(-1.0), Ok(2.0)));
        assert_eq!(all.kelly(), Ok(0.25));
    }

    #[test]
    fn what_cannot_be_weighed_says_why() {
        assert_eq!(Outcomes::of(&[]), Err(Undefined::NoTrades));
        assert_eq!(Outcomes::of(&[1.0, f64::NAN]), Err(Undefined::NotFinite));
        let won = Outcomes::of(&[1.0]).unwrap();
        assert_eq!((won.profit_factor(), won.payoff()), (Err(Undefined::NoLosses), Err(Undefined::NoLosses)));
        assert_eq!((won.win_rate(), won.kelly()), (Ok(1.0), Err(Undefined::NoLosses)));
        let even = Outcomes::of(&[0.0]).unwrap();
        assert_eq!((even.win_rate(), even.expectancy()), (Err(Undefined::NoTrades), Ok(0.0)));
        let lost = Outcomes::of(&[-1.0]).unwrap();
        assert_eq!((lost.payoff(), lost.kelly()), (Ok(0.0), Err(Undefined::NoTrades)));
        assert_eq!(Outcomes::of(&[1e308; 4]).unwrap().expectancy(), Err(Undefined::NotFinite));
    }

    #[test]
    fn rows_are_counted() {
        assert_eq!(streaks(&[1.0, 1.0, 0.0, 1.0, -1.0, -1.0, -1.0, 2.0]), [2, 3]);
        assert_eq!(streaks(&[]), [0, 0]);
    }
}
