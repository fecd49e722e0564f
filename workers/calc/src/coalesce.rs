//! Computing requests, one or several of one kind at once.
//!
//! Requests are of one kind when they wish for the same indicators with the same parameters; their series may differ in
//! length. Each indicator is computed for all of them before the next one.

use std::ops::Range;

use sluice_calc::Compat;

use crate::answers::Room;
use crate::encode::{self, Encoder, Item, Layout, Shape};
use crate::error::Refusal;
use crate::indicators::Output;
use crate::indicators::{Answer, Prepared, Reduce, Wish, compute_side_by_side, cut};
use crate::negotiate::Format;
use crate::pool::Scratch;
use crate::seeds;

/// Computations side by side at most: as many lanes as kernels have.
const TOGETHER: usize = 16;

/// Longest series computed side by side, whose answers are in memory at once; longer ones fill lanes by themselves.
const ROWS_TOGETHER_MAX: usize = 16_384;

/// Computes requests that wish for the same; an answer each, in their order.
pub(crate) fn compute(group: &[Prepared], scratch: &mut Scratch) -> Vec<Result<Answer, Refusal>> {
    if group.iter().any(|prepared| prepared.compat == Compat::TradPal) {
        return group.iter().map(|prepared| seeds::answer(prepared, scratch)).collect();
    }
    let layouts: Vec<Layout<'_>> = group.iter().map(layout_of).collect();
    let mut encoders: Vec<Result<(Encoder<'_>, Room), Refusal>> =
        group.iter().zip(&layouts).map(|(prepared, layout)| begin(prepared, layout, scratch)).collect();
    let wishes = group.first().map_or(&[][..], |prepared| &prepared.wishes);
    let is_short = group.iter().all(|prepared| prepared.source.len() <= ROWS_TOGETHER_MAX);
    // Several requests have one set of parameters each.
    let bunch = if is_short { TOGETHER.div_ceil(group.len()) } else { 1 };
    for (at, wish) in wishes.iter().enumerate() {
        for from in (0..wish.points.len()).step_by(bunch) {
            if scratch.is_left() {
                return group.iter().map(|_| Err(Refusal::Left)).collect();
            }
            let points = from..wish.points.len().min(from + bunch);
            add(group, at, points, &mut encoders, scratch);
        }
    }
    let finish = |(prepared, encoder): (&Prepared, Result<(Encoder<'_>, Room), Refusal>)| {
        let (encoder, room) = encoder?;
        let rows = prepared.source.len();
        Ok(Answer { bytes: encoder.finish()?, format: prepared.format, rows, room: Some(room) })
    };
    group.iter().zip(encoders).map(finish).collect()
}

fn begin<'a>(
    prepared: &Prepared,
    layout: &'a Layout<'a>,
    scratch: &Scratch,
) -> Result<(Encoder<'a>, Room), Refusal> {
    let (out, room) = scratch.answers().take(prepared.bytes_about())?;
    Ok((Encoder::begin(layout, prepared.format, out)?, room))
}

/// Whether requests can be computed together.
pub(crate) fn is_one_kind(one: &Prepared, other: &Prepared) -> bool {
    let (a, b) = (&one.request, &other.request);
    let is_swept = || one.wishes.iter().any(|wish| wish.is_swept);
    one.compat == other.compat
        && (a.output, a.unstable) == (b.output, b.unstable)
        && a.indicators == b.indicators
        && !is_swept()
}

/// Computes some sets of parameters of one wish for every request into their answers.
fn add(
    group: &[Prepared],
    wish: usize,
    points: Range<usize>,
    encoders: &mut [Result<(Encoder<'_>, Room), Refusal>],
    scratch: &mut Scratch,
) {
    let (mut asked, mut whose) = (Vec::with_capacity(TOGETHER), Vec::with_capacity(TOGETHER));
    for point in points {
        for (at, (prepared, encoder)) in group.iter().zip(&mut *encoders).enumerate() {
            if encoder.is_err() {
                continue;
            }
            match prepared.source.bars(prepared.from) {
                Ok(bars) => {
                    asked.push((&prepared.wishes[wish].points[point].indicator, bars));
                    whose.push(at);
                }
                Err(refusal) => *encoder = Err(refusal),
            }
        }
    }
    let done = compute_side_by_side(&asked, scratch, |job, _, values| {
        let prepared = &group[whose[job]];
        let Ok((encoder, _)) = &mut encoders[whose[job]] else { return };
        let request = &prepared.request;
        let missing = (asked[job].0.lookback() + request.unstable).min(values.len());
        let reduced = prepared.wishes[wish].is_swept && request.reduce == Reduce::Last;
        values[..missing].fill(f64::NAN);
        let (skipped, values) =
            cut(if reduced { Output::Tail(1) } else { request.output }, prepared.from, values);
        encoder.column(skipped, values);
    });
    for (at, done) in whose.into_iter().zip(done) {
        if let Err(refusal) = done {
            encoders[at] = Err(refusal);
        }
    }
}

fn layout_of(prepared: &Prepared) -> Layout<'_> {
    let count = prepared.source.len();
    let point = |point: &crate::indicators::Point| {
        let lookback = point.indicator.lookback();
        encode::Point {
            params: point.params.clone(),
            outputs: point.indicator.outputs(),
            lookback,
            begin: (prepared.from + lookback + prepared.request.unstable).min(count),
        }
    };
    let item = |wish: &Wish| {
        let mut points: Vec<encode::Point> = wish.points.iter().map(point).collect();
        let shape = match points.pop() {
            Some(only) if !wish.is_swept => Shape::Named(only),
            last => Shape::Swept(points.into_iter().chain(last).collect()),
        };
        Item { id: wish.id.clone(), shape, rows: prepared.rows_of(wish) }
    };
    let items: Vec<Item> = prepared.wishes.iter().map(item).collect();
    let rows = items.first().map_or(0, |item| item.rows);
    layout(prepared, items, rows)
}

/// What an answer says beside its numbers, of so many rows.
pub(crate) fn layout(prepared: &Prepared, items: Vec<Item>, rows: usize) -> Layout<'_> {
    let count = prepared.source.len();
    Layout {
        symbol: prepared.request.symbol.as_ref().map(sluice_wire::symbol::Symbol::as_str),
        timeframe: prepared.request.timeframe.as_ref().map(sluice_wire::symbol::Timeframe::as_str),
        count,
        times: if prepared.format == Format::Json { None } else { prepared.source.times(count - rows) },
        items,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Incoming;
    use crate::indicators::prepare;
    use crate::series::source::Means;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn prepared(rows: u32, at: u32, indicators: &Value) -> Prepared {
        let close: Vec<f64> = (0..rows).map(|row| 100.0 + f64::from((row + at) * 7 % 13) / 3.0).collect();
        let body = json!({"symbol": format!("S{at}"), "data": {"close": close}, "indicators": indicators});
        let means = Means { rows_max: 1_000, series: None };
        prepare(Incoming { format: Format::Json, bytes: body.to_string().into(), query: None }, None, means)
            .unwrap()
    }

    #[test]
    fn together_they_have_the_bits_of_each_alone() {
        let wishes = json!(["ema", {"name": "macd", "id": "m"}, "bbands", "atr", "rsi"]);
        let group: Vec<Prepared> = (0..8).map(|at| prepared(40 + at * 31, at, &wishes)).collect();
        assert!(group.iter().all(|other| is_one_kind(&group[0], other)));
        let mut scratch = Scratch::new(sluice_calc::Cpu::proven().unwrap(), Arc::default());
        let together = compute(&group, &mut scratch);
        for (prepared, answer) in group.iter().zip(together) {
            let alone = compute(std::slice::from_ref(prepared), &mut scratch).remove(0);
            // There is no high and no low: each is refused for itself.
            assert!(matches!((answer, alone), (Err(Refusal::Series { .. }), Err(Refusal::Series { .. }))));
        }
        let wishes = json!(["ema", {"name": "macd", "id": "m"}, "bbands", "rsi"]);
        let group: Vec<Prepared> = (0..8).map(|at| prepared(40 + at * 31, at, &wishes)).collect();
        for (prepared, answer) in group.iter().zip(compute(&group, &mut scratch)) {
            let alone = compute(std::slice::from_ref(prepared), &mut scratch).remove(0).unwrap();
            assert_eq!(answer.unwrap().bytes, alone.bytes);
        }
    }

    #[test]
    fn other_wishes_are_of_another_kind() {
        let one = prepared(9, 0, &json!(["sma"]));
        assert!(!is_one_kind(&one, &prepared(9, 0, &json!(["ema"]))));
        assert!(!is_one_kind(&one, &prepared(9, 0, &json!([{"name": "sma", "period": 3}]))));
        let swept = json!([{"name": "sma", "period": [2, 3]}]);
        assert!(!is_one_kind(&prepared(9, 0, &swept), &prepared(9, 0, &swept)));
    }
}
