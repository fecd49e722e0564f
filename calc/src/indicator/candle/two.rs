//! Patterns of a candle and the one before it.

use super::pattern::{Pattern, Seen, Sight, entry, row, where_seen};
use crate::entry::{Entry, Param, Value};
use crate::lanes::Lanes;
use std::sync::Arc;

pub(super) static HAMMER: Entry =
    entry::<Hammer>("cdlhammer", "a short body above a long shadow, near the low before");

#[derive(Clone, Copy, Debug, Default)]
struct Hammer;

/// Where a short body has a long shadow below, and hardly one above.
#[inline(always)]
fn hangs<V: Lanes>(sight: &impl Sight<V>) -> V::Mask {
    let now = sight.candle(0);
    now.body().lt(sight.body(0)) & now.body().lt(now.below()) & now.above().lt(sight.hardly(0))
}

/// Where a short body has a long shadow above, and hardly one below.
#[inline(always)]
fn stands<V: Lanes>(sight: &impl Sight<V>) -> V::Mask {
    let now = sight.candle(0);
    now.body().lt(sight.body(0)) & now.body().lt(now.above()) & now.below().lt(sight.hardly(0))
}

impl Pattern for Hammer {
    const LOOKBACK: usize = 11;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let low = sight.candle(0).bottom().le(sight.candle(1).low + sight.near(1));
        where_seen::<V>(hangs(sight) & low, 100.0)
    }
}

pub(super) static INVERTED_HAMMER: Entry =
    entry::<InvertedHammer>("cdlinvertedhammer", "a short body below a long shadow and the body before");

#[derive(Clone, Copy, Debug, Default)]
struct InvertedHammer;

impl Pattern for InvertedHammer {
    const LOOKBACK: usize = 11;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let lower = sight.candle(0).top().lt(sight.candle(1).bottom());
        where_seen::<V>(stands(sight) & lower, 100.0)
    }
}

pub(super) static HANGING_MAN: Entry =
    entry::<HangingMan>("cdlhangingman", "a short body above a long shadow, near the high before");

#[derive(Clone, Copy, Debug, Default)]
struct HangingMan;

impl Pattern for HangingMan {
    const LOOKBACK: usize = 11;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let high = (sight.candle(1).high - sight.near(1)).le(sight.candle(0).bottom());
        where_seen::<V>(hangs(sight) & high, -100.0)
    }
}

pub(super) static SHOOTING_STAR: Entry =
    entry::<ShootingStar>("cdlshootingstar", "a short body below a long shadow, above the body before");

#[derive(Clone, Copy, Debug, Default)]
struct ShootingStar;

impl Pattern for ShootingStar {
    const LOOKBACK: usize = 11;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let higher = sight.candle(1).top().lt(sight.candle(0).bottom());
        where_seen::<V>(stands(sight) & higher, -100.0)
    }
}

pub(super) static ENGULFING: Entry =
    entry::<Engulfing>("cdlengulfing", "a body around that of the candle before, of the other colour");

/// 80 where one end of the bodies is the same.
#[derive(Clone, Copy, Debug, Default)]
struct Engulfing;

impl Pattern for Engulfing {
    const LOOKBACK: usize = 2;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let (now, before) = (sight.candle(0), sight.candle(1));
        let around = before.top().le(now.top()) & now.bottom().le(before.bottom());
        let above = before.top().lt(now.top());
        let below = now.bottom().lt(before.bottom());
        let white = now.white() & before.black() & around;
        let black = now.black() & before.white() & around;
        let clear = V::select(above & below, V::splat(100.0), where_seen::<V>(above | below, 80.0));
        let zero = V::splat(0.0);
        V::select(white, clear, V::select(black & zero.lt(clear), zero - clear, zero))
    }
}

pub(super) static HARAMI: Entry =
    entry::<Harami>("cdlharami", "a short body within the long one before; the sign is against that one");

/// 80 where one end of the bodies is the same.
#[derive(Clone, Copy, Debug, Default)]
struct Harami;

impl Pattern for Harami {
    const LOOKBACK: usize = 11;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let (now, before) = (sight.candle(0), sight.candle(1));
        let sizes = sight.body(1).lt(before.body()) & now.body().le(sight.body(0));
        let within = now.top().le(before.top()) & before.bottom().le(now.bottom());
        let clear = now.top().lt(before.top()) & before.bottom().lt(now.bottom());
        let against = |value: f64| {
            V::select(
                before.white(),
                where_seen::<V>(sizes & within, -value),
                where_seen::<V>(sizes & within, value),
            )
        };
        V::select(clear, against(100.0), against(80.0))
    }
}

pub(super) static PIERCING: Entry =
    entry::<Piercing>("cdlpiercing", "a white body from below a black one to beyond its middle");

#[derive(Clone, Copy, Debug, Default)]
struct Piercing;

impl Pattern for Piercing {
    const LOOKBACK: usize = 11;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let (now, before) = (sight.candle(0), sight.candle(1));
        let long = sight.body(1).lt(before.body()) & sight.body(0).lt(now.body());
        let middle = before.close + before.body() * V::splat(0.5);
        let pierces = now.open.lt(before.low) & now.close.lt(before.open) & middle.lt(now.close);
        where_seen::<V>(before.black() & now.white() & long & pierces, 100.0)
    }
}

pub(super) static DARK_CLOUD_COVER: Entry = row(
    "cdldarkcloudcover",
    "a black body from above a long white one deep into it",
    &[Param::real("penetration", 0.0, 100.0, |_| Value::Number(0.5))],
    |args| Ok(Arc::new(Seen(DarkCloudCover { penetration: args.number("penetration")? }))),
);

/// It closes below a share of the body before.
#[derive(Clone, Copy, Debug)]
struct DarkCloudCover {
    penetration: f64,
}

impl Pattern for DarkCloudCover {
    const LOOKBACK: usize = 11;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let (now, before) = (sight.candle(0), sight.candle(1));
        let long = sight.body(1).lt(before.body());
        let depth = before.close - before.body() * V::splat(self.penetration);
        let covers = before.high.lt(now.open) & before.open.lt(now.close) & now.close.lt(depth);
        where_seen::<V>(before.white() & now.black() & long & covers, -100.0)
    }
}
