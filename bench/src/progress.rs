//! One line on standard error that says how far a run is; silent when nobody watches.

use std::io::{IsTerminal as _, Write as _};

const WIDTH: usize = 30;

/// A progress bar over a known number of steps.
#[derive(Debug)]
pub(crate) struct Progress {
    total: usize,
    done: usize,
    visible: bool,
}

impl Progress {
    /// A bar of `total` steps, shown only on a terminal.
    pub(crate) fn new(total: usize) -> Self {
        Self { total, done: 0, visible: std::io::stderr().is_terminal() }
    }

    /// Says what happens now and counts it.
    pub(crate) fn step(&mut self, what: &str) {
        self.done += 1;
        self.show(&bar(self.done, self.total, what));
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

fn bar(done: usize, total: usize, what: &str) -> String {
    let filled = WIDTH * done.min(total) / total.max(1);
    format!("[{}{}] {done}/{total} {what}", "#".repeat(filled), " ".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_fills_and_never_overflows() {
        assert_eq!(bar(0, 4, "x"), format!("[{}] 0/4 x", " ".repeat(WIDTH)));
        assert!(bar(9, 4, "x").starts_with(&format!("[{}]", "#".repeat(WIDTH))));
        assert!(bar(0, 0, "x").contains("0/0"));
    }
}
