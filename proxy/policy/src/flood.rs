//! Whether an HTTP/2 client does more than work costs it: floods that no flow control stops.
//!
//! Purpose: some frames are cheap to send and dear to take (a reset, a ping, a setting), and none of them
//! is bounded by the protocol. They are counted for each connection; past a limit the connection ends.
//!
//! Exact rules, in whole seconds since the connection began:
//! - resets: 100 a second; in a life 10,000 more than streams that ended otherwise, so a client that now and
//!   then changes its mind lives on however long it does;
//! - pings: 100 a second, and one for each frame of an answer in this second and the one before: some
//!   clients measure the line with each message they get;
//! - settings: 50 a second; priorities: 100 a second; frames of no known kind, and of kinds that no client
//!   has a reason to repeat: 100 a second;
//! - data: 100 empty and 1,000 tiny frames a second, where they do not end a body; padding does not count;
//! - window updates: 1,000 a second, and four for each data frame of 16 bytes or more and each head or trailers
//!   that were sent in this second and the one before: an answer drawn byte by byte ends here, many short ones
//!   do not;
//! - a header block: five continuations;
//! - malformed streams, those this side resets for a breach of the protocol included: 31 in a life.
//!
//! What wins when two hold: the first in the order of the frames. Cold start: a new connection has all of
//! its limits. Recovery: none, the connection is over. Cost: a few counters, no allocation.

mod frames;

use crate::time::Nanos;

pub use frames::{Frame, FrameScanner};

/// LIMIT: resets a second.
const RESETS: u32 = 100;
/// LIMIT: resets in a life beyond the streams that ended otherwise.
const RESETS_LIFETIME: u64 = 10_000;
/// LIMIT: pings a second without an answer that would explain them.
const PINGS: u32 = 100;
/// LIMIT: settings a second.
const SETTINGS: u32 = 50;
/// LIMIT: empty data frames a second that end nothing.
const EMPTY_DATA: u32 = 100;
/// LIMIT: data frames a second with less than [`TINY_BYTES`] that end nothing.
const TINY_DATA: u32 = 1_000;
/// LIMIT: priorities a second.
const PRIORITIES: u32 = 100;
/// LIMIT: window updates a second without data that would explain them.
const WINDOW_UPDATES: u32 = 1_000;
/// LIMIT: window updates for each data frame of [`USEFUL_BYTES`], and for each block of fields.
const UPDATES_PER_FRAME: u32 = 4;
/// LIMIT: frames a second of other kinds.
const UNKNOWN: u32 = 100;
/// LIMIT: continuations of one header block. A list of the largest size fits into three frames.
const CONTINUATIONS: u32 = 5;
/// LIMIT: malformed streams in a life.
const MALFORMED: u32 = 32;
/// Less is less than the smallest message of gRPC.
const TINY_BYTES: u32 = 5;
/// From here on a data frame carries more than its own head.
const USEFUL_BYTES: u32 = 16;

const SECOND: u64 = 1_000_000_000;

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flood {
    /// Streams opened and reset.
    Reset,
    /// Pings.
    Ping,
    /// Settings.
    Settings,
    /// Data frames without data.
    EmptyData,
    /// Data frames with next to none.
    TinyData,
    /// Priorities.
    Priority,
    /// Window updates.
    WindowUpdate,
    /// Continuations of one header block.
    Continuation,
    /// Frames of other kinds.
    Unknown,
    /// Malformed streams.
    Malformed,
}

impl Flood {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Reset,
        Self::Ping,
        Self::Settings,
        Self::EmptyData,
        Self::TinyData,
        Self::Priority,
        Self::WindowUpdate,
        Self::Continuation,
        Self::Unknown,
        Self::Malformed,
    ];

    /// A fixed word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::EmptyData => "empty_data",
            Self::TinyData => "tiny_data",
            Self::Priority => "priority",
            Self::WindowUpdate => "window_update",
            Self::Continuation => "continuation",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
        }
    }
}

/// The counts of one second.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    resets: u32,
    pings: u32,
    settings: u32,
    empty: u32,
    tiny: u32,
    priorities: u32,
    updates: u32,
    unknown: u32,
}

/// What was sent in one second.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    frames: u32,
    useful: u32,
}

/// Counts what one client sends.
#[derive(Clone, Debug)]
pub struct FloodGuard {
    began: Nanos,
    second: u64,
    counts: Counts,
    sent: Sent,
    sent_before: Sent,
    resets: u64,
    streams: u64,
    last_stream: u32,
    continuations: u32,
    malformed: u32,
}

impl FloodGuard {
    /// A connection that begins now.
    pub fn new(now: Nanos) -> Self {
        Self {
            began: now,
            second: 0,
            counts: Counts::default(),
            sent: Sent::default(),
            sent_before: Sent::default(),
            resets: 0,
            streams: 0,
            last_stream: 0,
            continuations: 0,
            malformed: 0,
        }
    }

    /// Counts a frame that the client sent.
    ///
    /// # Errors
    /// [`Flood`]: this frame is one too many.
    pub fn received(&mut self, frame: &Frame, now: Nanos) -> Result<(), Flood> {
        self.turn(now);
        let (recent, useful) =
            (self.sent.frames + self.sent_before.frames, self.sent.useful + self.sent_before.useful);
        let Counts { resets, pings, settings, empty, tiny, priorities, updates, unknown } = &mut self.counts;
        match frame.kind {
            Frame::DATA if frame.ends_stream() => Ok(()),
            Frame::DATA => match frame.data_bytes() {
                0 => count(empty, EMPTY_DATA, Flood::EmptyData),
                bytes if bytes < TINY_BYTES => count(tiny, TINY_DATA, Flood::TinyData),
                _ => Ok(()),
            },
            Frame::HEADERS => {
                self.continuations = 0;
                if frame.stream > self.last_stream {
                    self.last_stream = frame.stream;
                    self.streams += 1;
                }
                Ok(())
            }
            Frame::CONTINUATION => count(&mut self.continuations, CONTINUATIONS, Flood::Continuation),
            Frame::RESET => {
                count(resets, RESETS, Flood::Reset)?;
                self.resets += 1;
                let otherwise = self.streams.saturating_sub(self.resets);
                if self.resets > RESETS_LIFETIME + otherwise { Err(Flood::Reset) } else { Ok(()) }
            }
            Frame::PRIORITY => count(priorities, PRIORITIES, Flood::Priority),
            Frame::SETTINGS => count(settings, SETTINGS, Flood::Settings),
            Frame::PING => count(pings, PINGS.saturating_add(recent), Flood::Ping),
            Frame::WINDOW_UPDATE => {
                let explained = useful.saturating_mul(UPDATES_PER_FRAME);
                count(updates, WINDOW_UPDATES.saturating_add(explained), Flood::WindowUpdate)
            }
            _ => count(unknown, UNKNOWN, Flood::Unknown),
        }
    }

    /// Counts a frame that was sent to the client.
    ///
    /// # Errors
    /// [`Flood::Malformed`]: the client has made this side reset too many streams.
    pub fn sent(&mut self, frame: &Frame, now: Nanos) -> Result<(), Flood> {
        self.turn(now);
        match frame.kind {
            Frame::DATA | Frame::HEADERS => {
                self.sent.frames = self.sent.frames.saturating_add(1);
                if frame.kind == Frame::HEADERS || frame.data_bytes() >= USEFUL_BYTES {
                    self.sent.useful = self.sent.useful.saturating_add(1);
                }
                Ok(())
            }
            Frame::RESET if frame.is_breach() => self.malformed(),
            _ => Ok(()),
        }
    }

    /// Counts a stream that was refused as malformed.
    ///
    /// # Errors
    /// [`Flood::Malformed`]: it is one too many.
    pub fn malformed(&mut self) -> Result<(), Flood> {
        count(&mut self.malformed, MALFORMED - 1, Flood::Malformed)
    }

    /// Forgets the counts of a second that is over.
    fn turn(&mut self, now: Nanos) {
        let second = now.0.saturating_sub(self.began.0) / SECOND;
        if second <= self.second {
            return;
        }
        self.sent_before = if second == self.second + 1 { self.sent } else { Sent::default() };
        self.sent = Sent::default();
        self.counts = Counts::default();
        self.second = second;
    }
}

fn count(counter: &mut u32, most: u32, flood: Flood) -> Result<(), Flood> {
    *counter = counter.saturating_add(1);
    if *counter > most { Err(flood) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
