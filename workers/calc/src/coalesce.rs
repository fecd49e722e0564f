//! Computing requests, one or several of one kind at once.

use crate::encode::{self, Encoder, Item, Layout, Shape};
use crate::error::Refusal;
use crate::indicators::Output;
use crate::indicators::{Answer, Prepared, Reduce, Wish, compute as compute_one, cut};
use crate::pool::Scratch;

/// Computes requests that wish for the same; an answer each, in their order.
pub(crate) fn compute(group: &[Prepared], scratch: &mut Scratch) -> Vec<Result<Answer, Refusal>> {
    let layouts: Vec<Layout<'_>> = group.iter().map(layout_of).collect();
    let mut encoders: Vec<Result<Encoder<'_>, Refusal>> = group
        .iter()
        .zip(&layouts)
        .map(|(prepared, layout)| Encoder::begin(layout, prepared.format, Vec::new()))
        .collect();
    let wishes = group.first().map_or(&[][..], |prepared| &prepared.wishes);
    for wish in wishes {
        for point in 0..wish.points.len() {
            for (prepared, encoder) in group.iter().zip(&mut encoders) {
                let Ok(open) = encoder else { continue };
                if let Err(refusal) = add(prepared, wish, point, open, scratch) {
                    *encoder = Err(refusal);
                }
            }
        }
    }
    let finish = |(prepared, encoder): (&Prepared, Result<Encoder<'_>, Refusal>)| {
        let bytes = encoder?.finish()?;
        Ok(Answer { bytes, format: prepared.format, rows: prepared.series.close.len() })
    };
    group.iter().zip(encoders).map(finish).collect()
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
    compute_one(indicator, &prepared.series, prepared.from, scratch, |_, values| {
        let missing = missing.min(values.len());
        values[..missing].fill(f64::NAN);
        let (skipped, values) = cut(output, prepared.from, values);
        encoder.column(skipped, values);
    })
}

fn layout_of(prepared: &Prepared) -> Layout<'_> {
    let count = prepared.series.close.len();
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
    let count = prepared.series.close.len();
    Layout {
        symbol: prepared.request.symbol.as_ref().map(sluice_wire::symbol::Symbol::as_str),
        timeframe: prepared.request.timeframe.as_ref().map(sluice_wire::symbol::Timeframe::as_str),
        count,
        times: prepared.series.time_ms.as_ref().and_then(|times| times.get(count - rows..)),
        items,
    }
}
