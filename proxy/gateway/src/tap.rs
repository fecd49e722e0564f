//! Who looks at live traffic, and how lines reach them.
//!
//! Purpose: an operator sees requests as they end. Nobody looks: one atomic load a request. Somebody does:
//! a line is encoded once and put into the queue of each viewer whose filter wants it; a request never waits
//! for a viewer. A queue that is full loses lines, and the viewer is told how many with a `gap` in their
//! place. LIMIT: [`VIEWERS_MAX`] viewers, [`QUEUE_LINES`] lines each, of [`LINE_BYTES_MAX`] bytes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prometheus::{IntCounter, IntGauge};
use sluice_policy::tap::{Filter, Seen};
use tokio::sync::mpsc;

/// LIMIT: viewers at once.
pub(crate) const VIEWERS_MAX: usize = 8;
/// LIMIT: lines that wait for one viewer.
const QUEUE_LINES: usize = 1_024;
/// LIMIT: bytes of one line; a larger one is lost.
const LINE_BYTES_MAX: usize = 16 << 10;

/// What a viewer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// One request, as JSON.
    Line(Bytes),
    /// This many lines are missing here.
    Gap(u64),
}

/// The viewers.
pub(crate) struct Tap {
    watching: AtomicUsize,
    viewers: Mutex<Vec<Viewer>>,
    gauge: IntGauge,
    lost: IntCounter,
}

struct Viewer {
    id: u64,
    filter: Filter,
    queue: mpsc::Sender<Item>,
    missing: Arc<AtomicU64>,
}

/// One viewer's end; it leaves when this drops.
pub(crate) struct View {
    tap: Arc<Tap>,
    id: u64,
    queue: mpsc::Receiver<Item>,
    missing: Arc<AtomicU64>,
}

impl Tap {
    /// Nobody looks yet.
    pub(crate) fn new(gauge: IntGauge, lost: IntCounter) -> Arc<Self> {
        Arc::new(Self { watching: AtomicUsize::new(0), viewers: Mutex::default(), gauge, lost })
    }

    /// Whether anybody looks.
    pub(crate) fn is_watched(&self) -> bool {
        self.watching.load(Ordering::Relaxed) > 0
    }

    /// A viewer joins; `None` where there are too many.
    pub(crate) fn join(self: &Arc<Self>, filter: Filter) -> Option<View> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut viewers = self.viewers();
        if viewers.len() >= VIEWERS_MAX {
            return None;
        }
        let (sender, queue) = mpsc::channel(QUEUE_LINES);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let missing = Arc::new(AtomicU64::new(0));
        viewers.push(Viewer { id, filter, queue: sender, missing: Arc::clone(&missing) });
        self.count(&viewers);
        Some(View { tap: Arc::clone(self), id, queue, missing })
    }

    /// Shows a request to those who want it; `line` is asked for once, and only where somebody does.
    pub(crate) fn offer(&self, seen: &Seen<'_>, line: impl FnOnce() -> Vec<u8>) {
        let viewers = self.viewers();
        let wanting: Vec<&Viewer> = viewers.iter().filter(|viewer| viewer.filter.matches(seen)).collect();
        if wanting.is_empty() {
            return;
        }
        let line = Bytes::from(line());
        for viewer in wanting {
            if line.len() > LINE_BYTES_MAX || !viewer.take(&line) {
                viewer.missing.fetch_add(1, Ordering::Relaxed);
                self.lost.inc();
            }
        }
    }

    fn leave(&self, id: u64) {
        let mut viewers = self.viewers();
        viewers.retain(|viewer| viewer.id != id);
        self.count(&viewers);
    }

    fn count(&self, viewers: &[Viewer]) {
        self.watching.store(viewers.len(), Ordering::Relaxed);
        self.gauge.set(viewers.len() as i64);
    }

    fn viewers(&self) -> MutexGuard<'_, Vec<Viewer>> {
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Viewer {
    /// Queues a line, after the gap before it; false where there is no room.
    fn take(&self, line: &Bytes) -> bool {
        let missing = self.missing.swap(0, Ordering::Relaxed);
        if missing > 0 && self.queue.try_send(Item::Gap(missing)).is_err() {
            self.missing.fetch_add(missing, Ordering::Relaxed);
            return false;
        }
        self.queue.try_send(Item::Line(line.clone())).is_ok()
    }
}

impl View {
    /// The next line or gap. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Item> {
        if self.queue.is_empty() {
            // Everything queued was taken, so what is missing is missing here.
            let missing = self.missing.swap(0, Ordering::Relaxed);
            if missing > 0 {
                return Some(Item::Gap(missing));
            }
        }
        self.queue.recv().await
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.tap.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn tap() -> Arc<Tap> {
        Tap::new(IntGauge::new("viewers", "test").unwrap(), IntCounter::new("lost", "test").unwrap())
    }

    fn seen(status: u16) -> Seen<'static> {
        Seen { route: "api", status, client: IpAddr::from([127, 0, 0, 1]), method: None }
    }

    fn offer(tap: &Tap, number: usize) {
        tap.offer(&seen(200), || number.to_string().into_bytes());
    }

    #[tokio::test]
    async fn a_slow_viewer_is_told_what_it_misses_in_its_place() {
        let tap = tap();
        assert!(!tap.is_watched());
        let mut view = tap.join(Filter::default()).unwrap();
        for number in 0..QUEUE_LINES + 5 {
            offer(&tap, number);
        }
        for number in 0..QUEUE_LINES {
            assert_eq!(view.next().await, Some(Item::Line(number.to_string().into())));
        }
        assert_eq!(view.next().await, Some(Item::Gap(5)));
        offer(&tap, 9);
        assert_eq!(view.next().await, Some(Item::Line("9".into())));
        for number in 0..=QUEUE_LINES {
            offer(&tap, number);
        }
        assert_eq!(view.next().await, Some(Item::Line("0".into())));
        assert_eq!(view.next().await, Some(Item::Line("1".into())));
        offer(&tap, 7);
        for _ in 2..QUEUE_LINES {
            assert!(matches!(view.next().await, Some(Item::Line(_))));
        }
        assert_eq!(view.next().await, Some(Item::Gap(1)));
        assert_eq!(view.next().await, Some(Item::Line("7".into())));
        assert_eq!(tap.lost.get(), 6);
    }

    #[tokio::test]
    async fn only_what_is_wanted_is_encoded_and_viewers_are_bounded() {
        let tap = tap();
        let errors = Filter::new(None, Some("5xx"), None, None).unwrap();
        let mut view = tap.join(errors.clone()).unwrap();
        tap.offer(&seen(200), || panic!("nobody wants it"));
        tap.offer(&seen(503), || b"x".to_vec());
        tap.offer(&seen(503), || vec![b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(view.next().await, Some(Item::Line("x".into())));
        assert_eq!(view.next().await, Some(Item::Gap(1)));
        let others: Vec<View> = (1..VIEWERS_MAX).map(|_| tap.join(errors.clone()).unwrap()).collect();
        assert!(tap.join(errors.clone()).is_none());
        assert_eq!(tap.gauge.get(), 8);
        drop(others);
        assert!(tap.join(errors).is_some());
        drop(view);
        assert!(!tap.is_watched());
    }
}
