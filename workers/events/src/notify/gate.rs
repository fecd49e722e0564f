//! What a target was told, and how often it may be told something: repeats once in a while, floods at a pace.

use foldhash::{HashMap, HashMapExt};

use super::alert::{Alert, State};

/// LIMIT: alerts whose last message is remembered; the oldest is forgotten.
const KEYS_MAX: usize = 10_000;

/// How often a target may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Messages that may follow each other at once.
    pub(crate) burst: u32,
    /// Milliseconds until one more is allowed.
    pub(crate) every_ms: u64,
    /// The same alert in the same state is not told again for so long, milliseconds.
    pub(crate) repeat_ms: u64,
}

/// How sure it is that the target has an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sure {
    /// It took it.
    Told,
    /// It was sent; the answer was lost.
    Tried,
    /// The process before this one dealt with it, or is to begin with it again.
    Before,
}

/// The last message about an alert.
#[derive(Debug)]
struct Said {
    state: State,
    at_ms: u64,
    message_id: String,
    sure: Sure,
}

/// Decides for one target.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    /// When the whole burst is there again (the arrival time of a cell-rate limiter).
    full_ms: u64,
    said: HashMap<String, Said>,
}

impl Gate {
    /// A gate that has told nothing.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, full_ms: 0, said: HashMap::new() }
    }

    /// Whether the target need not be told: it was a while ago, or never heard of what is over.
    pub(crate) fn is_known(&self, alert: &Alert, now_ms: u64) -> bool {
        let Some(said) = self.said.get(&alert.key) else { return alert.state == State::Resolved };
        if said.state != alert.state {
            return false;
        }
        let is_itself = said.message_id == alert.message_id;
        let is_recent = now_ms < said.at_ms.saturating_add(self.limits.repeat_ms);
        match said.sure {
            Sure::Told => is_itself || is_recent,
            Sure::Tried => false,
            Sure::Before => !is_itself && is_recent,
        }
    }

    /// Milliseconds until one more message is allowed.
    pub(crate) fn wait_ms(&self, now_ms: u64) -> u64 {
        let Limits { burst, every_ms, .. } = self.limits;
        (self.full_ms.max(now_ms) + every_ms).saturating_sub(now_ms + every_ms * u64::from(burst))
    }

    /// The target took an alert.
    pub(crate) fn told(&mut self, alert: &Alert, now_ms: u64) {
        self.full_ms = self.full_ms.max(now_ms) + self.limits.every_ms;
        self.remember(alert, now_ms, Sure::Told);
    }

    /// The target refused an alert: that it was asked counts.
    pub(crate) fn refused(&mut self, now_ms: u64) {
        self.full_ms = self.full_ms.max(now_ms) + self.limits.every_ms;
    }

    /// An alert was sent, and whether the target has it is not known.
    pub(crate) fn tried(&mut self, alert: &Alert, now_ms: u64) {
        self.remember(alert, now_ms, Sure::Tried);
    }

    /// An alert that was stored before this process began; newest first.
    pub(crate) fn before(&mut self, alert: &Alert, at_ms: u64) {
        if !self.said.contains_key(&alert.key) {
            self.remember(alert, at_ms, Sure::Before);
        }
    }

    fn remember(&mut self, alert: &Alert, at_ms: u64, sure: Sure) {
        if self.said.len() >= KEYS_MAX && !self.said.contains_key(&alert.key) {
            let oldest = self.said.iter().min_by_key(|(_, said)| said.at_ms).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.said.remove(&oldest);
            }
        }
        let said = Said { state: alert.state, at_ms, message_id: alert.message_id.clone(), sure };
        self.said.insert(alert.key.clone(), said);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::alert::Level;
    use super::super::alert::tests::numbered;
    use super::*;

    const LIMITS: Limits = Limits { burst: 3, every_ms: 1_000, repeat_ms: 60_000 };

    fn firing(n: u64) -> Alert {
        numbered("a", Level::Critical, State::Firing, n)
    }

    fn resolved(n: u64) -> Alert {
        numbered("a", Level::Info, State::Resolved, n)
    }

    #[test]
    fn a_repeat_is_told_once_in_a_while_and_a_change_at_once() {
        let mut gate = Gate::new(LIMITS);
        assert!(gate.is_known(&resolved(1), 0), "nobody heard of it");
        assert!(!gate.is_known(&firing(2), 0));
        gate.told(&firing(2), 0);
        assert!(gate.is_known(&firing(3), 59_999));
        assert!(!gate.is_known(&resolved(4), 59_999));
        gate.told(&resolved(4), 59_999);
        assert!(!gate.is_known(&firing(5), 60_000));
        gate.told(&firing(5), 60_000);
        assert!(!gate.is_known(&firing(6), 120_000));
        assert!(gate.is_known(&firing(5), 120_000), "the same message comes twice");
    }

    #[test]
    fn what_may_not_have_arrived_is_told_again_and_its_end_too() {
        let mut gate = Gate::new(LIMITS);
        gate.tried(&firing(1), 0);
        assert!(!gate.is_known(&firing(1), 1));
        assert!(!gate.is_known(&resolved(2), 1));
    }

    #[test]
    fn a_new_process_goes_on_where_the_one_before_was() {
        let mut gate = Gate::new(LIMITS);
        gate.before(&firing(2), 1_000);
        gate.before(&resolved(1), 500);
        assert!(!gate.is_known(&firing(2), 2_000), "it is handed out again: nobody acknowledged it");
        assert!(gate.is_known(&firing(3), 2_000));
        assert!(!gate.is_known(&resolved(3), 2_000));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut gate = Gate::new(LIMITS);
        for n in 0..=KEYS_MAX as u64 {
            gate.told(&numbered(&n.to_string(), Level::Info, State::Firing, n), n);
        }
        assert_eq!(gate.said.len(), KEYS_MAX);
        assert!(!gate.said.contains_key("0") && gate.said.contains_key("1"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn never_more_than_the_burst_and_the_rate(steps in prop::collection::vec((0..3_000_u64, 0..9_u64), 1..200)) {
            let mut gate = Gate::new(LIMITS);
            let (mut now, mut told) = (0, Vec::new());
            for (step, key) in steps {
                now += step;
                let alert = numbered(&key.to_string(), Level::Info, State::Firing, now);
                if gate.wait_ms(now) == 0 {
                    gate.told(&alert, now);
                    told.push(now);
                } else {
                    prop_assert_eq!(gate.wait_ms(now + gate.wait_ms(now)), 0);
                }
            }
            for (i, from) in told.iter().enumerate() {
                for (count, to) in told[i..].iter().enumerate() {
                    let allowed = u64::from(LIMITS.burst) + (to - from) / LIMITS.every_ms;
                    prop_assert!((count as u64) < allowed, "{} messages in {} ms", count + 1, to - from);
                }
            }
        }
    }
}
