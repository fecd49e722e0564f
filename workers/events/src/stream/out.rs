//! What goes to a subscriber, as its transport has it: SSE frames, or text messages of a WebSocket.

use serde_json::Value;

use super::position::Position;
use crate::frame;
use crate::log::Record;
use crate::metrics::{Kind, Metrics};
use crate::ring::Frame;
use crate::ws::codec;
use crate::ws::credit::Credit;

/// What an event has beside its envelope's usual members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    /// Nothing.
    Plain,
    /// `conflated`: older events of its type and symbol that it stands for.
    Conflated(u64),
    /// `snapshot`: it is older than the stream's place, so it has no id to resume from.
    Snapshot,
}

/// How a subscriber is spoken to.
#[derive(Debug)]
pub(crate) enum Form<'a> {
    /// Server-sent events.
    Sse,
    /// A subscription of a WebSocket.
    Socket {
        /// Its name, as JSON.
        name: &'a str,
        /// Its credit, when it has a bound.
        credit: Option<&'a mut Credit>,
    },
}

/// Where a subscriber's events are written.
pub(crate) struct Out<'a> {
    pub(crate) bytes: &'a mut Vec<u8>,
    pub(crate) form: Form<'a>,
    pub(crate) metrics: &'a Metrics,
    /// Deliveries not yet counted: mostly many of one kind.
    tally: (Kind, u64),
}

impl<'a> Out<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>, form: Form<'a>, metrics: &'a Metrics) -> Self {
        Self { bytes, form, metrics, tally: (Kind::default(), 0) }
    }

    /// How many events may be written.
    pub(crate) fn room(&self) -> u64 {
        match &self.form {
            Form::Socket { credit: Some(credit), .. } => credit.left(),
            _ => u64::MAX,
        }
    }

    /// Writes an event from the ring.
    pub(crate) fn frame(&mut self, frame: &Frame, extra: Extra) {
        self.count(frame.kind);
        self.write(&frame.record, &frame.bytes, frame.json_at, extra);
    }

    /// Writes an event from the log.
    pub(crate) fn record(&mut self, record: &Record, extra: Extra) {
        let mut encoded = Vec::with_capacity(record.json().len() + 192);
        let json_at = frame::encode(record, &mut encoded);
        self.count(self.metrics.kind(record.kind()));
        self.write(record, &encoded, json_at, extra);
    }

    fn write(&mut self, record: &Record, frame: &[u8], json_at: usize, extra: Extra) {
        match &mut self.form {
            Form::Sse if extra == Extra::Plain => self.bytes.extend_from_slice(frame),
            Form::Sse => {
                let frame = if extra == Extra::Snapshot { without_id(frame) } else { frame };
                self.bytes.extend_from_slice(frame.strip_suffix(b"}\n\n").unwrap_or(frame));
                extra.write(self.bytes);
                self.bytes.extend_from_slice(b"}\n\n");
            }
            Form::Socket { name, credit } => {
                if let Some(credit) = credit {
                    credit.sent(record.stamp.seq);
                }
                let json = &frame[json_at..];
                let json = json.strip_suffix(b"}\n\n").unwrap_or(json);
                let mut rest = Vec::with_capacity(48);
                extra.write(&mut rest);
                rest.extend_from_slice(b"}}");
                let parts =
                    [b"{\"op\":\"event\",\"sub\":", name.as_bytes(), b",\"event\":", json, rest.as_slice()];
                codec::write_text(&parts, self.bytes);
            }
        }
    }

    /// Writes something that is no event. `position` is where a client resumes behind it.
    pub(crate) fn notice(&mut self, name: &str, mut data: Value, position: Option<Position>) {
        match &self.form {
            Form::Sse => {
                let id = position.map(|position| position.to_string());
                let frame = sluice_http::sse::frame(id.as_deref(), name, &data.to_string());
                self.bytes.extend_from_slice(&frame);
            }
            Form::Socket { name: sub, .. } => {
                if let Some(position) = position {
                    data["id"] = position.to_string().into();
                }
                let data = data.to_string();
                let data = data.strip_prefix('{').unwrap_or(&data);
                let comma: &[u8] = if data == "}" { b"" } else { b"," };
                let parts = [
                    b"{\"op\":\"".as_slice(),
                    name.as_bytes(),
                    b"\",\"sub\":",
                    sub.as_bytes(),
                    comma,
                    data.as_bytes(),
                ];
                codec::write_text(&parts, self.bytes);
            }
        }
    }

    fn count(&mut self, kind: Kind) {
        if self.tally.0 != kind {
            self.settle();
            self.tally.0 = kind;
        }
        self.tally.1 += 1;
    }

    fn settle(&mut self) {
        if self.tally.1 > 0 {
            self.metrics.consumed_many(self.tally.0, self.tally.1);
            self.tally.1 = 0;
        }
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Extra {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Plain => {}
            Self::Conflated(count) => {
                out.extend_from_slice(b",\"conflated\":");
                out.extend_from_slice(count.to_string().as_bytes());
            }
            Self::Snapshot => out.extend_from_slice(b",\"snapshot\":true"),
        }
    }
}

fn without_id(frame: &[u8]) -> &[u8] {
    let line = frame.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if frame.starts_with(b"id: ") { &frame[line..] } else { frame }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::log::tests::record;

    fn written(form: Form<'_>, extra: Extra) -> String {
        let metrics = Metrics::new(&prometheus::Registry::new());
        let mut bytes = Vec::new();
        let mut out = Out::new(&mut bytes, form, &metrics);
        out.record(&record(7, "risk_alert"), extra);
        out.notice("gap", json!({"expected": 1}), None);
        drop(out);
        assert!(metrics.kind("risk_alert") != Kind::default());
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn the_envelope_is_the_same_everywhere() {
        let json = r#"{"event_type":"risk_alert","data":{"symbol":"BTC/USDT","n":7},"metadata":{},"message_id":"7-0","seq":7,"partition":0"#;
        let gap = "event: gap\ndata: {\"expected\":1}\n\n";
        assert_eq!(
            written(Form::Sse, Extra::Plain),
            format!("id: 7-0\nevent: risk_alert\ndata: {json}}}\n\n{gap}")
        );
        assert_eq!(
            written(Form::Sse, Extra::Conflated(3)),
            format!("id: 7-0\nevent: risk_alert\ndata: {json},\"conflated\":3}}\n\n{gap}")
        );
        assert_eq!(
            written(Form::Sse, Extra::Snapshot),
            format!("event: risk_alert\ndata: {json},\"snapshot\":true}}\n\n{gap}")
        );
        let socket = written(Form::Socket { name: "\"a\"", credit: None }, Extra::Conflated(0));
        let event = format!(r#"{{"op":"event","sub":"a","event":{json},"conflated":0}}}}"#);
        assert!(socket.contains(&event), "{socket}");
        assert!(socket.ends_with(r#"{"op":"gap","sub":"a","expected":1}"#), "{socket}");
    }
}
