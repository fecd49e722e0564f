//! An order and its proofs over time. Pure: every question and every step takes the time.
//!
//! An order has one authorization a name and each of those one challenge; none is shared between orders, so what one
//! account proved is never another's. Nothing is stored of a status that follows from the rest: an order is ready when
//! every name is proved, invalid when one is lost, and both end with its time. Where two hold, the earlier in this list
//! wins: issued, a lost name, the end, ready, pending. An attempt to look a challenge up that left no result within
//! [`ATTEMPT`] (the process ended) never was.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::problem::{Refusal, Word};

/// How long an order lives, and with it what was proved for it.
pub(super) const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// After this long an attempt counts as lost; looking up is bounded far below.
const ATTEMPT: SignedDuration = SignedDuration::from_secs(30);

/// An order as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// `service.account.order`.
    pub(super) id: String,
    pub(super) account: String,
    pub(super) service: String,
    pub(super) expires: Timestamp,
    pub(super) authorizations: Vec<Authorization>,
    /// Serial of its certificate.
    pub(super) issued: Option<String>,
    /// The certificate it is to follow, as the client named it.
    pub(super) replaces: Option<String>,
}

/// The proof that a name is the account's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Authorization {
    pub(super) name: String,
    /// What is looked up: 256 random bits, base64url.
    pub(super) token: String,
    pub(super) proof: Proof,
}

/// How far a proof is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Proof {
    Pending,
    /// It is being looked up.
    Processing(Timestamp),
    Valid(Timestamp),
    Invalid(Refusal),
    /// The client gave it up.
    Deactivated,
}

/// Status of an order, an authorization or a challenge, in the words of RFC 8555, section 7.1.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Pending,
    Processing,
    Ready,
    Valid,
    Invalid,
    Expired,
    Deactivated,
}

impl Order {
    /// Its status.
    pub(super) fn status(&self, now: Timestamp) -> Status {
        let is_lost = |one: &Authorization| matches!(one.proof, Proof::Invalid(_) | Proof::Deactivated);
        if self.issued.is_some() {
            Status::Valid
        } else if now >= self.expires || self.authorizations.iter().any(is_lost) {
            Status::Invalid
        } else if self.authorizations.iter().all(|one| matches!(one.proof, Proof::Valid(_))) {
            Status::Ready
        } else {
            Status::Pending
        }
    }

    /// The status of an authorization.
    pub(super) fn authorization(&self, at: usize, now: Timestamp) -> Option<Status> {
        let status = match &self.authorizations.get(at)?.proof {
            Proof::Invalid(_) => Status::Invalid,
            Proof::Deactivated => Status::Deactivated,
            _ if now >= self.expires => Status::Expired,
            Proof::Valid(_) => Status::Valid,
            Proof::Pending | Proof::Processing(_) => Status::Pending,
        };
        Some(status)
    }

    /// The status of an authorization's challenge.
    pub(super) fn challenge(&self, at: usize, now: Timestamp) -> Option<Status> {
        let status = match &self.authorizations.get(at)?.proof {
            Proof::Valid(_) => Status::Valid,
            Proof::Invalid(_) | Proof::Deactivated => Status::Invalid,
            _ if now >= self.expires => Status::Invalid,
            Proof::Processing(since) if !is_stale(*since, now) => Status::Processing,
            Proof::Pending | Proof::Processing(_) => Status::Pending,
        };
        Some(status)
    }

    /// The client says that a challenge can be looked up. True: somebody has to.
    pub(super) fn begin(&mut self, at: usize, now: Timestamp) -> bool {
        let begins = self.challenge(at, now) == Some(Status::Pending);
        if begins {
            self.authorizations[at].proof = Proof::Processing(now);
        }
        begins
    }

    /// An attempt that began at `since` is over. One that nobody waits for any more changes nothing: whether it counts.
    pub(super) fn settle(
        &mut self,
        at: usize,
        since: Timestamp,
        outcome: Result<(), Refusal>,
        now: Timestamp,
    ) -> bool {
        let Some(one) = self.authorizations.get_mut(at) else { return false };
        let counts = one.proof == Proof::Processing(since) && !is_stale(since, now) && now < self.expires;
        if counts {
            one.proof = match outcome {
                Ok(()) => Proof::Valid(now),
                Err(refusal) => Proof::Invalid(refusal),
            };
        }
        counts
    }

    /// The client gives an authorization up; false: there is none that it could.
    pub(super) fn deactivate(&mut self, at: usize, now: Timestamp) -> bool {
        let gives_up = matches!(self.authorization(at, now), Some(Status::Pending | Status::Valid));
        if gives_up {
            self.authorizations[at].proof = Proof::Deactivated;
        }
        gives_up
    }

    /// Whether a certificate may be made of it now.
    pub(super) fn may_finalize(&self, now: Timestamp) -> Result<(), Refusal> {
        let status = self.status(now);
        if status == Status::Ready {
            return Ok(());
        }
        Err(Refusal::new(Word::OrderNotReady, format!("the order is not ready but {}", status.as_str())))
    }

    /// Its certificate was made.
    pub(super) fn issue(&mut self, serial: &str, now: Timestamp) -> Result<(), Refusal> {
        self.may_finalize(now)?;
        self.issued = Some(serial.to_owned());
        Ok(())
    }

    /// Its names, in the order they were asked for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.authorizations.iter().map(|one| one.name.as_str())
    }

    /// Why it is lost, where a challenge failed.
    pub(super) fn fault(&self) -> Option<&Refusal> {
        self.authorizations.iter().find_map(|one| match &one.proof {
            Proof::Invalid(refusal) => Some(refusal),
            _ => None,
        })
    }
}

impl Status {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Ready => "ready",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Deactivated => "deactivated",
        }
    }
}

/// Also where the clock stepped back behind the beginning: else such an attempt would never end.
fn is_stale(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since).abs() >= ATTEMPT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Begin(usize),
        /// The result of the n-th attempt of all, whenever it comes.
        Settle(usize, bool),
        Deactivate(usize),
        Finalize,
        Wait(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..3).prop_map(Step::Begin),
            3 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(n, good)| Step::Settle(n, good)),
            1 => (0usize..3).prop_map(Step::Deactivate),
            2 => Just(Step::Finalize),
            2 => prop_oneof![0i64..10, 20i64..40, Just(1_800i64)].prop_map(Step::Wait),
        ]
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn order(names: usize) -> Order {
        let authorization = |n: usize| Authorization {
            name: format!("n{n}.example.com"),
            token: "t".into(),
            proof: Proof::Pending,
        };
        Order {
            id: "bot.a.o".into(),
            account: "bot.a".into(),
            service: "bot".into(),
            expires: at(LIFE.as_secs()),
            authorizations: (0..names).map(authorization).collect(),
            issued: None,
            replaces: None,
        }
    }

    /// The naive model: all that happened, in order; every answer is found by going through it from the beginning.
    #[derive(Default)]
    struct History(Vec<(i64, Happened)>);

    enum Happened {
        Began(usize),
        Settled { name: usize, began: i64, good: bool },
        GaveUp(usize),
        Issued,
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Known {
        Open,
        Trying(i64),
        Good,
        Bad,
        Gone,
    }

    impl History {
        fn known(&self, name: usize) -> Known {
            let mut known = Known::Open;
            for (when, happened) in &self.0 {
                known = match (known, happened) {
                    (Known::Open, Happened::Began(n)) if *n == name => Known::Trying(*when),
                    (Known::Trying(began), Happened::Began(n)) if *n == name && when - began >= 30 => {
                        Known::Trying(*when)
                    }
                    (Known::Trying(trying), Happened::Settled { name: n, began, good })
                        if *n == name && trying == *began && when - began < 30 && *when < 3_600 =>
                    {
                        if *good {
                            Known::Good
                        } else {
                            Known::Bad
                        }
                    }
                    (Known::Open | Known::Trying(_) | Known::Good, Happened::GaveUp(n)) if *n == name => {
                        Known::Gone
                    }
                    (known, _) => known,
                };
            }
            known
        }

        fn is_issued(&self) -> bool {
            self.0.iter().any(|(_, happened)| matches!(happened, Happened::Issued))
        }

        fn status(&self, names: usize, now: i64) -> Status {
            let all: Vec<Known> = (0..names).map(|name| self.known(name)).collect();
            if self.is_issued() {
                Status::Valid
            } else if now >= 3_600 || all.iter().any(|one| matches!(one, Known::Bad | Known::Gone)) {
                Status::Invalid
            } else if all.iter().all(|one| *one == Known::Good) {
                Status::Ready
            } else {
                Status::Pending
            }
        }
    }

    proptest! {
        #[test]
        fn an_order_is_what_its_history_says(
            names in 1usize..4,
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let (mut order, mut history, mut now) = (order(names), History::default(), 0);
            let mut attempts: Vec<(usize, i64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += seconds,
                    Step::Begin(name) => {
                        let known = history.known(name.min(names - 1));
                        let free = match known {
                            Known::Open => true,
                            Known::Trying(began) => now - began >= 30,
                            _ => false,
                        };
                        let expected = name < names && free && now < 3_600;
                        prop_assert_eq!(order.begin(name, at(now)), expected);
                        if expected {
                            attempts.push((name, now));
                            history.0.push((now, Happened::Began(name)));
                        }
                    }
                    Step::Settle(n, good) => {
                        let Some((name, began)) = attempts.get(n).copied() else { continue };
                        let before = history.known(name);
                        let outcome = if good { Ok(()) } else { Err(Refusal::new(Word::Dns, "x")) };
                        let counts = order.settle(name, at(began), outcome, at(now));
                        history.0.push((now, Happened::Settled { name, began, good }));
                        prop_assert_eq!(counts, history.known(name) != before);
                    }
                    Step::Deactivate(name) => {
                        let known = history.known(name.min(names - 1));
                        let expected = name < names && now < 3_600 && !matches!(known, Known::Bad | Known::Gone);
                        prop_assert_eq!(order.deactivate(name, at(now)), expected);
                        if expected {
                            history.0.push((now, Happened::GaveUp(name)));
                        }
                    }
                    Step::Finalize => {
                        let expected = history.status(names, now) == Status::Ready;
                        prop_assert_eq!(order.issue("serial", at(now)).is_ok(), expected);
                        if expected {
                            history.0.push((now, Happened::Issued));
                        }
                    }
                }
                prop_assert_eq!(order.status(at(now)), history.status(names, now));
                for name in 0..names {
                    let (authorization, challenge) = match history.known(name) {
                        Known::Good if now >= 3_600 => (Status::Expired, Status::Valid),
                        Known::Good => (Status::Valid, Status::Valid),
                        Known::Bad => (Status::Invalid, Status::Invalid),
                        Known::Gone => (Status::Deactivated, Status::Invalid),
                        _ if now >= 3_600 => (Status::Expired, Status::Invalid),
                        Known::Trying(began) if now - began < 30 => (Status::Pending, Status::Processing),
                        Known::Open | Known::Trying(_) => (Status::Pending, Status::Pending),
                    };
                    prop_assert_eq!(order.authorization(name, at(now)), Some(authorization));
                    prop_assert_eq!(order.challenge(name, at(now)), Some(challenge));
                }
                prop_assert_eq!(order.authorization(names, at(now)), None);
            }
        }
    }

    #[test]
    fn a_result_nobody_waits_for_changes_nothing() {
        let mut order = order(1);
        assert!(order.begin(0, at(0)) && !order.begin(0, at(1)));
        assert!(order.begin(0, at(40)), "the first attempt was lost");
        assert!(!order.settle(0, at(0), Ok(()), at(41)));
        assert!(order.settle(0, at(40), Ok(()), at(41)));
        assert_eq!(order.status(at(41)), Status::Ready);
        assert_eq!(order.status(at(3_600)), Status::Invalid, "what was proved ends with the order");
    }
}
