//! The upstream every subject forwards to: the cheapest honest HTTP/1.1 keep-alive server we can write.
//!
//! Every GET and every POST of a stated length is answered 200 with the same JSON body; a path ending in
//! [`ECHO`] answers the request head it received, which is how the equal-answer check sees what a proxy sends.

use std::cell::Cell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::response::head_end;

/// Path ending that answers the request head as received.
pub(crate) const ECHO: &str = "/request-head";
/// First word of the line that names the address, on standard output.
pub(crate) const READY_WORD: &str = "listening";
const REQUEST_HEAD_BYTES_MAX: usize = 16 * 1024;
const REQUEST_BODY_BYTES_MAX: usize = 64 * 1024;
const CONNECTIONS_MAX: usize = 16_384;
const LENGTH_FIELD: &[u8] = b"content-length:";

/// Serves on `listen` until standard input closes; prints `listening ADDR` first.
pub(crate) fn serve(listen: SocketAddr, bytes: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{READY_WORD} {}", listener.local_addr()?)?;
        stdout.flush()?;
        tokio::select! {
            ended = accept(listener, Rc::new(answer(&body(bytes)))) => ended,
            () = stdin_closed() => Ok(()),
        }
    }))?;
    // A read of standard input may still sit in the blocking pool; it must not hold the exit.
    runtime.shutdown_background();
    Ok(())
}

/// The JSON body of exactly `bytes` bytes (at least 16).
pub(crate) fn body(bytes: usize) -> Vec<u8> {
    let frame = br#"{"payload":""}"#.len();
    format!(r#"{{"payload":"{}"}}"#, "x".repeat(bytes.saturating_sub(frame))).into_bytes()
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut sink = [0; 64];
    while matches!(stdin.read(&mut sink).await, Ok(1..)) {}
}

async fn accept(listener: TcpListener, answer: Rc<Vec<u8>>) -> anyhow::Result<()> {
    let open = Rc::new(Cell::new(0));
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (answer, open) = (Rc::clone(&answer), Rc::clone(&open));
        tokio::task::spawn_local(async move {
            // A broken connection is the caller's matter: it counts its own failures.
            drop(converse(stream, &answer).await);
            open.set(open.get() - 1);
        });
    }
}

async fn converse(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(end) = head_end(&buffer) {
            let head = &buffer[..end];
            let Some(body_bytes) = body_length(head) else {
                let refusal =
                    b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                return stream.write_all(refusal).await;
            };
            if buffer.len() < end + body_bytes {
                break;
            }
            if echoes(head) {
                let echo =
                    [format!("HTTP/1.1 200 OK\r\nContent-Length: {end}\r\n\r\n").as_bytes(), head].concat();
                stream.write_all(&echo).await?;
            } else {
                stream.write_all(answer).await?;
            }
            buffer.drain(..end + body_bytes);
        }
        if buffer.len() > REQUEST_HEAD_BYTES_MAX + REQUEST_BODY_BYTES_MAX {
            return Ok(());
        }
    }
}

/// Bytes of the body: none of a GET, `Content-Length` of a POST; `None` is a request this origin refuses.
fn body_length(head: &[u8]) -> Option<usize> {
    if head.starts_with(b"GET /") {
        return Some(0);
    }
    if !head.starts_with(b"POST /") {
        return None;
    }
    let value = head.split(|&b| b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH_FIELD.len())?;
        name.eq_ignore_ascii_case(LENGTH_FIELD).then_some(value)
    })?;
    let bytes = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
    (bytes <= REQUEST_BODY_BYTES_MAX).then_some(bytes)
}

fn echoes(head: &[u8]) -> bool {
    let target = head.split(|&b| b == b' ').nth(1).unwrap_or_default();
    target.ends_with(ECHO.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_the_asked_length_and_is_json() {
        for bytes in [16, 1024, 4096] {
            assert_eq!(body(bytes).len(), bytes);
            serde_json::from_slice::<serde_json::Value>(&body(bytes)).unwrap();
        }
    }

    async fn exchange(request: &[u8]) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        drop(converse(server, &answer(b"{}")).await);
        let mut read = Vec::new();
        // A reset after a refusal still leaves what was read before it.
        drop(client.read_to_end(&mut read).await);
        read
    }

    #[tokio::test]
    async fn pipelined_requests_are_each_answered() {
        let read = exchange(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(read, [answer(b"{}"), answer(b"{}")].concat());
    }

    #[tokio::test]
    async fn echo_path_shows_the_head_received() {
        let request = b"GET /bench/request-head HTTP/1.1\r\nX-Request-Id: 7\r\n\r\n";
        let read = exchange(request).await;
        assert!(read.ends_with(request), "{}", String::from_utf8_lossy(&read));
    }

    #[tokio::test]
    async fn post_is_answered_once_its_body_is_whole() {
        let post = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-length: 3\r\n\r\nabc";
        assert_eq!(exchange(&[&post[..], post].concat()).await, [answer(b"{}"), answer(b"{}")].concat());
        assert_eq!(exchange(&post[..post.len() - 1]).await, b"");
    }

    #[tokio::test]
    async fn other_methods_and_endless_requests_end_the_connection() {
        for bad in [
            "PUT / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(exchange(bad.as_bytes()).await.starts_with(b"HTTP/1.1 405"), "{bad}");
        }
        assert_eq!(exchange(&vec![b'a'; 2 * (REQUEST_HEAD_BYTES_MAX + REQUEST_BODY_BYTES_MAX)]).await, b"");
    }
}
