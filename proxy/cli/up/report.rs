//! How an operation goes on, told to whoever asked for it and to the log.

use std::fmt::Display;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

/// One line to whoever asked over the supervisor's socket.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// Progress.
    Say(String),
    /// It is done.
    Done(String),
    /// It is not, and why.
    Failed(String),
}

/// Where progress goes. The socket never makes the supervisor wait: whoever does not read loses lines.
#[derive(Debug, Default)]
pub(crate) struct Report(Option<UnixStream>);

impl Report {
    /// To the log alone: a signal asked for it.
    pub(crate) const fn to_log() -> Self {
        Self(None)
    }

    /// To a client too.
    pub(crate) fn to(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self(Some(stream)))
    }

    /// What the client is reached by, to be given to another process.
    pub(crate) fn into_client(self) -> Option<OwnedFd> {
        self.0.map(OwnedFd::from)
    }

    /// Tells progress.
    pub(crate) fn say(&self, text: impl Display) {
        let text = text.to_string();
        tracing::info!(component = "supervisor", progress = text, "upgrade");
        self.line(&Line::Say(text));
    }

    /// Tells the outcome.
    pub(crate) fn close(self, outcome: Result<String, String>) {
        match outcome {
            Ok(text) => {
                tracing::info!(component = "supervisor", outcome = text, "done");
                self.line(&Line::Done(text));
            }
            Err(why) => {
                tracing::error!(component = "supervisor", why, "not done, what ran before runs on");
                self.line(&Line::Failed(why));
            }
        }
    }

    fn line(&self, line: &Line) {
        let Some(mut stream) = self.0.as_ref() else { return };
        if let Ok(mut bytes) = serde_json::to_vec(line) {
            bytes.push(b'\n');
            // The client may be gone; the operation goes on.
            drop(stream.write_all(&bytes));
        }
    }
}
