//! A stream returns the bits of the batch, and a bar's value does not depend on later bars.

use crate::series::{Columns, Kind, REAL, any_columns, columns, compute, real, same_bits};
use proptest::prelude::*;
use sluice_calc::{Compat, Entry, Indicator, Range, Value, catalog};

fn batch(indicator: &Indicator, columns: &Columns, len: usize) -> Vec<Vec<f64>> {
    compute(indicator, &columns.bars().head(len))
}

/// Every entry of the catalogue.
fn entries() -> Vec<&'static Entry> {
    catalog::entries().collect()
}

/// The outputs of every bar pushed, each peeked at twice before.
fn streamed(indicator: &Indicator, columns: &Columns) -> Vec<Vec<f64>> {
    let bars = columns.bars();
    let mut outs = vec![Vec::new(); indicator.outputs().len()];
    let mut stream = indicator.stream();
    for row in 0..bars.len() {
        let bar = bars.bar(row).unwrap();
        let wrong = sluice_calc::Bar { close: bar.close * 1.5 + 1.0, high: bar.high * 2.0, ..bar };
        let _forming = stream.peek(wrong);
        let peeked = stream.peek(bar);
        let pushed = stream.push(bar);
        assert!(
            same_bits(peeked.as_slice(), pushed.as_slice()),
            "row {row}: peek {peeked:?}, push {pushed:?}"
        );
        for (out, &value) in outs.iter_mut().zip(pushed.as_slice()) {
            out.push(value);
        }
    }
    outs
}

fn assert_agreement(indicator: &Indicator, columns: &Columns) {
    let len = columns.close.len();
    let whole = batch(indicator, columns, len);
    for ((name, batch), stream) in indicator.outputs().iter().zip(&whole).zip(&streamed(indicator, columns)) {
        assert!(same_bits(batch, stream), "{indicator:?} {name}\nbatch  {batch:?}\nstream {stream:?}");
        let warm_up = indicator.lookback().min(len);
        assert!(batch[..warm_up].iter().all(|value| value.is_nan()), "{indicator:?} warm-up");
        assert!(batch[warm_up..].iter().all(|value| value.is_finite()), "{indicator:?} {name} {batch:?}");
    }
}

/// An indicator of random parameters, windows up to `longest`.
fn any_indicator(longest: u32) -> impl Strategy<Value = Indicator> {
    let compat = prop::sample::select(&Compat::ALL);
    (prop::sample::select(entries()), compat, prop::array::uniform3(2..=longest)).prop_map(
        |(entry, compat, windows)| {
            let bars = entry
                .params
                .iter()
                .filter(|param| matches!(param.range, Range::Whole { max, .. } if max > 1));
            let given: Vec<_> =
                bars.zip(windows).map(|(param, bars)| (param.name, Value::Number(f64::from(bars)))).collect();
            Indicator::parse(entry.name, compat, &given).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn a_stream_agrees_with_its_batch(indicator in any_indicator(40), columns in any_columns(400)) {
        assert_agreement(&indicator, &columns);
    }

    #[test]
    fn a_prefix_of_the_bars_gives_a_prefix_of_the_values(
        indicator in any_indicator(12),
        columns in any_columns(600),
        share in 0.0..1.0,
    ) {
        let len = columns.close.len();
        let cut = (len as f64 * share) as usize;
        for (whole, part) in batch(&indicator, &columns, len).iter().zip(&batch(&indicator, &columns, cut)) {
            prop_assert!(same_bits(&whole[..cut], part), "{indicator:?} cut at {cut}");
        }
    }
}

#[test]
fn every_length_up_to_twice_the_lookback_agrees() {
    for entry in catalog::entries() {
        for compat in Compat::ALL {
            let indicator = Indicator::parse(entry.name, compat, &[]).unwrap();
            for len in 0..=2 * indicator.lookback() + 2 {
                assert_agreement(&indicator, &columns(Kind::Walk, 7, len));
            }
        }
    }
}

/// Long enough for segments and chunks side by side, and for many restarts.
#[test]
fn long_series_of_every_kind_agree() {
    for kind in Kind::ALL {
        let columns = columns(kind, 3, 20_011);
        for entry in catalog::entries() {
            for compat in [Compat::TaLib, Compat::TradPal] {
                assert_agreement(&Indicator::parse(entry.name, compat, &[]).unwrap(), &columns);
            }
        }
    }
}

#[test]
fn slow_lines_of_any_length_agree_over_the_tiles_of_a_long_series() {
    for kind in [Kind::Walk, Kind::Halts] {
        for [fast_k, slow_k, slow_d] in
            [[14, 1, 3], [5, 2, 1], [14, 3, 3], [300, 40, 7], [3, 500, 2], [9, 6, 700]]
        {
            let given = [("fast_k", fast_k), ("slow_k", slow_k), ("slow_d", slow_d)];
            let given = given.map(|(name, bars)| (name, Value::Number(f64::from(bars))));
            let stoch = Indicator::parse("stoch", Compat::TaLib, &given).unwrap();
            for len in [4_095 + 14, 4_096 + 14, 17_000] {
                assert_agreement(&stoch, &columns(kind, 5, len));
            }
        }
    }
}

#[test]
fn real_markets_agree() {
    for name in REAL {
        let columns = real(name);
        for entry in catalog::entries() {
            assert_agreement(&Indicator::parse(entry.name, Compat::TaLib, &[]).unwrap(), &columns);
        }
    }
}

/// Whether the values are of any use is not asked here.
#[test]
fn inputs_that_are_no_prices_stream_as_they_batch() {
    for kind in Kind::STRANGE {
        let columns = columns(kind, 3, 3_011);
        for entry in catalog::entries() {
            let indicator = Indicator::parse(entry.name, Compat::TaLib, &[]).unwrap();
            let batch = batch(&indicator, &columns, 3_011);
            for (batch, stream) in batch.iter().zip(&streamed(&indicator, &columns)) {
                assert!(same_bits(batch, stream), "{indicator:?} {kind:?}");
            }
        }
    }
}

#[test]
fn windows_of_one_bar_agree() {
    let one = Value::Number(1.0);
    let cases: [(&str, &[(&str, Value<'_>)]); 5] = [
        ("sma", &[("period", one)]),
        ("ema", &[("period", one)]),
        ("atr", &[("period", one)]),
        ("macd", &[("signal", one)]),
        ("stoch", &[("fast_k", one), ("slow_k", one), ("slow_d", one)]),
    ];
    let columns = columns(Kind::Walk, 11, 200);
    for (name, given) in cases {
        let indicator = Indicator::parse(name, Compat::TaLib, given).unwrap();
        assert_agreement(&indicator, &columns);
        if matches!(name, "sma" | "ema") {
            assert_eq!(batch(&indicator, &columns, 200)[0], columns.close);
        }
    }
}

#[test]
fn the_shortest_windows_and_every_choice_of_words_agree() {
    let columns = columns(Kind::Walk, 17, 700);
    for entry in catalog::entries() {
        let shortest: Vec<_> = entry
            .params
            .iter()
            .filter_map(|param| match param.range {
                Range::Whole { min, max } if max > 1 => Some((param.name, Value::Number(f64::from(min)))),
                _ => None,
            })
            .collect();
        assert_agreement(&Indicator::parse(entry.name, Compat::TaLib, &shortest).unwrap(), &columns);
        for param in entry.params {
            let Range::Words(words) = param.range else { continue };
            for word in words {
                let given = [(param.name, Value::Word(word))];
                assert_agreement(&Indicator::parse(entry.name, Compat::TaLib, &given).unwrap(), &columns);
            }
        }
    }
}

#[test]
fn a_window_of_the_longest_length_agrees() {
    let columns = columns(Kind::Walk, 5, 100_100);
    let longest = Value::Number(100_000.0);
    for name in ["sma", "bbands"] {
        let indicator = Indicator::parse(name, Compat::TaLib, &[("period", longest)]).unwrap();
        assert_agreement(&indicator, &columns);
    }
}

#[test]
fn values_that_are_not_finite_do_not_panic() {
    let mut columns = columns(Kind::Walk, 13, 300);
    for (row, value) in [(50, f64::NAN), (120, f64::INFINITY), (200, -0.0)] {
        columns.high[row] = value;
        columns.low[row] = value;
        columns.close[row] = value;
        columns.volume[row] = value;
    }
    for entry in catalog::entries() {
        let indicator = Indicator::parse(entry.name, Compat::TaLib, &[]).unwrap();
        let batch = batch(&indicator, &columns, 300);
        assert_eq!(streamed(&indicator, &columns).len(), batch.len());
    }
}
