//! The alerts that wait for a target: one a key, the most urgent first, never more than a few.

use std::cmp::Reverse;
use std::sync::Arc;

use super::alert::Alert;

/// LIMIT: alerts that wait for one target; the least urgent is left out, and counted in the next message.
pub(crate) const WAITING_MAX: usize = 64;

/// One alert with what is given back when it is done.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) alert: Arc<Alert>,
    pub(crate) ticket: T,
    /// Tries that failed.
    pub(crate) tries: u32,
    /// When it began to wait, milliseconds.
    pub(crate) since_ms: u64,
    order: u64,
}

/// What had to go for a newer alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The newer one is about the same.
    Superseded,
    /// There are too many.
    LeftOut,
}

/// The alerts of one target.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: Vec<Waiting<T>>,
    order: u64,
    left_out: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), order: 0, left_out: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds an alert; what goes for it, if anything does.
    pub(crate) fn push(&mut self, alert: Arc<Alert>, ticket: T, now_ms: u64) -> Option<Gone> {
        let same = self.waiting.iter().position(|waiting| waiting.alert.key == alert.key);
        let since_ms = same.map(|at| self.waiting.swap_remove(at).since_ms);
        self.order += 1;
        let order = self.order;
        self.waiting.push(Waiting { alert, ticket, tries: 0, since_ms: since_ms.unwrap_or(now_ms), order });
        if since_ms.is_some() {
            return Some(Gone::Superseded);
        }
        self.cut()
    }

    /// Puts an alert back whose try failed; a newer one about the same stays in its place.
    pub(crate) fn put_back(&mut self, mut failed: Waiting<T>) -> Option<Gone> {
        if self.waiting.iter().any(|waiting| waiting.alert.key == failed.alert.key) {
            return Some(Gone::Superseded);
        }
        failed.tries += 1;
        self.waiting.push(failed);
        self.cut()
    }

    /// Takes out what is to be told next: what was tried least, then what is most urgent, then what is oldest.
    pub(crate) fn take(&mut self) -> Option<Waiting<T>> {
        let rank = |waiting: &Waiting<T>| (waiting.tries, Reverse(urgency(&waiting.alert)), waiting.order);
        let next = self.waiting.iter().enumerate().min_by_key(|(_, waiting)| rank(waiting))?.0;
        Some(self.waiting.swap_remove(next))
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Alerts that wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Alerts that were left out and that nobody was told of.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// So many of those left out have been told of.
    pub(crate) fn admitted(&mut self, left_out: u64) {
        self.left_out = self.left_out.saturating_sub(left_out);
    }

    fn cut(&mut self) -> Option<Gone> {
        if self.waiting.len() <= WAITING_MAX {
            return None;
        }
        let rank = |waiting: &Waiting<T>| (urgency(&waiting.alert), waiting.order);
        let least = self.waiting.iter().enumerate().min_by_key(|(_, waiting)| rank(waiting))?.0;
        self.waiting.swap_remove(least);
        self.left_out += 1;
        Some(Gone::LeftOut)
    }
}

/// What applications publish never stands before what the system itself says.
fn urgency(alert: &Alert) -> (bool, super::alert::Level) {
    (alert.by_system, alert.level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::alert::tests::numbered;
    use super::super::alert::{Level, State};
    use super::*;

    fn push(queue: &mut Queue<u64>, key: &str, level: Level, n: u64) -> Option<Gone> {
        queue.push(Arc::new(numbered(key, level, State::Firing, n)), n, n)
    }

    #[test]
    fn the_urgent_come_first_and_each_is_tried_before_one_is_tried_again() {
        let mut queue = Queue::default();
        push(&mut queue, "info", Level::Info, 1);
        push(&mut queue, "old", Level::Critical, 2);
        push(&mut queue, "new", Level::Critical, 3);
        let first = queue.take().unwrap();
        assert_eq!(first.ticket, 2);
        assert_eq!(queue.put_back(first), None);
        let order: Vec<u64> = std::iter::from_fn(|| queue.take()).map(|waiting| waiting.ticket).collect();
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn a_newer_one_about_the_same_takes_the_place() {
        let mut queue = Queue::default();
        assert_eq!(push(&mut queue, "a", Level::Critical, 1), None);
        assert_eq!(push(&mut queue, "a", Level::Critical, 2), Some(Gone::Superseded));
        let taken = queue.take().unwrap();
        assert_eq!((taken.ticket, taken.since_ms), (2, 1));
        push(&mut queue, "a", Level::Critical, 3);
        assert_eq!(queue.put_back(taken), Some(Gone::Superseded));
        assert_eq!((queue.take().unwrap().ticket, queue.is_empty()), (3, true));
    }

    #[test]
    fn a_flood_of_clients_leaves_out_none_of_the_system() {
        let mut queue = Queue::default();
        push(&mut queue, "breaker", Level::Warning, 0);
        for n in 1..1_000 {
            let mut alert = numbered(&n.to_string(), Level::Critical, State::Firing, n);
            alert.by_system = false;
            queue.push(Arc::new(alert), n, n);
        }
        assert_eq!((queue.len(), queue.left_out()), (WAITING_MAX, 1_000 - WAITING_MAX as u64));
        assert_eq!(queue.take().unwrap().ticket, 0);
        queue.admitted(900);
        assert_eq!(queue.left_out(), 36);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever is pushed is taken once, superseded or left out.
        #[test]
        fn nothing_is_lost_without_a_word(keys in prop::collection::vec((0..200_u16, 0..3_u8), 1..400)) {
            let mut queue = Queue::default();
            let (mut gone, mut taken) = (0, 0);
            for (n, (key, what)) in keys.iter().enumerate() {
                let level = [Level::Info, Level::Warning, Level::Critical][usize::from(key % 3)];
                gone += u64::from(push(&mut queue, &key.to_string(), level, n as u64).is_some());
                prop_assert!(queue.len() <= WAITING_MAX);
                if *what == 0 && let Some(waiting) = queue.take() {
                    if key % 2 == 0 { gone += u64::from(queue.put_back(waiting).is_some()) } else { taken += 1 }
                }
            }
            while queue.take().is_some() {
                taken += 1;
            }
            prop_assert_eq!(gone + taken, keys.len() as u64);
        }
    }
}
