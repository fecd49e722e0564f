//! When a request should leave: the open-loop schedule, and a timer fine enough to follow it.
//!
//! The runtime's own timer has a grain of one millisecond, which would send requests in bursts; a timerfd
//! wakes within microseconds. A spinning pacer would be finer still, but would take the core that
//! the origin needs.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

const NS_PER_S: u64 = 1_000_000_000;

/// Intended send times of an open loop: slot `i` is due `i / rate` seconds after the start, whatever
/// the server does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    rate_per_s: u64,
    slots: u64,
}

impl Schedule {
    /// A schedule of `rate_per_s` (at least 1) that covers `span_ns` nanoseconds.
    pub(crate) fn new(rate_per_s: u32, span_ns: u64) -> Self {
        let rate_per_s = u64::from(rate_per_s.max(1));
        let slots = u128::from(span_ns) * u128::from(rate_per_s) / u128::from(NS_PER_S);
        Self { rate_per_s, slots: u64::try_from(slots).unwrap_or(u64::MAX) }
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// Nanoseconds from the start at which `slot` should leave; `None` after the last one.
    pub(crate) fn intended_ns(&self, slot: u64) -> Option<u64> {
        let at = u128::from(slot) * u128::from(NS_PER_S) / u128::from(self.rate_per_s);
        (slot < self.slots).then(|| u64::try_from(at).unwrap_or(u64::MAX))
    }
}

/// A one-shot timer of microsecond grain.
#[derive(Debug)]
pub(crate) struct Alarm {
    fd: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// Creates the timer; needs a running tokio runtime.
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // `new` is deprecated because a type may change its descriptor under it; its successor is the same
        // call marked unsafe. An OwnedFd owns one open descriptor until it is dropped, which is all that
        // the successor asks of its caller.
        #[expect(deprecated, reason = "an OwnedFd cannot break what the deprecation guards against")]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Waits `wait_ns` nanoseconds; zero only lets other tasks run.
    pub(crate) async fn wait(&self, wait_ns: u64) -> io::Result<()> {
        if wait_ns == 0 {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: (wait_ns / NS_PER_S).cast_signed(),
            tv_nsec: (wait_ns % NS_PER_S).cast_signed(),
        };
        timerfd_settime(
            self.fd.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: value },
        )?;
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0_u8; 8])?)) {
                Ok(read) => return read.map(drop),
                Err(_not_yet) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_drift_when_the_period_is_not_whole() {
        let schedule = Schedule::new(3, 10 * NS_PER_S);
        assert_eq!(schedule.intended_ns(0), Some(0));
        assert_eq!(schedule.intended_ns(1), Some(333_333_333));
        assert_eq!(schedule.intended_ns(3), Some(NS_PER_S));
        assert_eq!(schedule.intended_ns(27), Some(9 * NS_PER_S));
    }

    #[test]
    fn schedule_ends_with_its_span() {
        let schedule = Schedule::new(1000, NS_PER_S / 2);
        assert_eq!(schedule.intended_ns(499), Some(499_000_000));
        assert_eq!(schedule.intended_ns(500), None);
    }

    #[test]
    fn extreme_spans_do_not_overflow() {
        let schedule = Schedule::new(u32::MAX, u64::MAX);
        assert!(schedule.intended_ns(u64::MAX - 1).is_some());
        assert_eq!(Schedule::new(0, NS_PER_S).intended_ns(1), None);
    }

    #[tokio::test]
    async fn alarm_never_rings_early() {
        let alarm = Alarm::new().unwrap();
        let start = std::time::Instant::now();
        alarm.wait(300_000).await.unwrap();
        alarm.wait(0).await.unwrap();
        alarm.wait(1).await.unwrap();
        assert!(start.elapsed().as_nanos() >= 300_000);
    }
}
