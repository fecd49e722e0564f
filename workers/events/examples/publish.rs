//! What a publish costs: events a second, CPU time a request, events a commit, latency.
//!
//! `cargo run --release -p sluice-events --example publish [CONNECTIONS [SECONDS [BATCH]]]`. Each connection waits for
//! its answer before it asks again; every event is synced before it, and encrypted. The worker has a runtime of one thread; its threads
//! and those of its log count, the clients' thread does not. As in service the edge listens for kill switches, and
//! memory is the product's. `PUBLISH_DIR` says where the log lies (`/tmp`). With
//! `PUBLISH_REDIS=127.0.0.1:PORT` events go to that Redis, whose CPU time is told as well.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that prints its table")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_http::{Doors, Handover, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_schema::Config;
use sluice_telemetry::{log, metric};
use sluice_wire::role::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const PAD_BYTES: usize = 125;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn start(dir: &Path, key: &str, edge_key: &str) -> (Start, Stopper) {
    let mut doors = Doors::default();
    doors.insert("internal", Listener::Unix(UnixListener::bind(dir.join("door")).unwrap()));
    let peers = BTreeMap::from([
        (Role::Calc, InternalKeys::digest(key)),
        (Role::Edge, InternalKeys::digest(edge_key)),
    ]);
    let (stopper, stop) = Stopper::new();
    let mut config = Config::default();
    // There is no vault to ask for a key.
    let keys = dir.join("events.key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&keys).unwrap();
    writeln!(file, "{}", "0a".repeat(32)).unwrap();
    config.events.key_file = Some(keys);
    // As in the bench.
    config.events.retention.count = Some(1_000_000);
    config.redis = redis().and_then(|address| {
        let environment = BTreeMap::from([("REDIS_URL".to_owned(), format!("redis://{address}"))]);
        let read = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        sluice_schema::check(&[], &environment, sluice_schema::Mode::default(), &read).unwrap().config.redis
    });
    let config = Arc::new(config);
    let start = Start {
        role: Role::Events,
        trust: TrustCell::new(&config, Role::Events),
        config,
        config_path: PathBuf::new(),
        data_dir: dir.to_owned(),
        dev: false,
        port_offset: 0,
        environment: BTreeMap::new(),
        keys: Arc::new(InternalKeys::new(InternalKeys::mint(), &peers)),
        sockets: BTreeMap::new(),
        doors: Mutex::new(doors),
        stop,
        registry: metric::registry("events"),
        log: log::LogLevel::fixed(),
        announce: false,
        handover: Handover::none(),
    };
    (start, stopper)
}

fn request(method: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nx-internal-key: {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The body of the next answer, which must be good.
async fn answer(io: &mut UnixStream, held: &mut Vec<u8>) -> String {
    held.clear();
    held.reserve(64 * 1024);
    loop {
        assert!(io.read_buf(held).await.unwrap() > 0, "the worker closed the connection");
        let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&held[..end]).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{}", String::from_utf8_lossy(held));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if held.len() >= end + 4 + length.parse::<usize>().unwrap() {
            return String::from_utf8(held.split_off(end + 4)).unwrap();
        }
    }
}

/// CPU time of every thread but the one that asks.
fn cpu() -> Duration {
    of_threads("self").saturating_sub(of_thread("/proc/thread-self".into()))
}

fn of_threads(process: &str) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks.map(|task| of_thread(task.unwrap().path())).sum()
}

fn of_thread(dir: PathBuf) -> Duration {
    let text = std::fs::read_to_string(dir.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default())
}

/// Where the Redis is, if events go to one.
fn redis() -> Option<String> {
    std::env::var("PUBLISH_REDIS").ok()
}

/// CPU time of that Redis, which runs here.
fn cpu_of_redis() -> Duration {
    let Some(address) = redis() else { return Duration::ZERO };
    let mut server = std::net::TcpStream::connect(address).unwrap();
    server.write_all(b"INFO server\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    server.read_to_string(&mut answer).unwrap();
    let process = answer.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap();
    of_threads(process)
}

/// Commits until now, and events in them.
async fn commits(socket: &Path, key: &str) -> (f64, f64) {
    let mut io = UnixStream::connect(socket).await.unwrap();
    io.write_all(&request("GET", "/metrics", key, "")).await.unwrap();
    let text = answer(&mut io, &mut Vec::new()).await;
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    (of("sluice_events_batch_size_count"), of("sluice_events_batch_size_sum"))
}

/// One event, or a batch of more.
fn publication(key: &str, batch: usize) -> Vec<u8> {
    let pad = "x".repeat(PAD_BYTES);
    let event =
        format!(r#"{{"event_type":"market_data_update","data":{{"symbol":"BTC/USDT","pad":"{pad}"}}}}"#);
    if batch == 1 {
        return request("POST", "/events", key, &event);
    }
    request("POST", "/events/batch", key, &format!(r#"{{"events":[{}]}}"#, vec![event; batch].join(",")))
}

/// Listens as the edge does, to events that do not come.
async fn listen(socket: PathBuf, key: String) {
    let mut io = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "GET /events/stream?event_type=kill_switch HTTP/1.1\r\nhost: x\r\nx-internal-key: {key}\r\n\
         x-internal-self: 1\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await.unwrap();
    let mut held = vec![0; 4096];
    let read = io.read(&mut held).await.unwrap();
    assert!(held.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&held[..read]));
    while io.read(&mut held).await.is_ok_and(|bytes| bytes > 0) {}
}

async fn publish(socket: &Path, (key, batch): (&str, usize), connections: usize, time: Duration) -> Vec<u64> {
    let request: Arc<[u8]> = publication(key, batch).into();
    let end = Instant::now() + time;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let mut io = UnixStream::connect(socket).await.unwrap();
        let request = Arc::clone(&request);
        clients.spawn(async move {
            let (mut times, mut held) = (Vec::new(), Vec::new());
            while Instant::now() < end {
                let begun = Instant::now();
                io.write_all(&request).await.unwrap();
                answer(&mut io, &mut held).await;
                times.push(begun.elapsed().as_micros() as u64);
            }
            times
        });
    }
    clients.join_all().await.concat()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let number =
        |at: usize, default: u64| std::env::args().nth(at).map_or(default, |text| text.parse().unwrap());
    let (connections, time) = (number(1, 128) as usize, Duration::from_secs(number(2, 8)));
    let batch = number(3, 1) as usize;
    let home = std::env::var("PUBLISH_DIR").unwrap_or_else(|_| "/tmp".to_owned());
    let dir = tempfile::tempdir_in(home).unwrap();
    let (key, edge_key, socket) = (InternalKeys::mint(), InternalKeys::mint(), dir.path().join("door"));
    let (start, _stopper) = start(dir.path(), &key, &edge_key);
    let worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let running = worker.spawn(sluice_events::run(start));
    // It listens when this is answered; then, what the first events cost once.
    commits(&socket, &key).await;
    let listening = tokio::spawn(listen(socket.clone(), edge_key));
    publish(&socket, (&key, batch), connections, Duration::from_secs(1)).await;
    let (before, begun, spent, aside) = (commits(&socket, &key).await, Instant::now(), cpu(), cpu_of_redis());
    let mut times = publish(&socket, (&key, batch), connections, time).await;
    let (took, spent) = (begun.elapsed().as_secs_f64(), cpu().saturating_sub(spent));
    let aside = cpu_of_redis().saturating_sub(aside);
    let after = commits(&socket, &key).await;
    assert!(!listening.is_finished(), "the edge listens to the end");
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).map_or(0.0, |us| *us as f64 / 1e3);
    println!(
        "{connections} connections: {:.0} events/s, {:.2} us of CPU each and {:.2} of Redis, {:.1} events a commit, p50 {:.2} ms, p99 {:.2} ms",
        (times.len() * batch) as f64 / took,
        spent.as_secs_f64() * 1e6 / (times.len() * batch) as f64,
        aside.as_secs_f64() * 1e6 / (times.len() * batch) as f64,
        (after.1 - before.1) / (after.0 - before.0),
        at(0.5),
        at(0.99),
    );
    running.abort();
    worker.shutdown_background();
}
