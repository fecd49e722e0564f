//! How a connection is told to end, so that no stream is lost on its way: in three words.
//!
//! 1. A GOAWAY that names the highest number there is: begin nothing more. With it goes a ping.
//! 2. Its answer shows that the client has read that. What the client had begun before it is written behind the
//!    answer at the latest, so a moment is waited ([`BEHIND`]).
//! 3. The library's graceful shutdown: the same GOAWAY with a ping of its own, then the last one with the number of the
//!    last stream, which ends the connection when the streams have ended.
//!
//! The library alone begins with the third: a client that writes its answer to the ping before the requests
//! that it has queued would find them beyond the last number. So the first word is written below the library, between two of
//! its frames (`guarded.rs`).

use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

/// The first word: GOAWAY on stream 0, last stream 2^31 - 1, no error.
pub(super) const FIRST_WORD: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// How long the client's answer to the ping is waited for.
const ANSWER: Duration = Duration::from_secs(1);
/// How long requests may come behind that answer.
const BEHIND: Duration = Duration::from_millis(100);

/// How far the end of a connection has come.
pub(super) enum Parting {
    /// It stays.
    Stays,
    /// The first word is under way; the third is due at the latest then.
    Told {
        /// `None` once the client has answered.
        pings: Option<PingPong>,
        /// When the third word is due.
        by: Instant,
    },
    /// The third word was said.
    Said,
}

impl Parting {
    /// The first word is to be said; `pings` are the connection's.
    pub(super) fn begin(pings: Option<PingPong>) -> Self {
        let asked = |mut pings: PingPong| pings.send_ping(Ping::opaque()).is_ok().then_some(pings);
        Self::Told { pings: pings.and_then(asked), by: Instant::now() + ANSWER }
    }

    /// Whether it is to end.
    pub(super) const fn is_begun(&self) -> bool {
        !matches!(self, Self::Stays)
    }

    /// When the third word is due, where it was not said; sooner once the client has answered.
    pub(super) fn due(&mut self, cx: &mut Context<'_>) -> Option<Instant> {
        let Self::Told { pings, by } = self else { return None };
        if let Some(asked) = pings
            && let Poll::Ready(answered) = asked.poll_pong(cx)
        {
            *pings = None;
            if answered.is_ok() {
                *by = (*by).min(Instant::now() + BEHIND);
            }
        }
        Some(*by)
    }
}
