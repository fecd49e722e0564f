//! One round: every kernel and every rival once after the other, several times, the shortest counts.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use sluice_calc::risk::{self, Settings};
use sluice_calc::search::{Rank, Space, Task, Terms, find};
use sluice_calc::{Bar, Bars, Compat, Cpu, Indicator, Workspace, dispatch};

use super::rivals::{TaLibC, TulipC};
use super::table::{Columns, KERNELS, Kernel, of_crate, walk};

/// Bars that go through the streams.
const STREAM_BARS: usize = 100_000;
/// Exponential averages of the sweep.
const SWEEP: usize = 32;
/// Bars and windows of the search: 19,900 pairs.
const SEARCH: (usize, u32) = (10_000, 201);

/// What one round found, by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Round {
    /// For which processors the library was compiled.
    pub(super) build: String,
    /// Nanoseconds a bar: kernel, then who.
    pub(super) kernels: BTreeMap<String, BTreeMap<String, f64>>,
    /// Nanoseconds: `copy` and `fill` a value, `risk` a return, `sweep` a bar and average; `grid` combinations a second.
    pub(super) others: BTreeMap<String, f64>,
    /// The same by the length of the series, upwards.
    pub(super) growth: BTreeMap<String, Vec<Length>>,
}

/// A kernel over a series of one length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Length {
    pub(super) bars: usize,
    /// Nanoseconds a bar.
    pub(super) ours: f64,
    /// The same by TA-Lib in C.
    pub(super) talib: Option<f64>,
}

/// Lengths of series, as far as there are bars.
const LENGTHS: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
/// Bars of a short series' calls together, so that a clock can tell.
const TOGETHER: usize = 100_000;

/// Who is measured.
pub(super) const OURS: &str = "sluice";
pub(super) const TALIB: &str = "ta-lib C";
pub(super) const CRATE: &str = "ta-lib crate";
pub(super) const TULIP: &str = "tulip";
pub(super) const STREAM: &str = "stream";

/// Measures in this process.
pub(super) fn round(
    bars: usize,
    runs: u32,
    talib: Option<&Path>,
    tulip: Option<&Path>,
) -> anyhow::Result<Round> {
    let columns = walk(bars);
    let talib = talib.map(TaLibC::open).transpose()?;
    let tulip = tulip.map(TulipC::open).transpose()?;
    let mut work = Workspace::new(Cpu::proven()?);
    let mut outs = vec![vec![0.0; bars]; 3];
    let mut found = Round { build: build().to_owned(), ..Round::default() };
    for kernel in KERNELS {
        let figures = measured(kernel, &columns, &mut work, &mut outs, runs, talib.as_ref(), tulip.as_ref())
            .with_context(|| kernel.name.to_owned())?;
        found.kernels.insert(kernel.name.to_owned(), figures);
        let lengths = lengths(kernel, &columns, &mut work, runs.min(3), talib.as_ref())?;
        found.growth.insert(kernel.name.to_owned(), lengths);
    }
    found.others = others(&columns, &mut work, &mut outs, runs)?;
    Ok(found)
}

/// For which processors this program was compiled.
pub(super) const fn build() -> &'static str {
    match dispatch::BUILD {
        dispatch::Build::V3 => "x86-64-v3",
        dispatch::Build::Baseline => "baseline",
    }
}

fn measured(
    kernel: &Kernel,
    columns: &Columns,
    work: &mut Workspace,
    outs: &mut [Vec<f64>],
    runs: u32,
    talib: Option<&TaLibC>,
    tulip: Option<&TulipC>,
) -> anyhow::Result<BTreeMap<String, f64>> {
    let [open, high, low, close, volume] = columns;
    let (bars, view) = (close.len(), Bars::ohlcv(open, high, low, close, volume)?);
    let indicator = Indicator::parse(kernel.name, Compat::TaLib, kernel.given)?;
    let mut ours = vec![vec![0.0; bars]; indicator.outputs().len()];
    let mut best = BTreeMap::new();
    for _ in 0..runs {
        timed(&mut best, OURS, bars, || {
            let mut slices: Vec<&mut [f64]> = ours.iter_mut().map(Vec::as_mut_slice).collect();
            Ok(indicator.compute(work, black_box(&view), &mut slices)?)
        })?;
        if let Some(talib) = talib {
            timed(&mut best, TALIB, bars, || {
                talib.compute(&kernel.talib, black_box(columns), outs).map(|_| ())
            })?;
        }
        timed(&mut best, CRATE, bars, || match of_crate(kernel.name, black_box(columns), outs) {
            Ok(_) => Ok(()),
            Err(code) => bail!("the crate answers {code:?}"),
        })?;
        if let Some(tulip) = tulip {
            timed(&mut best, TULIP, bars, || tulip.compute(&kernel.tulip, black_box(columns), outs))?;
        }
    }
    if let Some(talib) = talib {
        let (begin, count) = talib.compute(&kernel.talib, columns, outs)?;
        agree(&ours, outs, begin, count)?;
    }
    let rows: Vec<Bar> = (0..bars.min(STREAM_BARS)).filter_map(|row| view.bar(row)).collect();
    for _ in 0..runs.min(3) {
        timed(&mut best, STREAM, rows.len(), || {
            let mut stream = indicator.stream();
            ensure!(rows.iter().all(|&bar| !black_box(stream.push(bar)).as_slice().is_empty()));
            Ok(())
        })?;
    }
    Ok(best)
}

/// A kernel over longer and longer series; one that is shorter than the kernel's window is a call without a value.
fn lengths(
    kernel: &Kernel,
    columns: &Columns,
    work: &mut Workspace,
    runs: u32,
    talib: Option<&TaLibC>,
) -> anyhow::Result<Vec<Length>> {
    let indicator = Indicator::parse(kernel.name, Compat::TaLib, kernel.given)?;
    let all = columns[0].len();
    let mut found = Vec::new();
    for bars in LENGTHS.into_iter().filter(|bars| *bars <= all) {
        let part = columns.each_ref().map(|column| column[..bars].to_vec());
        let view = Bars::ohlcv(&part[0], &part[1], &part[2], &part[3], &part[4])?;
        let mut ours = vec![vec![0.0; bars]; indicator.outputs().len()];
        let mut theirs = vec![vec![0.0; bars]; 3];
        let calls = (TOGETHER.min(all) / bars).max(1);
        let mut best = BTreeMap::new();
        for _ in 0..runs {
            timed(&mut best, OURS, bars * calls, || {
                (0..calls).try_for_each(|_| {
                    let mut slices: Vec<&mut [f64]> = ours.iter_mut().map(Vec::as_mut_slice).collect();
                    Ok(indicator.compute(work, black_box(&view), &mut slices)?)
                })
            })?;
            if let Some(talib) = talib {
                timed(&mut best, TALIB, bars * calls, || {
                    (0..calls).try_for_each(|_| {
                        talib.compute(&kernel.talib, black_box(&part), &mut theirs).map(|_| ())
                    })
                })?;
            }
        }
        found.push(Length { bars, ours: best[OURS], talib: best.get(TALIB).copied() });
    }
    Ok(found)
}

/// Both computed the same before anything is said of how fast.
fn agree(ours: &[Vec<f64>], theirs: &[Vec<f64>], begin: usize, count: usize) -> anyhow::Result<()> {
    ensure!(count > 0 && begin + count == ours[0].len(), "{count} values from {begin}");
    for (output, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        let scale = ours[begin..].iter().fold(1.0_f64, |scale, value| scale.max(value.abs()));
        let odd = ours[begin..].iter().zip(theirs).position(|(a, b)| {
            let near = (a - b).abs() <= 1e-9 * scale;
            !near
        });
        ensure!(odd.is_none(), "output {output} differs from TA-Lib's at value {odd:?}");
    }
    Ok(())
}

/// Runs once; keeps the shortest time by name, nanoseconds an item.
fn timed(
    best: &mut BTreeMap<String, f64>,
    name: &str,
    items: usize,
    run: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    run()?;
    let took = began.elapsed().as_secs_f64() * 1e9 / items as f64;
    let kept = best.entry(name.to_owned()).or_insert(f64::INFINITY);
    *kept = kept.min(took);
    Ok(())
}

fn others(
    columns: &Columns,
    work: &mut Workspace,
    outs: &mut [Vec<f64>],
    runs: u32,
) -> anyhow::Result<BTreeMap<String, f64>> {
    let close = &columns[3];
    let (bars, view) = (close.len(), Bars::from_close(close));
    let (mut returns, mut scratch) = (vec![0.0; bars - 1], vec![0.0; bars]);
    ensure!(matches!(risk::returns_of_prices(close, &mut returns), Ok(Ok(()))), "returns of the walk");
    let averages: Vec<Indicator> = (2..2 + SWEEP)
        .map(|period| {
            Indicator::parse("ema", Compat::TaLib, &[("period", sluice_calc::Value::Number(period as f64))])
        })
        .collect::<Result<_, _>>()?;
    let mut best = BTreeMap::new();
    for _ in 0..runs {
        timed(&mut best, "copy", bars, || {
            outs[0].copy_from_slice(black_box(close));
            Ok(())
        })?;
        timed(&mut best, "fill", bars, || {
            outs[0].fill(black_box(1.0));
            Ok(())
        })?;
        timed(&mut best, "risk", bars - 1, || {
            ensure!(risk::summary(black_box(&returns), &Settings::default(), &mut scratch).is_ok());
            Ok(())
        })?;
        timed(&mut best, "sweep", bars * SWEEP, || {
            averages.iter().try_for_each(|average| Ok(average.compute(work, &view, &mut [&mut outs[0]])?))
        })?;
    }
    best.insert("grid".to_owned(), grid(runs.min(3))?);
    Ok(best)
}

/// Combinations a second.
fn grid(runs: u32) -> anyhow::Result<f64> {
    let close = walk(SEARCH.0).into_iter().nth(3).unwrap_or_default();
    let windows: Vec<f64> = (2..=SEARCH.1).map(f64::from).collect();
    let rule = find("sma_crossover").context("no rule sma_crossover")?;
    let space = Space::new(rule, &[("fast", &windows), ("slow", &windows)])?;
    let terms = Terms { short: false, cost: 0.001, periods_per_year: 252.0 };
    let task = Task::new(&space, Bars::from_close(&close), terms, Rank::Sharpe, 5)?;
    let combinations = windows.len() * (windows.len() - 1) / 2;
    let mut best = BTreeMap::new();
    for _ in 0..runs {
        let work = Workspace::new(Cpu::proven()?);
        timed(&mut best, "grid", combinations, || {
            ensure!(!task.grid(work, 0..space.size(), 0..SEARCH.0, &mut |_, _| true)?.found().is_empty());
            Ok(())
        })?;
    }
    Ok(best.values().map(|each| 1e9 / each).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_measures_every_kernel() {
        let found = round(3_000, 1, None, None).unwrap();
        assert_eq!(found.kernels.len(), KERNELS.len());
        for (name, figures) in &found.kernels {
            assert!([OURS, CRATE, STREAM].iter().all(|who| figures[*who] > 0.0), "{name}: {figures:?}");
        }
        assert!(found.growth.values().all(|lengths| lengths.iter().map(|one| one.bars).eq([10, 100, 1_000])));
        assert!(found.growth.values().flatten().all(|one| one.ours > 0.0 && one.talib.is_none()));
        assert!(["copy", "fill", "risk", "sweep", "grid"].iter().all(|name| found.others[*name] > 0.0));
    }

    #[test]
    fn answers_that_differ_are_found() {
        let ours = [vec![f64::NAN, 1.0, 2.0]];
        assert!(agree(&ours, &[vec![1.0, 2.0, 0.0]], 1, 2).is_ok());
        assert!(agree(&ours, &[vec![1.0, 2.1, 0.0]], 1, 2).is_err());
        assert!(agree(&ours, &[vec![1.0, f64::NAN, 0.0]], 1, 2).is_err());
        assert!(agree(&ours, &[vec![1.0, 2.0, 0.0]], 1, 1).is_err());
    }
}
