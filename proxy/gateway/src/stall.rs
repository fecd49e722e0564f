//! Answers that their client does not take.
//!
//! Each of them keeps some hundred KiB in the edge, what is under way from its instance, and one client may
//! have 100 of them on each of its connections. So the more of them stand still at once, the less time
//! each is given; what the edge holds for clients that do not read stays bounded however many they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// LIMIT: standing answers beyond which the later ones are given less, and how much.
const STEPS: [(usize, Duration); 2] = [(2048, Duration::from_secs(1)), (512, Duration::from_secs(5))];

/// How many answers of the edge stand still.
#[derive(Debug, Default)]
pub(crate) struct Stalls(AtomicUsize);

/// One answer.
#[derive(Debug)]
pub(crate) struct Stall {
    all: Arc<Stalls>,
    patience: Duration,
    since: Option<Instant>,
}

impl Stall {
    /// An answer that moves; standing still, it is given up after `patience` at the latest.
    pub(crate) const fn new(all: Arc<Stalls>, patience: Duration) -> Self {
        Self { all, patience, since: None }
    }

    /// It stands still; says when it is given up.
    pub(crate) fn due(&mut self) -> Instant {
        let since = *self.since.get_or_insert_with(|| {
            self.all.0.fetch_add(1, Relaxed);
            Instant::now()
        });
        since + patience(self.patience, self.all.0.load(Relaxed))
    }

    /// It moved.
    pub(crate) fn is_over(&mut self) {
        if self.since.take().is_some() {
            self.all.0.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.is_over();
    }
}

fn patience(usual: Duration, standing: usize) -> Duration {
    let step = STEPS.iter().find(|(many, _)| standing > *many);
    step.map_or(usual, |(_, short)| usual.min(*short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_stand_still_the_less_each_is_given() {
        let (all, began) = (Arc::<Stalls>::default(), Instant::now());
        let mut standing: Vec<Stall> =
            (0..2049).map(|_| Stall::new(Arc::clone(&all), Duration::from_secs(60))).collect();
        let given: Vec<u64> = standing.iter_mut().map(|stall| (stall.due() - began).as_secs()).collect();
        assert_eq!((given[511], given[512], given[2047], given[2048]), (60, 5, 5, 1));
        assert_eq!((standing[0].due() - began).as_secs(), 1, "looked at again, the first has no more");
        standing.truncate(1);
        assert_eq!((standing[0].due() - began).as_secs(), 60);
        standing[0].is_over();
        standing[0].is_over();
        assert_eq!(all.0.load(Relaxed), 0);
        assert_eq!(patience(Duration::from_millis(300), 9999), Duration::from_millis(300));
    }
}
