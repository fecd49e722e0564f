//! The signal rules: what each says of markets made for it, and that following a series bar by bar
//! says what its past alone would.

use crate::series::{Columns, Kind, any_columns, columns};
use proptest::prelude::*;
use sluice_calc::signal::{Action, Context, Fault, STRATEGIES, Signal, Strategy};
use sluice_calc::{Bars, Compat, Value};

const N: fn(f64) -> Value<'static> = Value::Number;

/// Every rule, with windows short enough for short series.
fn rules() -> Vec<Strategy> {
    let parse = |name, given: &[(&str, Value<'_>)]| Strategy::parse(name, Compat::TaLib, given).unwrap();
    let mut rules = vec![
        parse("bb_reversal", &[("period", N(6.0))]),
        parse("breakout", &[("period", N(5.0)), ("volume_factor", N(0.9))]),
        parse("ema_crossover", &[("fast", N(2.0)), ("slow", N(5.0))]),
        parse("macd_cross", &[("fast", N(3.0)), ("slow", N(5.0)), ("signal", N(2.0))]),
        parse("rsi", &[("period", N(4.0))]),
        parse("stochastic", &[("fast_k", N(5.0)), ("oversold", N(40.0)), ("overbought", N(60.0))]),
        parse(
            "trend_following",
            &[("fast", N(3.0)), ("slow", N(6.0)), ("adx", N(3.0)), ("threshold", N(20.0))],
        ),
    ];
    let members = rules.iter().take(5).cloned().zip([1.0, 2.0, 3.0, 0.5, 1.0]).collect();
    rules.push(Strategy::vote(members, Compat::TaLib, &[("threshold", N(0.1))]).unwrap());
    rules
}

fn same(a: &Signal, b: &Signal) -> bool {
    let figures = |signal: &Signal| {
        let told = signal.figures.as_slice().iter();
        told.map(|(name, value)| (*name, value.to_bits() & if value.is_nan() { 0 } else { u64::MAX }))
            .collect::<Vec<_>>()
    };
    (a.action, a.reason, a.confidence.to_bits(), a.validation)
        == (b.action, b.reason, b.confidence.to_bits(), b.validation)
        && figures(a) == figures(b)
}

fn followed(rule: &Strategy, bars: &Bars<'_>) -> Vec<Signal> {
    let mut watcher = rule.watcher();
    let told = (0..bars.len()).filter_map(|row| bars.bar(row));
    told.map(|bar| watcher.next(bar, &Context::default())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_bar_is_told_as_if_it_were_the_newest(market in any_columns(90)) {
        let bars = market.bars();
        for rule in rules() {
            let told = followed(&rule, &bars);
            for (row, signal) in told.iter().enumerate().skip(1) {
                let alone = rule.evaluate(&bars.head(row + 1), &Context::default());
                prop_assert!(same(signal, &alone), "{} at {row}: {signal:?} {alone:?}", rule.entry().name);
            }
        }
    }

    #[test]
    fn what_is_told_is_sound(market in any_columns(200)) {
        for rule in rules() {
            for (row, signal) in followed(&rule, &market.bars()).iter().enumerate() {
                prop_assert!((0.0..=1.0).contains(&signal.confidence));
                prop_assert_eq!(signal.confidence == 0.0, signal.action == Action::Hold);
                let figures = signal.figures.as_slice();
                prop_assert!(!signal.validation.ok || figures.iter().all(|(_, value)| value.is_finite()));
                prop_assert_eq!(signal.validation.faults.contains(Fault::WarmUp), row + 1 < rule.window());
            }
        }
    }
}

fn of(name: &str, given: &[(&str, Value<'_>)], market: &Columns) -> Vec<(usize, Action, &'static str)> {
    let rule = Strategy::parse(name, Compat::TaLib, given).unwrap();
    let told = followed(&rule, &market.bars()).into_iter().enumerate();
    let acts = told.filter(|(_, signal)| signal.action != Action::Hold);
    acts.map(|(row, signal)| (row, signal.action, signal.reason.code())).collect()
}

/// Bars around closes, half a point to both sides.
fn around(close: impl IntoIterator<Item = f64>) -> Columns {
    let close: Vec<f64> = close.into_iter().collect();
    let mut open = close.clone();
    open.rotate_right(1);
    Columns {
        high: close.iter().map(|close| close + 0.5).collect(),
        low: close.iter().map(|close| close - 0.5).collect(),
        volume: (0..close.len()).map(|at| if at == 30 { 50.0 } else { 10.0 }).collect(),
        open,
        close,
    }
}

/// Down for thirty bars, then up.
fn turn() -> Columns {
    around((0..60).map(|at| if at < 30 { 100.0 - f64::from(at) } else { 70.0 + 2.0 * f64::from(at - 30) }))
}

#[test]
fn a_turn_crosses_the_macd_once() {
    let told = of("macd_cross", &[("fast", N(3.0)), ("slow", N(6.0)), ("signal", N(3.0))], &turn());
    let [(row, Action::Buy, "crossed_zero_up")] = told[..] else { panic!("{told:?}") };
    assert!((30..34).contains(&row), "{told:?}");
}

#[test]
fn the_stochastic_turns_from_its_ends_only() {
    let told = of("stochastic", &[("fast_k", N(5.0))], &turn());
    let [(row, Action::Buy, "crossed_above")] = told[..] else { panic!("{told:?}") };
    assert!((30..34).contains(&row), "{told:?}");
    let wave = around((0..120).map(|at| 100.0 + 5.0 * (f64::from(at) * 0.35).sin()));
    let told = of("stochastic", &[("fast_k", N(9.0))], &wave);
    assert!(told.windows(2).all(|pair| pair[0].1 != pair[1].1) && told.len() > 4, "{told:?}");
}

#[test]
fn a_trend_is_told_when_it_begins() {
    let given = [("fast", N(4.0)), ("slow", N(9.0)), ("adx", N(5.0))];
    let told = of("trend_following", &given, &turn());
    assert_eq!(told.last().map(|told| (told.1, told.2)), Some((Action::Buy, "uptrend_began")));
    assert!(told.iter().filter(|(row, ..)| *row >= 30).count() == 1, "{told:?}");
    let falling =
        around((0..60).map(|at| if at < 20 { 100.0 + f64::from(at % 2) } else { 120.0 - f64::from(at) }));
    let told = of("trend_following", &given, &falling);
    assert!(told.iter().any(|told| told.2 == "downtrend_began"), "{told:?}");
}

#[test]
fn a_breakout_leaves_the_prices_before_it() {
    let quiet = |at: u32| 100.0 + f64::from(at % 3) * 0.1;
    let market = around((0..40).map(|at| if at == 30 { 110.0 } else { quiet(at) }));
    assert_eq!(of("breakout", &[("period", N(10.0))], &market), [(30, Action::Buy, "above_channel")]);
    // The volume of that bar is half of those it is measured with, and nine to one.
    let loud =
        |factor: f64| of("breakout", &[("period", N(10.0)), ("volume_factor", N(factor))], &market).len();
    assert_eq!((loud(3.0), loud(4.0)), (1, 0));
    let market = around((0..40).map(|at| if at == 30 { 90.0 } else { quiet(at) }));
    assert_eq!(of("breakout", &[("period", N(10.0))], &market), [(30, Action::Sell, "below_channel")]);
}

#[test]
fn a_market_that_stood_still_is_not_told_of() {
    let market = columns(Kind::Flat, 1, 80);
    for rule in rules() {
        let last = followed(&rule, &market.bars()).pop().unwrap();
        assert_eq!(
            (last.action, last.reason.code()),
            (Action::Hold, "not_applicable"),
            "{}",
            rule.entry().name
        );
        let faults = last.validation.faults;
        assert!(faults.contains(Fault::FlatWindow) || faults.contains(Fault::NotFinite));
    }
}

#[test]
fn every_rule_is_tested_here() {
    let mut names: Vec<&str> = rules().iter().map(|rule| rule.entry().name).collect();
    names.sort_unstable();
    assert_eq!(names, STRATEGIES.map(|entry| entry.name));
}
