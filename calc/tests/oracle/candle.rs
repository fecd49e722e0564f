//! Candle patterns against the oracle.
//!
//! The oracle's means of the candles before are running totals, whose rounding depends on the bar at
//! which it began; asked for one bar alone it sums them afresh, as we do for every bar.

use super::{BARS, compute};
use crate::series::{Columns, Kind, REAL, columns, real};
use ta_lib::{Core, OutRange, RetCode};

type Call = fn(&Core, usize, usize, &Columns, &mut [i32]) -> Result<OutRange, RetCode>;

macro_rules! patterns {
    ($($name:ident $(, $penetration:literal)?;)+) => {
        [$((stringify!($name), |core, first, last, c, out| {
            core.$name(first, last, &c.open, &c.high, &c.low, &c.close, $($penetration,)? out)
        })),+]
    };
}

const PATTERNS: [(&str, Call); 15] = patterns! {
    cdldoji;
    cdldragonflydoji;
    cdlhammer;
    cdlinvertedhammer;
    cdlhangingman;
    cdlshootingstar;
    cdlmarubozu;
    cdlengulfing;
    cdlharami;
    cdlpiercing;
    cdldarkcloudcover, 0.5;
    cdlmorningstar, 0.3;
    cdleveningstar, 0.3;
    cdl3whitesoldiers;
    cdl3blackcrows;
};

/// Every market, made up and real.
fn markets() -> impl Iterator<Item = (String, Columns)> {
    let made = Kind::ALL.into_iter().map(|kind| (format!("{kind:?}"), columns(kind, 77, BARS)));
    made.chain(REAL.into_iter().map(|name| (name.to_owned(), real(name))))
}

#[test]
fn each_bar_is_judged_as_the_oracle_judges_it_alone() {
    let core = Core::new();
    let mut seen = [0_u32; PATTERNS.len()];
    for (market, c) in markets() {
        for (at, (name, call)) in PATTERNS.into_iter().enumerate() {
            let ours = &compute(name, &[], &c)[0];
            let warm_up = ours.iter().take_while(|value| value.is_nan()).count();
            let mut theirs = [0];
            for (row, our) in ours.iter().enumerate().skip(warm_up) {
                let range = call(&core, row, row, &c, &mut theirs).unwrap();
                assert_eq!((range.beg_idx, range.count), (row, 1), "{market} {name} lookback");
                assert_eq!(*our, f64::from(theirs[0]), "{market} {name} row {row}");
                seen[at] += u32::from(theirs[0] != 0);
            }
        }
    }
    assert!(seen.iter().all(|&seen| seen >= 3), "a pattern that never showed was not tested: {seen:?}");
}

#[test]
fn a_whole_series_is_judged_alike_but_at_the_edges() {
    let core = Core::new();
    let (mut bars, mut other) = (0_usize, 0_usize);
    for (market, c) in markets() {
        for (name, call) in PATTERNS {
            let ours = &compute(name, &[], &c)[0];
            let mut theirs = vec![0; ours.len()];
            let range = call(&core, 0, ours.len() - 1, &c, &mut theirs).unwrap();
            assert!(ours[..range.beg_idx].iter().all(|value| value.is_nan()), "{market} {name}");
            // Whole ticks, halts and spikes bring a condition to its very edge, or take the digits
            // of a running total with them.
            if matches!(market.as_str(), "Walk" | "Trend" | "Huge" | "Gaps" | "Fractions") {
                let pairs = ours[range.beg_idx..].iter().zip(&theirs[..range.count]);
                other += pairs.filter(|(our, their)| **our != f64::from(**their)).count();
                bars += range.count;
            }
        }
    }
    assert!(other * 10_000 <= bars, "{other} of {bars} differ");
}
