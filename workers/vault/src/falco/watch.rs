//! Whether an alert is new, and what is due for it. Pure: time is an argument, in milliseconds.
//!
//! - An alert that came already within the window is repeated: counted, told to nobody.
//! - New ones pass their host's bucket of `rate` a second that holds one second's worth, so a flood from one host
//!   silences no other; a quarter of it is kept for alerts from critical up. What does not pass is not told one by one,
//!   but summed.
//! - A response is due when as many hosts as its quorum told of it within [`QUORUM_MS`]; what the bucket held back
//!   counts too. Processes and containers are names that a host gives: it fills no quorum by inventing some. Then the
//!   response rests for its time to live. It stays due until somebody says that it was made.
//!
//! LIMIT: [`SEEN_MAX`] alerts remembered, the oldest forgotten first; [`HOSTS_MAX`] hosts, of which the one that was
//! silent longest is forgotten. Nothing of this outlives the process: after a restart an alert may be told once more,
//! and a quorum begins anew.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// LIMIT: alerts remembered as told.
pub(super) const SEEN_MAX: usize = 10_000;
/// LIMIT: hosts whose rate is known, and that vote for one response.
pub(super) const HOSTS_MAX: usize = 1_024;
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
    /// Edges stop what it names.
    Kill,
}

/// What a kill switch stops, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stop {
    /// `all`, `service`, `account` or `symbol`.
    pub(crate) scope: String,
    /// Which one; none for `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
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
    /// What a kill switch stops, likewise.
    pub(crate) stop: Option<Stop>,
    pub(crate) ttl_ms: i64,
    /// How many hosts it takes.
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
    buckets: HashMap<String, Bucket>,
    votes: Vec<Votes>,
    due: VecDeque<Due>,
}

/// What a host may still tell.
#[derive(Debug)]
struct Bucket {
    /// Thousandths of an alert that may still pass.
    level: i64,
    filled_ms: i64,
    held_back: u64,
}

#[derive(Debug, Default)]
struct Votes {
    by: BTreeMap<String, i64>,
    rests_until: i64,
}

/// A response that is due, and what made it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// Its place in the configuration.
    pub(super) position: usize,
    pub(super) rule: String,
    pub(super) host: String,
}

impl Watch {
    /// One that has seen nothing.
    pub(crate) fn new(window_ms: i64, rate: i64, responses: usize) -> Self {
        Self {
            window_ms,
            rate,
            seen: HashMap::new(),
            order: VecDeque::new(),
            buckets: HashMap::new(),
            votes: (0..responses).map(|_| Votes::default()).collect(),
            due: VecDeque::new(),
        }
    }

    /// Takes in an alert.
    pub(super) fn admit(&mut self, now_ms: i64, key: &Key, priority: Priority) -> Verdict {
        while let Some((at, _)) = self.order.front()
            && (*at + self.window_ms <= now_ms || self.order.len() >= SEEN_MAX)
        {
            self.forget_oldest();
        }
        // A clock that went back: what lies in the future has just been seen.
        if self.seen.get(key).is_some_and(|at| now_ms < at + self.window_ms) {
            return Verdict::Repeated;
        }
        if !self.passes(now_ms, &key.host, priority) {
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

    fn passes(&mut self, now_ms: i64, host: &str, priority: Priority) -> bool {
        self.make_room_for(host);
        let full = self.rate * 1_000;
        let fresh = || Bucket { level: full, filled_ms: i64::MIN, held_back: 0 };
        let bucket = self.buckets.entry(host.to_owned()).or_insert_with(fresh);
        let since = now_ms.saturating_sub(bucket.filled_ms).clamp(0, 1_000);
        bucket.level = (bucket.level + since * self.rate).min(full);
        bucket.filled_ms = bucket.filled_ms.max(now_ms);
        let kept = if priority >= Priority::Critical { 0 } else { self.rate / 4 * 1_000 };
        let passes = bucket.level >= 1_000 + kept;
        if passes {
            bucket.level -= 1_000;
        } else {
            bucket.held_back += 1;
        }
        passes
    }

    fn make_room_for(&mut self, host: &str) {
        if self.buckets.len() >= HOSTS_MAX
            && !self.buckets.contains_key(host)
            && let Some(silent) = self.buckets.iter().min_by_key(|(_, bucket)| bucket.filled_ms)
        {
            let silent = silent.0.clone();
            self.buckets.remove(&silent);
        }
    }

    /// How many alerts of each host were held back since this was asked last.
    pub(super) fn held_back(&mut self) -> Vec<(String, u64)> {
        let taken = self.buckets.iter_mut().map(|(host, b)| (host.clone(), std::mem::take(&mut b.held_back)));
        taken.filter(|(_, many)| *many > 0).collect()
    }

    /// Counts an alert toward a response, which may become due.
    pub(super) fn vote(&mut self, now_ms: i64, position: usize, response: &Response, key: &Key) {
        let Some(votes) = self.votes.get_mut(position) else { return };
        if now_ms < votes.rests_until {
            return;
        }
        votes.by.retain(|_, at| now_ms < *at + QUORUM_MS);
        if votes.by.len() < HOSTS_MAX || votes.by.contains_key(&key.host) {
            votes.by.insert(key.host.clone(), now_ms);
        }
        if votes.by.len() < response.quorum {
            return;
        }
        votes.by.clear();
        votes.rests_until = now_ms.saturating_add(response.ttl_ms);
        // LIMIT: one of each response waits at a time.
        if !self.due.iter().any(|due| due.position == position) {
            self.due.push_back(Due { position, rule: key.rule.clone(), host: key.host.clone() });
        }
    }

    /// The responses that are to be made, the oldest first.
    pub(super) fn due(&self) -> Vec<Due> {
        self.due.iter().cloned().collect()
    }

    /// A response was made, durably.
    pub(super) fn made(&mut self, position: usize) {
        self.due.retain(|due| due.position != position);
    }

    /// Lets responses be due again: what they did was released.
    pub(super) fn rearm(&mut self, responses: &[Response], did: impl Fn(&Response) -> bool) {
        for (votes, response) in self.votes.iter_mut().zip(responses) {
            if did(response) {
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

    /// Different alerts of the same host.
    fn one_host(number: u8) -> Key {
        Key { host: "h".into(), ..key(number) }
    }

    /// Whether an alert makes a response due, which is made at once.
    fn is_due(watch: &mut Watch, now_ms: i64, response: &Response, key: &Key) -> bool {
        watch.vote(now_ms, 0, response, key);
        let due = !watch.due().is_empty();
        watch.made(0);
        due
    }

    fn response(quorum: usize, ttl_ms: i64) -> Response {
        Response {
            rule: "*".into(),
            priority: Priority::Critical,
            action: Action::Quarantine,
            identity: Some("bot".into()),
            stop: None,
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
    fn one_host_alone_fills_no_quorum_and_a_release_arms_again() {
        let mut watch = Watch::new(60_000, 100, 1);
        let two = response(2, 900_000);
        assert!(!is_due(&mut watch, 0, &two, &key(1)));
        let invented = Key { container: "other".into(), process: "other".into(), ..key(1) };
        assert!(!is_due(&mut watch, 1, &two, &invented));
        assert!(!is_due(&mut watch, QUORUM_MS + 1, &two, &key(2)), "the first is too old");
        assert!(is_due(&mut watch, QUORUM_MS + 2, &two, &key(1)));
        assert!(!is_due(&mut watch, QUORUM_MS + 3, &two, &key(3)), "it rests");
        watch.rearm(std::slice::from_ref(&two), |response| response.identity.as_deref() == Some("bot"));
        assert!(!is_due(&mut watch, QUORUM_MS + 4, &two, &key(1)));
        assert!(is_due(&mut watch, QUORUM_MS + 5, &two, &key(2)));
    }

    #[test]
    fn what_is_due_stays_so_until_it_was_made() {
        let (mut watch, one) = (Watch::new(60_000, 100, 2), response(1, 1_000));
        watch.vote(0, 0, &one, &key(1));
        watch.vote(0, 1, &one, &key(2));
        watch.vote(2_000, 0, &one, &key(3));
        let told: Vec<_> = watch.due().iter().map(|due| (due.position, due.host.clone())).collect();
        assert_eq!(told, [(0, "h1".to_owned()), (1, "h2".to_owned())], "each once, the first first");
        watch.made(0);
        assert_eq!(watch.due().len(), 1);
    }

    #[test]
    fn a_flood_of_one_host_silences_no_other_and_no_grave_alert_of_its_own() {
        let mut watch = Watch::new(60_000, 8, 0);
        let named = |host: &str, number: usize| Key { rule: number.to_string(), host: host.into(), ..key(0) };
        let mut told = |host: &str, numbers: std::ops::Range<usize>, priority| {
            let admitted = numbers.map(|number| watch.admit(0, &named(host, number), priority));
            admitted.filter(|verdict| *verdict == Verdict::New).count()
        };
        assert_eq!(told("loud", 0..100, Priority::Notice), 6, "a quarter is kept");
        assert_eq!(told("loud", 100..200, Priority::Critical), 2);
        assert_eq!(told("calm", 0..3, Priority::Notice), 3);
        assert_eq!(watch.held_back(), [("loud".to_owned(), 192)]);
        assert!(watch.held_back().is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut watch = Watch::new(i64::MAX / 4, 1_000_000, 0);
        let many = |number: usize| Key { rule: number.to_string(), ..key(0) };
        for number in 0..SEEN_MAX + 5 {
            assert_eq!(watch.admit(number as i64, &many(number), Priority::Critical), Verdict::New);
        }
        assert!(watch.seen.len() <= SEEN_MAX && watch.order.len() <= SEEN_MAX);
        let later = SEEN_MAX as i64 + 6;
        assert_eq!(watch.admit(later, &many(0), Priority::Critical), Verdict::New, "forgotten");
        assert_eq!(watch.admit(later + 1, &many(SEEN_MAX), Priority::Critical), Verdict::Repeated);
        for number in 0..=HOSTS_MAX {
            let host = Key { host: number.to_string(), ..many(number + SEEN_MAX) };
            watch.admit(later + number as i64, &host, Priority::Critical);
        }
        assert_eq!(watch.buckets.len(), HOSTS_MAX);
        assert!(!watch.buckets.contains_key("h0"), "the silent one is forgotten");
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
                let verdict = watch.admit(now, &one_host(number), Priority::Critical);
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
                prop_assert_eq!(is_due(&mut watch, now, &response, &key(number)), due);
                if due {
                    fired = Some(now);
                    history.clear();
                }
            }
        }
    }
}
