//! Several computations at once: one indicator over many symbols, many sets of parameters over one series, or both.

use super::{ComputeError, Indicator, Workspace};
use crate::indicator::{Kernel, Rows};
use crate::series::Bars;

/// One of several computations.
///
/// ```
/// use sluice_calc::{Bars, Compat, Cpu, Indicator, Job, Value, Workspace, compute_all};
///
/// let close: Vec<f64> = (0..200).map(f64::from).collect();
/// let bars = Bars::from_close(&close);
/// let sweep: Vec<Indicator> = (2..34)
///     .map(|period| Indicator::parse("ema", Compat::TaLib, &[("period", Value::Number(f64::from(period)))]))
///     .collect::<Result<_, _>>()?;
/// let mut values = vec![vec![0.0; close.len()]; sweep.len()];
/// let mut outs: Vec<[&mut [f64]; 1]> = values.iter_mut().map(|value| [value.as_mut_slice()]).collect();
/// let mut jobs = Vec::new();
/// for (indicator, outs) in sweep.iter().zip(&mut outs) {
///     jobs.push(Job::new(indicator, &bars, outs)?);
/// }
/// compute_all(&mut Workspace::new(Cpu::proven()?), &mut jobs);
/// assert_eq!((values[0][1], values[31][199]), (0.5, 183.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Job<'a, 'b> {
    pub(crate) kernel: &'a dyn Kernel,
    pub(crate) rows: Rows<'a>,
    pub(crate) outs: &'a mut [&'b mut [f64]],
}

impl<'a, 'b> Job<'a, 'b> {
    /// Fails as [`Indicator::compute`] does.
    pub fn new(
        indicator: &'a Indicator,
        bars: &Bars<'a>,
        outs: &'a mut [&'b mut [f64]],
    ) -> Result<Self, ComputeError> {
        indicator.check(bars, outs)?;
        Ok(Self { kernel: &*indicator.kernel, rows: Rows::of(bars), outs })
    }
}

/// Computes them all, with the bits that [`Indicator::compute`] gives for each alone.
///
/// Jobs of one indicator that follow one another, over several series or with several sets of parameters, go side by
/// side in lanes where that is faster: averages and what else follows from the bar before, over series too short for
/// chunks of their own. What sums or compares windows fills its lanes from one series.
pub fn compute_all(work: &mut Workspace, jobs: &mut [Job<'_, '_>]) {
    let mut rest = jobs;
    while let Some(first) = rest.first() {
        let kernel = first.kernel;
        let mut done = kernel.together(rest);
        if done == 0 {
            let Job { rows, outs, .. } = &mut rest[0];
            work.with_columns(kernel.scratch_columns(), rows.len(), |scratch| {
                kernel.batch(rows, outs, scratch);
            });
            done = 1;
        }
        rest = &mut rest[done..];
    }
}
