//! Every figure of a return series, in two passes over it and one over its ends.
//!
//! The first pass walks the equity curve tile by tile: the tile's logarithms in vector lanes, then
//! the one chain that cannot be cut, a multiplication and a comparison a return. The second takes
//! the moments around the mean, the third what lies at the ends.

use super::drawdown::{Drawdown, Walk};
use super::moments::{Moments, Scan, TILE};
use super::sharpe::Sample;
use super::tail::{Ends, Tail};
use super::trades::Outcomes;
use super::{Figure, Settings, Undefined, finite, logarithm, normal};
use crate::series::{ShapeError, same_length};

/// Every figure of a return series; the module's table defines them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the table")]
pub struct Summary {
    pub total_return: Figure,
    pub cagr: Figure,
    pub volatility: Figure,
    pub sharpe: Figure,
    pub sortino: Figure,
    pub calmar: Figure,
    pub omega: Figure,
    pub drawdown: Result<Drawdown, Undefined>,
    pub ulcer: Figure,
    pub pain: Figure,
    pub recovery: Figure,
    pub tail: Result<Tail, Undefined>,
    pub tail_ratio: Figure,
    pub parametric: Result<Parametric, Undefined>,
    pub skew: Figure,
    pub kurtosis: Figure,
    pub stability: Figure,
    pub kelly_continuous: Figure,
    /// What a probabilistic Sharpe ratio is taken of.
    pub sample: Result<Sample, Undefined>,
    /// The returns as wins and losses.
    pub outcomes: Result<Outcomes, Undefined>,
}

/// Value at risk of a fitted distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parametric {
    /// Of the normal distribution.
    pub value_at_risk: Figure,
    /// Mean of the returns below it.
    pub conditional: Figure,
    /// Corrected for skewness and kurtosis by Cornish and Fisher's expansion.
    pub cornish_fisher: Figure,
    /// Whether the expansion is monotone between both tails; where it is not, `cornish_fisher` is the
    /// normal distribution's value.
    pub monotone: bool,
}

/// Reads one figure of a summary.
pub type Reader = fn(&Summary) -> Figure;

/// Name on the wire and value of every figure a return series has by itself.
pub static FIGURES: [(&str, Reader); 31] = [
    ("total_return", |s| s.total_return),
    ("cagr", |s| s.cagr),
    ("volatility", |s| s.volatility),
    ("sharpe", |s| s.sharpe),
    ("sortino", |s| s.sortino),
    ("calmar", |s| s.calmar),
    ("omega", |s| s.omega),
    ("max_drawdown", |s| s.drawdown.map(|fall| fall.depth)),
    ("max_drawdown_duration", |s| s.drawdown.map(|fall| fall.duration as f64)),
    ("longest_drawdown", |s| s.drawdown.map(|fall| fall.longest as f64)),
    ("ulcer", |s| s.ulcer),
    ("pain", |s| s.pain),
    ("recovery", |s| s.recovery),
    ("var", |s| s.tail.map(|tail| tail.value_at_risk)),
    ("cvar", |s| s.tail.map(|tail| tail.conditional)),
    ("var_loss", |s| s.tail.map(|tail| 0.0 - tail.value_at_risk)),
    ("var_parametric", |s| s.parametric.and_then(|fit| fit.value_at_risk)),
    ("cvar_parametric", |s| s.parametric.and_then(|fit| fit.conditional)),
    ("var_cornish_fisher", |s| s.parametric.and_then(|fit| fit.cornish_fisher)),
    ("tail_ratio", |s| s.tail_ratio),
    ("skew", |s| s.skew),
    ("kurtosis", |s| s.kurtosis),
    ("stability", |s| s.stability),
    ("win_rate", |s| s.outcomes.and_then(|all| all.win_rate())),
    ("profit_factor", |s| s.outcomes.and_then(|all| all.profit_factor())),
    ("expectancy", |s| s.outcomes.and_then(|all| all.expectancy())),
    ("payoff", |s| s.outcomes.and_then(|all| all.payoff())),
    ("kelly", |s| s.outcomes.and_then(|all| all.kelly())),
    ("kelly_continuous", |s| s.kelly_continuous),
    ("sharpe_per_period", |s| s.sample.map(|sample| sample.sharpe())),
    ("psr", |s| s.sample.and_then(|sample| sample.probability_above(0.0))),
];

impl Summary {
    /// No figure at all, for this reason.
    #[must_use]
    pub const fn without(reason: Undefined) -> Self {
        let none = Err(reason);
        Self {
            total_return: none,
            cagr: none,
            volatility: none,
            sharpe: none,
            sortino: none,
            calmar: none,
            omega: none,
            drawdown: Err(reason),
            ulcer: none,
            pain: none,
            recovery: none,
            tail: Err(reason),
            tail_ratio: none,
            parametric: Err(reason),
            skew: none,
            kurtosis: none,
            stability: none,
            kelly_continuous: none,
            sample: Err(reason),
            outcomes: Err(reason),
        }
    }
}

/// Computes every figure; `scratch` holds at least as many values as `returns` and is overwritten.
pub fn summary(returns: &[f64], settings: &Settings, scratch: &mut [f64]) -> Result<Summary, ShapeError> {
    same_length("scratch", scratch.len().min(returns.len()), returns.len())?;
    if returns.is_empty() {
        return Ok(Summary::without(Undefined::TooFewPeriods));
    }
    let scratch = &mut scratch[..returns.len()];
    let scan = match Scan::of(returns) {
        Ok(scan) => scan,
        Err(reason) => return Ok(Summary::without(reason)),
    };
    let curve = Curve::of(returns, scratch);
    let moments = Moments::after(&scan, returns, settings);
    let ends = Ends::of(returns, settings, scratch);
    let outcomes = Outcomes::of(returns);
    let (drawdown, cagr) = (curve.walk.finish(), curve.cagr(settings));
    let fall =
        drawdown.and_then(|fall| if fall.depth < 0.0 { Ok(-fall.depth) } else { Err(Undefined::NoDrawdown) });
    Ok(Summary {
        total_return: curve.total_return(),
        cagr,
        volatility: moments.volatility(settings),
        sharpe: if returns.len() < 2 { Err(Undefined::TooFewPeriods) } else { moments.sharpe(settings) },
        sortino: moments.sortino(settings),
        calmar: fall.and_then(|fall| finite(cagr? / fall)),
        omega: moments.omega(),
        drawdown,
        ulcer: curve.walk.ulcer(),
        pain: curve.walk.pain(),
        recovery: fall.and_then(|fall| finite(scan.sum / fall)),
        tail: ends.tail(),
        tail_ratio: ends.ratio(),
        parametric: parametric(&moments, settings),
        skew: moments.skew(),
        kurtosis: moments.kurtosis(),
        stability: curve.stability,
        kelly_continuous: moments.kelly(),
        sample: Sample::of(&moments, settings),
        outcomes,
    })
}

/// The equity curve.
struct Curve {
    walk: Walk,
    /// The sum of the logarithms.
    growth: f64,
    count: f64,
    stability: Figure,
}

impl Curve {
    /// Leaves the logarithms of the curve in `logs`.
    fn of(returns: &[f64], logs: &mut [f64]) -> Self {
        let (mut walk, mut growth) = (Walk::default(), 0.0);
        for (tile, logs) in returns.chunks(TILE).zip(logs.chunks_mut(TILE)) {
            logarithm::ln_1p(tile, logs);
            for (&r, log) in tile.iter().zip(logs) {
                walk.grow(r);
                growth += *log;
                *log = growth;
            }
        }
        let stability =
            if walk.least() <= -1.0 { Err(Undefined::TotalLoss) } else { super::fit::determination(logs) };
        Self { walk, growth, count: returns.len() as f64, stability }
    }

    /// What compounds: -1 once all is lost, nothing once more than that is.
    fn compound(&self, share: f64) -> Figure {
        if self.walk.least() < -1.0 {
            return Err(Undefined::TotalLoss);
        }
        if self.walk.least() == -1.0 { Ok(-1.0) } else { finite((self.growth * share).exp_m1()) }
    }

    fn total_return(&self) -> Figure {
        self.compound(1.0)
    }

    fn cagr(&self, settings: &Settings) -> Figure {
        self.compound(settings.periods_per_year / self.count)
    }
}

fn parametric(moments: &Moments, settings: &Settings) -> Result<Parametric, Undefined> {
    let (mean, deviation) = (moments.mean()?, moments.deviation()?);
    let z = normal::quantile(settings.alpha);
    let plain = finite(mean + z * deviation);
    let shape = moments.skew().and_then(|skew| Ok((skew, moments.kurtosis()?)));
    let (cornish_fisher, monotone) = match shape {
        Err(reason) => (Err(reason), true),
        Ok(_) if moments.count() < 4.0 => (Err(Undefined::TooFewPeriods), true),
        Ok((skew, kurtosis)) if monotone(z, skew, kurtosis) => {
            (finite(mean + corrected(z, skew, kurtosis) * deviation), true)
        }
        Ok(_) => (plain, false),
    };
    Ok(Parametric {
        value_at_risk: plain,
        conditional: finite(mean - deviation * normal::density(z) / settings.alpha),
        cornish_fisher,
        monotone,
    })
}

/// The quantile of a distribution of this skewness and excess kurtosis.
fn corrected(z: f64, skew: f64, kurtosis: f64) -> f64 {
    let (square, cube) = (z * z, z * z * z);
    z + (square - 1.0) * skew / 6.0 + (cube - 3.0 * z) * kurtosis / 24.0
        - (2.0 * cube - 5.0 * z) * skew * skew / 36.0
}

/// Whether [`corrected`] grows with its first argument all the way between both tails. Its slope is a
/// parabola `a z^2 + b z + c`: lowest at its apex or at one of the ends.
fn monotone(z: f64, skew: f64, kurtosis: f64) -> bool {
    let a = kurtosis / 8.0 - skew * skew / 6.0;
    let b = skew / 3.0;
    let c = 1.0 - kurtosis / 8.0 + 5.0 * skew * skew / 36.0;
    let slope = |z: f64| (a * z + b) * z + c;
    let apex = -b / (2.0 * a);
    let within = a > 0.0 && apex.abs() < z.abs();
    slope(z) > 0.0 && slope(-z) > 0.0 && (!within || slope(apex) > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(returns: &[f64]) -> Summary {
        summary(returns, &Settings::default(), &mut vec![0.0; returns.len()]).unwrap()
    }

    fn near(figure: Figure, expected: f64) {
        let value = figure.unwrap();
        assert!((value - expected).abs() <= 1e-12 * expected.abs().max(1e-3), "{value}, {expected}");
    }

    #[test]
    fn the_figures_follow_their_definitions() {
        let all = of(&[0.1, -0.2, 0.05, 0.1]);
        let equity = 1.1 * 0.8 * 1.05 * 1.1;
        near(all.total_return, equity - 1.0);
        near(all.cagr, f64::powf(equity, 63.0) - 1.0);
        near(all.calmar, (f64::powf(equity, 63.0) - 1.0) / 0.2);
        near(all.omega, 0.25 / 0.2);
        near(all.recovery, 0.05 / 0.2);
        let depths = [0.0, 0.2, 0.16, 0.076_f64];
        near(all.pain, depths.iter().sum::<f64>() / 4.0);
        near(all.ulcer, (depths.iter().map(|depth| depth * depth).sum::<f64>() / 3.0).sqrt());
        let (mean, central) = (0.0125, [0.0875, -0.2125, 0.0375, 0.0875_f64]);
        let moment = |power: i32| central.iter().map(|d| d.powi(power)).sum::<f64>() / 4.0;
        near(all.skew, moment(3) / moment(2).powf(1.5));
        near(all.kurtosis, moment(4) / moment(2).powi(2) - 3.0);
        let deviation = (moment(2) * 4.0 / 3.0).sqrt();
        near(all.kelly_continuous, mean / (deviation * deviation));
        let fit = all.parametric.unwrap();
        near(fit.value_at_risk, mean - 1.644_853_626_951_472_9 * deviation);
        near(fit.conditional, mean - 2.062_712_807_507_444_3 * deviation);
    }

    #[test]
    fn an_expansion_that_turns_back_is_the_plain_value() {
        let mut wild = vec![0.001; 60];
        wild[10] = -0.6;
        let fit = of(&wild).parametric.unwrap();
        assert!(!fit.monotone);
        assert_eq!(fit.cornish_fisher, fit.value_at_risk);
        let tame: Vec<f64> = (0..60).map(|at| f64::from(at * 37 % 60) / 1_000.0 - 0.03).collect();
        let fit = of(&tame).parametric.unwrap();
        assert!(fit.monotone && fit.cornish_fisher != fit.value_at_risk);
        assert!(monotone(-1.64, 0.0, 0.0) && !monotone(-1.64, 3.0, 9.0) && !monotone(-3.0, 0.0, -4.0));
        assert_eq!(corrected(-2.0, 0.0, 0.0), -2.0);
    }

    #[test]
    fn what_is_lost_altogether_does_not_compound() {
        let all = of(&[0.1, -1.0, 0.1]);
        assert_eq!((all.total_return, all.cagr), (Ok(-1.0), Ok(-1.0)));
        assert_eq!(all.stability, Err(Undefined::TotalLoss));
        let more = of(&[0.1, -1.5, 0.1]);
        assert_eq!((more.total_return, more.cagr), (Err(Undefined::TotalLoss), Err(Undefined::TotalLoss)));
        assert_eq!((more.drawdown, more.pain), (Err(Undefined::NotPositive), Err(Undefined::NotPositive)));
    }

    #[test]
    fn a_curve_without_falls_has_no_ratio_to_them() {
        let all = of(&[0.1, 0.2, 0.1]);
        assert_eq!((all.calmar, all.recovery), (Err(Undefined::NoDrawdown), Err(Undefined::NoDrawdown)));
        assert_eq!((all.omega, all.pain, all.ulcer), (Err(Undefined::NoDownside), Ok(0.0), Ok(0.0)));
    }

    #[test]
    fn steady_growth_is_a_straight_line() {
        near(of(&[0.01; 50]).stability, 1.0);
        assert_eq!(of(&[0.0; 50]).stability, Err(Undefined::NoVariation));
        assert_eq!(of(&[0.5]).stability, Err(Undefined::TooFewPeriods));
    }
}
