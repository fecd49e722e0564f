//! Indicators in which every bar's value follows from the one before: exponential averages,
//! Wilder's averages, and what is made of them.
//!
//! Such an indicator is one step over [`Lanes`] and a seed. The step at width 1 is the streaming
//! form and the plain batch. A long series is cut into chunks that advance side by side: each starts
//! early, from a guess that the bars before it wear away, and counts only if it has then come to the
//! very bits of its predecessor's end; where it has not, the plain loop goes over it. So the batch is
//! the plain loop's result, whatever the prices.

mod drive;
mod live;
mod together;

pub(crate) use live::{Recursion, Running};

use crate::lanes::Lanes;
use crate::series::Column;
use std::fmt::Debug;

/// A recursive indicator of `I` inputs, `S` words of state, `K` coefficients and `O` outputs.
pub(crate) trait Recursive<const I: usize, const S: usize, const K: usize, const O: usize>:
    Copy + Debug + Send + Sync + 'static
{
    /// What stands before the first output.
    type Seed: Seed<I, S, O>;

    /// The columns it reads.
    const READS: [Column; I];

    /// Bars before the first output.
    fn lookback(&self) -> usize;

    /// The numbers its step works with.
    fn coefficients(&self) -> [f64; K];

    /// The seeding before the first bar.
    fn seed(&self) -> Self::Seed;

    /// One bar's work, without a branch on any value.
    fn step<V: Lanes>(k: &[V; K], state: &mut [V; S], bar: [V; I]) -> [V; O];

    /// A state to start a chunk from when all that is known is a bar.
    fn guess<V: Lanes>(bar: [V; I]) -> [V; S];

    /// Bars after which a guess has worn away on ordinary prices. Speed alone depends on it.
    fn forgets(&self) -> usize;
}

/// The bars before the first output, taken one by one: the only place where seeds are defined.
pub(crate) trait Seed<const I: usize, const S: usize, const O: usize>:
    Clone + Debug + Send + Sync + 'static
{
    /// The state and the outputs of this bar when the lookback is over, `None` before. Not called
    /// again after it has answered.
    fn push(&mut self, bar: [f64; I]) -> Option<([f64; S], [f64; O])>;
}
