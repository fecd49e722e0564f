//! An event worker as edges see it: takes events of roles, and streams them from any place on.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::find;

#[derive(Default)]
struct State {
    events: Vec<Value>,
    down: bool,
    /// `Last-Event-ID` of each stream that was opened.
    opened: Vec<Option<String>>,
}

/// An event worker.
#[derive(Clone, Default)]
pub struct Hub(Arc<(Mutex<State>, Condvar)>);

impl Hub {
    /// Listens where edges look for it.
    pub fn start(door: &Path) -> Self {
        let hub = Self::default();
        let listener = UnixListener::bind(door).unwrap();
        let serving = hub.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let hub = serving.clone();
                std::thread::spawn(move || hub.serve(socket));
            }
        });
        hub
    }

    /// Refuses everything, and ends what is open.
    pub fn set_down(&self, down: bool) {
        self.0.0.lock().unwrap().down = down;
        self.0.1.notify_all();
    }

    /// The data of every event so far.
    pub fn told(&self) -> Vec<Value> {
        self.0.0.lock().unwrap().events.iter().map(|event| event["data"].clone()).collect()
    }

    /// How the streams were opened.
    pub fn opened(&self) -> Vec<Option<String>> {
        self.0.0.lock().unwrap().opened.clone()
    }

    /// Stores an event as if a role had published it.
    pub fn publish(&self, role: Option<&str>, data: &Value) {
        let metadata = role.map_or_else(|| json!({}), |role| json!({ "role": role }));
        let event =
            json!({"event_type": "kill_switch", "source": "edge", "data": data, "metadata": metadata});
        self.0.0.lock().unwrap().events.push(event);
        self.0.1.notify_all();
    }

    fn serve(&self, mut socket: UnixStream) {
        while let Some((head, body)) = request(&mut socket) {
            if self.0.0.lock().unwrap().down {
                drop(socket.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}"));
                return;
            }
            if head.starts_with("GET /events/stream?event_type=kill_switch") {
                return self.stream(&mut socket, &head);
            }
            let answer = if head.starts_with("POST /events ") {
                let event: Value = serde_json::from_slice(&body).unwrap();
                assert_eq!((&event["event_type"], &event["source"]), (&json!("kill_switch"), &json!("edge")));
                self.publish(Some("edge"), &event["data"]);
                json!({
                    "message_id": "1-1", "event_id": event["event_id"], "status": "published", "durability": "fsync",
                    "duplicate": false,
                })
            } else {
                json!({"status": "healthy", "components": {}})
            };
            let text = answer.to_string();
            let whole = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            if socket.write_all(whole.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn stream(&self, socket: &mut UnixStream, head: &str) {
        let field = head.lines().find_map(|line| line.strip_prefix("last-event-id: "));
        let last = field.map(str::to_owned);
        // Ids are `<number of the event>-0`.
        let mut next =
            last.as_deref().map_or(0, |id| id.split('-').next().unwrap().parse::<usize>().unwrap());
        assert_eq!(last.is_none(), head.contains("from=earliest"), "{head}");
        let opening = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: stream open\n\n";
        if socket.write_all(opening.as_bytes()).is_err() {
            return;
        }
        let (state, woken) = &*self.0;
        let mut state = state.lock().unwrap();
        state.opened.push(last);
        if next > state.events.len() {
            let gap = "event: gap\ndata: {\"expected\":1,\"got\":0,\"reason\":\"unknown_position\"}\n\n";
            next = state.events.len();
            if socket.write_all(gap.as_bytes()).is_err() {
                return;
            }
        }
        while !state.down {
            if let Some(event) = state.events.get(next) {
                next += 1;
                let frame = format!("id: {next}-0\nevent: kill_switch\ndata: {event}\n\n");
                if socket.write_all(frame.as_bytes()).is_err() {
                    return;
                }
                continue;
            }
            state = woken.wait_timeout(state, Duration::from_millis(200)).unwrap().0;
        }
    }
}

fn request(socket: &mut UnixStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).to_string();
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if bytes.len() >= at + 4 + length {
                return Some((head, bytes[at + 4..at + 4 + length].to_vec()));
            }
        }
        match socket.read(&mut piece) {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
    }
}
