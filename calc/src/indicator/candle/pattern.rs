//! A pattern as a kernel: one condition over lanes, of the last candles and the means before them.

use super::average::{LONGEST, fill_five, fill_ten, of_five, of_ten};
use crate::entry::{Args, CatalogError, Entry, Param, SINGLE};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::{Lanes, Wide};
use crate::series::{Bar, Column};
use std::fmt::Debug;
use std::sync::Arc;

/// Opening, highest, lowest and closing price.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candle<V> {
    pub(super) open: V,
    pub(super) high: V,
    pub(super) low: V,
    pub(super) close: V,
}

impl<V: Lanes> Candle<V> {
    /// Between opening and closing price.
    #[inline]
    pub(super) fn body(self) -> V {
        (self.close - self.open).abs()
    }

    /// The upper end of the body.
    #[inline]
    pub(super) fn top(self) -> V {
        self.open.top(self.close)
    }

    /// The lower end of the body.
    #[inline]
    pub(super) fn bottom(self) -> V {
        V::select(self.close.lt(self.open), self.close, self.open)
    }

    /// The shadow above the body.
    #[inline]
    pub(super) fn above(self) -> V {
        self.high - self.top()
    }

    /// The shadow below the body.
    #[inline]
    pub(super) fn below(self) -> V {
        self.bottom() - self.low
    }

    /// Where the candle did not fall.
    #[inline]
    pub(super) fn white(self) -> V::Mask {
        self.open.le(self.close)
    }

    /// Where the candle fell.
    #[inline]
    pub(super) fn black(self) -> V::Mask {
        self.close.lt(self.open)
    }
}

/// What a pattern sees; `back` counts bars before the newest.
pub(super) trait Sight<V: Lanes> {
    fn candle(&self, back: usize) -> Candle<V>;

    /// The mean body of the ten candles before that one: more is long, less is short.
    fn body(&self, back: usize) -> V;

    /// The mean range of the ten candles before.
    fn range(&self, back: usize) -> V;

    /// The mean range of the five candles before.
    fn short_range(&self, back: usize) -> V;

    /// A shadow shorter than this hardly is one; a body that is not longer is that of a doji.
    #[inline]
    fn hardly(&self, back: usize) -> V {
        V::splat(0.1) * self.range(back)
    }

    /// Prices no farther apart than this are near to one another.
    #[inline]
    fn near(&self, back: usize) -> V {
        V::splat(0.2) * self.short_range(back)
    }

    /// A body shorter by this than the one before is much shorter.
    #[inline]
    fn far(&self, back: usize) -> V {
        V::splat(0.6) * self.short_range(back)
    }
}

/// A pattern.
pub(super) trait Pattern: Copy + Debug + Send + Sync + 'static {
    /// Bars before the first verdict.
    const LOOKBACK: usize;

    /// The verdict on the newest candle.
    fn verdict<V: Lanes>(&self, sight: &impl Sight<V>) -> V;
}

/// `value` where the mask is set, else 0.
#[inline(always)]
pub(super) fn where_seen<V: Lanes>(mask: V::Mask, value: f64) -> V {
    V::select(mask, V::splat(value), V::splat(0.0))
}

/// The row of a pattern without parameters.
pub(super) const fn entry<P: Pattern + Default>(name: &'static str, summary: &'static str) -> Entry {
    row(name, summary, &[], |_| Ok(Arc::new(Seen(P::default()))))
}

/// The row of a pattern.
pub(super) const fn row(
    name: &'static str,
    summary: &'static str,
    params: &'static [Param],
    build: fn(&Args<'_>) -> Result<Arc<dyn Kernel>, CatalogError>,
) -> Entry {
    let columns = &[Column::Open, Column::High, Column::Low, Column::Close];
    Entry { name, aliases: &[], summary, columns, params, outputs: SINGLE, build }
}

/// A pattern as a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<P>(pub(super) P);

/// Bars judged together, whose means stay in the first-level cache.
const TILE: usize = 512;

/// Bars before a tile for which means are needed as well: the oldest candle of any pattern.
const BACK: usize = 3;

/// Bars and means of one tile; place 0 of the means is bar `from`.
struct Tile<'a> {
    columns: [&'a [f64]; 4],
    from: usize,
    means: [[f64; TILE + BACK]; 3],
}

impl<'a> Tile<'a> {
    /// Works out the means that belong to `from..until`, `from` at least [`LONGEST`]: there are none
    /// before, and no pattern that asks for one judges so early.
    fn of(columns: [&'a [f64]; 4], from: usize, until: usize) -> Self {
        let mut tile = Tile { columns, from, means: [[0.0; TILE + BACK]; 3] };
        if until <= from {
            return tile;
        }
        let mut values = [0.0; TILE + BACK + LONGEST];
        let (bars, values) = (from - LONGEST..until, &mut values[..until - from + LONGEST]);
        let [open, high, low, close] = columns.map(|column| &column[bars.clone()]);
        let [bodies, ranges, short_ranges] = tile.means.each_mut().map(|mean| &mut mean[..until - from]);
        for ((value, &open), &close) in values.iter_mut().zip(open).zip(close) {
            *value = (close - open).abs();
        }
        fill_ten(values, bodies);
        for ((value, &high), &low) in values.iter_mut().zip(high).zip(low) {
            *value = high - low;
        }
        fill_ten(values, ranges);
        fill_five(values, short_ranges);
        tile
    }
}

/// The sight from bar `row` on, and those after it in the further lanes.
struct Place<'t, 'a> {
    tile: &'t Tile<'a>,
    row: usize,
}

impl Place<'_, '_> {
    #[inline(always)]
    fn mean<V: Lanes>(&self, which: usize, back: usize) -> V {
        V::load(&self.tile.means[which][self.row - back - self.tile.from..])
    }
}

impl<V: Lanes> Sight<V> for Place<'_, '_> {
    #[inline]
    fn candle(&self, back: usize) -> Candle<V> {
        let [open, high, low, close] = self.tile.columns.map(|column| V::load(&column[self.row - back..]));
        Candle { open, high, low, close }
    }

    #[inline]
    fn body(&self, back: usize) -> V {
        self.mean(0, back)
    }

    #[inline]
    fn range(&self, back: usize) -> V {
        self.mean(1, back)
    }

    #[inline]
    fn short_range(&self, back: usize) -> V {
        self.mean(2, back)
    }
}

impl<P: Pattern> Seen<P> {
    /// Judges bar `row` of a tile and those in the further lanes.
    #[inline(always)]
    fn judge<V: Lanes>(&self, tile: &Tile<'_>, row: usize, out: &mut [f64]) {
        let verdict: V = self.0.verdict(&Place { tile, row });
        verdict.store(&mut out[row..]);
    }
}

impl<P: Pattern> Kernel for Seen<P> {
    fn lookback(&self) -> usize {
        P::LOOKBACK
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        fill_warm_up(out, P::LOOKBACK);
        let columns =
            [Column::Open, Column::High, Column::Low, Column::Close].map(|column| rows.column(column));
        let mut row = P::LOOKBACK;
        while row < out.len() {
            let until = out.len().min(row + TILE);
            let tile = Tile::of(columns, row.saturating_sub(BACK).max(LONGEST), until);
            while row + Wide::WIDTH <= until {
                self.judge::<Wide>(&tile, row, out);
                row += Wide::WIDTH;
            }
            while row < until {
                self.judge::<f64>(&tile, row, out);
                row += 1;
            }
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        let nothing = Candle { open: 0.0, high: 0.0, low: 0.0, close: 0.0 };
        Box::new(Watching { pattern: self.0, recent: [nothing; KEPT], seen: 0 })
    }
}

/// Candles that a stream keeps: a power of two, and the oldest of a pattern with those before it.
const KEPT: usize = 16;

/// The streaming state of a pattern.
#[derive(Clone, Copy, Debug)]
struct Watching<P> {
    pattern: P,
    recent: [Candle<f64>; KEPT],
    /// Bars seen.
    seen: usize,
}

impl<P> Watching<P> {
    fn at(&self, back: usize) -> Candle<f64> {
        self.recent[self.seen.wrapping_sub(1 + back) % KEPT]
    }
}

impl<P> Sight<f64> for Watching<P> {
    fn candle(&self, back: usize) -> Candle<f64> {
        self.at(back)
    }

    fn body(&self, back: usize) -> f64 {
        of_ten(|earlier| self.at(back + earlier).body())
    }

    fn range(&self, back: usize) -> f64 {
        of_ten(|earlier| self.at(back + earlier).high - self.at(back + earlier).low)
    }

    fn short_range(&self, back: usize) -> f64 {
        of_five(|earlier| self.at(back + earlier).high - self.at(back + earlier).low)
    }
}

impl<P: Pattern> Live for Watching<P> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let Bar { open, high, low, close, .. } = bar;
        self.recent[self.seen % KEPT] = Candle { open, high, low, close };
        self.seen += 1;
        outs[0] = if self.seen > P::LOOKBACK { self.pattern.verdict(self) } else { f64::NAN };
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        { *self }.push(bar, outs);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}
