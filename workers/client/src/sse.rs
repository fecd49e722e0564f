//! Reading server-sent events.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use sluice_wire::header as names;

use crate::call::{CALL_TIMEOUT, Client, ClientError, read};

/// Longest event, bytes; a longer one ends the stream with an error. The vault's snapshots come in parts.
pub(crate) const EVENT_BYTES_MAX: usize = 64 << 20;

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// Where to resume.
    pub id: Option<String>,
    /// Its name; `message` when it has none.
    pub event: String,
    /// Its data, lines joined.
    pub data: String,
}

/// An open stream.
pub struct SseStream {
    status: StatusCode,
    body: Incoming,
    buffer: BytesMut,
    scanned: usize,
}

impl Client {
    /// Opens a stream of events, resuming after `last_id` when given.
    pub async fn stream(&self, path: &str, last_id: Option<&str>) -> Result<SseStream, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(names::LAST_EVENT_ID, id);
        }
        let response = self.open(path, headers).await?;
        if !response.status().is_success() {
            let refused = tokio::time::timeout(CALL_TIMEOUT, read(response)).await;
            let refused = refused.map_err(|_| ClientError::Timeout(CALL_TIMEOUT))??;
            return Err(refused.ok().err().unwrap_or(ClientError::TooLarge));
        }
        let status = response.status();
        Ok(SseStream { status, body: response.into_body(), buffer: BytesMut::new(), scanned: 0 })
    }
}

impl SseStream {
    /// The answer's status: 204 is how a stream says that it has come to its end before.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The next event; `None` when the stream has ended. Comments are skipped.
    pub async fn next(&mut self) -> Result<Option<SseEvent>, ClientError> {
        loop {
            while let Some(block) = self.block() {
                if let Some(event) = parse(&block) {
                    return Ok(Some(event));
                }
            }
            if self.buffer.len() > EVENT_BYTES_MAX {
                return Err(ClientError::TooLarge);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(data) = frame.map_err(ClientError::Broken)?.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }

    /// Takes the text up to the next empty line.
    fn block(&mut self) -> Option<String> {
        let from = self.scanned.saturating_sub(1);
        let Some(at) = self.buffer[from..].windows(2).position(|pair| pair == b"\n\n") else {
            self.scanned = self.buffer.len();
            return None;
        };
        self.scanned = 0;
        let block = self.buffer.split_to(from + at + 2);
        Some(String::from_utf8_lossy(&block).into_owned())
    }
}

fn parse(block: &str) -> Option<SseEvent> {
    let mut event = SseEvent { event: "message".into(), ..SseEvent::default() };
    let mut data: Vec<&str> = Vec::new();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut event.event),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_comments_skipped() {
        let event = parse("id: 7\nevent: delta\ndata: {\"a\":\ndata:1}\n\n").unwrap();
        assert_eq!(
            event,
            SseEvent { id: Some("7".into()), event: "delta".into(), data: "{\"a\":\n1}".into() }
        );
        assert_eq!(parse(": heartbeat\n\n"), None);
        assert_eq!(parse("retry: 100\n\n"), None);
    }
}
