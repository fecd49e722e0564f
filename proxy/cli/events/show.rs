//! How an event of a stream is printed, and hearing that nobody reads any more.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::os::fd::AsFd as _;

use serde_json::Value;
use sluice_client::SseEvent;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;

use crate::args::Format;
use crate::exit::Failure;
use crate::say;

/// What a frame is.
pub(super) enum Frame {
    /// An event of the stream.
    Event(Value),
    /// A word of the worker's.
    Notice(Value),
}

impl Frame {
    /// Events have a type; what a frame is called says nothing, for a type may be called `gap` too.
    pub(super) fn of(frame: &SseEvent) -> Self {
        let said: Value = serde_json::from_str(&frame.data).unwrap_or_default();
        if said["event_type"].is_string() { Self::Event(said) } else { Self::Notice(said) }
    }
}

/// Standard output, written out when there is nothing more to write for the moment.
pub(super) struct Out {
    to: BufWriter<Stdout>,
    format: Format,
    quiet: bool,
}

impl Out {
    pub(super) fn new(format: Format) -> Self {
        Self { to: BufWriter::with_capacity(64 << 10, io::stdout()), format, quiet: say::is_quiet() }
    }

    pub(super) fn event(&mut self, event: &Value, text: &str) -> io::Result<()> {
        match self.format {
            _ if self.quiet => Ok(()),
            Format::Json => writeln!(self.to, "{text}"),
            Format::Text => writeln!(self.to, "{}", line(event)),
        }
    }

    /// A word of the worker's, among the events in JSON, beside them as text.
    pub(super) fn notice(&mut self, name: &str, said: &Value, text: &str) -> io::Result<()> {
        match self.format {
            _ if self.quiet => Ok(()),
            Format::Json => writeln!(self.to, "{}", serde_json::json!({ name: said })),
            Format::Text => {
                self.flush()?;
                say::problem(&format!("{text}\n"));
                Ok(())
            }
        }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What became of printing: `true` when nobody reads any more, which is no failure.
pub(super) fn closed(printed: io::Result<()>) -> Result<bool, Failure> {
    match printed {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}

/// Returns when the reader of standard output is gone, also while there is nothing to write; never for a file.
pub(super) async fn unread() {
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(out) = watched
        && out.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// One event in aligned columns; what does not fit pushes the rest to the right.
fn line(event: &Value) -> String {
    let text = |value: &Value| {
        let value = value.as_str().unwrap_or("-");
        value.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>()
    };
    let time = text(&event["timestamp"]);
    let time = time.get(..23).unwrap_or(&time).replace('T', " ");
    let mut data = event["data"].clone();
    let symbol = text(&data["symbol"]);
    if let Some(members) = data.as_object_mut() {
        members.remove("symbol");
    }
    // JSON has no control characters of its own; those of strings are escaped.
    let data =
        if data.as_object().is_none_or(serde_json::Map::is_empty) { String::new() } else { data.to_string() };
    let line = format!(
        "{time:<23} {:<20} {:<22} {symbol:<12} {:<14} {data}",
        text(&event["message_id"]),
        text(&event["event_type"]),
        text(&event["source"]),
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_aligned_line() {
        let event = json!({
            "event_type": "trading_signal", "timestamp": "2026-11-21T10:00:00.123456Z", "source": "ml\u{1b}[31m",
            "data": {"symbol": "BTC/USDT", "action": "BUY\n"}, "message_id": "1700000000000-0",
        });
        assert_eq!(
            line(&event),
            "2026-11-21 10:00:00.123 1700000000000-0      trading_signal         BTC/USDT     ml?[31m        {\"action\":\"BUY\\n\"}"
        );
        assert!(line(&json!({"event_type": "x", "data": {}})).ends_with(" -"), "what is missing is a dash");
    }

    #[test]
    fn an_event_is_known_by_its_type() {
        let frame = |event: &str, data: &str| SseEvent { id: None, event: event.into(), data: data.into() };
        assert!(matches!(Frame::of(&frame("gap", r#"{"event_type":"gap"}"#)), Frame::Event(_)));
        assert!(matches!(Frame::of(&frame("gap", r#"{"expected":1}"#)), Frame::Notice(_)));
        assert!(matches!(Frame::of(&frame("gap", "no json")), Frame::Notice(_)));
    }
}
