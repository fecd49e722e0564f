//! The equal-answer check: before anything is measured, every subject must give the same answer and do
//! what its name says. A fast wrong answer is no result.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use rustls::{ClientConnection, StreamOwned};

use crate::load::{Place, Tls};
use crate::question::Question;
use crate::response::{BODY_BYTES_MAX, HEAD_BYTES_MAX, parse};
use crate::subject::{PATH, Running, Subject, echo_path};

const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const CREDENTIAL_HEADER: &str = "authorization:";
const REQUEST_ID_HEADER: &str = "x-request-id:";

/// One answer: status and decoded body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Sends one request on a connection of its own and reads the answer.
pub(crate) fn ask(place: &Place, request: &[u8]) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect_timeout(&place.address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    match &place.tls {
        None => converse(stream, request),
        Some(Tls { config, name }) => {
            let session = ClientConnection::new(Arc::clone(config), name.clone())?;
            converse(StreamOwned::new(session, stream), request)
        }
    }
}

fn converse(mut stream: impl Read + Write, request: &[u8]) -> anyhow::Result<Answer> {
    stream.write_all(request)?;
    let (mut buffer, mut piece) = (Vec::new(), [0_u8; 16 * 1024]);
    loop {
        let mut body = Vec::new();
        if let Some(response) = parse(&buffer, Some(&mut body))? {
            return Ok(Answer { status: response.status, body });
        }
        ensure!(buffer.len() < 2 * (HEAD_BYTES_MAX + BODY_BYTES_MAX), "answer too long");
        match stream.read(&mut piece).context("read the answer")? {
            0 => bail!("closed before the answer was whole"),
            read => buffer.extend_from_slice(&piece[..read]),
        }
    }
}

/// Checks one subject against the expected body; an error says what differs.
pub(crate) fn equal_answer(
    subject: &dyn Subject,
    running: &Running,
    question: Question,
    expected: &[u8],
) -> anyhow::Result<()> {
    let able = running.authorization.as_deref();
    let place = running.place()?;
    let answer_to = |path: &str, credentials: Option<&str>| {
        ask(&place, running.request(question, path, credentials).fresh())
    };
    let answer = answer_to(PATH, able)?;
    ensure!(answer.status == 200, "status {} in place of 200: {}", answer.status, text(&answer.body));
    ensure!(answer.body == expected, "body differs from the origin's: {}", text(&answer.body));
    let refused = |credentials: Option<&str>, status: u16, what: &str| {
        let found = answer_to(PATH, credentials)?.status;
        ensure!(found == status, "status {found} in place of {status} {what}");
        Ok(())
    };
    if let Some(credentials) = able {
        refused(None, 401, "without a credential")?;
        refused(Some(&forged(credentials)), 401, "for a forged signature")?;
    }
    if let Some(credentials) = &running.powerless {
        refused(Some(credentials), 403, "without the permission")?;
    }
    if subject.keeps_keys() && question.idempotency_key {
        keys_are_kept(running, question)?;
    }
    let echo = answer_to(&echo_path(), able)?;
    let seen = String::from_utf8_lossy(&echo.body).to_ascii_lowercase();
    let passes_id = seen.lines().any(|line| line.starts_with(REQUEST_ID_HEADER));
    ensure!(passes_id || !subject.sets_request_id(), "the origin saw no request id: {seen}");
    let leaks = able.is_some() && seen.lines().any(|line| line.starts_with(CREDENTIAL_HEADER));
    ensure!(!leaks, "the origin saw the caller's credential");
    Ok(())
}

/// A key that comes again: the same request gets the same answer, another one is refused.
fn keys_are_kept(running: &Running, question: Question) -> anyhow::Result<()> {
    let mut request = running.request(question, PATH, running.authorization.as_deref());
    let place = running.place()?;
    let first = ask(&place, request.fresh())?;
    let again = ask(&place, request.same())?;
    ensure!(first == again, "a request sent again was answered {}, not {}", again.status, first.status);
    let other = ask(&place, &request.altered())?.status;
    ensure!(other == 422, "status {other} in place of 422 for a key of another request");
    Ok(())
}

/// The token with one digit of its signature changed.
pub(crate) fn forged(credentials: &str) -> String {
    // Not the last digit, whose lower bits mean nothing.
    let at = credentials.len().saturating_sub(10);
    let digit = if credentials[at..].starts_with('A') { "B" } else { "A" };
    format!("{}{digit}{}", &credentials[..at], &credentials[at + 1..])
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn once(answer: &'static [u8]) -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = [0; 1024];
            let taken = stream.read(&mut read).unwrap();
            assert!(taken > 0);
            stream.write_all(answer).unwrap();
        });
        Place::plain(address)
    }

    #[test]
    fn forgery_changes_one_digit_of_the_signature() {
        for token in ["Bearer a.b.0123456789AAAAAAAAAA", "Bearer a.b.0123456789BBBBBBBBBB"] {
            let forged = forged(token);
            assert_eq!(forged.len(), token.len());
            assert_eq!(forged.bytes().zip(token.bytes()).filter(|(a, b)| a != b).count(), 1, "{forged}");
        }
    }

    #[test]
    fn answer_is_read_whole_and_a_torn_one_is_an_error() {
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let whole = once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        assert_eq!(ask(&whole, request).unwrap(), Answer { status: 200, body: b"ok".to_vec() });
        let torn = once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort");
        assert!(ask(&torn, request).unwrap_err().to_string().contains("whole"));
        assert!(ask(&once(b"220 smtp\r\n\r\n"), request).is_err());
    }
}
