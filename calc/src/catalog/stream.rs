//! Any indicator's streaming state.

use crate::indicator::Live;
use crate::series::Bar;

/// Most outputs any indicator has.
pub(super) const OUTPUTS_MAX: usize = 7;

/// The outputs of one bar, in the order of [`Indicator::outputs`](super::Indicator::outputs).
#[derive(Clone, Copy, Debug)]
pub struct Outputs {
    values: [f64; OUTPUTS_MAX],
    len: usize,
}

impl Outputs {
    /// The values, `NaN` until the lookback is over.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.values[..self.len]
    }

    #[inline]
    fn filled(len: usize, fill: impl FnOnce(&mut [f64])) -> Self {
        let mut outputs = Self { values: [f64::NAN; OUTPUTS_MAX], len };
        fill(&mut outputs.values[..len]);
        outputs
    }
}

/// The streaming state of an [`Indicator`](super::Indicator): the bits of the batch, bar by bar.
#[derive(Debug)]
pub struct IndicatorStream {
    live: Box<dyn Live>,
    outputs: usize,
}

impl IndicatorStream {
    pub(super) fn new(live: Box<dyn Live>, outputs: usize) -> Self {
        Self { live, outputs }
    }

    /// Takes a closed bar and returns its outputs.
    #[inline]
    pub fn push(&mut self, bar: Bar) -> Outputs {
        Outputs::filled(self.outputs, |outs| self.live.push(bar, outs))
    }

    /// Returns what [`push`](Self::push) would, and keeps the state: for the bar still forming.
    #[inline]
    #[must_use]
    pub fn peek(&self, bar: Bar) -> Outputs {
        Outputs::filled(self.outputs, |outs| self.live.peek(bar, outs))
    }
}

impl Clone for IndicatorStream {
    fn clone(&self) -> Self {
        Self { live: self.live.boxed(), outputs: self.outputs }
    }
}
