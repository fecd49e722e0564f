//! What live streams cost: memory of an idle subscriber, deliveries a second, time from publish to subscriber.
//!
//! `cargo run --release -p sluice-events --example fanout [idle N] [flood SUBSCRIBERS] [pace RATE SUBSCRIBERS]
//! [filter SUBSCRIBERS]`; all of them without arguments. Worker, publisher and subscribers share this process and its
//! cores; events go over HTTP in batches, subscribers read server-sent events from TCP sockets.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement that prints its table")]

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_http::{Doors, Handover, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_schema::Config;
use sluice_telemetry::{log, metric};
use sluice_wire::role::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const PAD_BYTES: usize = 60;
const BATCH: u64 = 10;

struct World {
    socket: PathBuf,
    key: String,
    began: Instant,
    _stopper: Stopper,
    _dir: tempfile::TempDir,
}

fn start() -> World {
    let dir =
        tempfile::tempdir_in(std::env::var("FANOUT_DIR").unwrap_or_else(|_| "/tmp".to_owned())).unwrap();
    let socket = dir.path().join("events.sock");
    let mut doors = Doors::default();
    doors.insert("internal", Listener::Unix(UnixListener::bind(&socket).unwrap()));
    let key = InternalKeys::mint();
    let peers = BTreeMap::from([(Role::Demo, InternalKeys::digest(&key))]);
    let (stopper, stop) = Stopper::new();
    let mut config = Config::default();
    // There is no vault to ask for a key.
    config.events.encrypt = false;
    let config = Arc::new(config);
    let start = Start {
        role: Role::Events,
        trust: TrustCell::new(&config, Role::Events),
        config,
        config_path: PathBuf::new(),
        data_dir: dir.path().to_owned(),
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
    tokio::spawn(sluice_events::run(start));
    World { socket, key, began: Instant::now(), _stopper: stopper, _dir: dir }
}

impl World {
    async fn request(&self, head: &str, body: &str) -> UnixStream {
        let mut io = UnixStream::connect(&self.socket).await.unwrap();
        let request = format!(
            "{head} HTTP/1.1\r\nhost: x\r\nx-internal-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        io.write_all(request.as_bytes()).await.unwrap();
        io
    }

    async fn subscriber(&self, query: &str) -> UnixStream {
        let mut io = self.request(&format!("GET /events/stream{query}"), "").await;
        let mut seen = Vec::new();
        while !seen.windows(6).any(|six| six == b" open\n") {
            let mut piece = [0; 512];
            let count = io.read(&mut piece).await.unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&piece[..count]);
        }
        io
    }

    /// Publishes one batch on a connection and waits for its answer.
    async fn publish(&self, io: &mut UnixStream, first: u64, count: u64, buffer: &mut Vec<u8>) {
        let events: Vec<String> = (first..first + count)
            .map(|n| {
                let at = self.began.elapsed().as_nanos();
                let pad = "x".repeat(PAD_BYTES);
                format!(
                    r#"{{"event_type":"market_data_update","data":{{"symbol":"S{}","at":{at},"pad":"{pad}"}}}}"#,
                    n % 1_000
                )
            })
            .collect();
        let body = format!(r#"{{"events":[{}]}}"#, events.join(","));
        let head = format!(
            "POST /events/batch HTTP/1.1\r\nhost: x\r\nx-internal-key: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        io.write_all(head.as_bytes()).await.unwrap();
        io.write_all(body.as_bytes()).await.unwrap();
        buffer.clear();
        loop {
            assert!(io.read_buf(buffer).await.unwrap() > 0);
            let text = String::from_utf8_lossy(buffer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            assert!(head.starts_with("HTTP/1.1 200"), "{text}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return;
            }
        }
    }
}

fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
    let ticks = fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn idle(count: usize) {
    let world = start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What the first ones cost once.
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(world.subscriber("").await);
    }
    let before = rss_bytes();
    for _ in 0..count {
        open.push(world.subscriber("").await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = (rss_bytes() - before) / count as u64;
    println!("idle: {count} subscribers, {each} bytes each (both ends' sockets in this process)");
}

/// Counts the events of a stream; looks at the times of every `sample`th.
fn follow(world: &World, io: UnixStream, count: Arc<AtomicU64>, times: Option<Arc<Mutex<Vec<u64>>>>) {
    let (mut io, began) = (io, world.began);
    tokio::spawn(async move {
        let mut held = Vec::with_capacity(256 * 1024);
        while let Ok(1..) = io.read_buf(&mut held).await {
            let mut rest = held.as_slice();
            let (mut seen, now) = (0, began.elapsed().as_nanos() as u64);
            while let Some(end) = memchr::memmem::find(rest, b"\n\n") {
                if rest[..end].windows(7).take(64).any(|seven| seven == b"event: ") {
                    seen += 1;
                }
                if let Some(times) = &times
                    && let Some(at) = memchr::memmem::find(&rest[..end], b"\"at\":")
                {
                    let digits: String = rest[at + 5..end]
                        .iter()
                        .take_while(|b| b.is_ascii_digit())
                        .map(|b| *b as char)
                        .collect();
                    times.lock().unwrap().push(now - digits.parse::<u64>().unwrap());
                }
                rest = &rest[end + 2..];
            }
            count.fetch_add(seen, Ordering::Relaxed);
            let left = rest.len();
            let len = held.len();
            held.copy_within(len - left.., 0);
            held.truncate(left);
        }
    });
}

async fn run(name: &str, subscribers: usize, rate: Option<u64>, filtered: bool, time: Duration) {
    let world = Arc::new(start());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (count, times) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    for n in 0..subscribers {
        let query = if filtered { format!("?symbol=S{n}") } else { String::new() };
        let io = world.subscriber(&query).await;
        follow(&world, io, Arc::clone(&count), (n % 25 == 7).then(|| Arc::clone(&times)));
    }
    let (begun, spent) = (Instant::now(), cpu());
    let mut io = UnixStream::connect(&world.socket).await.unwrap();
    let (mut published, mut buffer) = (0, Vec::new());
    let batch = if rate.is_some() { BATCH } else { 100 };
    while begun.elapsed() < time {
        world.publish(&mut io, published, batch, &mut buffer).await;
        published += batch;
        if let Some(rate) = rate {
            let due = begun + Duration::from_secs_f64(published as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
        } else {
            // The publisher waits where the subscribers are far behind, so that what is measured is delivery.
            while published.saturating_sub(count.load(Ordering::Relaxed) / subscribers as u64) > 20_000 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    let delivered = count.load(Ordering::Relaxed);
    let took = begun.elapsed().as_secs_f64();
    let mut times = std::mem::take(&mut *times.lock().unwrap());
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).map_or(0.0, |ns| *ns as f64 / 1e6);
    println!(
        "{name}: {subscribers} subscribers, {:.0} events/s published, {:.0} delivered/s, p50 {:.2} ms, p99 {:.2} ms, \
         {:.2} cores, {:.0} MB",
        published as f64 / took,
        delivered as f64 / took,
        at(0.5),
        at(0.99),
        cpu().saturating_sub(spent).as_secs_f64() / took,
        rss_bytes() as f64 / 1e6,
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize, default: u64| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let only = arguments.first().map(String::as_str);
    let time = Duration::from_secs(8);
    if only.is_none_or(|only| only == "idle") {
        idle(number(1, 4_000) as usize).await;
    }
    if only.is_none_or(|only| only == "pace") {
        run("pace", number(2, 100) as usize, Some(number(1, 10_000)), false, time).await;
    }
    if only.is_none_or(|only| only == "flood") {
        run("flood", number(1, 1_000) as usize, None, false, time).await;
    }
    if only.is_none_or(|only| only == "filter") {
        run("filter", number(1, 1_000) as usize, Some(10_000), true, time).await;
    }
}
