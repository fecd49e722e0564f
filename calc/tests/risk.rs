//! The risk figures against their definitions, written out plainly.

use crate::series::Dice;
use proptest::prelude::*;
use sluice_calc::risk::{
    Settings, Undefined, drawdown_of_equity, drawdown_of_returns, sharpe, summary, tail,
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
