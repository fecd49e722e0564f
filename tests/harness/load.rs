//! Clients at full rate that count everything that went wrong.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::origin::{arrivals, fresh};
use super::secure::NAME;

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
    /// How long each answer took, in microseconds, in order once everything has ended.
    took_us: Vec<u32>,
    pub(crate) failed: u64,
    pub(crate) faults: Vec<Fault>,
}

impl Tally {
    /// The faults that were kept, a line each.
    pub(crate) fn told(&self) -> String {
        self.faults.iter().map(|fault| format!("\n  {fault}")).collect()
    }

    /// The time within which this share of the answers came.
    pub(crate) fn within(&self, share: f64) -> Duration {
        let last = self.took_us.len().saturating_sub(1);
        let at = (last as f64 * share) as usize;
        Duration::from_micros(self.took_us.get(at).copied().unwrap_or_default().into())
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
            all.took_us.extend(tally.took_us);
            all.faults.extend(tally.faults);
        }
        all.took_us.sort_unstable();
        all
    }
}

fn run(mut client: impl Client, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        match client.exchange() {
            Ok(()) => {
                let took = began.elapsed();
                tally.answered += 1;
                tally.slowest = tally.slowest.max(took);
                tally.took_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
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

/// Where clients connect to, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// TLS, where it is spoken.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    pub(crate) fn plain(base: &str) -> Self {
        Self { address: base.strip_prefix("http://").unwrap().parse().unwrap(), tls: None }
    }

    pub(crate) fn connect(&self) -> Result<Wire, Fault> {
        let failed = |error: io::Error| Fault::Connect(error.to_string());
        let stream = TcpStream::connect(self.address).map_err(failed)?;
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(WITHIN))).map_err(failed)?;
        let Some(config) = &self.tls else { return Ok(Wire::Plain(stream)) };
        let session = ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME).unwrap());
        let mut stream = StreamOwned::new(session.unwrap(), stream);
        while stream.conn.is_handshaking() {
            // The connection stands: what breaks now was in flight.
            let shaken = stream.conn.complete_io(&mut stream.sock);
            shaken.map_err(|error| Fault::Failed(format!("handshake: {error}")))?;
        }
        Ok(Wire::Tls(Box::new(stream)))
    }
}

/// A connection of either kind.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// What a client asks for.
#[derive(Clone, Copy)]
enum Ask {
    Get,
    /// A write that must reach the upstream exactly once.
    Write,
    /// The same, its body in this many pieces with a pause between two.
    Upload(usize),
}

/// Between two pieces of an upload.
const PIECE_EVERY: Duration = Duration::from_millis(60);
/// What one piece says.
const PIECE: &[u8] = b"01234567";

/// HTTP/1.1 with keep-alive.
pub(crate) struct KeepAlive {
    target: Target,
    path: String,
    ask: Ask,
    connection: Option<BufReader<Wire>>,
}

impl KeepAlive {
    pub(crate) fn new(base: &str, path: &str) -> Self {
        Self::at(Target::plain(base), path)
    }

    pub(crate) fn at(target: Target, path: &str) -> Self {
        Self { target, path: path.to_owned(), ask: Ask::Get, connection: None }
    }

    /// Writes, each with a number of its own.
    pub(crate) fn writes(target: Target, path: &str) -> Self {
        Self { ask: Ask::Write, ..Self::at(target, path) }
    }

    /// Slow uploads, each with a number of its own.
    pub(crate) fn uploads(target: Target, path: &str, pieces: usize) -> Self {
        Self { ask: Ask::Upload(pieces), ..Self::at(target, path) }
    }

    /// Sends a request; the number of its write.
    fn send(&self, connection: &mut Wire) -> io::Result<Option<u64>> {
        let host = if self.target.tls.is_some() { NAME } else { "x" };
        let (path, pieces) = (
            &self.path,
            match self.ask {
                Ask::Get => {
                    let head = format!("GET {} HTTP/1.1\r\nhost: {host}\r\n\r\n", self.path);
                    return connection.write_all(head.as_bytes()).map(|()| None);
                }
                Ask::Write => 1,
                Ask::Upload(pieces) => pieces,
            },
        );
        let (id, length) = (fresh(), pieces * PIECE.len());
        let head =
            format!("POST {path}/once/{id} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
        connection.write_all(head.as_bytes())?;
        for piece in 0..pieces {
            if piece > 0 {
                std::thread::park_timeout(PIECE_EVERY);
            }
            connection.write_all(PIECE)?;
        }
        Ok(Some(id))
    }
}

impl Client for KeepAlive {
    fn exchange(&mut self) -> Result<(), Fault> {
        let reused = self.connection.is_some();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(self.target.connect()?),
        };
        let empty = |text: String| if reused { Fault::EmptyOnReused(text) } else { Fault::Failed(text) };
        let id = self.send(connection.get_mut()).map_err(|error| empty(format!("write: {error}")))?;
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
        if let Some(id) = id {
            arrived_once(id)?;
        }
        if !close {
            self.connection = Some(connection);
        }
        Ok(())
    }
}

/// Whether a write that was answered reached the upstream exactly once.
pub(crate) fn arrived_once(id: u64) -> Result<(), Fault> {
    match arrivals(id) {
        1 => Ok(()),
        times => Err(Fault::Failed(format!("write {id} arrived {times} times"))),
    }
}

/// The rest of an answer: whether the connection closes, and the body.
fn answer(connection: &mut BufReader<Wire>, status: &str) -> Result<(bool, String), String> {
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
