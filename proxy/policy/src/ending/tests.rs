use proptest::prelude::*;

use super::*;
use crate::breaker::Outcome as Call;

const METHODS: [Method; 7] =
    [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Options];

/// What happened to a request at its upstream, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Happens {
    /// A try begins and its first byte leaves.
    Sends,
    /// The present try fails; its instance is to blame, or not.
    Fails(bool),
    /// What was sent stays at the instance as a part, and another try is made.
    Parts,
    /// The edge refuses another try.
    Refuses,
    /// A head comes.
    Head(u16),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        Just(Happens::Sends),
        any::<bool>().prop_map(Happens::Fails),
        Just(Happens::Parts),
        Just(Happens::Refuses),
        prop_oneof![200_u16..210, 301_u16..305, 400_u16..405, 500_u16..506].prop_map(Happens::Head),
    ]
}

/// A naive reading of the whole row: what was the last thing that says something?
struct Model<'h>(&'h [Happens]);

impl Model<'_> {
    fn touched(&self) -> bool {
        self.0.contains(&Happens::Sends)
    }

    /// Everything after the last head, or all of it.
    fn after_head(&self) -> &[Happens] {
        let head = self.0.iter().rposition(|one| matches!(one, Happens::Head(_)));
        &self.0[head.map_or(0, |at| at + 1)..]
    }

    fn blamed(&self) -> bool {
        let last = self.after_head().iter().rev().find_map(|one| match one {
            Happens::Fails(counts) => Some(*counts),
            _ => None,
        });
        last == Some(true)
    }

    fn failed_after_head(&self) -> bool {
        self.after_head().iter().any(|one| matches!(one, Happens::Fails(_) | Happens::Refuses))
    }

    fn status(&self) -> Option<u16> {
        self.0.iter().rev().find_map(|one| match one {
            Happens::Head(status) => Some(*status),
            _ => None,
        })
    }

    fn breaker(&self) -> Option<Call> {
        if self.blamed() {
            return Some(Call::Failure);
        }
        let status = self.status().filter(|_| !self.failed_after_head())?;
        Some(match status {
            502..=504 => Call::Failure,
            100..=399 => Call::Success,
            _ => Call::Neutral,
        })
    }
}

/// The same, kept as an exchange keeps it.
fn ends(all: &[Happens]) -> (Ending, Sent) {
    let (mut ending, mut sent) = (Ending::default(), Sent::NOTHING);
    for one in all {
        match *one {
            Happens::Sends => sent.present = true,
            Happens::Fails(counts) => ending.failure = Some(Failure { code: Code::UpstreamRefused, counts }),
            Happens::Parts => {
                sent.parted |= sent.present;
                sent.present = false;
            }
            Happens::Refuses => ending.failure = Some(Failure::refused(ending.failure, Code::BreakerOpen)),
            Happens::Head(status) => (ending.failure, ending.status) = (None, Some(status)),
        }
    }
    (ending, sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn everybody_hears_what_a_naive_reading_says(
        all in proptest::collection::vec(happens(), 0..8), at in 0..METHODS.len(), streams in any::<bool>(),
        worked in proptest::option::of((0_u64..1000).prop_map(Duration::from_millis)),
    ) {
        let model = Model(&all);
        let (ending, sent) = ends(&all);
        let ending = Ending { streams, worked, ..ending };
        prop_assert_eq!(ending.for_breaker(), model.breaker());
        let told = outcome(METHODS[at], sent);
        let has_effects = matches!(METHODS[at], Method::Post | Method::Patch);
        prop_assert_eq!(told.is_some(), has_effects);
        prop_assert_eq!(told == Some(Outcome::Unknown), has_effects && model.touched());
        // The gate believes the breaker, but for streams, other statuses and times that nobody knows.
        match (ending.for_gate(), model.breaker()) {
            (Ended::Failed, heard) => prop_assert_eq!(heard, Some(Call::Failure)),
            (Ended::Answered(took), heard) => {
                prop_assert!(heard == Some(Call::Success) && !streams && worked == Some(took));
            }
            (Ended::Unknown, Some(Call::Failure)) => prop_assert!(streams && !model.blamed()),
            (Ended::Unknown, Some(Call::Success)) => prop_assert!(streams || worked.is_none()),
            (Ended::Unknown, _) => {}
        }
    }

    #[test]
    fn a_clients_time_for_its_body_is_not_the_upstreams(began in 0_u64..500, whole in 0_u64..500, head in 0_u64..500) {
        let ms = Duration::from_millis;
        let head = head.max(began);
        let took = ms(head - began);
        prop_assert_eq!(worked(false, took, None), Some(took));
        prop_assert_eq!(worked(true, took, None), None);
        // The body is whole before the try or while it runs: the later of the two is where work begins.
        let received = (whole <= head).then(|| ms(head - whole));
        prop_assert_eq!(worked(true, took, received), received.map(|_| ms(head - whole.max(began))));
    }
}

#[test]
fn a_refusal_is_nobodys_fault_and_takes_none_away() {
    let failure = |counts| Some(Failure { code: Code::UpstreamTimeout, counts });
    for (before, counts) in [(None, false), (failure(false), false), (failure(true), true)] {
        assert_eq!(
            Failure::refused(before, Code::NoHealthyInstance),
            Failure { code: Code::NoHealthyInstance, counts }
        );
    }
}
