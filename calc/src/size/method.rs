//! What is proposed before any limit.

use super::{AMOUNT_MAX, AMOUNT_MIN, Side, SizeError, check};

/// Largest leverage that Kelly's rule or the blend proposes.
pub const KELLY_MAX: f64 = 2.0;
/// Score below which the blend proposes nothing.
pub const SCORE_MIN: f64 = 0.6;

/// How a quantity is proposed. Shares are of the equity: 0.01 is one hundredth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Loses a share of the equity at the stop.
    FixedFractional {
        /// That share, above 0 and up to 1.
        risk: f64,
    },
    /// The same with a stop some average true ranges away.
    Atr {
        /// That share, above 0 and up to 1.
        risk: f64,
        /// Average true range, a price.
        atr: f64,
        /// How many, above 0 and up to 100.
        multiple: f64,
    },
    /// A fraction of what grows fastest.
    Kelly(Odds),
    /// The volatility that is wanted over the one there is.
    RiskParity {
        /// Wanted volatility.
        target: f64,
        /// The asset's, over the same time.
        volatility: f64,
    },
    /// Kelly, parity and a strategy's score together.
    Blend {
        /// For Kelly's part.
        odds: Odds,
        /// Wanted volatility.
        target: f64,
        /// The asset's.
        volatility: f64,
        /// The strategy's, 0 to 1.
        score: f64,
    },
}

/// What a strategy wins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odds {
    /// Share of wins, 0 to 1.
    pub win_rate: f64,
    /// Mean win, a positive amount.
    pub avg_win: f64,
    /// Mean loss, a positive amount.
    pub avg_loss: f64,
    /// Share of the full bet, 0 to 1.
    pub fraction: f64,
}

/// What a method proposes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// How much, not negative.
    pub quantity: f64,
    /// The stop, when there is one: the given one, or the ATR's.
    pub stop: Option<f64>,
    /// Where twice the stop's distance is won; the ATR's alone.
    pub target: Option<f64>,
    /// The score was too low for anything.
    pub score_too_low: bool,
}

impl Method {
    /// Proposes a quantity for equity, price and value of a point (all positive), checked for `side`
    /// against the stop if there is one.
    pub fn propose(
        &self,
        equity: f64,
        price: f64,
        side: Side,
        stop: Option<f64>,
        point_value: f64,
    ) -> Result<Proposal, SizeError> {
        let equity = check("equity", equity, AMOUNT_MIN, AMOUNT_MAX)?;
        let price = check("price", price, AMOUNT_MIN, AMOUNT_MAX)?;
        let point_value = check("point_value", point_value, AMOUNT_MIN, AMOUNT_MAX)?;
        let stop = stop.map(|stop| check("stop", stop, 0.0, AMOUNT_MAX)).transpose()?;
        if stop.is_some_and(|stop| (price - stop) * side.sign() <= 0.0) {
            return Err(SizeError::Stop);
        }
        let proposal = |quantity: f64| Proposal { quantity, stop, target: None, score_too_low: false };
        match *self {
            Self::FixedFractional { risk } => {
                let stop = stop.ok_or(SizeError::Missing("stop"))?;
                let risk = check("risk", risk, AMOUNT_MIN, 1.0)?;
                Ok(proposal(equity * risk / ((price - stop).abs() * point_value)))
            }
            Self::Atr { risk, atr, multiple } => {
                let risk = check("risk", risk, AMOUNT_MIN, 1.0)?;
                let atr = check("atr", atr, AMOUNT_MIN, AMOUNT_MAX)?;
                let distance = check("multiple", multiple, 1e-6, 100.0)? * atr;
                Ok(Proposal {
                    stop: Some(stop.unwrap_or(price - side.sign() * distance)),
                    target: Some(price + side.sign() * 2.0 * distance),
                    ..proposal(equity * risk / (distance * point_value))
                })
            }
            Self::Kelly(odds) => Ok(proposal(odds.leverage()? * equity / (price * point_value))),
            Self::RiskParity { target, volatility } => {
                Ok(proposal(parity(target, volatility)? * equity / (price * point_value)))
            }
            Self::Blend { odds, target, volatility, score } => {
                let score = check("score", score, 0.0, 1.0)?;
                let blend = 0.4 * odds.leverage()?
                    + 0.3 * parity(target, volatility)?
                    + 0.3 * score / (1.0 + volatility);
                let score_too_low = score < SCORE_MIN;
                let leverage = if score_too_low { 0.0 } else { blend.clamp(0.0, KELLY_MAX) };
                Ok(Proposal { score_too_low, ..proposal(leverage * equity / (price * point_value)) })
            }
        }
    }
}

impl Odds {
    fn leverage(&self) -> Result<f64, SizeError> {
        let win_rate = check("win_rate", self.win_rate, 0.0, 1.0)?;
        let payoff = check("avg_win", self.avg_win, AMOUNT_MIN, AMOUNT_MAX)?
            / check("avg_loss", self.avg_loss, AMOUNT_MIN, AMOUNT_MAX)?;
        let fraction = check("fraction", self.fraction, 0.0, 1.0)?;
        Ok((fraction * (payoff * win_rate - (1.0 - win_rate)) / payoff).clamp(0.0, KELLY_MAX))
    }
}

fn parity(target: f64, volatility: f64) -> Result<f64, SizeError> {
    Ok(check("target_volatility", target, 0.0, 100.0)? / check("volatility", volatility, 1e-9, 1_000.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(method: Method, stop: Option<f64>) -> f64 {
        method.propose(10_000.0, 50.0, Side::Buy, stop, 1.0).unwrap().quantity
    }

    const ODDS: Odds = Odds { win_rate: 0.6, avg_win: 2.0, avg_loss: 1.0, fraction: 0.25 };

    #[test]
    fn the_methods_follow_their_definitions() {
        assert_eq!(quantity(Method::FixedFractional { risk: 0.01 }, Some(45.0)), 20.0);
        assert_eq!(quantity(Method::Atr { risk: 0.01, atr: 2.0, multiple: 1.25 }, None), 40.0);
        // (2 * 0.6 - 0.4) / 2 = 0.4, a quarter of it.
        assert!((quantity(Method::Kelly(ODDS), None) - 20.0).abs() < 1e-12);
        assert_eq!(quantity(Method::RiskParity { target: 0.005, volatility: 0.01 }, None), 100.0);
        let blend = |score| Method::Blend { odds: ODDS, target: 0.005, volatility: 0.25, score };
        let leverage = 0.4 * 0.1 + 0.3 * 0.02 + 0.3 * 0.8 / 1.25;
        assert!((quantity(blend(0.8), None) - leverage * 200.0).abs() < 1e-12);
        let low = blend(0.59).propose(10_000.0, 50.0, Side::Buy, None, 1.0).unwrap();
        assert!(low.score_too_low && low.quantity == 0.0);
        let lost = Odds { win_rate: 0.2, ..ODDS };
        assert_eq!(quantity(Method::Kelly(lost), None), 0.0);
    }

    #[test]
    fn the_average_true_range_gives_stop_and_target() {
        let method = Method::Atr { risk: 0.01, atr: 2.0, multiple: 1.5 };
        let sale = method.propose(10_000.0, 50.0, Side::Sell, None, 1.0).unwrap();
        assert_eq!((sale.stop, sale.target), (Some(53.0), Some(44.0)));
        let bought = method.propose(10_000.0, 50.0, Side::Buy, None, 1.0).unwrap();
        assert_eq!((bought.stop, bought.target), (Some(47.0), Some(56.0)));
    }

    #[test]
    fn what_cannot_be_sized_says_why() {
        let fixed = Method::FixedFractional { risk: 0.01 };
        let of =
            |method: Method, equity, side, stop| method.propose(equity, 50.0, side, stop, 1.0).unwrap_err();
        assert_eq!(of(fixed, 1e4, Side::Buy, None), SizeError::Missing("stop"));
        assert_eq!(of(fixed, 1e4, Side::Buy, Some(50.0)), SizeError::Stop);
        assert_eq!(of(fixed, 1e4, Side::Sell, Some(45.0)), SizeError::Stop);
        assert_eq!(
            of(fixed, 0.0, Side::Buy, Some(45.0)).to_string(),
            "equity must be between 0.000000000000001 and 1000000000000000, not 0"
        );
        assert!(matches!(
            of(fixed, f64::NAN, Side::Buy, Some(45.0)),
            SizeError::Range { field: "equity", .. }
        ));
        let none = Method::RiskParity { target: 0.1, volatility: 0.0 };
        assert!(matches!(of(none, 1e4, Side::Buy, None), SizeError::Range { field: "volatility", .. }));
        let odds = Method::Kelly(Odds { avg_loss: 0.0, ..ODDS });
        assert!(matches!(of(odds, 1e4, Side::Buy, None), SizeError::Range { field: "avg_loss", .. }));
    }
}
