//! Computing requests, one or several of one kind at once.
//!
//! Requests are of one kind when they wish for the same indicators with the same parameters; their series may differ in
//! length. Each indicator is computed for all of them before the next one.

use sluice_calc::Compat;

use crate::answers::Room;
use crate::encode::{self, Encoder, Item, Layout, Shape};
use crate::error::Refusal;
use crate::indicators::Output;
use crate::indicators::{Answer, Prepared, Reduce, Wish, compute as compute_one, cut};
use crate::negotiate::Format;
use crate::pool::Scratch;
use crate::seeds;

/// Computes requests that wish for the same; an answer each, in their order.
pub(crate) fn compute(group: &[Prepared], scratch: &mut Scratch) -> Vec<Result<Answer, Refusal>> {
    if group.iter().any(|prepared| prepared.compat == Compat::TradPal) {
        return group.iter().map(|prepared| seeds::answer(prepared, scratch)).collect();
    }
    let layouts: Vec<Layout<'_>> = group.iter().map(layout_of).collect();
    let mut encoders: Vec<Result<(Encoder<'_>, Room), Refusal>> =
        group.iter().zip(&layouts).map(|(prepared, layout)| begin(prepared, layout, scratch)).collect();
    let wishes = group.first().map_or(&[][..], |prepared| &prepared.wishes);
    for wish in wishes {
        for point in 0..wish.points.len() {
            if scratch.is_left() {
                return group.iter().map(|_| Err(Refusal::Left)).collect();
            }
            for (prepared, encoder) in group.iter().zip(&mut encoders) {
                let Ok((open, _)) = encoder else { continue };
                if let Err(refusal) = add(prepared, wish, point, open, scratch) {
                    *encoder = Err(refusal);
                }
            }
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

/// Computes one indicator of one request into its answer.
fn add(
    prepared: &Prepared,
    wish: &Wish,
    point: usize,
    encoder: &mut Encoder<'_>,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let request = &prepared.request;
    let indicator = &wish.points[point].indicator;
    let missing = indicator.lookback() + request.unstable;
    let reduced = wish.is_swept && request.reduce == Reduce::Last;
    let output = if reduced { Output::Tail(1) } else { request.output };
    compute_one(indicator, &prepared.source, prepared.from, scratch, |_, values| {
        let missing = missing.min(values.len());
        values[..missing].fill(f64::NAN);
        let (skipped, values) = cut(output, prepared.from, values);
        encoder.column(skipped, values);
    })
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
