//! Patterns of three candles or more.

use super::pattern::{Pattern, Seen, Sight, entry, row, where_seen};
use crate::entry::{Entry, Param, Value};
use crate::lanes::Lanes;
use std::sync::Arc;

/// How far the third candle of a star reaches into the first, as a share of its body.
const PENETRATION: &[Param] = &[Param::real("penetration", 0.0, 100.0, |_| Value::Number(0.3))];

pub(super) static MORNING_STAR: Entry = row(
    "cdlmorningstar",
    "a long black body, a short one below it, a white one back into the first",
    PENETRATION,
    |args| Ok(Arc::new(Seen(MorningStar { penetration: args.number("penetration")? }))),
);

#[derive(Clone, Copy, Debug)]
struct MorningStar {
    penetration: f64,
}

/// Where a long body is followed by a short one and then one that is not short.
#[inline(always)]
fn star<V: Lanes>(sight: &impl Sight<V>) -> V::Mask {
    let [now, middle, first] = [0, 1, 2].map(|back| sight.candle(back).body());
    sight.body(2).lt(first) & middle.le(sight.body(1)) & sight.body(0).lt(now)
}

impl Pattern for MorningStar {
    const LOOKBACK: usize = 12;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let [now, middle, first] = [0, 1, 2].map(|back| sight.candle(back));
        let deep = (first.close + first.body() * V::splat(self.penetration)).lt(now.close);
        let seen = first.black() & middle.top().lt(first.bottom()) & now.white() & deep;
        where_seen::<V>(star(sight) & seen, 100.0)
    }
}

pub(super) static EVENING_STAR: Entry = row(
    "cdleveningstar",
    "a long white body, a short one above it, a black one back into the first",
    PENETRATION,
    |args| Ok(Arc::new(Seen(EveningStar { penetration: args.number("penetration")? }))),
);

#[derive(Clone, Copy, Debug)]
struct EveningStar {
    penetration: f64,
}

impl Pattern for EveningStar {
    const LOOKBACK: usize = 12;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let [now, middle, first] = [0, 1, 2].map(|back| sight.candle(back));
        let deep = now.close.lt(first.close - first.body() * V::splat(self.penetration));
        let seen = first.white() & first.top().lt(middle.bottom()) & now.black() & deep;
        where_seen::<V>(star(sight) & seen, -100.0)
    }
}

pub(super) static WHITE_SOLDIERS: Entry =
    entry::<WhiteSoldiers>("cdl3whitesoldiers", "three white candles, each closing higher and near its high");

#[derive(Clone, Copy, Debug, Default)]
struct WhiteSoldiers;

impl Pattern for WhiteSoldiers {
    const LOOKBACK: usize = 12;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let [now, middle, first] = [0, 1, 2].map(|back| sight.candle(back));
        let white = now.white() & middle.white() & first.white();
        let at_the_high = now.above().lt(sight.hardly(0))
            & middle.above().lt(sight.hardly(1))
            & first.above().lt(sight.hardly(2));
        let higher = middle.close.lt(now.close) & first.close.lt(middle.close);
        let opens = first.open.lt(middle.open)
            & middle.open.le(first.close + sight.near(2))
            & middle.open.lt(now.open)
            & now.open.le(middle.close + sight.near(1));
        let sizes = (first.body() - sight.far(2)).lt(middle.body())
            & (middle.body() - sight.far(1)).lt(now.body())
            & sight.body(0).lt(now.body());
        where_seen::<V>(white & at_the_high & higher & opens & sizes, 100.0)
    }
}

pub(super) static BLACK_CROWS: Entry = entry::<BlackCrows>(
    "cdl3blackcrows",
    "three black candles after a white one, each closing lower and near its low",
);

#[derive(Clone, Copy, Debug, Default)]
struct BlackCrows;

impl Pattern for BlackCrows {
    const LOOKBACK: usize = 13;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let [now, middle, first, before] = [0, 1, 2, 3].map(|back| sight.candle(back));
        let colours = before.white() & first.black() & middle.black() & now.black();
        let at_the_low = now.below().lt(sight.hardly(0))
            & middle.below().lt(sight.hardly(1))
            & first.below().lt(sight.hardly(2));
        let opens = middle.open.lt(first.open)
            & first.close.lt(middle.open)
            & now.open.lt(middle.open)
            & middle.close.lt(now.open);
        let lower = first.close.lt(before.high) & middle.close.lt(first.close) & now.close.lt(middle.close);
        where_seen::<V>(colours & at_the_low & opens & lower, -100.0)
    }
}
