//! How much time a request has left.
//!
//! Every budget counts from the arrival of the request, so retries share it: the second attempt gets
//! what the first left. A stream has no total. Nothing is sent upstream with less than [`USEFUL_MIN`]
//! left: the answer could not arrive in time, and the caller must know that nothing was sent.
//!
//! A caller may say how long it waits: `X-Request-Deadline-Ms`, or `grpc-timeout` of a gRPC call. That
//! shortens the total and never lengthens it, and each try tells its upstream what is left. Whatever is no
//! such number is refused, not ignored: who names a deadline relies on it.

use std::time::Duration;

use sluice_schema::Timeouts;

use crate::time::Nanos;

/// Below this an attempt is not worth starting.
pub const USEFUL_MIN: Duration = Duration::from_millis(10);

/// The deadlines of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    arrived: Nanos,
    connect: Duration,
    first_byte: Duration,
    total: Option<Duration>,
}

impl Deadline {
    /// The deadlines of a request that arrived then.
    pub fn new(arrived: Nanos, timeouts: &Timeouts) -> Self {
        let Timeouts { connect, first_byte, total, .. } = *timeouts;
        Self { arrived, connect, first_byte, total: Some(total) }
    }

    /// Without a total: for streams and upgrades, once their response has begun.
    #[must_use]
    pub fn endless(self) -> Self {
        Self { total: None, ..self }
    }

    /// With at most this total: what the client itself is willing to wait.
    #[must_use]
    pub fn within(self, most: Duration) -> Self {
        Self { total: Some(self.total.map_or(most, |total| total.min(most))), ..self }
    }

    /// Time for this attempt's connection; `None`: too little is left to try.
    pub fn connect(&self, now: Nanos) -> Option<Duration> {
        let left = self.connect.min(self.first_byte(now)?);
        (left >= USEFUL_MIN).then_some(left)
    }

    /// Time until the first byte of the answer; `None`: it is due.
    pub fn first_byte(&self, now: Nanos) -> Option<Duration> {
        let elapsed = now.since(self.arrived);
        let due = self.total.map_or(self.first_byte, |total| total.min(self.first_byte));
        due.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// Time until the last byte of the answer: `Ok(None)` without a total, `Err` when it is over.
    ///
    /// # Errors
    /// [`Expired`].
    pub fn total(&self, now: Nanos) -> Result<Option<Duration>, Expired> {
        let Some(total) = self.total else { return Ok(None) };
        let left = total.checked_sub(now.since(self.arrived)).filter(|left| !left.is_zero());
        left.map(Some).ok_or(Expired)
    }
}

/// LIMIT: digits of a deadline in milliseconds, three months; gRPC allows eight of its units.
const MS_DIGITS_MAX: usize = 10;
const GRPC_DIGITS_MAX: usize = 8;
/// The largest number that eight digits hold.
const GRPC_MAX: u64 = 99_999_999;

/// A deadline that cannot be read: 400 `invalid_deadline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadlineFault {
    /// Not a number of milliseconds.
    #[error("x-request-deadline-ms is a number of milliseconds of up to {MS_DIGITS_MAX} digits")]
    Milliseconds,
    /// Not a number with a unit of gRPC.
    #[error("grpc-timeout is up to {GRPC_DIGITS_MAX} digits and one of H, M, S, m, u, n")]
    Grpc,
    /// The field is there twice.
    #[error("a request has one deadline at most")]
    Repeated,
}

/// Reads `X-Request-Deadline-Ms`.
///
/// # Errors
/// [`DeadlineFault::Milliseconds`].
pub fn read_ms(value: &[u8]) -> Result<Duration, DeadlineFault> {
    digits(value, MS_DIGITS_MAX).map(Duration::from_millis).ok_or(DeadlineFault::Milliseconds)
}

/// Reads `grpc-timeout`.
///
/// # Errors
/// [`DeadlineFault::Grpc`].
pub fn read_grpc(value: &[u8]) -> Result<Duration, DeadlineFault> {
    let (unit, number) = value.split_last().ok_or(DeadlineFault::Grpc)?;
    let count = digits(number, GRPC_DIGITS_MAX).ok_or(DeadlineFault::Grpc)?;
    match unit {
        b'H' => Ok(Duration::from_secs(count * 3600)),
        b'M' => Ok(Duration::from_secs(count * 60)),
        b'S' => Ok(Duration::from_secs(count)),
        b'm' => Ok(Duration::from_millis(count)),
        b'u' => Ok(Duration::from_micros(count)),
        b'n' => Ok(Duration::from_nanos(count)),
        _ => Err(DeadlineFault::Grpc),
    }
}

fn digits(text: &[u8], most: usize) -> Option<u64> {
    let plain = (1..=most).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    plain.then(|| text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// What is left, as `X-Request-Deadline-Ms`: whole milliseconds, rounded down, at least one.
pub fn tell_ms(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX).clamp(1, 10_u64.pow(MS_DIGITS_MAX as u32) - 1)
}

/// What is left, as `grpc-timeout`: rounded down to milliseconds, or seconds where those need too many digits.
pub fn tell_grpc(left: Duration) -> String {
    let ms = left.as_millis();
    if ms <= u128::from(GRPC_MAX) {
        return format!("{}m", ms.max(1));
    }
    format!("{}S", left.as_secs().min(GRPC_MAX))
}

/// The total time of a request is over: 504 `upstream_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's total time is over")]
pub struct Expired;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deadline() -> Deadline {
        Deadline::new(Nanos::from_secs(100), &Timeouts::default())
    }

    #[test]
    fn attempts_share_one_budget() {
        let deadline = deadline();
        let at = |ms: u64| Nanos::from_millis(100_000 + ms);
        assert_eq!(deadline.connect(at(0)), Some(Duration::from_secs(1)));
        assert_eq!(deadline.connect(at(4_500)), Some(Duration::from_millis(500)));
        assert_eq!(deadline.connect(at(4_995)), None, "less than what is useful");
        assert_eq!(deadline.first_byte(at(4_995)), Some(Duration::from_millis(5)));
        assert_eq!(deadline.first_byte(at(5_000)), None);
        assert_eq!(deadline.total(at(5_000)), Ok(Some(Duration::from_secs(10))));
        assert_eq!(deadline.total(at(15_000)), Err(Expired));
        assert_eq!(deadline.endless().total(at(900_000)), Ok(None));
        let shorter = deadline.endless().within(Duration::from_secs(2));
        assert_eq!(shorter.total(at(500)), Ok(Some(Duration::from_millis(1_500))));
        assert_eq!(shorter.first_byte(at(1_900)), Some(Duration::from_millis(100)));
        assert_eq!(deadline.within(Duration::from_secs(900)), deadline);
    }

    #[test]
    fn what_is_no_deadline_is_refused() {
        for (text, ms) in [("0", 0), ("1", 1), ("0250", 250), ("9999999999", 9_999_999_999)] {
            assert_eq!(read_ms(text.as_bytes()), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", " 1", "1 ", "-1", "+1", "1.5", "0x10", "1s", "10000000000", "\u{b2}", "nan"] {
            assert_eq!(read_ms(bad.as_bytes()), Err(DeadlineFault::Milliseconds), "{bad:?}");
        }
        for (text, want) in [
            ("250m", Duration::from_millis(250)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("2M", Duration::from_secs(120)),
            ("1S", Duration::from_secs(1)),
            ("5u", Duration::from_micros(5)),
            ("7n", Duration::from_nanos(7)),
        ] {
            assert_eq!(read_grpc(text.as_bytes()), Ok(want), "{text}");
        }
        for bad in ["", "S", "1", "123456789m", "-1S", "1x", "1 S", "\u{e9}"] {
            assert_eq!(read_grpc(bad.as_bytes()), Err(DeadlineFault::Grpc), "{bad:?}");
        }
        assert_eq!((tell_ms(Duration::ZERO), tell_ms(Duration::MAX)), (1, 9_999_999_999));
        assert_eq!((tell_grpc(Duration::ZERO), tell_grpc(Duration::MAX)), ("1m".into(), "99999999S".into()));
    }

    proptest! {
        #[test]
        fn a_callers_deadline_shortens_and_never_lengthens(most_ms in 0_u64..40_000, ms in 0_u64..20_000) {
            let (whole, now) = (deadline(), Nanos::from_millis(100_000 + ms));
            let asked = whole.within(Duration::from_millis(most_ms));
            let left = |of: &Deadline| of.total(now).map(Option::unwrap_or_default).unwrap_or_default();
            prop_assert_eq!(left(&asked), left(&whole).min(Duration::from_millis(most_ms.saturating_sub(ms))));
            prop_assert!(asked.first_byte(now) <= whole.first_byte(now));
            prop_assert!(asked.connect(now) <= whole.connect(now));
        }

        #[test]
        fn what_is_told_is_read_back_and_never_more_than_is_left(us in 0_u64..200_000_000_000) {
            let left = Duration::from_micros(us);
            let slack = |unit: Duration| left.saturating_sub(unit);
            let ms = read_ms(tell_ms(left).to_string().as_bytes()).unwrap();
            prop_assert!(ms <= left.max(Duration::from_millis(1)) && ms >= slack(Duration::from_millis(1)));
            let grpc = read_grpc(tell_grpc(left).as_bytes()).unwrap();
            prop_assert!(grpc <= left.max(Duration::from_millis(1)) && grpc >= slack(Duration::from_secs(1)));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let plain = !bytes.is_empty() && bytes.len() <= 10 && bytes.iter().all(u8::is_ascii_digit);
            prop_assert_eq!(read_ms(&bytes).is_ok(), plain);
            let (unit, number) = bytes.split_last().map_or((b' ', &[][..]), |(unit, number)| (*unit, number));
            let plain = (1..=8).contains(&number.len()) && number.iter().all(u8::is_ascii_digit);
            prop_assert_eq!(read_grpc(&bytes).is_ok(), plain && b"HMSmun".contains(&unit));
        }

        #[test]
        fn time_only_runs_out(ms in 0_u64..20_000, more in 0_u64..20_000) {
            let deadline = deadline();
            let (early, late) = (Nanos::from_millis(100_000 + ms), Nanos::from_millis(100_000 + ms + more));
            prop_assert!(deadline.connect(late) <= deadline.connect(early));
            prop_assert!(deadline.first_byte(late) <= deadline.first_byte(early));
            prop_assert!(deadline.connect(early) <= deadline.first_byte(early));
            let left = |now| deadline.total(now).map(Option::unwrap_or_default).unwrap_or_default();
            prop_assert!(left(late) <= left(early));
        }
    }
}
