//! The promise of a durable record: awaited by any executor, or waited for by a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::log::AuditError;

/// A submitted record. Awaiting it (or [`Pending::wait`]) yields its sequence once it is durable.
#[must_use = "the record is only known to be durable once this resolves"]
pub struct Pending(Arc<Slot>);

/// The writer's end of a [`Pending`]; dropped unanswered (the writer died) it answers `Closed`.
pub(crate) struct Completion(Arc<Slot>);

#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<u64, AuditError>>,
    waker: Option<Waker>,
}

pub(crate) fn pair() -> (Completion, Pending) {
    let slot = Arc::<Slot>::default();
    (Completion(Arc::clone(&slot)), Pending(slot))
}

impl Pending {
    /// Blocks the thread until the record is durable or refused.
    pub fn wait(self) -> Result<u64, AuditError> {
        let mut state = self.0.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = self.0.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn refused(error: AuditError) -> Self {
        let (completion, pending) = pair();
        completion.settle(Err(error));
        pending
    }
}

impl Future for Pending {
    type Output = Result<u64, AuditError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Completion {
    pub(crate) fn settle(&self, outcome: Result<u64, AuditError>) {
        let waker = {
            let mut state = self.0.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            state.waker.take()
        };
        self.0.ready.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.settle(Err(AuditError::Closed));
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
