//! Several computations at once have the bits of each alone.

use crate::series::{Columns, Kind, columns, compute, same_bits};
use proptest::prelude::*;
use sluice_calc::{Compat, Cpu, Entry, Indicator, Job, Range, Value, Workspace, catalog, compute_all};

/// An entry with these windows where it has as many.
fn parse(entry: &Entry, compat: Compat, windows: [u32; 3]) -> Indicator {
    let whole = |range: &Range| matches!(range, Range::Whole { max, .. } if *max > 1);
    let bars = entry.params.iter().filter(|param| whole(&param.range));
    let given: Vec<_> =
        bars.zip(windows).map(|(param, bars)| (param.name, Value::Number(bars.into()))).collect();
    Indicator::parse(entry.name, compat, &given).unwrap()
}

/// Computes them all at once and each alone.
fn assert_same(jobs: &[(Indicator, &Columns)]) {
    let buffers = |(indicator, columns): &(Indicator, &Columns)| {
        vec![vec![0.5; columns.close.len()]; indicator.outputs().len()]
    };
    let mut found: Vec<Vec<Vec<f64>>> = jobs.iter().map(buffers).collect();
    let mut slices: Vec<Vec<&mut [f64]>> =
        found.iter_mut().map(|outs| outs.iter_mut().map(Vec::as_mut_slice).collect()).collect();
    let mut all: Vec<Job<'_, '_>> = jobs
        .iter()
        .zip(&mut slices)
        .map(|((indicator, columns), outs)| Job::new(indicator, &columns.bars(), outs).unwrap())
        .collect();
    compute_all(&mut Workspace::new(Cpu::proven().unwrap()), &mut all);
    for (at, ((indicator, columns), found)) in jobs.iter().zip(&found).enumerate() {
        for (found, alone) in found.iter().zip(compute(indicator, &columns.bars())) {
            assert!(same_bits(found, &alone), "job {at} of {indicator:?}: {found:?}, alone {alone:?}");
        }
    }
}

fn entries() -> Vec<&'static Entry> {
    catalog::entries().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn symbols_side_by_side(
        entry in prop::sample::select(entries()),
        compat in prop::sample::select(&Compat::ALL),
        windows in prop::array::uniform3(2..=20_u32),
        lengths in prop::collection::vec(0..130_usize, 1..20),
        seed in 0..1_000_u64,
    ) {
        let indicator = parse(entry, compat, windows);
        let kind = |at: usize| Kind::ALL[(seed as usize + at) % Kind::ALL.len()];
        let series: Vec<Columns> =
            lengths.iter().enumerate().map(|(at, &len)| columns(kind(at), seed + at as u64, len)).collect();
        let jobs: Vec<_> = series.iter().map(|columns| (indicator.clone(), columns)).collect();
        assert_same(&jobs);
    }

    #[test]
    fn parameters_side_by_side(
        entry in prop::sample::select(entries()),
        compat in prop::sample::select(&Compat::ALL),
        sets in prop::collection::vec(prop::array::uniform3(2..=40_u32), 1..40),
        len in 0..260_usize,
        seed in 0..1_000_u64,
    ) {
        let series = columns(Kind::ALL[seed as usize % Kind::ALL.len()], seed, len);
        let jobs: Vec<_> = sets.into_iter().map(|windows| (parse(entry, compat, windows), &series)).collect();
        assert_same(&jobs);
    }

    #[test]
    fn anything_in_any_order(
        picks in prop::collection::vec((prop::sample::select(entries()), prop::array::uniform3(2..=9_u32), 0..4_usize), 0..30),
        seed in 0..1_000_u64,
    ) {
        let series = [0, 1, 40, 77].map(|len| columns(Kind::Walk, seed, len));
        let jobs: Vec<_> = picks
            .into_iter()
            .map(|(entry, windows, at)| (parse(entry, Compat::TaLib, windows), &series[at]))
            .collect();
        assert_same(&jobs);
    }
}

#[test]
fn long_series_and_many_sets_keep_their_bits() {
    for name in ["ema", "rsi", "macd", "atr", "adx", "tema"] {
        let entry = catalog::find(name).unwrap();
        let long = columns(Kind::Spikes, 3, 20_003);
        let sets = (2..36).map(|window| (parse(entry, Compat::TaLib, [window, window + 3, 5]), &long));
        assert_same(&sets.collect::<Vec<_>>());
        let series: Vec<Columns> =
            (0..9).map(|at| columns(Kind::Walk, at, 9_000 + 11 * at as usize)).collect();
        let indicator = parse(entry, Compat::TaLib, [14, 30, 9]);
        assert_same(&series.iter().map(|columns| (indicator.clone(), columns)).collect::<Vec<_>>());
    }
}
