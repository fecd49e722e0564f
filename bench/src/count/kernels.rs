//! Kernels under callgrind: each is computed a few times, between two entries into [`next_count`], at which
//! callgrind writes what it counted since the last.

use std::hint::black_box;

use anyhow::Context as _;
use sluice_calc::{Bars, Compat, Cpu, Indicator, Workspace};

use crate::kernels::{KERNELS, walk};

/// Bars of a series: its blocks, and a rest.
const BARS: usize = 2_001;
/// What is counted: the first run fills the workspace and does not count.
const RUNS: u32 = 4;
/// The name by which callgrind knows [`next_count`].
pub(super) const MARK: &str = "*next_count*";

/// Names of what is counted, in order.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|kernel| kernel.name)
}

/// Bars that each name stands for.
pub(super) const fn operations() -> u32 {
    BARS as u32 * RUNS
}

/// Where callgrind writes a dump. Takes an argument, so that it is not folded into another.
#[inline(never)]
fn next_count(number: usize) {
    black_box(number);
}

/// Computes each kernel between two marks.
pub(super) fn run() -> anyhow::Result<()> {
    let columns = walk(BARS);
    let [open, high, low, close, volume] = &columns;
    let view = Bars::ohlcv(open, high, low, close, volume)?;
    let mut work = Workspace::new(Cpu::proven()?);
    for (number, kernel) in KERNELS.iter().enumerate() {
        let indicator = Indicator::parse(kernel.name, Compat::TaLib, kernel.given)
            .with_context(|| kernel.name.to_owned())?;
        let mut outs = vec![vec![0.0; BARS]; indicator.outputs().len()];
        let mut slices: Vec<&mut [f64]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
        indicator.compute(&mut work, black_box(&view), &mut slices)?;
        next_count(2 * number);
        for _ in 0..RUNS {
            indicator.compute(&mut work, black_box(&view), black_box(&mut slices))?;
        }
        next_count(2 * number + 1);
    }
    Ok(())
}
