//! Whether a server that failed is asked again. Pure: times are milliseconds from any fixed moment.

/// Failures in a row after which it is left alone.
const FAILURES: u32 = 5;
/// How long, first and at most; it doubles with every trial that fails.
const PAUSE_MIN_MS: u64 = 500;
const PAUSE_MAX_MS: u64 = 30_000;
/// A trial of which nothing is heard for so long has been given up.
const TRIAL_MS: u64 = 65_000;

/// What is known of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circuit {
    /// It is asked.
    Closed { failures: u32 },
    /// It is left alone.
    Open { pause_ms: u64, until_ms: u64 },
    /// One call finds out.
    Trial { pause_ms: u64, since_ms: u64 },
}

impl Circuit {
    pub(super) const fn new() -> Self {
        Self::Closed { failures: 0 }
    }

    /// Lets a call through, or says how many milliseconds to wait.
    pub(super) fn admit(&mut self, now_ms: u64) -> Result<(), u64> {
        match *self {
            Self::Closed { .. } => Ok(()),
            Self::Open { until_ms, .. } if now_ms < until_ms => Err(until_ms - now_ms),
            Self::Trial { since_ms, pause_ms } if now_ms.saturating_sub(since_ms) < TRIAL_MS => Err(pause_ms),
            Self::Open { pause_ms, .. } | Self::Trial { pause_ms, .. } => {
                *self = Self::Trial { pause_ms, since_ms: now_ms };
                Ok(())
            }
        }
    }

    /// It answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// It did not, or said that it cannot.
    pub(super) fn failed(&mut self, now_ms: u64) {
        *self = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES => Self::Closed { failures: failures + 1 },
            Self::Closed { .. } => Self::open(PAUSE_MIN_MS, now_ms),
            // Calls from before end now: they tell nothing new.
            open @ Self::Open { .. } => open,
            Self::Trial { pause_ms, .. } => Self::open((pause_ms * 2).min(PAUSE_MAX_MS), now_ms),
        };
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    const fn open(pause_ms: u64, now_ms: u64) -> Self {
        Self::Open { pause_ms, until_ms: now_ms + pause_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_answer_closes_it() {
        let mut circuit = Circuit::new();
        for _ in 0..4 {
            circuit.failed(0);
        }
        circuit.succeeded();
        for _ in 0..5 {
            assert!(circuit.admit(7).is_ok());
            circuit.failed(7);
        }
        assert_eq!(circuit.admit(8), Err(499));
        assert_eq!(circuit.admit(507), Ok(()), "the trial");
        assert_eq!(circuit.admit(507), Err(500), "and no other beside it");
        circuit.failed(600);
        assert_eq!(circuit.admit(600), Err(1_000));
        assert_eq!(circuit.admit(1_600), Ok(()));
        circuit.succeeded();
        assert!(circuit.is_closed());
    }

    proptest! {
        #[test]
        fn a_server_that_stays_away_is_tried_ever_less_but_never_given_up(steps in prop::collection::vec(0_u64..40_000, 1..200)) {
            let (mut circuit, mut now, mut trials, mut refused_for) = (Circuit::new(), 0, Vec::new(), 0);
            for step in steps {
                now += step;
                match circuit.admit(now) {
                    Ok(()) => {
                        trials.push(now);
                        circuit.failed(now);
                        refused_for = 0;
                    }
                    Err(wait) => {
                        prop_assert!((1..=PAUSE_MAX_MS).contains(&wait));
                        refused_for += step;
                        prop_assert!(refused_for <= PAUSE_MAX_MS + step, "it would never be asked again");
                    }
                }
            }
            for pair in trials.windows(2).skip(FAILURES as usize - 1) {
                prop_assert!(pair[1] - pair[0] >= PAUSE_MIN_MS);
            }
        }
    }
}
