//! The access log: one JSON object a line, written off the edge threads.
//!
//! Lines are appended to one buffer under a short lock; a thread of its own takes the whole buffer every
//! [`FLUSH`] and writes it in one call. No wake-up a line, no blocking on a slow disk. LIMIT: when
//! [`BUFFER_BYTES`] wait, further lines are dropped and counted (`sluice_access_log_dropped_total`), as are
//! lines that cannot be written. Files are followed when they are rotated ([`sink`]).
//! Client input appears only in escaped members; queries, bodies and credentials never do.

mod sink;

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use prometheus::IntCounter;
use sluice_schema::AccessLog as Target;

use sink::Sink;

use crate::digits::{push_address, push_number};

/// How long a line may wait.
const FLUSH: Duration = Duration::from_millis(50);
/// LIMIT: bytes that wait for the writer.
const BUFFER_BYTES: usize = 4 << 20;
/// LIMIT: how long the last lines may take when the edge ends; a disk that hangs must not keep it.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// LIMIT: bytes of one text member.
const TEXT_BYTES: usize = 1024;

/// The access log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open access log {path}")]
pub struct AccessLogError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Where lines go; clones share it.
#[derive(Clone)]
pub(crate) struct AccessLog {
    shared: Option<Arc<Shared>>,
    dropped: IntCounter,
}

struct Shared {
    lines: Mutex<Vec<u8>>,
    ended: AtomicBool,
    /// Somebody asked to open the file again.
    reopen: AtomicBool,
    wake: Condvar,
    /// Ends with the writer.
    writer: Mutex<Option<mpsc::Receiver<()>>>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Opens the log and starts its writer.
    pub(crate) fn open(target: &Target, dropped: IntCounter) -> Result<Self, AccessLogError> {
        let sink = match target {
            Target::Off => return Ok(Self { shared: None, dropped }),
            Target::Stderr => Sink::plain(Box::new(io::stderr())),
            Target::File(path) => {
                Sink::file(path).map_err(|source| AccessLogError { path: path.clone(), source })?
            }
        };
        Ok(Self::to(sink, dropped))
    }

    /// A log that writes to `sink`.
    fn to(sink: Sink, dropped: IntCounter) -> Self {
        let shared = Arc::new(Shared {
            lines: Mutex::new(Vec::with_capacity(64 << 10)),
            ended: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            wake: Condvar::new(),
            writer: Mutex::new(None),
            dropped: dropped.clone(),
        });
        let (alive, ended) = mpsc::sync_channel(0);
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let _alive = alive;
                shared.write_until_ended(sink);
            }
        });
        // Without a thread nothing drains the buffer: lines are then dropped and counted at the bound.
        *shared.writer.lock().unwrap_or_else(PoisonError::into_inner) = writer.is_ok().then_some(ended);
        Self { shared: Some(shared), dropped }
    }

    /// Whether lines go anywhere.
    pub(crate) fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Takes one line, ended by a newline. Never blocks on input or output.
    pub(crate) fn push(&self, line: &[u8]) {
        let Some(shared) = &self.shared else { return };
        let mut lines = shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() + line.len() > BUFFER_BYTES {
            drop(lines);
            self.dropped.inc();
            return;
        }
        lines.extend_from_slice(line);
    }

    /// Opens a file again before the next line: it may have been moved away.
    pub(crate) fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.reopen.store(true, Ordering::Release);
        }
    }

    /// Writes what waits and ends the writer; waits [`CLOSE_WITHIN`] for it.
    pub(crate) fn close(&self) {
        let Some(shared) = &self.shared else { return };
        shared.ended.store(true, Ordering::Release);
        shared.wake.notify_all();
        let writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // Its end closes the channel; a writer that hangs is left behind.
            let _ended_or_late = writer.recv_timeout(CLOSE_WITHIN);
        }
    }
}

impl Shared {
    fn write_until_ended(&self, mut sink: Sink) {
        let mut taken = Vec::with_capacity(64 << 10);
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.is_empty() && !ended {
                lines = self.wake.wait_timeout(lines, FLUSH).unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut *lines, &mut taken);
            drop(lines);
            if !taken.is_empty() {
                sink.follow(self.reopen.swap(false, Ordering::AcqRel));
                // A full disk or a closed terminal must not stop the edge.
                self.dropped.inc_by(sink.write(&taken));
                taken.clear();
                taken.shrink_to(1 << 20);
                if !ended {
                    std::thread::sleep(FLUSH / 2);
                }
            }
            if ended {
                return;
            }
        }
    }
}

/// The name of a member as it is written: `,"name":`.
macro_rules! member {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(crate) use member;

/// Builds one line without an allocation where the buffer has room. Members are named by [`member!`].
pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Line<'a> {
    /// Starts a line with its time, RFC 3339 with milliseconds.
    pub(crate) fn start(out: &'a mut Vec<u8>, now: jiff::Timestamp) -> Self {
        out.clear();
        out.extend_from_slice(b"{\"timestamp\":\"");
        write_time(out, now);
        out.extend_from_slice(b"\",\"level\":\"INFO\",\"service\":\"edge\",\"component\":\"access\"");
        Self { out }
    }

    /// Adds a text, escaped and cut at [`TEXT_BYTES`].
    pub(crate) fn text(self, member: &'static str, value: &str) -> Self {
        self.out.extend_from_slice(member.as_bytes());
        self.out.push(b'"');
        escape(value, self.out);
        self.out.push(b'"');
        self
    }

    /// Adds a text where there is one.
    pub(crate) fn maybe_text(self, member: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(member, value),
            None => self,
        }
    }

    /// Adds a word that needs no escaping: one of the edge's own, or one of letters, digits, `.`, `_` and `-`.
    pub(crate) fn word(self, member: &'static str, value: &str) -> Self {
        self.out.extend_from_slice(member.as_bytes());
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
        self
    }

    /// Adds an address.
    pub(crate) fn address(self, member: &'static str, value: IpAddr) -> Self {
        self.out.extend_from_slice(member.as_bytes());
        self.out.push(b'"');
        push_address(self.out, value);
        self.out.push(b'"');
        self
    }

    /// Adds a number.
    pub(crate) fn number(self, member: &'static str, value: u64) -> Self {
        self.out.extend_from_slice(member.as_bytes());
        push_number(self.out, value);
        self
    }

    /// Adds a number where there is one.
    pub(crate) fn maybe_number(self, member: &'static str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.number(member, value),
            None => self,
        }
    }

    /// Ends the line.
    pub(crate) fn end(self) -> &'a [u8] {
        self.out.extend_from_slice(b"}\n");
        self.out
    }
}

/// Writes a time, RFC 3339 with milliseconds. Its seconds are formatted once a second and thread.
fn write_time(out: &mut Vec<u8>, now: jiff::Timestamp) {
    thread_local! {
        static SECOND: RefCell<(i64, Vec<u8>)> = const { RefCell::new((i64::MIN, Vec::new())) };
    }
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_second() {
            *second = now.as_second();
            text.clear();
            // Writing to memory does not fail.
            drop(write!(text, "{now:.0}"));
            text.pop();
        }
        out.extend_from_slice(text);
    });
    let ms = now.subsec_millisecond().unsigned_abs();
    out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
}

fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

/// Bytes that stand for themselves in a JSON text.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

fn escape(text: &str, out: &mut Vec<u8>) {
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = &text[..end];
    if kept.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        out.extend_from_slice(kept.as_bytes());
    } else {
        for letter in kept.chars() {
            match letter {
                '"' | '\\' => out.extend_from_slice(&[b'\\', letter as u8]),
                // Those beyond ASCII too: terminals act on them.
                letter if letter.is_control() => drop(write!(out, "\\u{:04x}", u32::from(letter))),
                letter => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    if end < text.len() {
        out.extend_from_slice("…".as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Channel(mpsc::SyncSender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "for a test").unwrap()
    }

    #[test]
    fn a_hostile_path_stays_one_json_line() {
        let mut buffer = Vec::new();
        let path = format!("/a\"\\\n\u{7f}\u{9b}é{}", "x".repeat(5000));
        let now = jiff::Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        let line =
            Line::start(&mut buffer, now).text(member!("path"), &path).number(member!("status"), 200).end();
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let value: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["status"], 200);
        assert!(value["path"].as_str().unwrap().starts_with("/a\"\\\n\u{7f}\u{9b}éxxx"));
        assert!(!String::from_utf8_lossy(line).contains('\u{9b}'), "a terminal would act on it");
        assert!(line.len() < 1300);
    }

    #[test]
    fn lines_reach_the_sink_and_closing_flushes() {
        let (sender, receiver) = mpsc::sync_channel(8);
        let log = AccessLog::to(Sink::plain(Box::new(Channel(sender))), counter());
        log.push(b"one\n");
        log.push(b"two\n");
        log.close();
        assert_eq!(receiver.iter().flatten().collect::<Vec<u8>>(), b"one\ntwo\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_again_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let log = AccessLog::open(&Target::File(path.clone()), counter()).unwrap();
        log.push(b"one\n");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while std::fs::read(&path).unwrap().is_empty() {
            assert!(std::time::Instant::now() < deadline, "the first line is never written");
            std::thread::yield_now();
        }
        std::fs::rename(&path, &old).unwrap();
        log.reopen();
        log.push(b"two\n");
        log.close();
        assert_eq!(std::fs::read(&old).unwrap(), b"one\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
    }

    #[test]
    fn a_stuck_sink_drops_and_counts() {
        struct Stuck(mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _released = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = mpsc::sync_channel(1);
        let dropped = counter();
        let log = AccessLog::to(Sink::plain(Box::new(Stuck(stuck))), dropped.clone());
        let line = vec![b'x'; 1 << 20];
        for _ in 0..12 {
            log.push(&line);
        }
        assert!(dropped.get() >= 3, "{}", dropped.get());
        let begun = std::time::Instant::now();
        log.close();
        assert!(begun.elapsed() < CLOSE_WITHIN * 3, "a disk that hangs keeps nobody");
        drop(release);
    }
}
