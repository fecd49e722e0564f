//! The risk figures against their definitions, written out plainly.

use crate::series::Dice;
use proptest::prelude::*;
use sluice_calc::Bars;
use sluice_calc::risk::{
    FIGURES, Settings, Undefined, drawdown_of_equity, drawdown_of_returns, range_volatility, relative,
    sharpe, summary, tail,
};

fn returns(seed: u64, len: usize) -> Vec<f64> {
    let mut dice = Dice::new(seed);
    (0..len).map(|_| (dice.roll() - 0.48) * 0.06).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-10 * b.abs() + 1e-14
}

/// Every pair of positions, the deepest fall between them.
fn deepest_fall(equity: &[f64]) -> f64 {
    let falls = (0..equity.len()).flat_map(|to| (0..=to).map(move |from| equity[to] / equity[from] - 1.0));
    falls.fold(0.0, f64::min)
}

proptest! {
    #[test]
    fn drawdown_is_the_deepest_fall_between_any_two_positions(seed in any::<u64>(), len in 1..80_usize) {
        let returns = returns(seed, len);
        let mut equity = vec![1.0];
        equity.extend(returns.iter().scan(1.0, |equity, r| {
            *equity *= 1.0 + r;
            Some(*equity)
        }));
        let of_returns = drawdown_of_returns(&returns).unwrap();
        let of_equity = drawdown_of_equity(&equity).unwrap();
        prop_assert!(close(of_equity.depth, deepest_fall(&equity)));
        prop_assert!(close(of_returns.depth, of_equity.depth));
        prop_assert_eq!(of_returns.trough, of_equity.trough);
        prop_assert!(close(equity[of_equity.trough] / equity[of_equity.peak] - 1.0, of_equity.depth));
        let end = of_equity.recovery.unwrap_or(len);
        prop_assert_eq!(of_equity.duration, if of_equity.depth < 0.0 { end - of_equity.peak } else { 0 });
        prop_assert!(of_equity.longest >= of_equity.duration);
    }

    #[test]
    fn the_tail_is_that_of_the_sorted_returns(seed in any::<u64>(), len in 1..200_usize, alpha in 0.001..0.5) {
        let returns = returns(seed, len);
        let settings = Settings::new(252.0, 0.0, alpha).unwrap();
        let mut scratch = vec![0.0; len];
        let tail = tail(&returns, &settings, &mut scratch).unwrap().unwrap();
        let mut sorted = returns;
        sorted.sort_by(f64::total_cmp);
        let rank = (len - 1) as f64 * alpha;
        let floor = rank as usize;
        let ceiling = (floor + 1).min(len - 1);
        let quantile = sorted[floor] + (sorted[ceiling] - sorted[floor]) * rank.fract();
        prop_assert!(close(tail.value_at_risk, quantile));
        let worst = &sorted[..=floor];
        prop_assert!(close(tail.conditional, worst.iter().sum::<f64>() / worst.len() as f64));
        prop_assert!(tail.conditional <= tail.value_at_risk + 1e-15);
    }

    #[test]
    fn the_ratios_follow_the_plain_formulas(seed in any::<u64>(), len in 2..300_usize, rf in -0.001..0.001) {
        let returns = returns(seed, len);
        let settings = Settings::new(365.0, rf, 0.05).unwrap();
        let n = len as f64;
        let mean = returns.iter().sum::<f64>() / n;
        let deviation = (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let downside = (returns.iter().map(|r| (r - rf).min(0.0).powi(2)).sum::<f64>() / n).sqrt();
        let all = summary(&returns, &settings, &mut vec![0.0; len]).unwrap();
        let year = 365_f64.sqrt();
        prop_assert!((all.volatility.unwrap() - deviation * year).abs() < 1e-12);
        prop_assert!((all.sharpe.unwrap() - (mean - rf) / deviation * year).abs() < 1e-8);
        match all.sortino {
            Ok(sortino) => prop_assert!((sortino - (mean - rf) / downside * year).abs() < 1e-8),
            Err(undefined) => prop_assert!(undefined == Undefined::NoDownside && downside == 0.0),
        }
    }
}

#[test]
fn a_large_constant_return_has_no_sharpe_ratio() {
    for constant in [0.0, 0.1 + 0.2, -0.7, 1e-12] {
        assert_eq!(sharpe(&[constant; 1_000], &Settings::default()), Err(Undefined::NoVariation));
    }
}

/// Whatever the numbers, a figure is finite or says why not.
#[test]
fn no_figure_of_hostile_returns_is_infinite() {
    let values = [0.0, -0.0, 1e308, -1e308, 5e-324, -5e-324, 1e-310, -1.0, -1.5, 0.1, f64::MAX, f64::MIN];
    let mut dice = Dice::new(9);
    let mut series: Vec<Vec<f64>> = values.iter().map(|&value| vec![value; 5]).collect();
    for at in 0..1_200 {
        series.push((0..at % 6).map(|_| values[(dice.roll() * values.len() as f64) as usize]).collect());
    }
    let settings = Settings::default();
    for returns in &series {
        let mut scratch = vec![0.0; returns.len()];
        let all = summary(returns, &settings, &mut scratch).unwrap();
        for (name, read) in FIGURES {
            assert!(read(&all).is_ok_and(f64::is_finite) || read(&all).is_err(), "{name} of {returns:?}");
        }
        let other: Vec<f64> = returns.iter().rev().copied().collect();
        let beside = relative(returns, &other, Ok(1e308), &settings, &mut scratch).unwrap();
        let beside =
            [beside.beta, beside.alpha, beside.alpha_arithmetic, beside.information_ratio, beside.treynor];
        let deflated = all.sample.and_then(|sample| sample.deflated(u64::MAX, 1e308));
        let prices: Vec<f64> = returns.iter().map(|value| value.abs()).collect();
        let bars = Bars::ohlcv(&prices, &prices, &prices, &prices, &prices).unwrap();
        let range = range_volatility(&bars, &settings);
        let range = [range.parkinson, range.garman_klass, range.rogers_satchell, range.yang_zhang];
        for figure in beside.into_iter().chain(range).chain([deflated]).flatten() {
            assert!(figure.is_finite(), "{returns:?}");
        }
    }
}

/// Every figure of a long series is that of the plain definition: the sampled ends, the tiles and the
/// lanes change nothing.
#[test]
fn a_long_series_has_the_figures_of_the_plain_definitions() {
    let returns = returns(5, 20_011);
    let all = summary(&returns, &Settings::default(), &mut vec![0.0; returns.len()]).unwrap();
    let n = returns.len() as f64;
    let mut sorted = returns.clone();
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let rank = (n - 1.0) * q;
        let floor = sorted[rank as usize];
        floor + (sorted[rank as usize + 1] - floor) * rank.fract()
    };
    let mean = returns.iter().sum::<f64>() / n;
    let moment = |power: i32| returns.iter().map(|r| (r - mean).powi(power)).sum::<f64>() / n;
    let logs: Vec<f64> = returns
        .iter()
        .scan(0.0, |sum, r| {
            *sum += r.ln_1p();
            Some(*sum)
        })
        .collect();
    let (middle, level) = ((n - 1.0) / 2.0, logs.iter().sum::<f64>() / n);
    let product: f64 = logs.iter().enumerate().map(|(at, log)| (at as f64 - middle) * (log - level)).sum();
    let (positions, square): (f64, f64) = (
        (0..returns.len()).map(|at| (at as f64 - middle).powi(2)).sum(),
        logs.iter().map(|log| (log - level).powi(2)).sum(),
    );
    let gains: f64 = returns.iter().map(|r| r.max(0.0)).sum();
    let losses: f64 = returns.iter().map(|r| (-r).max(0.0)).sum();
    let expected = [
        ("total_return", logs[logs.len() - 1].exp_m1()),
        ("cagr", (logs[logs.len() - 1] * 252.0 / n).exp_m1()),
        ("skew", moment(3) / moment(2).powf(1.5)),
        ("kurtosis", moment(4) / moment(2).powi(2) - 3.0),
        ("omega", gains / losses),
        ("profit_factor", gains / losses),
        ("tail_ratio", (quantile(0.95) / quantile(0.05)).abs()),
        ("var", quantile(0.05)),
        ("stability", product * product / (positions * square)),
        ("win_rate", returns.iter().filter(|r| **r > 0.0).count() as f64 / n),
    ];
    for (name, value) in expected {
        let read = FIGURES.iter().find(|(known, _)| *known == name).unwrap().1;
        let found = read(&all).unwrap();
        assert!((found - value).abs() <= 1e-10 * value.abs(), "{name}: {found}, {value}");
    }
}
