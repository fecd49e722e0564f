//! What did not go as it should, by kind: a refused connection tells another story than a wrong answer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// Requests that did not end as they should, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Failures {
    /// Answered with another status than was expected, by status.
    pub status: BTreeMap<u16, u64>,
    /// Answered as expected with another body.
    pub body: u64,
    /// No connection could be made.
    pub refused: u64,
    /// The connection ended before the answer was whole.
    pub closed: u64,
    /// The connection or the stream was reset, or broke otherwise.
    pub reset: u64,
    /// What came was no answer of the protocol.
    pub malformed: u64,
    /// Never answered before the drain ended.
    pub unanswered: u64,
    /// Never sent: the queue was full, or the generator did not come to it.
    pub dropped: u64,
}

/// Why a connection gives no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Refused(String),
    Closed,
    Reset(String),
    Malformed(String),
}

impl Fault {
    /// In words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Closed => "closed by the server".into(),
            Self::Refused(words) | Self::Reset(words) | Self::Malformed(words) => words.clone(),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Reset(error.to_string()),
        }
    }
}

impl Failures {
    /// Answers of one wrong status, so many.
    #[cfg(test)]
    pub(crate) fn of_status(status: u16, count: u64) -> Self {
        let status = (count > 0).then_some((status, count)).into_iter().collect();
        Self { status, ..Self::default() }
    }

    /// Counts one.
    pub(super) fn count(&mut self, fault: &Fault) {
        *match fault {
            Fault::Refused(_) => &mut self.refused,
            Fault::Closed => &mut self.closed,
            Fault::Reset(_) => &mut self.reset,
            Fault::Malformed(_) => &mut self.malformed,
        } += 1;
    }

    /// Counts those of `other` too.
    pub(crate) fn add(&mut self, other: &Self) {
        for (status, count) in &other.status {
            *self.status.entry(*status).or_default() += count;
        }
        for (own, more) in self.counts_mut().into_iter().zip(other.counts()) {
            *own += more;
        }
    }

    /// All kinds together.
    pub(crate) fn total(&self) -> u64 {
        self.status.values().sum::<u64>() + self.counts().iter().sum::<u64>()
    }

    /// Of these, requests that were only too late: unsent or unanswered at the end.
    pub(crate) fn left_waiting(&self) -> u64 {
        self.unanswered + self.dropped
    }

    /// Each kind that came, in words with its number.
    pub(crate) fn kinds(&self) -> Vec<(String, u64)> {
        const WORDS: [&str; 7] =
            ["wrong body", "refused", "closed", "reset", "malformed", "unanswered", "dropped"];
        let named = WORDS.iter().map(|word| (*word).to_owned()).zip(self.counts());
        let status = self.status.iter().map(|(status, count)| (format!("status {status}"), *count));
        status.chain(named).filter(|(_, count)| *count > 0).collect()
    }

    fn counts(&self) -> [u64; 7] {
        [self.body, self.refused, self.closed, self.reset, self.malformed, self.unanswered, self.dropped]
    }

    fn counts_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.body,
            &mut self.refused,
            &mut self.closed,
            &mut self.reset,
            &mut self.malformed,
            &mut self.unanswered,
            &mut self.dropped,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_and_add_up() {
        let mut failures = Failures::of_status(502, 3);
        for fault in [
            Fault::Closed,
            Fault::Refused("no".into()),
            Fault::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
            Fault::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
        ] {
            failures.count(&fault);
        }
        failures.unanswered = 2;
        let mut twice = failures.clone();
        twice.add(&failures);
        assert_eq!((failures.total(), twice.total(), twice.left_waiting()), (9, 18, 4));
        let kinds = twice.kinds();
        assert_eq!(kinds[0], ("status 502".into(), 6));
        assert!(kinds.contains(&("closed".into(), 4)) && kinds.contains(&("reset".into(), 2)), "{kinds:?}");
        assert_eq!(Failures::of_status(500, 0), Failures::default());
    }
}
