//! HTTP/2: several requests in flight on one connection, each on a stream of its own.

use std::rc::Rc;

use anyhow::Context as _;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use tokio::sync::Mutex;

use super::failures::Fault;
use super::link::Place;
use super::{REFUSED_PAUSE, Shared, Target};
use crate::response::{BODY_BYTES_MAX, Response};
use crate::voice::Answered;

/// Headers that belong to a connection of HTTP/1.1, or have a place of their own in HTTP/2.
const LEFT_OUT: [&str; 3] = ["host", "connection", "transfer-encoding"];
const HEADERS_MAX: usize = 100;
/// Bytes of answers that may be on their way, on a stream and on a connection.
const WINDOW_BYTES: u32 = 8 << 20;

/// A connection that lanes share; made anew by the first that finds it broken.
pub(super) struct Channel {
    place: Place,
    sender: Mutex<Option<SendRequest<Bytes>>>,
}

impl Channel {
    /// Connects; an error when the server does not speak HTTP/2.
    pub(super) async fn open(target: &Target) -> anyhow::Result<Self> {
        let place = target.place.clone();
        let sender = connect(&place).await?;
        Ok(Self { place, sender: Mutex::new(Some(sender)) })
    }

    /// A sender whose connection takes another stream.
    async fn ready(&self) -> Result<SendRequest<Bytes>, Fault> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref()
            && let Ok(ready) = sender.clone().ready().await
        {
            return Ok(ready);
        }
        let refused = |error: anyhow::Error| Fault::Refused(format!("{error:#}"));
        let fresh = connect(&self.place).await.map_err(refused)?;
        *kept = Some(fresh.clone());
        fresh.ready().await.map_err(|error| Fault::Refused(error.to_string()))
    }

    /// Sends one request and waits for its whole answer, whose body is appended.
    async fn ask(&self, bytes: &[u8], body: &mut Vec<u8>) -> Result<u16, Fault> {
        let (request, sent) = told(bytes, self.place.tls.is_some())
            .map_err(|error| Fault::Malformed(format!("the request itself: {error:#}")))?;
        let mut sender = self.ready().await?;
        let (answer, mut stream) = sender.send_request(request, sent.is_empty()).map_err(fault)?;
        if !sent.is_empty() {
            stream.send_data(sent, true).map_err(fault)?;
        }
        let answer = answer.await.map_err(fault)?;
        let (status, mut rest) = (answer.status().as_u16(), answer.into_body());
        while let Some(piece) = rest.data().await {
            let piece = piece.map_err(fault)?;
            if body.len() + piece.len() > BODY_BYTES_MAX {
                return Err(Fault::Malformed("the body is too large".into()));
            }
            body.extend_from_slice(&piece);
            rest.flow_control().release_capacity(piece.len()).map_err(fault)?;
        }
        Ok(status)
    }
}

async fn connect(place: &Place) -> anyhow::Result<SendRequest<Bytes>> {
    let stream = place.stream().await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
    let shaking = tokio::time::timeout(super::link::CONNECT_LIMIT, builder.handshake::<_, Bytes>(stream));
    let (sender, connection) = shaking.await.context("no HTTP/2 in time")?.context("speak HTTP/2")?;
    // It ends with its senders; what it ends with, they are told.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

fn fault(error: h2::Error) -> Fault {
    if error.is_io() || error.is_go_away() || error.is_remote() && error.is_reset() {
        return Fault::Reset(error.to_string());
    }
    Fault::Malformed(error.to_string())
}

/// A request of HTTP/1.1 as one of HTTP/2, and its body.
fn told(bytes: &[u8], secure: bool) -> anyhow::Result<(Request<()>, Bytes)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = head.parse(bytes)? else { anyhow::bail!("no whole head") };
    let (method, path) = (head.method.context("no method")?, head.path.context("no path")?);
    let host = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    let host = std::str::from_utf8(host.context("no host")?.value)?;
    let uri = Uri::builder().scheme(if secure { "https" } else { "http" }).authority(host);
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes())?)
        .uri(uri.path_and_query(path).build()?)
        .body(())?;
    for header in head.headers.iter() {
        if !LEFT_OUT.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
            let name = HeaderName::from_bytes(header.name.as_bytes())?;
            request.headers_mut().append(name, HeaderValue::from_bytes(header.value)?);
        }
    }
    Ok((request, Bytes::copy_from_slice(&bytes[head_bytes..])))
}

/// Asks on lane `id` whenever it is rung for, until the measurement ends.
pub(super) async fn converse(shared: Shared, id: usize, channel: Rc<Channel>) -> anyhow::Result<()> {
    let bell = shared.borrow().bell(id).context("no stream")?;
    let (mut request, mut body) = (Vec::new(), Vec::new());
    loop {
        bell.notified().await;
        request.clear();
        body.clear();
        match shared.borrow_mut().outgoing(id) {
            Some(bytes) => request.extend_from_slice(bytes),
            None => continue,
        }
        let asked = channel.ask(&request, &mut body).await;
        match asked {
            Ok(status) => {
                let mut state = shared.borrow_mut();
                let right = state.expects(id).accepts(&body);
                let response =
                    Response { status, body_bytes: body.len(), used_bytes: body.len(), close: false };
                state.answer(id, Answered { response, right });
            }
            Err(fault) => {
                shared.borrow_mut().broken(id, &fault);
                if matches!(fault, Fault::Refused(_)) {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                shared.borrow_mut().mended(id, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_meaning() {
        let bytes = b"POST /a?b=c HTTP/1.1\r\nHost: h:1\r\nConnection: x\r\nAuthorization: Bearer t\r\n\
            Content-Length: 2\r\n\r\nok";
        let (request, body) = told(bytes, true).unwrap();
        assert_eq!((request.method().as_str(), &body[..]), ("POST", b"ok".as_slice()));
        assert_eq!(request.uri(), "https://h:1/a?b=c");
        assert_eq!(request.headers().len(), 2);
        assert_eq!(request.headers()["authorization"], "Bearer t");
        assert_eq!(told(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", false).unwrap().0.uri(), "http://h/");
        for bad in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: h\r\n", b"\r\n"] {
            assert!(told(bad, false).is_err());
        }
    }
}
