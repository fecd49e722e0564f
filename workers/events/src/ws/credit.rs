//! Flow control of a subscription: how many events may be on their way unconfirmed.

use std::collections::VecDeque;

/// LIMIT: credit of a subscription, and events on their way.
pub(crate) const CREDIT_MAX: u64 = 10_000;

/// Credit and what is on its way.
#[derive(Debug)]
pub(crate) struct Credit {
    left: u64,
    /// Seqs sent and not confirmed, rising.
    sent: VecDeque<u64>,
}

impl Credit {
    /// So much to begin with.
    pub(crate) fn new(credit: u64) -> Self {
        Self { left: credit.min(CREDIT_MAX), sent: VecDeque::new() }
    }

    /// How many events may go.
    pub(crate) fn left(&self) -> u64 {
        self.left.min(CREDIT_MAX - (self.sent.len() as u64).min(CREDIT_MAX))
    }

    /// An event went.
    pub(crate) fn sent(&mut self, seq: u64) {
        self.left = self.left.saturating_sub(1);
        self.sent.push_back(seq);
    }

    /// More may go.
    pub(crate) fn grant(&mut self, credit: u64) {
        self.left = self.left.saturating_add(credit).min(CREDIT_MAX);
    }

    /// Everything up to a seq was handled: as much may go again. How many events that were.
    pub(crate) fn confirm(&mut self, seq: u64) -> u64 {
        let mut confirmed = 0;
        while self.sent.front().is_some_and(|sent| *sent <= seq) {
            self.sent.pop_front();
            confirmed += 1;
        }
        self.grant(confirmed);
        confirmed
    }

    /// What is on its way counts no more: the subscription went to another place.
    pub(crate) fn forget(&mut self) {
        let sent = self.sent.len() as u64;
        self.sent.clear();
        self.grant(sent);
    }

    /// How many events are on their way.
    pub(crate) fn unconfirmed(&self) -> u64 {
        self.sent.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Send,
        Grant(u64),
        Confirm(u64),
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Send),
            1 => (0_u64..20).prop_map(Step::Grant),
            2 => (0_u64..200).prop_map(Step::Confirm),
            1 => Just(Step::Forget),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Never more is sent than was granted and given back.
        #[test]
        fn credit_is_neither_lost_nor_made(first in 0_u64..30, steps in prop::collection::vec(step(), 0..200)) {
            let mut credit = Credit::new(first);
            let (mut given, mut total, mut sent, mut open) = (0, first, 0_u64, Vec::<u64>::new());
            for step in steps {
                match step {
                    Step::Send if credit.left() > 0 => {
                        sent += 1;
                        open.push(sent);
                        credit.sent(sent);
                    }
                    Step::Send => {}
                    Step::Grant(more) => {
                        total += more;
                        credit.grant(more);
                    }
                    Step::Confirm(upto) => {
                        let before = open.len();
                        open.retain(|seq| *seq > upto);
                        let confirmed = (before - open.len()) as u64;
                        given += confirmed;
                        prop_assert_eq!(credit.confirm(upto), confirmed);
                    }
                    Step::Forget => {
                        given += open.len() as u64;
                        open.clear();
                        credit.forget();
                    }
                }
                prop_assert_eq!(credit.left(), total + given - sent);
                prop_assert_eq!(credit.unconfirmed(), open.len() as u64);
            }
        }
    }

    #[test]
    fn credit_is_bounded() {
        let mut credit = Credit::new(u64::MAX);
        credit.grant(u64::MAX);
        assert_eq!(credit.left(), CREDIT_MAX);
        for seq in 0..CREDIT_MAX {
            credit.sent(seq);
        }
        credit.grant(CREDIT_MAX);
        assert_eq!(credit.left(), 0, "as many are on their way as may be");
    }
}
