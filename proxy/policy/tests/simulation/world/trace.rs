//! What happened, as a hash always and as text where somebody wants to read it.

use sluice_policy::Nanos;
use sluice_policy::random::mix;

/// Lines kept of a run that somebody reads.
const LINES_MAX: usize = 200_000;

/// What happened so far.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(readable: bool) -> Self {
        Self { hash: 0, events: 0, lines: readable.then(Vec::new) }
    }

    /// One event and its figures.
    pub(crate) fn note(&mut self, now: Nanos, word: &'static str, figures: &[(&'static str, u64)]) {
        self.events += 1;
        let mut hash = mix(self.hash ^ now.0);
        hash = word.bytes().fold(hash, |hash, byte| hash.rotate_left(5) ^ u64::from(byte));
        for (name, value) in figures {
            hash = mix(hash ^ value ^ (name.len() as u64) << 56);
        }
        self.hash = hash;
        let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < LINES_MAX) else { return };
        let mut line = format!("{:>12.6} s  {word}", now.0 as f64 / 1e9);
        for (name, value) in figures {
            line += &format!(" {name}={value}");
        }
        lines.push(line);
    }
}
