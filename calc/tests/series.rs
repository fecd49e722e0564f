//! Series of every kind, made from a seed.

use proptest::prelude::*;
use sluice_calc::{Bars, Cpu, Indicator, Workspace};

/// A small generator of uniform numbers; the tests need repeatable series, not good randomness.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number in `0..1`.
    pub(crate) fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The kinds of market that break indicators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Walk,
    Trend,
    Flat,
    /// One price, then another for ever.
    OneStep,
    /// Moves of a single tick.
    Ticks,
    Tiny,
    Huge,
    /// A millionfold price with moves in the ninth digit.
    Offset,
    /// Single prices a billion times too high.
    Spikes,
    /// Long stretches without any move between wild ones.
    Halts,
    ZeroVolume,
    /// Opens up to a tenth away from the close before.
    Gaps,
    /// Nothing moves for nine tenths of the series, then single ticks.
    LongFlat,
    /// Volumes that are no whole numbers.
    Fractions,
    /// One and minus one in turn: no price, but an input.
    Alternating,
    /// Moves at the end of what a number can hold.
    Denormal,
}

impl Kind {
    /// What a market may do.
    pub(crate) const ALL: [Self; 14] = [
        Self::Walk,
        Self::Trend,
        Self::Flat,
        Self::OneStep,
        Self::Ticks,
        Self::Tiny,
        Self::Huge,
        Self::Offset,
        Self::Spikes,
        Self::Halts,
        Self::ZeroVolume,
        Self::Gaps,
        Self::LongFlat,
        Self::Fractions,
    ];

    /// What none does, but a caller may send.
    pub(crate) const STRANGE: [Self; 2] = [Self::Alternating, Self::Denormal];
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) open: Vec<f64>,
    pub(crate) high: Vec<f64>,
    pub(crate) low: Vec<f64>,
    pub(crate) close: Vec<f64>,
    pub(crate) volume: Vec<f64>,
}

impl Columns {
    pub(crate) fn bars(&self) -> Bars<'_> {
        Bars::ohlcv(&self.open, &self.high, &self.low, &self.close, &self.volume).unwrap()
    }

    /// Largest price, the scale of what is measured in prices.
    pub(crate) fn scale(&self) -> f64 {
        self.high.iter().copied().fold(0.0, f64::max)
    }
}

/// `len` sound bars of a kind.
pub(crate) fn columns(kind: Kind, seed: u64, len: usize) -> Columns {
    let mut dice = Dice::new(seed);
    let mut columns = Columns::default();
    let mut close = 100.0;
    for bar in 0..len {
        let open = if kind == Kind::Gaps { close * (0.9 + 0.2 * dice.roll()) } else { close };
        close = next_close(kind, close, bar, len, &mut dice);
        let wick = match kind {
            Kind::Flat | Kind::OneStep | Kind::Ticks => 0.0,
            Kind::Halts | Kind::LongFlat if open == close => 0.0,
            _ => (close - open).abs(),
        };
        let spike = if kind == Kind::Spikes && dice.roll() < 0.02 { 1e9 } else { 1.0 };
        let (scale, offset) = match kind {
            Kind::Tiny => (1e-11, 0.0),
            Kind::Huge => (1e7, 0.0),
            Kind::Offset => (1e-3, 1e6),
            Kind::Denormal => (1e-312, 0.0),
            _ => (1.0, 0.0),
        };
        let price = |value: f64| (value * spike) * scale + offset;
        columns.open.push(price(open));
        columns.close.push(price(close));
        columns.high.push(price(open.max(close) + wick * dice.roll()));
        columns.low.push(price(open.min(close) - wick * dice.roll()));
        let volume = dice.roll() * 1e6;
        columns.volume.push(match kind {
            Kind::ZeroVolume => 0.0,
            Kind::Fractions => volume / 3.0,
            _ => volume.floor(),
        });
    }
    columns
}

fn next_close(kind: Kind, close: f64, bar: usize, len: usize, dice: &mut Dice) -> f64 {
    match kind {
        Kind::Flat => 100.1,
        Kind::OneStep => f64::from(u8::from(bar > len / 2)) + 100.1,
        Kind::Ticks => {
            let tick = [-0.01, 0.0, 0.01][(dice.roll() * 3.0) as usize];
            ((close + tick) * 100.0).round() / 100.0
        }
        Kind::Trend => close + 0.1 + 0.001 * dice.roll(),
        Kind::Halts if bar % 97 > 40 => close,
        Kind::LongFlat => {
            100.1 + if bar > len / 10 * 9 { 0.01 * f64::from(u8::from(bar.is_multiple_of(3))) } else { 0.0 }
        }
        Kind::Alternating => [1.0, -1.0][bar % 2],
        _ => close * (1.0 + (dice.roll() - 0.5) * 0.04),
    }
}

/// Daily bars of a share or an index, as they were traded: `conf/demo` says where they are from.
pub(crate) fn real(name: &str) -> Columns {
    let text = match name {
        "AAPL" => include_str!("../../conf/demo/AAPL.csv"),
        "FB" => include_str!("../../conf/demo/FB.csv"),
        "GOOG" => include_str!("../../conf/demo/GOOG.csv"),
        "IBM" => include_str!("../../conf/demo/IBM.csv"),
        "MSFT" => include_str!("../../conf/demo/MSFT.csv"),
        "NASDAQ" => include_str!("../../conf/demo/NASDAQ.csv"),
        "SP500" => include_str!("../../conf/demo/SP500.csv"),
        _ => panic!("there is no file of {name}"),
    };
    let mut columns = Columns::default();
    let all =
        [&mut columns.open, &mut columns.high, &mut columns.low, &mut columns.close, &mut columns.volume];
    for (at, column) in all.into_iter().enumerate() {
        let values = text.lines().skip(1).map(|line| line.split(',').nth(at + 1).unwrap());
        *column = values.map(|value| value.parse().unwrap()).collect();
    }
    columns
}

/// The names that [`real`] knows.
pub(crate) const REAL: [&str; 7] = ["AAPL", "FB", "GOOG", "IBM", "MSFT", "NASDAQ", "SP500"];

/// Any kind, any seed, any length below the bound.
pub(crate) fn any_columns(len_max: usize) -> impl Strategy<Value = Columns> {
    (prop::sample::select(&Kind::ALL), any::<u64>(), 0..len_max)
        .prop_map(|(kind, seed, len)| columns(kind, seed, len))
}

/// Every output of an indicator.
pub(crate) fn compute(indicator: &Indicator, bars: &Bars<'_>) -> Vec<Vec<f64>> {
    let mut outs = vec![vec![f64::INFINITY; bars.len()]; indicator.outputs().len()];
    let mut slices: Vec<&mut [f64]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
    indicator.compute(&mut Workspace::new(Cpu::proven().unwrap()), bars, &mut slices).unwrap();
    outs
}

/// Equal bits; one `NaN` is as good as another.
pub(crate) fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}
