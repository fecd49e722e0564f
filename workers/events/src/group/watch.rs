//! Tells the groups of new events, but only when somebody waits for them: a busy stream with groups that are busy
//! themselves costs nothing here.

use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::engine::Reader;

use super::command::Command;

/// How often the thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(200);

/// What the watching thread is to do.
#[derive(Debug, Default)]
pub(super) struct Watch {
    order: Mutex<Order>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Order {
    /// Tell when there is an event after this seq.
    beyond: Option<u64>,
    closing: bool,
}

impl Watch {
    /// Asks to be told once, when there is an event after a seq.
    pub(super) fn beyond(&self, seq: u64) {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).beyond = Some(seq);
        self.changed.notify_one();
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        self.changed.notify_one();
    }

    /// Watches until it is closed, or nobody listens any longer.
    pub(super) fn run(&self, reader: &Reader, nudge: &SyncSender<Command>) {
        while let Some(seq) = self.next() {
            while !reader.wait_beyond(seq, TICK) {
                if self.is_closing() {
                    return;
                }
            }
            if nudge.send(Command::Nudge).is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<u64> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if order.closing {
                return None;
            }
            if let Some(seq) = order.beyond.take() {
                return Some(seq);
            }
            order = self.changed.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_closing(&self) -> bool {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).closing
    }
}
