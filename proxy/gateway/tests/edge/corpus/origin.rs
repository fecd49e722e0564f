//! A recording upstream: every byte of every connection, cut into requests by the strict reading.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::strict::{Reading, Request, read};
use crate::harness::find;

/// What came on one connection.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every byte, probes of the edge included.
    pub bytes: Vec<u8>,
    /// The requests in them, probes included.
    pub requests: Vec<Arrived>,
    /// Bytes of them that belong to whole requests.
    pub used: usize,
    /// Why the bytes after those can never become a request.
    pub wrong: Option<&'static str>,
    /// The edge has closed it.
    pub closed: bool,
}

/// One whole request.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Which request of all.
    pub serial: usize,
    /// Which connection.
    pub connection: usize,
    /// Which request of its connection, from 0.
    pub place: usize,
    /// Its head as it came.
    pub head: String,
    pub request: Request,
}

impl Arrived {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }
}

#[derive(Default)]
struct Log {
    connections: Vec<History>,
    serial: usize,
}

/// The upstream.
pub struct Origin {
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

/// How a request is answered; false closes the connection.
pub type Answers = dyn Fn(&Arrived, &mut TcpStream) -> bool + Send + Sync;

/// What is answered to a head before its body was read: bytes, and whether the connection stays.
pub type Early = dyn Fn(&str) -> Option<(&'static str, bool)> + Send + Sync;

/// The target and the length of the body, so that an answer shows what was asked.
pub fn echo(arrived: &Arrived, socket: &mut TcpStream) -> bool {
    let request = &arrived.request;
    let text = format!("{} {}", request.target, request.body.len());
    let body = if request.method == "HEAD" { "" } else { &text };
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", text.len());
    socket.write_all(answer.as_bytes()).is_ok()
}

impl Origin {
    pub fn start(answers: impl Fn(&Arrived, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        Self::start_early(|_| None, answers)
    }

    /// One that answers some requests as soon as it has their head.
    pub fn start_early(
        early: impl Fn(&str) -> Option<(&'static str, bool)> + Send + Sync + 'static,
        answers: impl Fn(&Arrived, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let (shared, early, answers): (_, Arc<Early>, Arc<Answers>) =
            (Arc::clone(&log), Arc::new(early), Arc::new(answers));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (log, early, answers) = (Arc::clone(&shared), Arc::clone(&early), Arc::clone(&answers));
                let connection = {
                    let mut log = log.lock().unwrap();
                    log.connections.push(History::default());
                    log.connections.len() - 1
                };
                std::thread::spawn(move || serve(&log, connection, socket, &*early, &*answers));
            }
        });
        Self { address, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All connections so far.
    pub fn connections(&self) -> Vec<History> {
        self.log.lock().unwrap().connections.clone()
    }

    /// Requests whose number is at least `serial`, in the order they came; probes left out.
    pub fn since(&self, serial: usize) -> Vec<Arrived> {
        let log = self.log.lock().unwrap();
        let all = log.connections.iter().flat_map(|history| &history.requests);
        let mut since: Vec<Arrived> =
            all.filter(|arrived| arrived.serial >= serial && !is_probe(&arrived.head)).cloned().collect();
        since.sort_by_key(|arrived| arrived.serial);
        since
    }

    /// The number of the next request.
    pub fn mark(&self) -> usize {
        self.log.lock().unwrap().serial
    }

    /// The first connection on which these bytes came.
    pub fn saw(&self, what: &str) -> Option<usize> {
        let log = self.log.lock().unwrap();
        log.connections.iter().position(|history| String::from_utf8_lossy(&history.bytes).contains(what))
    }

    /// Whether the edge has closed a connection.
    pub fn is_closed(&self, connection: usize) -> bool {
        self.log.lock().unwrap().connections[connection].closed
    }
}

fn is_probe(head: &str) -> bool {
    head.contains("user-agent: sluice-probe")
}

fn serve(log: &Mutex<Log>, connection: usize, mut socket: TcpStream, early: &Early, answers: &Answers) {
    let mut piece = [0; 16 << 10];
    let mut answered = false;
    loop {
        let count = socket.read(&mut piece).unwrap_or(0);
        {
            let mut log = log.lock().unwrap();
            let history = &mut log.connections[connection];
            history.bytes.extend_from_slice(&piece[..count]);
            history.closed = count == 0;
        }
        if count == 0 {
            return;
        }
        while let Some(arrived) = next(log, connection) {
            let goes_on = if std::mem::take(&mut answered) {
                true
            } else if is_probe(&arrived.head) {
                echo(&arrived, &mut socket)
            } else {
                answers(&arrived, &mut socket)
            };
            if !goes_on {
                drop(socket.shutdown(Shutdown::Both));
                return;
            }
        }
        let head = if answered { None } else { unfinished_head(log, connection) };
        if let Some((answer, stays)) = head.and_then(|head| early(&head)) {
            answered = true;
            drop(socket.write_all(answer.as_bytes()));
            if !stays {
                drop(socket.shutdown(Shutdown::Both));
                return;
            }
        }
    }
}

/// The head of a request whose body is still to come.
fn unfinished_head(log: &Mutex<Log>, connection: usize) -> Option<String> {
    let log = log.lock().unwrap();
    let history = &log.connections[connection];
    let rest = &history.bytes[history.used..];
    find(rest, b"\r\n\r\n").map(|at| String::from_utf8_lossy(&rest[..at + 4]).into_owned())
}

/// The next whole request of a connection.
fn next(log: &Mutex<Log>, connection: usize) -> Option<Arrived> {
    let mut log = log.lock().unwrap();
    let serial = log.serial;
    let history = &mut log.connections[connection];
    match read(&history.bytes[history.used..]) {
        Reading::Whole(request) => {
            let head = &history.bytes[history.used..history.used + request.head_bytes];
            let head = String::from_utf8_lossy(head).into_owned();
            history.used += request.bytes;
            let place = history.requests.len();
            let arrived = Arrived { serial, connection, place, head, request: *request };
            history.requests.push(arrived.clone());
            log.serial += 1;
            Some(arrived)
        }
        Reading::Partial => None,
        Reading::Wrong(why) => {
            history.wrong = Some(why);
            None
        }
    }
}
