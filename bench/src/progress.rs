//! One line on standard error that says how far a run is; silent when nobody watches.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

const WIDTH: usize = 30;

/// A progress bar over a known number of steps.
#[derive(Debug)]
pub(crate) struct Progress {
    total: usize,
    done: usize,
    /// Time of one step.
    step: Duration,
    visible: bool,
}

impl Progress {
    /// A bar of `total` steps that take `step` each, shown only on a terminal.
    pub(crate) fn new(total: usize, step: Duration) -> Self {
        Self { total, done: 0, step, visible: std::io::stderr().is_terminal() }
    }

    /// Says what happens now and counts it.
    pub(crate) fn step(&mut self, what: &str) {
        self.done += 1;
        self.show(&bar(self.done, self.total, self.step, what));
    }

    /// So many steps are behind, some of which were not needed.
    pub(crate) fn is_at(&mut self, done: usize) {
        self.done = done;
    }

    /// A step has taken so long, and the next ones will.
    pub(crate) fn takes(&mut self, step: Duration) {
        self.step = step;
    }

    fn show(&self, line: &str) {
        if self.visible {
            // A closed terminal must not end the measurement.
            drop(write!(std::io::stderr(), "\r\x1b[2K{line}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.show("");
    }
}

/// The step under way counts as done in the bar and as left in the time.
fn bar(done: usize, total: usize, step: Duration, what: &str) -> String {
    let filled = WIDTH * done.min(total) / total.max(1);
    let left_s = (total + 1).saturating_sub(done) as u64 * step.as_millis() as u64 / 1000;
    let bar = format!("{}{}", "#".repeat(filled), " ".repeat(WIDTH - filled));
    format!("[{bar}] {done}/{total}, {}:{:02} left: {what}", left_s / 60, left_s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_fills_and_never_overflows() {
        let second = Duration::from_secs(1);
        assert_eq!(bar(1, 100, second, "x"), format!("[{}] 1/100, 1:40 left: x", " ".repeat(WIDTH)));
        assert!(bar(9, 4, second, "x").starts_with(&format!("[{}] 9/4, 0:00", "#".repeat(WIDTH))));
        assert!(bar(0, 0, second, "x").contains("0/0"));
    }
}
