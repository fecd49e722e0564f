//! Bars that are missing between two rows. Rows need not lie on a grid: stock days skip weekends, and that is a gap too.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use sluice_wire::symbol::Timeframe;

/// Time from one bar to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many milliseconds.
    Fixed(i64),
    /// So many months of the calendar, in UTC.
    Months(i32),
}

/// Bars that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Gap {
    /// Begin of the first bar that is missing.
    pub(crate) from: i64,
    /// Begin of the last one.
    pub(crate) to: i64,
    /// How many are missing.
    pub(crate) missing: u64,
}

impl Step {
    pub(crate) fn of(timeframe: &Timeframe) -> Self {
        match timeframe.as_str().strip_suffix('M').and_then(|months| months.parse().ok()) {
            Some(months) => Self::Months(months),
            None => Self::Fixed(i64::try_from(timeframe.millis()).unwrap_or(i64::MAX)),
        }
    }

    /// The bars missing between a row and the next one.
    pub(crate) fn gap(self, row_ms: i64, next_ms: i64) -> Option<Gap> {
        let missing = match self {
            Self::Fixed(step) => next_ms.saturating_sub(row_ms).saturating_sub(1) / step,
            Self::Months(months) => self.months_between(row_ms, next_ms, months.into()),
        };
        (missing > 0).then(|| Gap {
            from: self.after(row_ms, 1),
            to: self.after(row_ms, missing),
            missing: missing as u64,
        })
    }

    /// Bars that begin after a row and before the next one.
    fn months_between(self, row_ms: i64, next_ms: i64, months: i64) -> i64 {
        // A month has 28 days at least, so this is never too few; then back to what fits.
        let mut count = next_ms.saturating_sub(row_ms) / (28 * 86_400_000 * months);
        while count > 0 && self.after(row_ms, count) >= next_ms {
            count -= 1;
        }
        count
    }

    /// Begin of the bar so many bars later.
    fn after(self, time_ms: i64, bars: i64) -> i64 {
        match self {
            Self::Fixed(step) => time_ms.saturating_add(step.saturating_mul(bars)),
            Self::Months(months) => later(time_ms, bars.saturating_mul(months.into())).unwrap_or(i64::MAX),
        }
    }
}

fn later(time_ms: i64, months: i64) -> Option<i64> {
    let begin = Timestamp::from_millisecond(time_ms).ok()?.to_zoned(TimeZone::UTC);
    let span = Span::new().try_months(months).ok()?;
    Some(begin.checked_add(span).ok()?.timestamp().as_millisecond())
}

/// The gaps of rows, from one row on; at most `max`, and the row to go on from when there are more.
pub(crate) fn gaps(times: &[i64], step: Step, from_row: usize, max: usize) -> (Vec<Gap>, Option<usize>) {
    let mut found = Vec::new();
    for (row, pair) in times.windows(2).enumerate().skip(from_row) {
        let Some(gap) = step.gap(pair[0], pair[1]) else { continue };
        if found.len() == max {
            return (found, Some(row));
        }
        found.push(gap);
    }
    (found, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(text: &str) -> Step {
        Step::of(&Timeframe::parse(text).unwrap())
    }

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let month = step("1M");
        let (december, february, march, may) = (
            ms("2023-12-01T00:00:00Z"),
            ms("2024-02-01T00:00:00Z"),
            ms("2024-03-01T00:00:00Z"),
            ms("2024-05-01T00:00:00Z"),
        );
        assert_eq!(month.gap(february, march), None, "29 days");
        let january = ms("2024-01-01T00:00:00Z");
        assert_eq!(month.gap(december, february), Some(Gap { from: january, to: january, missing: 1 }));
        let april = ms("2024-04-01T00:00:00Z");
        assert_eq!(month.gap(february, may), Some(Gap { from: march, to: april, missing: 2 }));
        assert_eq!(step("3M").gap(february, may), None);
        // Far apart, and beyond what a calendar has.
        assert_eq!(month.gap(0, ms("9999-01-01T00:00:00Z")).unwrap().missing, 8_029 * 12 - 1);
    }

    #[test]
    fn a_gap_is_what_a_client_can_ask_a_market_for() {
        let (minute, at) = (step("1m"), 1_700_000_000_000);
        assert_eq!(minute.gap(at, at + 60_000), None);
        assert_eq!(minute.gap(at, at + 1), None, "closer than a bar is no gap");
        assert_eq!(
            minute.gap(at, at + 200_000),
            Some(Gap { from: at + 60_000, to: at + 180_000, missing: 3 })
        );
    }

    #[test]
    fn gaps_come_in_pages() {
        let times: Vec<i64> = (0..10).map(|at| at * 120_000).collect();
        let (first, next) = gaps(&times, step("1m"), 0, 4);
        assert_eq!((first.len(), next), (4, Some(4)));
        let (rest, next) = gaps(&times, step("1m"), 4, 100);
        assert_eq!((rest.len(), rest[0].from, next), (5, 540_000, None));
    }

    proptest! {
        #[test]
        fn missing_bars_are_counted_as_by_hand(from in 0i64..2_000, away in 1i64..2_000, every in 1i64..50) {
            let to = from + away;
            let by_hand: Vec<i64> = (1..=away).map(|bar| from + bar * every).take_while(|begin| *begin < to).collect();
            let gap = Step::Fixed(every).gap(from, to);
            prop_assert_eq!(gap.map_or(0, |gap| gap.missing), by_hand.len() as u64);
            if let Some(gap) = gap {
                prop_assert_eq!((gap.from, gap.to), (by_hand[0], by_hand[by_hand.len() - 1]));
            }
        }
    }
}
