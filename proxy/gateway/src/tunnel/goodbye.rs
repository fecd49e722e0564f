//! How the edge ends a tunnel of its own accord.
//!
//! Both ends get a close frame between two frames. Draining and idleness let the client's last words
//! pass until its own close; a caller whose credential is no longer good, or whom an operator stops, says
//! nothing more upstream.

use std::time::Duration;

use sluice_policy::websocket::{GOING_AWAY, POLICY_VIOLATION, SERVICE_RESTART, close_frame};
use tokio::time::Instant;

use crate::failed::KILLED;
use crate::ids;

/// LIMIT: how long a frame under way may take to end, and a client to answer the close.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a tunnel is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The edge ends; what is left is cut off then.
    Draining(Instant),
    /// The caller's credential has expired.
    Expired,
    /// The caller's credential was revoked.
    Revoked,
    /// An operator stopped what it is about.
    Killed,
    /// Nothing passed for too long.
    Idle,
}

impl Stop {
    /// The word for it in the access log.
    pub(super) const fn decision(self) -> &'static str {
        match self {
            Self::Draining(_) => "draining",
            Self::Expired => "token_expired",
            Self::Revoked => "token_revoked",
            Self::Killed => KILLED,
            Self::Idle => "idle",
        }
    }

    /// The close frame for the client.
    pub(super) fn to_client(self) -> Vec<u8> {
        let (code, reason) = self.words();
        close_frame(code, reason, None)
    }

    /// The close frame for the upstream, masked as a client's.
    pub(super) fn to_upstream(self) -> Vec<u8> {
        let code = if self.silences() { POLICY_VIOLATION } else { GOING_AWAY };
        close_frame(code, self.words().1, Some((ids::random() as u32).to_be_bytes()))
    }

    /// Whether the client may say no more.
    pub(super) const fn silences(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked | Self::Killed)
    }

    /// When the frame under way is cut off.
    pub(super) fn frame_until(self, now: Instant) -> Instant {
        match self {
            Self::Draining(deadline) => deadline.max(now),
            _ => now + PATIENCE,
        }
    }

    /// When the client must have answered a close that was sent now.
    pub(super) fn answer_until(self, now: Instant) -> Instant {
        match self {
            Self::Draining(deadline) => deadline.min(now + PATIENCE),
            _ => now + PATIENCE,
        }
    }

    const fn words(self) -> (u16, &'static str) {
        match self {
            Self::Draining(_) => (SERVICE_RESTART, "service restart"),
            Self::Expired => (POLICY_VIOLATION, "credential expired"),
            Self::Revoked => (POLICY_VIOLATION, "credential revoked"),
            Self::Killed => (POLICY_VIOLATION, "kill switch"),
            Self::Idle => (GOING_AWAY, "idle"),
        }
    }
}
