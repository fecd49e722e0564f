//! The indicators: each a checked parameter set with its lookback, a batch over one series, a
//! streaming state, and its row of the catalogue.
//!
//! Inputs must be finite ([`Bars::first_fault`](crate::Bars::first_fault) tells): after a value
//! that is not, the outputs are unspecified from that bar on, though nothing panics.

pub(crate) mod average;
pub(crate) mod candle;
pub(crate) mod momentum;
pub(crate) mod price;
pub(crate) mod trend;
pub(crate) mod volatility;
pub(crate) mod volume;

use crate::catalog::Job;
use crate::lanes::Lanes;
use crate::series::{Bar, Bars, Column};
use std::any::Any;
use std::fmt::Debug;

/// An indicator ready to compute.
pub(crate) trait Kernel: Any + Debug + Send + Sync {
    /// Bars before the first value of every output.
    fn lookback(&self) -> usize;

    /// Bars by which a chart draws an output later than it is computed, or earlier where negative.
    fn shift(&self, _output: usize) -> isize {
        0
    }

    /// Columns of scratch that [`batch`](Self::batch) needs, each as long as the series.
    fn scratch_columns(&self) -> usize {
        0
    }

    /// Writes every output of every bar, `NaN` for the lookback. Rows, outputs and scratch have one
    /// length; `rows` has the columns of the entry.
    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]);

    /// The streaming state before the first bar.
    fn stream(&self) -> Box<dyn Live>;

    /// Computes the first few of the jobs, of which the very first is its own, side by side, and says how
    /// many; none where that is not faster than one after the other.
    fn together(&self, _jobs: &mut [Job<'_, '_>]) -> usize {
        0
    }
}

/// An indicator's streaming state: the bits of the batch, bar by bar.
pub(crate) trait Live: Debug + Send + Sync {
    /// Takes a closed bar and writes its outputs.
    fn push(&mut self, bar: Bar, outs: &mut [f64]);

    /// Writes what [`push`](Self::push) would, and keeps the state: for the bar still forming.
    fn peek(&self, bar: Bar, outs: &mut [f64]);

    /// A copy.
    fn boxed(&self) -> Box<dyn Live>;
}

/// The columns of a series; a column that it lacks is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    columns: [&'a [f64]; Column::ALL.len()],
}

impl<'a> Rows<'a> {
    pub(crate) fn of(bars: &Bars<'a>) -> Self {
        Self { columns: Column::ALL.map(|column| bars.column(column).unwrap_or_default()) }
    }

    #[inline]
    pub(crate) fn column(&self, column: Column) -> &'a [f64] {
        self.columns[column as usize]
    }

    /// The same from a bar on.
    pub(crate) fn from(&self, bar: usize) -> Self {
        Self { columns: self.columns.map(|column| column.get(bar..).unwrap_or_default()) }
    }

    /// Number of bars.
    pub(crate) fn len(&self) -> usize {
        self.column(Column::Close).len()
    }
}

/// The true range: the farthest apart of today's high, today's low and yesterday's close.
#[inline(always)]
pub(crate) fn true_range<V: Lanes>(high: V, low: V, close_before: V) -> V {
    let above = (high - close_before).abs();
    let below = (low - close_before).abs();
    below.top(above.top(high - low))
}

/// Marks the warm-up: the first `lookback` values, or all when there are fewer.
pub(crate) fn fill_warm_up(out: &mut [f64], lookback: usize) {
    let warm_up = lookback.min(out.len());
    out[..warm_up].fill(f64::NAN);
}

/// The outputs of a kernel that has so many; the catalogue has counted them.
pub(crate) fn outputs<'a, const O: usize>(outs: &'a mut [&mut [f64]]) -> [&'a mut [f64]; O] {
    let mut outs = outs.iter_mut();
    std::array::from_fn(|_| outs.next().map_or(&mut [][..], |out| &mut **out))
}
