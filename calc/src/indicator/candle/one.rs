//! Patterns of a single candle, judged by its own shape.

use super::pattern::{Pattern, Sight, entry, where_seen};
use crate::entry::Entry;
use crate::lanes::Lanes;

pub(super) static DOJI: Entry = entry::<Doji>("cdldoji", "a candle that closes where it opened");

/// A body of a tenth of the mean range at most.
#[derive(Clone, Copy, Debug, Default)]
struct Doji;

impl Pattern for Doji {
    const LOOKBACK: usize = 10;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        where_seen::<V>(sight.candle(0).body().le(sight.hardly(0)), 100.0)
    }
}

pub(super) static DRAGONFLY_DOJI: Entry =
    entry::<DragonflyDoji>("cdldragonflydoji", "a doji that opens and closes at its high");

/// A doji with a shadow below and hardly one above.
#[derive(Clone, Copy, Debug, Default)]
struct DragonflyDoji;

impl Pattern for DragonflyDoji {
    const LOOKBACK: usize = 10;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let (now, hardly) = (sight.candle(0), sight.hardly(0));
        where_seen::<V>(now.body().le(hardly) & now.above().lt(hardly) & hardly.lt(now.below()), 100.0)
    }
}

pub(super) static MARUBOZU: Entry = entry::<Marubozu>("cdlmarubozu", "a long body with hardly a shadow");

/// A long body with hardly a shadow on either side; its colour is the sign.
#[derive(Clone, Copy, Debug, Default)]
struct Marubozu;

impl Pattern for Marubozu {
    const LOOKBACK: usize = 10;

    #[inline(always)]
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V {
        let (now, hardly) = (sight.candle(0), sight.hardly(0));
        let seen = sight.body(0).lt(now.body()) & now.above().lt(hardly) & now.below().lt(hardly);
        V::select(now.white(), where_seen::<V>(seen, 100.0), where_seen::<V>(seen, -100.0))
    }
}
