//! Candles from trades, decided from the trades alone: the same trades in the same order give the same candles,
//! whenever they are read.
//!
//! A candle is open from its first trade on. It closes when a trade of its symbol is later than its end by the
//! grace, or when it is that late on the log's own clock and no trade came for as long. A trade of a candle that
//! has closed is late: it changes nothing. A span without trades has no candle.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use foldhash::{HashMap, HashMapExt, HashSet};

/// LIMIT: symbols followed; trades of others are refused.
pub(crate) const SYMBOLS_MAX: usize = 10_000;
/// LIMIT: trade ids remembered, twice over.
const TRADE_IDS_MAX: usize = 500_000;
/// How far in front of the log's clock a trade's time may be: further ahead it would close everything before it.
pub(super) const AHEAD_MAX_MS: i64 = 60_000;

/// One length of candles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// As configured: `1m`.
    pub(crate) name: Box<str>,
    /// Length in milliseconds, at least 1.
    pub(crate) ms: i64,
}

/// One trade.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trade {
    pub(crate) symbol: Box<str>,
    pub(crate) price: f64,
    pub(crate) volume: f64,
    /// When it happened, milliseconds since 1970.
    pub(crate) time_ms: i64,
    /// Hash of the exchange's trade id, when there is one.
    pub(crate) exchange_id: Option<u64>,
}

/// Where a trade stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    /// When it was stored, milliseconds since 1970.
    pub(crate) stored_ms: i64,
}

/// Open, high, low, close, volume of a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candle {
    pub(crate) open: f64,
    pub(crate) high: f64,
    pub(crate) low: f64,
    pub(crate) close: f64,
    pub(crate) volume: f64,
    pub(crate) trades: u64,
    /// Times of the first and the last trade: they decide what open and close are when trades come out of order.
    first_ms: i64,
    last_ms: i64,
    /// Seq of the first trade that came.
    pub(crate) first_seq: u64,
    last_stored_ms: i64,
}

/// A candle that nothing changes any more.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Closed {
    pub(crate) symbol: Box<str>,
    pub(crate) frame: usize,
    pub(crate) start_ms: i64,
    pub(crate) candle: Candle,
}

/// What became of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Counted in.
    Counted,
    /// Its trade id was seen before.
    Repeated,
    /// Every candle that it belongs to has closed.
    Late,
    /// Its time is too far ahead, or there are too many symbols.
    Refused,
}

/// The candles of one symbol and frame that are open, and how far they have closed.
#[derive(Debug)]
struct Line {
    open: BTreeMap<i64, Candle>,
    /// Everything that begins before this has closed.
    closed_to_ms: i64,
}

/// When a candle may be due at the earliest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ms: i64,
    symbol: Box<str>,
    frame: usize,
    start_ms: i64,
}

/// Every open candle.
#[derive(Debug)]
pub(crate) struct Book {
    frames: Vec<Frame>,
    grace_ms: i64,
    lines: HashMap<Box<str>, Vec<Line>>,
    due: BinaryHeap<Reverse<Due>>,
    seen: [HashSet<u64>; 2],
}

impl Book {
    /// An empty book.
    pub(crate) fn new(frames: Vec<Frame>, grace_ms: i64) -> Self {
        Self { frames, grace_ms, lines: HashMap::new(), due: BinaryHeap::new(), seen: Default::default() }
    }

    /// The configured frames.
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Counts a trade in; what it closes is added to `closed`.
    pub(crate) fn take(&mut self, trade: &Trade, place: Place, closed: &mut Vec<Closed>) -> Taken {
        self.close_due(place.stored_ms, closed);
        if trade.time_ms > place.stored_ms.saturating_add(AHEAD_MAX_MS) {
            return Taken::Refused;
        }
        if !self.lines.contains_key(&trade.symbol) && self.lines.len() >= SYMBOLS_MAX {
            self.forget_idle(place.stored_ms);
            if self.lines.len() >= SYMBOLS_MAX {
                return Taken::Refused;
            }
        }
        if trade.exchange_id.is_some_and(|id| !self.is_news(id)) {
            return Taken::Repeated;
        }
        let mut taken = Taken::Late;
        for frame in 0..self.frames.len() {
            if self.count(trade, place, frame, closed) {
                taken = Taken::Counted;
            }
        }
        taken
    }

    fn count(&mut self, trade: &Trade, place: Place, frame: usize, closed: &mut Vec<Closed>) -> bool {
        let ms = self.frames[frame].ms;
        let start_ms = trade.time_ms.div_euclid(ms) * ms;
        let frames = self.frames.len();
        let lines = self.lines.entry(trade.symbol.clone()).or_insert_with(|| {
            (0..frames).map(|_| Line { open: BTreeMap::new(), closed_to_ms: i64::MIN }).collect()
        });
        let line = &mut lines[frame];
        if start_ms < line.closed_to_ms {
            return false;
        }
        if let Some(candle) = line.open.get_mut(&start_ms) {
            candle.add(trade, place);
        } else {
            line.open.insert(start_ms, Candle::of(trade, place));
            let at_ms = deadline(start_ms + ms, place.stored_ms, self.grace_ms);
            self.due.push(Reverse(Due { at_ms, symbol: trade.symbol.clone(), frame, start_ms }));
        }
        // What ends a grace before this trade is done with.
        let through = trade.time_ms.saturating_sub(self.grace_ms).div_euclid(ms) * ms;
        line.close_before(&trade.symbol, frame, through, closed);
        true
    }

    /// Closes what is due at a moment of the log's clock.
    pub(crate) fn close_due(&mut self, now_ms: i64, closed: &mut Vec<Closed>) {
        while let Some(Reverse(first)) = self.due.peek()
            && first.at_ms <= now_ms
        {
            let Some(Reverse(mut due)) = self.due.pop() else { return };
            let end_ms = due.start_ms + self.frames[due.frame].ms;
            let Some(line) = self.lines.get_mut(&due.symbol).map(|lines| &mut lines[due.frame]) else {
                continue;
            };
            let Some(candle) = line.open.get(&due.start_ms) else { continue };
            due.at_ms = deadline(end_ms, candle.last_stored_ms, self.grace_ms);
            if due.at_ms > now_ms {
                self.due.push(Reverse(due));
            } else {
                line.close_before(&due.symbol, due.frame, end_ms, closed);
            }
        }
    }

    /// When something may be due next, milliseconds since 1970.
    pub(crate) fn next_due_ms(&self) -> Option<i64> {
        self.due.peek().map(|Reverse(due)| due.at_ms)
    }

    /// The seq from which on trades must be read again to have what is open; `next` when nothing is.
    pub(crate) fn resume_seq(&self, next: u64) -> u64 {
        let open = self.lines.values().flatten().flat_map(|line| line.open.values());
        open.map(|candle| candle.first_seq).min().unwrap_or(next).min(next)
    }

    /// Symbols without an open candle whose last one ended a while ago make room.
    fn forget_idle(&mut self, now_ms: i64) {
        let horizon = now_ms.saturating_sub(AHEAD_MAX_MS.max(self.grace_ms));
        let gone = |line: &Line| line.open.is_empty() && line.closed_to_ms < horizon;
        self.lines.retain(|_, lines| !lines.iter().all(gone));
    }

    /// Whether an id is new; the oldest half of what is remembered makes room.
    fn is_news(&mut self, id: u64) -> bool {
        if self.seen.iter().any(|seen| seen.contains(&id)) {
            return false;
        }
        if self.seen[0].len() >= TRADE_IDS_MAX {
            self.seen[1] = std::mem::take(&mut self.seen[0]);
        }
        self.seen[0].insert(id)
    }
}

/// When a candle closes although no later trade of its symbol comes.
fn deadline(end_ms: i64, last_stored_ms: i64, grace_ms: i64) -> i64 {
    end_ms.max(last_stored_ms).saturating_add(grace_ms)
}

impl Line {
    /// Closes what begins before a time, the oldest first.
    fn close_before(&mut self, symbol: &str, frame: usize, before_ms: i64, closed: &mut Vec<Closed>) {
        self.closed_to_ms = self.closed_to_ms.max(before_ms);
        while let Some(entry) = self.open.first_entry()
            && *entry.key() < before_ms
        {
            let (start_ms, candle) = entry.remove_entry();
            closed.push(Closed { symbol: symbol.into(), frame, start_ms, candle });
        }
    }
}

impl Candle {
    fn of(trade: &Trade, place: Place) -> Self {
        Self {
            open: trade.price,
            high: trade.price,
            low: trade.price,
            close: trade.price,
            volume: trade.volume,
            trades: 1,
            first_ms: trade.time_ms,
            last_ms: trade.time_ms,
            first_seq: place.seq,
            last_stored_ms: place.stored_ms,
        }
    }

    fn add(&mut self, trade: &Trade, place: Place) {
        if trade.time_ms < self.first_ms {
            (self.open, self.first_ms) = (trade.price, trade.time_ms);
        }
        if trade.time_ms >= self.last_ms {
            (self.close, self.last_ms) = (trade.price, trade.time_ms);
        }
        self.high = self.high.max(trade.price);
        self.low = self.low.min(trade.price);
        self.volume += trade.volume;
        self.trades += 1;
        self.last_stored_ms = place.stored_ms;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;

    fn frames() -> Vec<Frame> {
        vec![Frame { name: "1m".into(), ms: MINUTE }, Frame { name: "5m".into(), ms: 5 * MINUTE }]
    }

    fn trade(symbol: &str, time_ms: i64, price: f64) -> Trade {
        Trade { symbol: symbol.into(), price, volume: 1.0, time_ms, exchange_id: None }
    }

    fn at(seq: u64, stored_ms: i64) -> Place {
        Place { seq, stored_ms }
    }

    fn of_minute(closed: &[Closed]) -> Vec<(i64, [f64; 5], u64)> {
        closed
            .iter()
            .filter(|closed| closed.frame == 0)
            .map(|closed| {
                let c = &closed.candle;
                (closed.start_ms, [c.open, c.high, c.low, c.close, c.volume], c.trades)
            })
            .collect()
    }

    #[test]
    fn a_candle_closes_when_a_trade_is_past_it_by_the_grace() {
        let (mut book, mut closed) = (Book::new(frames(), 2_000), Vec::new());
        for (seq, (time, price)) in
            [(1_000, 10.0), (30_000, 12.0), (59_999, 11.0), (61_000, 13.0)].iter().enumerate()
        {
            assert_eq!(
                book.take(&trade("A", *time, *price), at(seq as u64 + 1, *time), &mut closed),
                Taken::Counted
            );
        }
        assert_eq!(closed, [], "the grace is not over");
        // Late, but within the grace; earlier than the first one, so it is the open.
        book.take(&trade("A", 500, 9.0), at(5, 61_500), &mut closed);
        book.take(&trade("A", 62_000, 14.0), at(6, 62_000), &mut closed);
        assert_eq!(of_minute(&closed), [(0, [9.0, 12.0, 9.0, 11.0, 4.0], 4)]);
        assert_eq!(book.resume_seq(7), 1, "the five minutes began with the first trade");
        // What comes after is late for the minute, but not for the five minutes.
        assert_eq!(book.take(&trade("A", 40_000, 99.0), at(7, 62_500), &mut closed), Taken::Counted);
        assert_eq!(of_minute(&closed).len(), 1);
        book.take(&trade("A", 400_000, 1.0), at(8, 400_000), &mut closed);
        let five: Vec<&Closed> = closed.iter().filter(|closed| closed.frame == 1).collect();
        assert_eq!((five[0].start_ms, five[0].candle.high, five[0].candle.trades), (0, 99.0, 7));
        assert_eq!(book.take(&trade("A", 40_000, 99.0), at(9, 400_001), &mut closed), Taken::Late);
    }

    #[test]
    fn a_candle_without_a_later_trade_closes_by_the_clock() {
        let (mut book, mut closed) = (Book::new(frames(), 2_000), Vec::new());
        book.take(&trade("A", 1_000, 10.0), at(1, 1_100), &mut closed);
        assert_eq!(book.next_due_ms(), Some(62_000));
        book.close_due(61_999, &mut closed);
        assert_eq!(closed, []);
        book.close_due(62_000, &mut closed);
        assert_eq!(of_minute(&closed).len(), 1);
        assert_eq!((book.resume_seq(9), book.next_due_ms()), (1, Some(302_000)));
        book.close_due(302_000, &mut closed);
        assert_eq!(book.resume_seq(9), 9);
    }

    #[test]
    fn history_that_comes_late_is_not_cut_by_the_clock() {
        let (mut book, mut closed) = (Book::new(frames(), 2_000), Vec::new());
        let now = 1_000_000_000;
        for i in 0..120 {
            book.take(&trade("A", i * 1_000, i as f64), at(i as u64 + 1, now + i * 10), &mut closed);
        }
        book.close_due(now + 10_000, &mut closed);
        let minutes = of_minute(&closed);
        assert_eq!(
            minutes.iter().map(|(start, _, trades)| (*start, *trades)).collect::<Vec<_>>(),
            [(0, 60), (MINUTE, 60)]
        );
    }

    #[test]
    fn repeated_trades_and_trades_of_the_future_do_not_count() {
        let (mut book, mut closed) = (Book::new(frames(), 2_000), Vec::new());
        let known = Trade { exchange_id: Some(7), ..trade("A", 1_000, 10.0) };
        assert_eq!(book.take(&known, at(1, 1_000), &mut closed), Taken::Counted);
        assert_eq!(book.take(&known, at(2, 1_001), &mut closed), Taken::Repeated);
        assert_eq!(book.take(&trade("A", 99_000_000, 1.0), at(3, 1_002), &mut closed), Taken::Refused);
        book.close_due(1_000_000, &mut closed);
        assert_eq!(of_minute(&closed), [(0, [10.0, 10.0, 10.0, 10.0, 1.0], 1)]);
    }

    #[test]
    fn idle_symbols_make_room_for_others() {
        let (mut book, mut closed) = (Book::new(frames(), 0), Vec::new());
        for i in 0..SYMBOLS_MAX {
            book.take(&trade(&format!("S{i}"), 0, 1.0), at(i as u64 + 1, 0), &mut closed);
        }
        assert_eq!(book.take(&trade("B", 0, 1.0), at(1, 1), &mut closed), Taken::Refused);
        assert_eq!(book.take(&trade("B", 900_000, 1.0), at(2, 900_000), &mut closed), Taken::Counted);
        assert_eq!(closed.len(), 2 * SYMBOLS_MAX);
    }

    /// What the candles of a symbol are when every trade is at hand, for trades that are never later than the grace.
    fn model(trades: &[Trade], ms: i64) -> BTreeMap<(Box<str>, i64), (f64, f64, u64)> {
        let mut all = BTreeMap::new();
        for trade in trades {
            let key = (trade.symbol.clone(), trade.time_ms.div_euclid(ms) * ms);
            let (high, low, count) = all.get(&key).copied().unwrap_or((f64::MIN, f64::MAX, 0));
            all.insert(key, (trade.price.max(high), trade.price.min(low), count + 1));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn trades_within_the_grace_are_all_counted_once_wherever_reading_begins_again(
            steps in prop::collection::vec((0..3_usize, 0..20_000_i64, 0..2_000_i64, 1..100_u32), 1..200),
            cut in 0..200_usize,
        ) {
            let mut stored_ms = 0;
            let trades: Vec<(Trade, Place)> = steps.iter().enumerate().map(|(i, (symbol, step, late, price))| {
                stored_ms += step;
                let trade = trade(["A", "B", "C"][*symbol], stored_ms - late, f64::from(*price));
                (trade, at(i as u64 + 1, stored_ms))
            }).collect();
            let run = |from: u64, upto: usize| {
                let (mut book, mut closed) = (Book::new(frames(), 2_000), Vec::new());
                for (trade, place) in trades.iter().take(upto).filter(|(_, place)| place.seq >= from) {
                    book.take(trade, *place, &mut closed);
                }
                (book, closed)
            };
            let (mut book, mut closed) = run(1, trades.len());
            book.close_due(i64::MAX, &mut closed);
            for (frame, length) in frames().iter().enumerate() {
                let found: BTreeMap<_, _> = closed.iter().filter(|closed| closed.frame == frame).map(|closed| {
                    let c = &closed.candle;
                    ((closed.symbol.clone(), closed.start_ms), (c.high, c.low, c.trades))
                }).collect();
                let plain: Vec<Trade> = trades.iter().map(|(trade, _)| trade.clone()).collect();
                prop_assert_eq!(found, model(&plain, length.ms));
            }
            // Ended at `cut` and begun again where the book says: nothing that was open is missing or different.
            let cut = cut.min(trades.len());
            let (before, mut all) = run(1, cut);
            let (mut after, mut rest) = run(before.resume_seq(cut as u64 + 1), trades.len());
            after.close_due(i64::MAX, &mut rest);
            let key = |closed: &Closed| (closed.symbol.clone(), closed.frame, closed.start_ms);
            let done: Vec<_> = all.iter().map(key).collect();
            all.extend(rest.into_iter().filter(|closed| !done.contains(&key(closed))));
            let sorted = |mut all: Vec<Closed>| { all.sort_by_key(key); all };
            prop_assert_eq!(sorted(all), sorted(closed));
        }
    }
}
