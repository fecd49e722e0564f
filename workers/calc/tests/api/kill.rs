//! The worker's process dies, again and again, without a word: what it acknowledged is there at the next start.
//!
//! The process is this test binary, started anew with [`worker`] alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::world::{DEADLINE, World};

/// Where the process keeps its state.
const FOLDER: &str = "SLUICE_TEST_FOLDER";
/// The door of the event worker that the process follows.
const EVENTS: &str = "SLUICE_TEST_EVENTS";
/// Times it is killed under load.
const ROUNDS: usize = 20;
/// Clients that add candles, each to a series of its own.
const WRITERS: usize = 4;

/// The worker as a process; a test only so that the harness can start it.
#[test]
#[ignore = "started by the test of kills"]
fn worker() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let events = std::env::var_os(EVENTS).map(|socket| (Role::Events, socket.into()));
        let world = World::inside(Path::new(&folder), events.into_iter().collect());
        println!("ready {}", world.key(Role::Edge));
        std::future::pending::<()>().await;
    });
}

/// The worker, seen from outside.
pub(crate) struct Process {
    pub(crate) child: Child,
    key: String,
}

impl Process {
    fn start(folder: &Path) -> Self {
        Self::beside(folder, None)
    }

    /// One that follows an event worker, when there is one.
    pub(crate) fn beside(folder: &Path, events: Option<&Path>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::worker", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .envs(events.map(|socket| (EVENTS, socket)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let key = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("ready ")?.1.to_owned()));
        Self { child, key: key.expect("the worker gets ready") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    /// The rows of a series.
    pub(crate) fn rows(&self, folder: &Path, series: &str) -> Vec<Vec<f64>> {
        let page = call(folder, &self.key, "GET", &format!("/series/{series}?limit=100000"), "").unwrap();
        normal(page["data"].as_array().unwrap())
    }
}

/// An exchange with the worker; nothing when it dies meanwhile.
fn call(folder: &Path, key: &str, method: &str, path: &str, body: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(folder.join("calc.sock")).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: calc\r\nx-internal-key: {key}\r\nx-user: desk\r\n\
         x-permissions: read write\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.0 200 "), "{answer}");
    serde_json::from_str(body).ok()
}

fn path(writer: usize) -> String {
    format!("/series/W{writer}/USDT/1m")
}

/// The candle of a minute: any other number in its place would be seen.
fn row(writer: usize, minute: usize) -> Value {
    let close = 100.0 + (minute * 7 % 13) as f64 / 4.0 + writer as f64;
    json!([minute * 60_000, close, close + 2.0, close - 1.5, close + 0.25, minute as f64])
}

/// Adds candles until the worker dies; what was acknowledged is counted, what was not is sent again by the next one.
fn add(folder: &Path, key: &str, writer: usize, minutes: &AtomicUsize, acknowledged: &AtomicUsize) {
    loop {
        let at = minutes.load(Ordering::SeqCst);
        let count = 1 + at % 3;
        let rows: Vec<Value> = (at..=at + count).map(|minute| row(writer, minute)).collect();
        // The last one is forming, and comes again as the first of the next call.
        let body = json!({"data": rows, "open": true}).to_string();
        let Some(told) = call(folder, key, "POST", &format!("{}/candles", path(writer)), &body) else {
            return;
        };
        let sum = ["applied", "repeated", "updated_open"].map(|name| told[name].as_u64().unwrap());
        assert_eq!(sum.iter().sum::<u64>(), rows.len() as u64, "{told}");
        assert!(told["rows"].as_u64().unwrap() >= (at + count) as u64, "{told}");
        minutes.store(at + count, Ordering::SeqCst);
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn no_kill_loses_a_candle_or_tears_one() {
    let folder = tempfile::tempdir().unwrap();
    let minutes: Arc<[AtomicUsize; WRITERS]> = Arc::default();
    for round in 0..ROUNDS {
        let mut process = Process::start(folder.path());
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (folder, key) = (folder.path().to_owned(), process.key.clone());
                let (minutes, acknowledged) = (Arc::clone(&minutes), Arc::clone(&acknowledged));
                std::thread::spawn(move || add(&folder, &key, writer, &minutes[writer], &acknowledged))
            })
            .collect();
        while acknowledged.load(Ordering::SeqCst) < 5 + round * 3 % 17 {
            assert!(!writers.iter().all(std::thread::JoinHandle::is_finished), "the worker serves");
            std::thread::yield_now();
        }
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
    }
    let process = Process::start(folder.path());
    for (writer, acknowledged) in minutes.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        let read =
            call(folder.path(), &process.key, "GET", &format!("{}?limit=100000", path(writer)), "").unwrap();
        let rows = read["data"].as_array().unwrap();
        assert!(rows.len() >= acknowledged && acknowledged > ROUNDS, "{} of {acknowledged}", rows.len());
        let wanted: Vec<Value> = (0..rows.len()).map(|minute| row(writer, minute)).collect();
        assert_eq!(normal(rows), normal(&wanted));
        assert_eq!(normal(&[read["open"].clone()]), normal(&[row(writer, rows.len())]));
    }
}

fn normal(rows: &[Value]) -> Vec<Vec<f64>> {
    rows.iter()
        .map(|row| row.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect())
        .collect()
}
