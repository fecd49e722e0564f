//! One line that says how far a long command is: on a terminal alone, drawn over itself, gone at the end.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::say;

/// Time between two drawings.
const EVERY: Duration = Duration::from_millis(200);

/// What is drawn.
pub(crate) struct Progress {
    /// What is counted, as a plural.
    unit: &'static str,
    shown: bool,
    begun: Instant,
    drawn: Option<Instant>,
}

impl Progress {
    /// Drawn where standard error is a terminal and nothing else is printed to one meanwhile.
    pub(crate) fn new(unit: &'static str, prints: bool) -> Self {
        let shown = std::io::stderr().is_terminal() && !(prints && std::io::stdout().is_terminal());
        Self { unit, shown: shown && !say::is_quiet(), begun: Instant::now(), drawn: None }
    }

    /// Since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Whether anything is ever drawn.
    pub(crate) const fn is_shown(&self) -> bool {
        self.shown
    }

    /// So many are done; `share` of all of it, when that is known.
    pub(crate) fn at(&mut self, what: &str, count: u64, share: Option<f64>) {
        if !self.shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        say::problem(&format!("\r\x1b[2K{}", line(what, (count, self.unit), self.elapsed(), share)));
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            say::problem("\r\x1b[2K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

const WIDTH: usize = 24;

fn line(what: &str, (count, unit): (u64, &str), elapsed: Duration, share: Option<f64>) -> String {
    let (rate, count) = (rate(count, elapsed), grouped(count));
    let Some(share) = share.map(|share| share.clamp(0.0, 1.0)) else {
        return format!("{what} {count} {unit}, {rate}");
    };
    let full = (share * WIDTH as f64) as usize;
    let left = if share > 0.01 && share < 1.0 {
        let seconds = elapsed.as_secs_f64() * (1.0 - share) / share;
        format!(", {} left", told(Duration::from_secs_f64(seconds.min(1e9))))
    } else {
        String::new()
    };
    let (done, open) = ("#".repeat(full), ".".repeat(WIDTH - full));
    format!("{what} [{done}{open}] {:>3.0} %  {count} {unit}, {rate}{left}", share * 100.0)
}

/// So many a second.
pub(crate) fn rate(count: u64, elapsed: Duration) -> String {
    format!("{}/s", grouped((count as f64 / elapsed.as_secs_f64().max(0.001)) as u64))
}

/// `0.31 s`, `42 s`, `3 m 12 s`.
pub(crate) fn told(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} m {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// `12,345`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0, 999, 1_000, 1_234_567].map(grouped).each_ref().map(|s| &**s)
        );
        assert_eq!(told(Duration::from_millis(310)), "0.31 s");
        assert_eq!(told(Duration::from_secs(192)), "3 m 12 s");
        assert_eq!(rate(5_000, Duration::from_secs(2)), "2,500/s");
    }

    #[test]
    fn a_line_tells_the_share_and_what_is_left() {
        let half = line("published", (1_000, "events"), Duration::from_secs(4), Some(0.5));
        assert_eq!(half, "published [############............]  50 %  1,000 events, 250/s, 4.00 s left");
        assert_eq!(line("replayed", (7, "events"), Duration::from_secs(1), None), "replayed 7 events, 7/s");
        assert!(line("x", (1, "events"), Duration::ZERO, Some(f64::NAN.max(0.0))).contains("  0 %"));
    }
}
