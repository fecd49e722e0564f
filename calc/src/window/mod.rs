//! Rolling windows: sums, centred moments and extremes, each in one algorithm that the batch and
//! the streaming form share operation for operation.
//!
//! A running sum drifts: every bar leaves a rounding error behind for good. So it starts afresh at
//! fixed absolute bars. Bar `window - 1` starts segment 0, and every [`segment_bars`] later another
//! starts, with the plain forward sum of its window. Within a segment the oldest value is taken off
//! and the newest put on. Segments depend on nothing before their first window, which bounds the
//! drift and lets the batch compute several at once; the streaming form gathers the next fresh sum
//! bar by bar, so no push costs more than another.

mod channel;
mod derive;
mod extreme;
mod mean;
mod moments;
mod place;
mod ramp;
mod ring;
mod rolling;
mod share;

pub(crate) use channel::{Between, Channel, ChannelStream};
pub(crate) use derive::{Derived, Deriving, Over};
pub(crate) use extreme::{Highest, Lowest, Rolling, Side, extremes};
pub(crate) use mean::{Mean, Means};
pub(crate) use moments::Moments;
pub(crate) use place::Place;
pub(crate) use ramp::Ramp;
pub(crate) use ring::{Doubled, Ring};
pub(crate) use rolling::{Sliding, Window, Windowed};
pub(crate) use share::{Itself, Mass, Ratio, Shown};

/// Longest segment for short windows, in bars: long enough to hide the restart, short enough that
/// eight segments stay in the second-level cache, and no multiple of the 4 KiB page.
const SEGMENT_BARS: usize = 1_000;

/// A segment is at most this many windows long: beyond, a trend carries the prices so far from
/// their anchor that the variance loses digits.
const SEGMENT_WINDOWS_MAX: usize = 31;

/// A segment is at least this many windows long, so that restarts cost a quarter at most.
const SEGMENT_WINDOWS_MIN: usize = 4;

/// Bars from one fresh start to the next. It is one more than a multiple of four: the first bar of
/// a segment is the restart, the others go in fours.
pub(crate) const fn segment_bars(window: usize) -> usize {
    let long = window * SEGMENT_WINDOWS_MAX;
    let capped = if long < SEGMENT_BARS { long } else { SEGMENT_BARS };
    let least = window * SEGMENT_WINDOWS_MIN;
    let bars = if capped < least { least } else { capped };
    bars / 4 * 4 + 1
}

/// Where a streaming window stands: how full it is, and how far the next restart.
#[derive(Clone, Copy, Debug)]
struct Clock {
    window: usize,
    segment: usize,
    phase: usize,
    seen: usize,
}

impl Clock {
    fn new(window: usize) -> Self {
        Self { window, segment: segment_bars(window), phase: 0, seen: 0 }
    }

    /// The coming bar completes a window.
    fn full(&self) -> bool {
        self.seen + 1 >= self.window
    }

    /// The coming bar is the oldest of the next fresh window.
    fn opens(&self) -> bool {
        self.phase == 0
    }

    /// The coming bar is the newest of the fresh window: a segment starts.
    fn restarts(&self) -> bool {
        self.phase + 1 == self.window
    }

    fn tick(&mut self) {
        self.phase = if self.phase + 1 == self.segment { 0 } else { self.phase + 1 };
        self.seen = self.window.min(self.seen + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_window_fits_between_two_restarts() {
        for window in (1..300).chain([999, 1_000, 1_001, 99_999, 100_000]) {
            let segment = segment_bars(window);
            assert!(segment >= window, "window {window}");
            assert_eq!(segment % 4, 1, "window {window}");
        }
    }

    #[test]
    fn the_clock_restarts_where_the_batch_does() {
        for window in [1, 2, 3, 7, 40] {
            let mut clock = Clock::new(window);
            let len = 5 * segment_bars(window);
            for bar in 0..len {
                let starts = bar + 1 >= window && (bar + 1 - window).is_multiple_of(segment_bars(window));
                assert_eq!(clock.restarts(), starts, "window {window}, bar {bar}");
                assert_eq!(clock.full(), bar + 1 >= window);
                clock.tick();
            }
        }
    }
}
