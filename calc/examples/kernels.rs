//! Prints nanoseconds a bar and kernel, beside those of the `ta-lib` crate: one thread, a million
//! bars, reused buffers, best of several runs. `cargo run --release -p sluice-calc --example kernels [BARS [NAME]]`.
#![allow(clippy::print_stdout, reason = "a table on standard output is its purpose")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use sluice_calc::risk::{self, Settings};
use sluice_calc::{Bar, Bars, Compat, Cpu, Indicator, Job, Value, Workspace, compute_all};
use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;
use ta_lib::{Core, MAType, OutRange, RetCode};

/// Bars computed in all for each figure: short series are run more often.
const BARS_IN_ALL: usize = 20_000_000;

fn main() {
    let bars = std::env::args().nth(1).and_then(|bars| bars.parse().ok()).unwrap_or(1_000_000_usize).max(2);
    let columns = walk(bars);
    let [open, high, low, close, volume] = &columns;
    let Ok(view) = Bars::ohlcv(open, high, low, close, volume) else { return };
    let rows: Vec<Bar> = (0..bars).filter_map(|row| view.bar(row)).collect();
    println!("{bars} bars, ns a bar (best of {})", runs(bars));
    println!("{:<22} {:>8} {:>8} {:>8}", "kernel", "batch", "stream", "ta-lib");
    let Ok(cpu) = Cpu::proven() else { return };
    let mut work = Workspace::new(cpu);
    let mut outs = vec![vec![0.0; bars]; 7];
    let mut flags = vec![vec![0; bars]; 2];
    let only = std::env::args().nth(2);
    for (name, given) in KERNELS.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| *name == only)) {
        let Ok(indicator) = Indicator::parse(name, Compat::TaLib, given) else { continue };
        let batch = best(bars, || {
            let wanted = indicator.outputs().len();
            let mut slices: Vec<&mut [f64]> = outs.iter_mut().take(wanted).map(Vec::as_mut_slice).collect();
            black_box(indicator.compute(&mut work, black_box(&view), &mut slices)).is_ok()
        });
        let stream = best(bars, || {
            let mut stream = indicator.stream();
            rows.iter().all(|&bar| !black_box(stream.push(bar)).as_slice().is_empty())
        });
        // The crate has no pivot points.
        let rival = if *name == "pivot" {
            f64::NAN
        } else {
            best(bars, || {
                let columns = black_box(&columns);
                flagged(name, columns, &mut outs, &mut flags)
                    .unwrap_or_else(|| ta_lib(name, columns, &mut outs))
                    .is_ok()
            })
        };
        println!("{:<22} {batch:>8.2} {stream:>8.2} {rival:>8.2}", label(name, given));
    }
    let mut returns = vec![0.0; bars - 1];
    let mut scratch = vec![0.0; bars];
    let Ok(Ok(())) = risk::returns_of_prices(close, &mut returns) else { return };
    let all = best(bars, || {
        black_box(risk::summary(black_box(&returns), &Settings::default(), &mut scratch)).is_ok()
    });
    println!("{:<22} {all:>8.2}", "risk, every figure");
    let close = Bars::from_close(close);
    several("32 averages, a bar", &mut work, &averages(2..34), &[close]);
    let symbols = [close.head(1_000.min(bars)); 16];
    several("16 symbols of 1,000", &mut work, &averages(20..21), &symbols);
    several("32 averages of 1,000", &mut work, &averages(2..34), &symbols[..1]);
}

/// Exponential averages of so many bars.
fn averages(periods: Range<u32>) -> Vec<Indicator> {
    let average =
        |period: u32| Indicator::parse("ema", Compat::TaLib, &[("period", Value::Number(period.into()))]);
    periods.filter_map(|period| average(period).ok()).collect()
}

/// Every indicator over every series at once, beside one after the other; nanoseconds a bar of each.
fn several(name: &str, work: &mut Workspace, indicators: &[Indicator], series: &[Bars<'_>]) {
    let pairs = || indicators.iter().flat_map(|indicator| series.iter().map(move |bars| (indicator, bars)));
    let mut values: Vec<Vec<f64>> = pairs().map(|(_, bars)| vec![0.0; bars.len()]).collect();
    let bars = values.iter().map(Vec::len).sum();
    let together = best(bars, || {
        let mut outs: Vec<[&mut [f64]; 1]> = values.iter_mut().map(|value| [value.as_mut_slice()]).collect();
        let jobs = pairs().zip(&mut outs).map(|((indicator, bars), outs)| Job::new(indicator, bars, outs));
        let Ok(mut jobs) = jobs.collect::<Result<Vec<_>, _>>() else { return false };
        compute_all(work, &mut jobs);
        true
    });
    let alone = best(bars, || {
        let mut outs = pairs().zip(&mut values);
        outs.all(|((indicator, bars), value)| indicator.compute(work, bars, &mut [value]).is_ok())
    });
    println!("{name:<22} {together:>8.2} {:>8} {alone:>8.2} (one after the other)", "");
}

const KERNELS: &[(&str, &[(&str, Value<'static>)])] = &[
    ("sma", &[("period", Value::Number(20.0))]),
    ("ema", &[("period", Value::Number(20.0))]),
    ("rsi", &[("period", Value::Number(14.0))]),
    ("macd", &[]),
    ("bbands", &[("period", Value::Number(20.0))]),
    ("atr", &[("period", Value::Number(14.0))]),
    ("stoch", &[("fast_k", Value::Number(14.0))]),
    ("adx", &[("period", Value::Number(14.0))]),
    ("obv", &[]),
    ("wma", &[]),
    ("dema", &[]),
    ("tema", &[]),
    ("t3", &[]),
    ("cmo", &[]),
    ("trix", &[]),
    ("mom", &[]),
    ("roc", &[]),
    ("natr", &[]),
    ("trange", &[]),
    ("dx", &[]),
    ("di", &[]),
    ("adxr", &[]),
    ("trima", &[]),
    ("hma", &[]),
    ("kama", &[]),
    ("vwma", &[]),
    ("vwap", &[]),
    ("apo", &[]),
    ("ppo", &[]),
    ("bop", &[]),
    ("stochrsi", &[]),
    ("psar", &[]),
    ("supertrend", &[]),
    ("ichimoku", &[]),
    ("pivot", &[]),
    ("fractal", &[]),
    ("cdldoji", &[]),
    ("cdlengulfing", &[]),
    ("cdlhammer", &[]),
    ("cdlmorningstar", &[]),
    ("cdl3whitesoldiers", &[]),
    ("cdl3blackcrows", &[]),
    ("cci", &[("period", Value::Number(20.0))]),
    ("mfi", &[]),
    ("willr", &[]),
    ("stddev", &[("period", Value::Number(20.0))]),
    ("linearreg", &[]),
    ("max", &[]),
    ("median", &[]),
    ("aroon", &[]),
    ("ultosc", &[]),
];

/// The same kernel of the `ta-lib` crate.
fn ta_lib(name: &str, columns: &[Vec<f64>; 5], outs: &mut [Vec<f64>]) -> Result<OutRange, RetCode> {
    let [open, high, low, close, volume] = columns;
    let [first, second, third, fourth, ..] = outs else { return Err(RetCode::BadParam) };
    let (core, last, sma) = (Core::new(), close.len() - 1, MAType::SMA);
    match name {
        "sma" => core.sma(0, last, close, 20, first),
        "ema" => core.ema(0, last, close, 20, first),
        "rsi" => core.rsi(0, last, close, 14, first),
        "macd" => core.macd(0, last, close, 12, 26, 9, first, second, third),
        "bbands" => core.bbands(0, last, close, 20, 2.0, 2.0, sma, first, second, third),
        "atr" => core.atr(0, last, high, low, close, 14, first),
        "stoch" => core.stoch(0, last, high, low, close, 14, 3, sma, 3, sma, first, second),
        "adx" => core.adx(0, last, high, low, close, 14, first),
        "obv" => core.obv(0, last, close, volume, first),
        "wma" => core.wma(0, last, close, 30, first),
        "dema" => core.dema(0, last, close, 30, first),
        "tema" => core.tema(0, last, close, 30, first),
        "t3" => core.t3(0, last, close, 5, 0.7, first),
        "cmo" => core.cmo(0, last, close, 14, first),
        "trix" => core.trix(0, last, close, 30, first),
        "mom" => core.mom(0, last, close, 10, first),
        "roc" => core.roc(0, last, close, 10, first),
        "natr" => core.natr(0, last, high, low, close, 14, first),
        "trange" => core.trange(0, last, high, low, close, first),
        "dx" => core.dx(0, last, high, low, close, 14, first),
        "di" => {
            core.plus_di(0, last, high, low, close, 14, first)?;
            core.minus_di(0, last, high, low, close, 14, second)
        }
        "psar" => core.sar(0, last, high, low, 0.02, 0.2, first),
        "ichimoku" => core.ichimoku(0, last, high, low, 9, 26, 52, first, second, third, fourth),
        "adxr" => core.adxr(0, last, high, low, close, 14, first),
        "trima" => core.trima(0, last, close, 30, first),
        "hma" => core.hma(0, last, close, 20, first),
        "kama" => core.kama(0, last, close, 30, first),
        "vwma" => core.vwma(0, last, close, volume, 30, first),
        "vwap" => core.vwap(0, last, high, low, close, volume, first),
        "apo" => core.apo(0, last, close, 12, 26, MAType::EMA, first),
        "ppo" => core.ppo(0, last, close, 12, 26, MAType::EMA, first),
        "bop" => core.bop(0, last, open, high, low, close, first),
        "stochrsi" => core.stochrsi(0, last, close, 14, 5, 3, sma, first, second),
        "cci" => core.cci(0, last, high, low, close, 20, first),
        "mfi" => core.mfi(0, last, high, low, close, volume, 14, first),
        "willr" => core.willr(0, last, high, low, close, 14, first),
        "stddev" => core.stddev(0, last, close, 20, 1.0, first),
        "linearreg" => core.linearreg(0, last, close, 14, first),
        "max" => core.max(0, last, close, 30, first),
        "median" => core.median(0, last, close, 30, first),
        "aroon" => core.aroon(0, last, high, low, 14, first, second),
        "ultosc" => core.ultosc(0, last, high, low, close, 7, 14, 28, first),
        _ => Err(RetCode::BadParam),
    }
}

/// The same kernel of the crate where it answers in whole numbers.
fn flagged(
    name: &str,
    columns: &[Vec<f64>; 5],
    outs: &mut [Vec<f64>],
    flags: &mut [Vec<i32>],
) -> Option<Result<OutRange, RetCode>> {
    let [open, high, low, close, _] = columns;
    let ([value, ..], [first, second]) = (outs, flags) else { return None };
    let (core, last) = (Core::new(), close.len() - 1);
    Some(match name {
        "supertrend" => core.supertrend(0, last, high, low, close, 10, 3.0, value, first),
        "fractal" => core.fractal(0, last, high, low, 2, 2, first, second),
        "cdldoji" => core.cdldoji(0, last, open, high, low, close, first),
        "cdlengulfing" => core.cdlengulfing(0, last, open, high, low, close, first),
        "cdlhammer" => core.cdlhammer(0, last, open, high, low, close, first),
        "cdlmorningstar" => core.cdlmorningstar(0, last, open, high, low, close, 0.3, first),
        "cdl3whitesoldiers" => core.cdl3whitesoldiers(0, last, open, high, low, close, first),
        "cdl3blackcrows" => core.cdl3blackcrows(0, last, open, high, low, close, first),
        _ => return None,
    })
}

fn label(name: &str, given: &[(&str, Value<'_>)]) -> String {
    given.iter().fold(name.to_owned(), |label, (param, value)| match value {
        Value::Number(number) => format!("{label} {param}={number}"),
        Value::Word(word) => format!("{label} {param}={word}"),
    })
}

fn runs(bars: usize) -> usize {
    BARS_IN_ALL.div_ceil(bars).max(15)
}

/// The shortest of several runs, in nanoseconds a bar.
fn best(bars: usize, mut run: impl FnMut() -> bool) -> f64 {
    let timed = (0..runs(bars)).map(|_| {
        let start = Instant::now();
        assert!(run(), "the kernel takes these columns");
        start.elapsed().as_secs_f64()
    });
    timed.fold(f64::INFINITY, f64::min) * 1e9 / bars as f64
}

/// Open, high, low, close and volume of a random walk.
fn walk(bars: usize) -> [Vec<f64>; 5] {
    let mut state = 42_u64;
    let mut roll = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut columns = [(); 5].map(|()| Vec::with_capacity(bars));
    let mut close = 100.0_f64;
    for _ in 0..bars {
        let open = close;
        close *= 1.0 + (roll() - 0.5) * 0.01;
        let row = [
            open,
            open.max(close) * (1.0 + roll() * 0.003),
            open.min(close) * (1.0 - roll() * 0.003),
            close,
            (roll() * 1e5).floor(),
        ];
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    columns
}
