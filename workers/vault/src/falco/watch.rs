//! Whether an alert is new, and what is due for it. Pure: time is an argument, in milliseconds.
//!
//! - An alert that came already within the window is repeated: counted, told to nobody.
//! - New ones pass a bucket of `rate` a second that holds one second's worth; what does not is counted and dropped.
//! - A response fires when alerts of as many different keys as its quorum came within [`QUORUM_MS`]. One key is one
//!   rule on one host in one container by one process: a single noisy process can not fill a quorum. Then it rests for
//!   its time to live.
//!
//! LIMIT: [`SEEN_MAX`] alerts remembered, the oldest forgotten first. Nothing of this outlives the process: after a
//! restart an alert may be told once more, and a quorum begins anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// LIMIT: alerts remembered as told.
pub(super) const SEEN_MAX: usize = 10_000;
/// How long alerts count together toward a quorum, milliseconds.
pub(super) const QUORUM_MS: i64 = 600_000;

/// Falco's priorities, the gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Priority {
    Debug,
    Informational,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Priority {
    const WORDS: [(&'static str, Self); 9] = [
        ("debug", Self::Debug),
        ("informational", Self::Informational),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("error", Self::Error),
        ("critical", Self::Critical),
        ("alert", Self::Alert),
        ("emergency", Self::Emergency),
        ("info", Self::Informational),
    ];

    /// The word in metrics and events.
    pub(crate) fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, priority)| *priority == self).map_or("", |(word, _)| word)
    }
}

impl FromStr for Priority {
    type Err = ();

    /// In whatever case it is written.
    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Self::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, priority)| *priority).ok_or(())
    }
}

/// What a response does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is told of, beside the alert itself.
    Notify,
    /// The identity loses its tokens and certificates and gets no new ones.
    Quarantine,
}

/// A rule of response, from `[falco]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// Name of the rule it answers to; `*` for every rule.
    pub(crate) rule: String,
    /// What the alert's priority is at least.
    pub(crate) priority: Priority,
    pub(crate) action: Action,
    /// The service it acts on. From the configuration, never from an alert: a forged one reaches nobody else.
    pub(crate) identity: Option<String>,
    pub(crate) ttl_ms: i64,
    /// How many different alerts it takes.
    pub(crate) quorum: usize,
    /// It only says what it would do.
    pub(crate) dry_run: bool,
}

impl Response {
    pub(super) fn answers(&self, rule: &str, priority: Priority) -> bool {
        (self.rule == "*" || self.rule == rule) && priority >= self.priority
    }
}

/// What becomes of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    New,
    Repeated,
    Limited,
}

/// What makes two alerts the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) rule: String,
    pub(super) host: String,
    pub(super) container: String,
    pub(super) process: String,
}

/// What was seen lately.
#[derive(Debug)]
pub(crate) struct Watch {
    window_ms: i64,
    rate: i64,
    seen: HashMap<Key, i64>,
    order: VecDeque<(i64, Key)>,
    /// Thousandths of an alert that may still pass.
    level: i64,
    filled_ms: i64,
    votes: Vec<Votes>,
}

#[derive(Debug, Default)]
struct Votes {
    by: BTreeMap<Key, i64>,
    rests_until: i64,
}

impl Watch {
    /// One that has seen nothing.
    pub(crate) fn new(window_ms: i64, rate: i64, responses: usize) -> Self {
        Self {
            window_ms,
            rate,
            seen: HashMap::new(),
            order: VecDeque::new(),
            level: rate * 1_000,
            filled_ms: i64::MIN,
            votes: (0..responses).map(|_| Votes::default()).collect(),
        }
    }

    /// Takes in an alert.
    pub(super) fn admit(&mut self, now_ms: i64, key: &Key) -> Verdict {
        while let Some((at, _)) = self.order.front()
            && (*at + self.window_ms <= now_ms || self.order.len() >= SEEN_MAX)
        {
            self.forget_oldest();
        }
        // A clock that went back: what lies in the future has just been seen.
        if self.seen.get(key).is_some_and(|at| now_ms < at + self.window_ms) {
            return Verdict::Repeated;
        }
        if !self.passes(now_ms) {
            return Verdict::Limited;
        }
        self.seen.insert(key.clone(), now_ms);
        self.order.push_back((now_ms, key.clone()));
        Verdict::New
    }

    fn forget_oldest(&mut self) {
        if let Some((at, key)) = self.order.pop_front()
            && self.seen.get(&key) == Some(&at)
        {
            self.seen.remove(&key);
        }
    }

    /// Unsees an alert that could not be recorded: its repetition shall count.
    pub(super) fn unsee(&mut self, key: &Key) {
        self.seen.remove(key);
    }

    fn passes(&mut self, now_ms: i64) -> bool {
        let full = self.rate * 1_000;
        let since = now_ms.saturating_sub(self.filled_ms).clamp(0, 1_000);
        self.level = (self.level + since * self.rate).min(full);
        self.filled_ms = self.filled_ms.max(now_ms);
        let passes = self.level >= 1_000;
        if passes {
            self.level -= 1_000;
        }
        passes
    }

    /// Counts a new alert toward a response; whether it is due now.
    pub(super) fn is_due(&mut self, now_ms: i64, position: usize, response: &Response, key: &Key) -> bool {
        let Some(votes) = self.votes.get_mut(position) else { return false };
        if now_ms < votes.rests_until {
            return false;
        }
        votes.by.retain(|_, at| now_ms < *at + QUORUM_MS);
        votes.by.insert(key.clone(), now_ms);
        if votes.by.len() < response.quorum {
            return false;
        }
        votes.by.clear();
        votes.rests_until = now_ms + response.ttl_ms;
        true
    }

    /// Lets the responses that act on an identity be due again: it was released.
    pub(super) fn rearm(&mut self, responses: &[Response], identity: &str) {
        for (votes, response) in self.votes.iter_mut().zip(responses) {
            if response.identity.as_deref() == Some(identity) {
                *votes = Votes::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u8) -> Key {
        let text = |part: &str| format!("{part}{number}");
        Key { rule: text("r"), host: text("h"), container: text("c"), process: text("p") }
    }

    fn response(quorum: usize, ttl_ms: i64) -> Response {
        Response {
            rule: "*".into(),
            priority: Priority::Critical,
            action: Action::Quarantine,
            identity: Some("bot".into()),
            ttl_ms,
            quorum,
            dry_run: false,
        }
    }

    #[test]
    fn priorities_are_ordered_and_read_in_any_case() {
        assert!(Priority::Emergency > Priority::Critical && Priority::Notice < Priority::Warning);
        assert_eq!("CRITICAL".parse(), Ok(Priority::Critical));
        assert_eq!("Info".parse(), Ok(Priority::Informational));
        assert_eq!(Priority::Informational.as_str(), "informational");
        assert!("fatal".parse::<Priority>().is_err());
        let any = response(1, 0);
        assert!(any.answers("x", Priority::Alert) && !any.answers("x", Priority::Error));
        assert!(!Response { rule: "y".into(), ..any }.answers("x", Priority::Alert));
    }

    #[test]
    fn one_process_alone_fills_no_quorum_and_a_release_arms_again() {
        let mut watch = Watch::new(60_000, 100, 1);
        let two = response(2, 900_000);
        assert!(!watch.is_due(0, 0, &two, &key(1)) && !watch.is_due(1, 0, &two, &key(1)));
        assert!(!watch.is_due(QUORUM_MS + 1, 0, &two, &key(2)), "the first is too old");
        assert!(watch.is_due(QUORUM_MS + 2, 0, &two, &key(1)));
        assert!(!watch.is_due(QUORUM_MS + 3, 0, &two, &key(3)), "it rests");
        watch.rearm(std::slice::from_ref(&two), "bot");
        assert!(!watch.is_due(QUORUM_MS + 4, 0, &two, &key(1)));
        assert!(watch.is_due(QUORUM_MS + 5, 0, &two, &key(2)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut watch = Watch::new(i64::MAX / 4, 1_000_000, 0);
        let many = |number: usize| Key { rule: number.to_string(), ..key(0) };
        for number in 0..SEEN_MAX + 5 {
            assert_eq!(watch.admit(number as i64, &many(number)), Verdict::New);
        }
        assert!(watch.seen.len() <= SEEN_MAX && watch.order.len() <= SEEN_MAX);
        assert_eq!(watch.admit(SEEN_MAX as i64 + 6, &many(0)), Verdict::New, "forgotten");
        assert_eq!(watch.admit(SEEN_MAX as i64 + 7, &many(SEEN_MAX)), Verdict::Repeated);
    }

    proptest! {
        /// The naive model keeps everything that was ever told and looks through all of it.
        #[test]
        fn nothing_is_told_twice_in_a_window_nor_faster_than_the_rate(
            steps in proptest::collection::vec((0i64..1_500, 0u8..6), 1..200),
            window_ms in 1i64..5_000, rate in 1i64..6,
        ) {
            let (mut watch, mut told, mut now) = (Watch::new(window_ms, rate, 0), Vec::<(i64, u8)>::new(), 0);
            for (pause, number) in steps {
                now += pause;
                let repeated = told.iter().any(|(at, known)| *known == number && now < at + window_ms);
                let verdict = watch.admit(now, &key(number));
                prop_assert_eq!(verdict == Verdict::Repeated, repeated);
                if verdict == Verdict::New {
                    told.push((now, number));
                }
                for (first, (from, _)) in told.iter().enumerate() {
                    let many = (told.len() - first) as i64;
                    prop_assert!(many <= rate + rate * (now - from) / 1_000 + 1, "{many} since {from}");
                }
                // What is refused is refused because a second's worth has just passed, not for ever.
                if verdict == Verdict::Limited {
                    let lately = told.iter().filter(|(at, _)| now < at + 2_000).count() as i64;
                    prop_assert!(lately >= 1);
                }
            }
        }

        #[test]
        fn a_response_is_due_exactly_when_its_quorum_is_there(
            steps in proptest::collection::vec((0i64..QUORUM_MS, 0u8..4), 1..80),
            quorum in 1usize..4, ttl_ms in 0i64..2 * QUORUM_MS,
        ) {
            let (mut watch, response) = (Watch::new(1, 1, 1), response(quorum, ttl_ms));
            let (mut history, mut fired, mut now) = (Vec::<(i64, u8)>::new(), None::<i64>, 0i64);
            for (pause, number) in steps {
                now += pause;
                let rests = fired.is_some_and(|at| now < at + ttl_ms);
                if !rests {
                    history.push((now, number));
                }
                let distinct: std::collections::BTreeSet<u8> =
                    history.iter().filter(|(at, _)| now < at + QUORUM_MS).map(|(_, number)| *number).collect();
                let due = !rests && distinct.len() >= quorum;
                prop_assert_eq!(watch.is_due(now, 0, &response, &key(number)), due);
                if due {
                    fired = Some(now);
                    history.clear();
                }
            }
        }
    }
}
