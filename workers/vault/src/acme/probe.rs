//! The one connection the vault opens to the outside: it looks an `http-01` challenge up.
//!
//! Whoever places an order chooses where it goes, as far as names can. So the name is resolved once, each of its
//! addresses is held against the networks of the configuration, and the connection goes to such an address, never to
//! the name again: what a resolver says a second time changes nothing. The port is the configuration's, the path is
//! ours, nothing of the answer but "as expected" or not is told, and no redirect is followed: none is needed to
//! answer, and each would be a choice of the other side. Wins when two hold: the deadline.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sluice_schema::Acme;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ordering::Job;
use super::problem::{Refusal, Word};

/// Time for everything.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time for one connection.
const CONNECT: Duration = Duration::from_secs(3);
/// LIMIT: addresses of a name that are tried.
const ADDRESSES_MAX: usize = 2;
/// LIMIT: bytes of an answer's body. What is expected has 130.
const BODY_BYTES_MAX: usize = 1024;
/// LIMIT: bytes and fields of an answer's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// Looks a challenge up.
pub(super) async fn look_up(job: &Job, reach: &Acme) -> Result<(), Refusal> {
    within(DEADLINE, find(job, reach)).await
}

async fn within(time: Duration, look: impl Future<Output = Result<(), Refusal>>) -> Result<(), Refusal> {
    let late = |_| Err(Refusal::new(Word::Connection, "no whole answer in time"));
    timeout(time, look).await.unwrap_or_else(late)
}

async fn find(job: &Job, reach: &Acme) -> Result<(), Refusal> {
    let resolved = tokio::net::lookup_host((job.name.as_str(), reach.http_port)).await;
    let resolved: Vec<SocketAddr> = match resolved {
        Ok(found) => found.collect(),
        Err(_) => return Err(Refusal::new(Word::Dns, "the name has no address")),
    };
    let allowed = chosen(&resolved, reach);
    if allowed.is_empty() {
        let detail = "no address of the name lies where challenges are looked up";
        return Err(Refusal::new(Word::Connection, detail));
    }
    let stream = connect(&allowed).await?;
    let body = fetch(stream, job, reach.http_port).await?;
    // RFC 8555, section 8.3: blanks at the end do not count.
    if body.trim_ascii_end() == job.expected.as_bytes() {
        return Ok(());
    }
    Err(Refusal::new(Word::IncorrectResponse, "something else is there than the key authorization"))
}

/// Those addresses that may be connected to. Pure.
fn chosen(resolved: &[SocketAddr], reach: &Acme) -> Vec<SocketAddr> {
    let permits = |ip: IpAddr| {
        // An address in another's clothes is that other one.
        let ip = ip.to_canonical();
        !ip.is_unspecified()
            && !ip.is_multicast()
            && reach.networks.iter().any(|network| network.contains(&ip))
    };
    resolved.iter().filter(|address| permits(address.ip())).take(ADDRESSES_MAX).copied().collect()
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Refusal> {
    for address in addresses {
        if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(address)).await {
            return Ok(stream);
        }
    }
    Err(Refusal::new(Word::Connection, "nobody takes a connection there"))
}

async fn fetch(stream: TcpStream, job: &Job, port: u16) -> Result<Vec<u8>, Refusal> {
    let broken = |_| Refusal::new(Word::Connection, "what is there speaks no proper HTTP");
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let (mut sender, connection) =
        builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async move {
        let answer = sender.send_request(request(job, port)?).await.map_err(broken)?;
        if answer.status().is_redirection() {
            return Err(Refusal::new(Word::IncorrectResponse, "the answer is a redirect; none is followed"));
        }
        if answer.status() != 200 {
            return Err(Refusal::new(Word::IncorrectResponse, "the status of the answer is not 200"));
        }
        read(answer.into_body()).await
    };
    // The connection moves while the exchange is waited for, and ends with it.
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        done = &mut exchange => done,
        closed = &mut connection => match closed {
            // What came before the end may be whole.
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

fn request(job: &Job, port: u16) -> Result<Request<Empty<Bytes>>, Refusal> {
    let host = if port == 80 { job.name.clone() } else { format!("{}:{port}", job.name) };
    Request::get(format!("/.well-known/acme-challenge/{}", job.token))
        .header(header::HOST, host)
        .header(header::USER_AGENT, "sluice-acme")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| Refusal::new(Word::ServerInternal, "the request cannot be built"))
}

async fn read(mut body: hyper::body::Incoming) -> Result<Vec<u8>, Refusal> {
    let broken = |_| Refusal::new(Word::Connection, "the answer breaks off");
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await.transpose().map_err(broken)? {
        let data = frame.into_data().unwrap_or_default();
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(Refusal::new(Word::IncorrectResponse, "the answer is longer than 1024 bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect()
    }

    #[test]
    fn only_addresses_of_the_networks_are_connected_to() {
        let bad = [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "::",
            "::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "224.0.0.1",
            "8.8.8.8",
            "100.100.100.200",
        ];
        let defaults = Acme::default();
        assert_eq!(chosen(&addresses(&bad), &defaults), []);
        let good = ["127.0.0.1", "10.0.0.1", "::ffff:192.168.1.1", "172.16.0.1"];
        let found = chosen(&addresses(&good), &defaults);
        assert_eq!(found, addresses(&["10.0.0.1", "::ffff:192.168.1.1"]), "two at most, as they came");
        let nowhere = Acme { networks: Vec::new(), ..Acme::default() };
        assert!(chosen(&addresses(&good), &nowhere).is_empty());
    }

    fn reach(listener: &TcpListener) -> Acme {
        let http_port = listener.local_addr().unwrap().port();
        Acme { networks: vec!["127.0.0.0/8".parse().unwrap()], http_port, ..Acme::default() }
    }

    fn job() -> Job {
        Job {
            order: String::new(),
            at: 0,
            since: jiff::Timestamp::UNIX_EPOCH,
            name: "localhost".into(),
            token: "token".into(),
            expected: "token.print".into(),
            _permit: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
        }
    }

    /// What a lookup finds where somebody answers like this.
    async fn found(answer: Vec<u8>) -> Result<(), Refusal> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (reach, job) = (reach(&listener), job());
        let other = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let read = stream.read(&mut asked).await.unwrap();
            let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
            // It may have heard enough before everything is written.
            let _either_way = stream.write_all(&answer).await;
            let _either_way = stream.shutdown().await;
            asked
        };
        let (asked, found) = tokio::join!(other, look_up(&job, &reach));
        assert!(asked.starts_with("GET /.well-known/acme-challenge/token HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: localhost:{}\r\n", reach.http_port)), "{asked}");
        found
    }

    #[tokio::test]
    async fn only_the_expected_text_is_a_proof() {
        let plain = |body: &str| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        assert_eq!(found(plain("token.print")).await, Ok(()));
        assert_eq!(found(plain("token.print\r\n ")).await, Ok(()));
        assert_eq!(found(b"HTTP/1.0 200 OK\r\n\r\ntoken.print\n".to_vec()).await, Ok(()), "to the end");
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ntoken\r\n6\r\n.print\r\n0\r\n\r\n";
        assert_eq!(found(chunked.to_vec()).await, Ok(()));
        let huge = format!("HTTP/1.1 200 OK\r\n\r\n{}", "token.print ".repeat(100_000));
        let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1_000));
        let wrong: [(Vec<u8>, Word); 9] = [
            (plain("token.prin"), Word::IncorrectResponse),
            (plain(" token.print"), Word::IncorrectResponse),
            (plain(""), Word::IncorrectResponse),
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 11\r\n\r\ntoken.print".to_vec(), Word::IncorrectResponse),
            (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 11\r\n\r\ntoken.print".to_vec(), Word::IncorrectResponse),
            (huge.into_bytes(), Word::IncorrectResponse),
            (fields.into_bytes(), Word::Connection),
            (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), Word::Connection),
            (b"".to_vec(), Word::Connection),
        ];
        for (answer, word) in wrong {
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
            assert_eq!(found(answer).await.unwrap_err().word, word, "{shown}");
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_longer_than_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reach = reach(&listener);
        // It is in the queue of connections and never answered.
        let late = within(Duration::from_millis(50), find(&job(), &reach)).await.unwrap_err();
        assert_eq!(late.word, Word::Connection);
        assert!(late.detail.contains("in time"), "{late}");
    }
}
