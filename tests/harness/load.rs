//! Clients at full rate that count everything that went wrong, and an upstream for them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for a byte.
const WITHIN: Duration = Duration::from_secs(20);
/// Faults that are kept with their text.
const FAULTS_KEPT: usize = 20;

/// Why a request failed.
pub(crate) enum Fault {
    /// No connection could be made.
    Connect(String),
    /// A reused connection was closed without a byte of an answer. A client may repeat such a request, but
    /// a server that drains well never makes it do so.
    EmptyOnReused(String),
    /// Anything else: no answer, half an answer, a wrong status.
    Failed(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(text) => write!(f, "connect: {text}"),
            Self::EmptyOnReused(text) => write!(f, "no byte on a reused connection: {text}"),
            Self::Failed(text) => write!(f, "failed: {text}"),
        }
    }
}

/// A client that makes one request after another.
pub(crate) trait Client {
    /// One request; a connection that was told to close is replaced.
    fn exchange(&mut self) -> Result<(), Fault>;
}

/// What clients counted.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) slowest: Duration,
    pub(crate) failed: u64,
    pub(crate) faults: Vec<Fault>,
}

impl Tally {
    /// The faults that were kept, a line each.
    pub(crate) fn told(&self) -> String {
        self.faults.iter().map(|fault| format!("\n  {fault}")).collect()
    }
}

/// Clients under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts clients, each made by `client`.
    pub(crate) fn start<C: Client>(count: usize, client: impl Fn() -> C + Send + Clone + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = |_| {
            let (stop, client) = (Arc::clone(&stop), client.clone());
            std::thread::spawn(move || run(client(), &stop))
        };
        Self { clients: (0..count).map(run).collect(), stop }
    }

    /// Ends them and adds up what they counted.
    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for tally in self.clients.into_iter().map(|client| client.join().unwrap()) {
            all.answered += tally.answered;
            all.failed += tally.failed;
            all.slowest = all.slowest.max(tally.slowest);
            all.faults.extend(tally.faults);
        }
        all
    }
}

fn run(mut client: impl Client, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        match client.exchange() {
            Ok(()) => {
                tally.answered += 1;
                tally.slowest = tally.slowest.max(began.elapsed());
            }
            Err(fault) => {
                tally.failed += 1;
                if tally.faults.len() < FAULTS_KEPT {
                    tally.faults.push(fault);
                }
            }
        }
    }
    tally
}

/// HTTP/1.1 with keep-alive.
pub(crate) struct KeepAlive {
    address: SocketAddr,
    request: Vec<u8>,
    connection: Option<BufReader<TcpStream>>,
}

impl KeepAlive {
    pub(crate) fn new(base: &str, path: &str) -> Self {
        let host = base.strip_prefix("http://").unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes();
        Self { address: host.parse().unwrap(), request, connection: None }
    }

    fn connect(&self) -> Result<BufReader<TcpStream>, Fault> {
        let connected = TcpStream::connect(self.address).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(WITHIN))?;
            Ok(BufReader::new(stream))
        });
        connected.map_err(|error| Fault::Connect(error.to_string()))
    }
}

impl Client for KeepAlive {
    fn exchange(&mut self) -> Result<(), Fault> {
        let reused = self.connection.is_some();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let empty = |text: String| if reused { Fault::EmptyOnReused(text) } else { Fault::Failed(text) };
        if let Err(error) = connection.get_mut().write_all(&self.request) {
            return Err(empty(format!("write: {error}")));
        }
        let mut line = String::new();
        match connection.read_line(&mut line) {
            Ok(1..) => {}
            Ok(0) => return Err(empty("closed without an answer".to_owned())),
            Err(error) => return Err(empty(format!("read: {error}"))),
        }
        let (close, body) = answer(&mut connection, &line).map_err(Fault::Failed)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(Fault::Failed(format!("{} {body}", line.trim())));
        }
        if !close {
            self.connection = Some(connection);
        }
        Ok(())
    }
}

/// The rest of an answer: whether the connection closes, and the body.
fn answer(connection: &mut BufReader<TcpStream>, status: &str) -> Result<(bool, String), String> {
    let (mut close, mut length) = (false, None);
    loop {
        let mut line = String::new();
        let read = connection.read_line(&mut line).map_err(|error| format!("{status}: head: {error}"))?;
        if read == 0 {
            return Err(format!("{status}: closed inside the head"));
        }
        if line == "\r\n" {
            break;
        }
        let line = line.to_ascii_lowercase();
        close |= line.starts_with("connection:") && line.contains("close");
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let mut body = vec![0; length.ok_or_else(|| format!("{status}: no length"))?];
    connection.read_exact(&mut body).map_err(|error| format!("{status}: body: {error}"))?;
    Ok((close, String::from_utf8_lossy(&body).into_owned()))
}

/// An upstream that answers every request with `ok`; `/slow/MS` after so many milliseconds. It lives as long
/// as the test run.
pub(crate) fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    let _faster = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    loop {
        let (mut target, mut line) = (None, String::new());
        while line != "\r\n" {
            line.clear();
            match stream.read_line(&mut line) {
                Ok(1..) => target = target.or_else(|| line.split(' ').nth(1).map(str::to_owned)),
                _ => return,
            }
        }
        let slow = target.as_deref().and_then(|target| target.rsplit_once("/slow/")?.1.parse().ok());
        if let Some(ms) = slow {
            std::thread::sleep(Duration::from_millis(ms));
        }
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}
