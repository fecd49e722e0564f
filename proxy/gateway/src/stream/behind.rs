//! Waiting for an upstream that takes no more of a body.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::{Downstream, timed_out};
use crate::link::Fault;
use crate::socket::Socket;

/// Between two looks whether a client has left, while its body waits for the upstream.
const LOOK: Duration = Duration::from_millis(300);

impl Downstream {
    /// The upstream takes no more of the body now: it goes on when that does, and ends when the client leaves or
    /// time is up.
    pub(crate) fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(error) = self.before_waiting(cx) {
            return Poll::Ready(error);
        }
        let due = self.link.deadline().into_iter().chain(self.link.backlog().due()).min();
        loop {
            if self.socket.as_ref().is_none_or(Socket::has_left) {
                return Poll::Ready(io::ErrorKind::ConnectionReset.into());
            }
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                self.link.set_fault(Fault::Blocked);
                return Poll::Ready(timed_out());
            }
            let next = due.map_or(now + LOOK, |due| due.min(now + LOOK));
            ready!(self.timer.poll(cx, next));
        }
    }
}
