//! A pair of instances that break a connection where they are told to, and note every request of which a byte came.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::harness::find;

/// What the instances answer, body included.
pub const BODY: &str = "executed";

/// When the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As soon as it stands.
    Accepted,
    /// After so many bytes of the request.
    Read(usize),
    /// After so many bytes of the answer.
    Written(usize),
}

/// A request of which at least one byte came.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Which instance it came to.
    pub instance: usize,
    /// Whether it was the first on its connection.
    pub first: bool,
    /// All of it that was read.
    pub bytes: Vec<u8>,
    /// Whether all of it came.
    pub whole: bool,
}

#[derive(Default)]
struct Book {
    /// How the next connections or requests break.
    cut: Option<Cut>,
    /// How many of them do.
    strikes: usize,
    /// Whether they end in an orderly way.
    orderly: bool,
    /// Whether connections stay open behind an answer.
    stays: bool,
    arrived: Vec<Arrived>,
}

/// Two instances of one service.
pub struct Desk {
    pub addresses: [SocketAddr; 2],
    book: Arc<Mutex<Book>>,
}

impl Desk {
    pub fn open() -> Self {
        let book = Arc::<Mutex<Book>>::default();
        let addresses = [0, 1].map(|instance| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (address, book) = (listener.local_addr().unwrap(), Arc::clone(&book));
            std::thread::spawn(move || {
                for socket in listener.incoming().flatten() {
                    let book = Arc::clone(&book);
                    std::thread::spawn(move || serve(socket, instance, &book));
                }
            });
            address
        });
        Self { addresses, book }
    }

    pub fn urls(&self) -> [String; 2] {
        self.addresses.map(|address| format!("http://{address}"))
    }

    /// From here on nothing is known, and the next `strikes` requests break so.
    pub fn arm(&self, cut: Cut, strikes: usize, orderly: bool) {
        let mut book = self.book.lock().unwrap();
        (book.cut, book.strikes, book.orderly) = (Some(cut), strikes, orderly);
        book.arrived.clear();
    }

    /// Nothing breaks any more. `stays`: whether connections stay open from here on.
    pub fn disarm(&self, stays: bool) -> Vec<Arrived> {
        let mut book = self.book.lock().unwrap();
        (book.cut, book.strikes, book.stays) = (None, 0, stays);
        std::mem::take(&mut book.arrived)
    }
}

/// The answer to a request of this method; `stays` as the connection does.
pub fn answer(stays: bool) -> String {
    let connection = if stays { "keep-alive" } else { "close" };
    format!(
        "HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// Bytes of the head of that answer.
pub fn head_bytes(stays: bool) -> usize {
    answer(stays).len() - BODY.len()
}

fn serve(mut socket: TcpStream, instance: usize, book: &Mutex<Book>) {
    if strikes(book, |cut| cut == Cut::Accepted).is_some() {
        return break_off(&socket, book);
    }
    let mut first = true;
    loop {
        let mut peeked = [0; 12];
        match socket.peek(&mut peeked) {
            Ok(1..) => {}
            _ => return,
        }
        if peeked.starts_with(b"GET /health ") {
            drop(socket.read(&mut [0; 4096]));
            drop(socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
            return;
        }
        let cut = strikes(book, |cut| cut != Cut::Accepted);
        let most = if let Some(Cut::Read(bytes)) = cut { bytes } else { usize::MAX };
        let number = note(book, Arrived { instance, first, bytes: Vec::new(), whole: false });
        first = false;
        let whole = read(&mut socket, most, book, number);
        if !whole {
            return break_off(&socket, book);
        }
        let stays = book.lock().unwrap().stays;
        let answer = answer(stays);
        if let Some(Cut::Written(bytes)) = cut {
            drop(socket.write_all(&answer.as_bytes()[..bytes]));
            return break_off(&socket, book);
        }
        if socket.write_all(answer.as_bytes()).is_err() || !stays {
            return;
        }
    }
}

/// Takes a strike where this kind of it is left.
fn strikes(book: &Mutex<Book>, wanted: impl Fn(Cut) -> bool) -> Option<Cut> {
    let mut book = book.lock().unwrap();
    let cut = book.cut.filter(|cut| book.strikes > 0 && wanted(*cut))?;
    book.strikes -= 1;
    Some(cut)
}

fn note(book: &Mutex<Book>, arrived: Arrived) -> usize {
    let mut book = book.lock().unwrap();
    book.arrived.push(arrived);
    book.arrived.len() - 1
}

/// Reads one request, `most` bytes of it; says whether all of it came.
fn read(socket: &mut TcpStream, most: usize, book: &Mutex<Book>, number: usize) -> bool {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&request) {
        let room = piece.len().min(most - request.len());
        let count = if room == 0 { 0 } else { socket.read(&mut piece[..room]).unwrap_or(0) };
        if count == 0 {
            break;
        }
        request.extend_from_slice(&piece[..count]);
    }
    let whole = is_whole(&request);
    if let Some(arrived) = book.lock().unwrap().arrived.get_mut(number) {
        (arrived.bytes, arrived.whole) = (request, whole);
    }
    whole
}

fn is_whole(request: &[u8]) -> bool {
    let Some(head) = find(request, b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let body = &request[head + 4..];
    if text.contains("transfer-encoding: chunked") {
        return body.ends_with(b"0\r\n\r\n");
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Ends a connection, by a reset unless it is to be orderly.
fn break_off(socket: &TcpStream, book: &Mutex<Book>) {
    if !book.lock().unwrap().orderly {
        rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO)).unwrap();
    }
}
