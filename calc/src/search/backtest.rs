//! Eight combinations through the same bars, side by side: what each would have earned.

use std::ops::Range;

use super::columns::LANES;
use super::condition::{BLOCK, Scene, Seen};
use super::rule::Rule;
use crate::lanes::{Lanes as _, Wide};

/// What trading costs and may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Whether a rule that leaves sells short, instead of holding nothing.
    pub short: bool,
    /// Share of the equity lost at each change of the position by one (fee and slippage).
    pub cost: f64,
    /// For figures of a year.
    pub periods_per_year: f64,
}

/// What one combination did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Equity at the end, of 1.
    pub(super) equity: f64,
    /// Least equity as a share of the highest before.
    pub(super) worst: f64,
    /// Sum of the bars' returns, and of their squares.
    pub(super) sum: f64,
    pub(super) squares: f64,
    /// Returns that were counted.
    pub(super) bars: u64,
    /// Positions entered; the one open at the end is closed at the last price, without cost.
    pub(super) trades: u32,
    pub(super) wins: u32,
    /// Sum of the gains of trades that won, and of the losses of the others, as shares of the equity at entry.
    pub(super) gained: f64,
    pub(super) lost: f64,
    /// Bars in the market.
    pub(super) held: u64,
}

/// 1.0 for each bit that is set.
static ONES: [[f64; LANES]; 256] = {
    let mut ones = [[0.0; LANES]; 256];
    let mut bits = 0;
    while bits < 256 {
        let mut lane = 0;
        while lane < LANES {
            if bits >> lane & 1 == 1 {
                ones[bits][lane] = 1.0;
            }
            lane += 1;
        }
        bits += 1;
    }
    ones
};

/// The eight on their way: what changes at each bar, in registers.
#[derive(Clone, Copy)]
struct March {
    long: u8,
    short: u8,
    equity: Wide,
    peak: Wide,
    /// The equity where it stood lowest beside its peak, and that peak.
    low: Wide,
    high: Wide,
    sum: Wide,
    squares: Wide,
}

/// Trades of the eight: what changes seldom.
struct Books {
    /// Share kept at each change of a position by one.
    keeps: f64,
    /// Equity and bar at entry.
    entered: [(f64, u64); LANES],
    tallies: [Tally; LANES],
}

/// Runs eight combinations over these bars; on the tape goes what the first one earns at each. `returns[i]` is from close `i` to close `i + 1`; a position decided
/// at the close of a bar earns from there. They begin without one.
pub(super) fn run(
    rule: &Rule,
    (scene, seen): (&Scene<'_>, &mut Seen),
    returns: &[f64],
    bars: Range<usize>,
    terms: Terms,
    tape: Option<&mut Vec<f64>>,
) -> [Tally; LANES] {
    let walk = match (terms.short, tape.is_some()) {
        (false, false) => March::walk::<false, false>,
        (true, false) => March::walk::<true, false>,
        (false, true) => March::walk::<false, true>,
        (true, true) => March::walk::<true, true>,
    };
    let mut none = Vec::new();
    let tape = tape.unwrap_or(&mut none);
    let mut march = March::begin();
    let mut books = Books::open(1.0 - terms.cost);
    let last = bars.end - 1;
    let (mut enter, mut exit) = ([0; BLOCK + 1], [0; BLOCK + 1]);
    for from in (bars.start..last).step_by(BLOCK) {
        let block = from..last.min(from + BLOCK);
        scene.look(&block, seen);
        scene.holds(&rule.enter, &block, seen, &mut enter);
        scene.holds(&rule.exit, &block, seen, &mut exit);
        let first = (from - bars.start) as u64;
        march = walk(march, &mut books, (&enter[1..], &exit[1..]), &returns[block], first, tape);
    }
    march.end(books, (last - bars.start) as u64)
}

impl March {
    fn begin() -> Self {
        let (zero, one) = (Wide::splat(0.0), Wide::splat(1.0));
        Self { long: 0, short: 0, equity: one, peak: one, low: one, high: one, sum: zero, squares: zero }
    }

    // What is carried on lies in variables of its own: the fields of a value that is returned lie in memory.
    fn walk<const SHORT: bool, const TAPE: bool>(
        self,
        books: &mut Books,
        (enter, exit): (&[u8], &[u8]),
        returns: &[f64],
        first: u64,
        tape: &mut Vec<f64>,
    ) -> Self {
        let one = Wide::splat(1.0);
        let Self { mut long, mut short, mut equity, mut peak, mut low, mut high, mut sum, mut squares } =
            self;
        for (index, ((&enter, &exit), &change)) in enter.iter().zip(exit).zip(returns).enumerate() {
            let (was_long, was_short) = (long, short);
            (long, short) = decide::<SHORT>((long, short), enter, exit);
            let mut position = Wide::load(&ONES[usize::from(long)]);
            if SHORT {
                position = position - Wide::load(&ONES[usize::from(short)]);
            }
            let mut growth = one + position * Wide::splat(change);
            if SHORT {
                // A short position can lose more than all there is; nobody's equity goes below 0.
                growth = growth.positive();
            }
            let turned = (long ^ was_long) | (short ^ was_short);
            if turned != 0 {
                let sides = (was_long | was_short, long | short);
                growth = growth * books.turn(turned, sides, equity, first + index as u64);
            }
            let earned = growth - one;
            if TAPE {
                tape.push(earned.lane(0));
            }
            equity = equity * growth;
            sum = sum + earned;
            squares = squares + earned * earned;
            peak = equity.top(peak);
            // Quotients compared without dividing, and without a branch that nobody foresees.
            let deeper = (equity * high).lt(low * peak);
            low = Wide::select(deeper, equity, low);
            high = Wide::select(deeper, peak, high);
        }
        Self { long, short, equity, peak, low, high, sum, squares }
    }

    fn end(self, mut books: Books, bars: u64) -> [Tally; LANES] {
        let held = self.long | self.short;
        for lane in (0..LANES).filter(|lane| held >> lane & 1 == 1) {
            books.close(lane, self.equity.lane(lane), bars);
        }
        for (lane, tally) in books.tallies.iter_mut().enumerate() {
            tally.equity = self.equity.lane(lane);
            tally.worst = self.low.lane(lane) / self.high.lane(lane);
            tally.sum = self.sum.lane(lane);
            tally.squares = self.squares.lane(lane);
            tally.bars = bars;
        }
        books.tallies
    }
}

/// The positions after a bar's close.
#[inline(always)]
fn decide<const SHORT: bool>((long, short): (u8, u8), enter: u8, exit: u8) -> (u8, u8) {
    if SHORT {
        let (up, down) = (enter & !exit, exit & !enter);
        ((long & !down) | up, (short & !up) | down)
    } else {
        ((long & !exit) | (!long & enter), 0)
    }
}

impl Books {
    fn open(keeps: f64) -> Self {
        Self { keeps, entered: [(1.0, 0); LANES], tallies: [Tally::default(); LANES] }
    }

    /// Accounts for trades that end and begin; what each combination keeps after costs. `was` and `held` are those in
    /// the market before and after.
    #[cold]
    #[inline(never)]
    fn turn(&mut self, turned: u8, (was, held): (u8, u8), equity: Wide, bar: u64) -> Wide {
        let mut kept = [1.0; LANES];
        let mut before = [0.0; LANES];
        equity.store(&mut before);
        let mut turned = turned;
        while turned != 0 {
            let lane = turned.trailing_zeros() as usize;
            turned &= turned - 1;
            let (mut equity, kept) = (before[lane], &mut kept[lane]);
            if was >> lane & 1 == 1 {
                *kept *= self.keeps;
                equity *= self.keeps;
                self.close(lane, equity, bar);
            }
            if held >> lane & 1 == 1 {
                *kept *= self.keeps;
                self.entered[lane] = (equity, bar);
                self.tallies[lane].trades += 1;
            }
        }
        Wide::load(&kept)
    }

    fn close(&mut self, lane: usize, equity: f64, bar: u64) {
        let (before, since) = self.entered[lane];
        let tally = &mut self.tallies[lane];
        tally.held += bar - since;
        let result = if before > 0.0 { equity / before - 1.0 } else { 0.0 };
        if result > 0.0 {
            tally.wins += 1;
            tally.gained += result;
        } else {
            tally.lost -= result;
        }
    }
}
