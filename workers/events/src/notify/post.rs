//! One POST to somebody outside: a connection of its own, a deadline, no redirects, no body read.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// LIMIT: from connecting to the head of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// LIMIT: how long a target may put off the next try.
const PUT_OFF_MAX: Duration = Duration::from_secs(600);
/// LIMIT: bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What the target answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// When it wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
}

/// Why there is no answer. No text holds the address: it is mostly a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("the address is not one")]
    Address,
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("no answer within {DEADLINE:?}")]
    Timeout,
}

/// Sends a body to an address; `id` lets the target tell a repeat.
pub(crate) async fn post(
    tls: &TlsConnector,
    url: &str,
    id: &str,
    body: Vec<u8>,
) -> Result<Answer, PostError> {
    tokio::time::timeout(DEADLINE, exchange(tls, url, id, body)).await.map_err(|_| PostError::Timeout)?
}

async fn exchange(tls: &TlsConnector, url: &str, id: &str, body: Vec<u8>) -> Result<Answer, PostError> {
    let uri: Uri = url.parse().map_err(|_| PostError::Address)?;
    let host = uri.host().ok_or(PostError::Address)?;
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let request = request(&uri, id, body)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await.map_err(PostError::Connect)?;
    if !secure {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| PostError::Address)?;
    send(tls.connect(name, stream).await.map_err(PostError::Connect)?, request).await
}

fn request(uri: &Uri, id: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, PostError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let mut request = Request::post(path)
        .header(HOST, host)
        .header(USER_AGENT, "sluice")
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header("idempotency-key", id);
    if let Some(user) = user {
        request = request.header(AUTHORIZATION, basic(user)?);
    }
    request.body(Full::new(Bytes::from(body))).map_err(|_| PostError::Address)
}

/// The user and password of an address, `%41` and the like resolved.
fn basic(user: &str) -> Result<HeaderValue, PostError> {
    let mut plain = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &behind[2..] } else { behind };
    }
    let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain)));
    let mut value = value.map_err(|_| PostError::Address)?;
    value.set_sensitive(true);
    Ok(value)
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, PostError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(PostError::Broken)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(PostError::Broken)?;
        Ok(Answer { status: response.status(), retry_after: retry_after(response.headers()) })
    };
    tokio::pin!(answered, connection);
    // The connection is driven here and dropped with the answer's body unread.
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended.map_err(PostError::Broken)?;
            answered.await
        }
    }
}

fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<f64>().ok()?;
    let seconds = seconds.clamp(0.0, PUT_OFF_MAX.as_secs_f64());
    Some(Duration::from_secs_f64(if seconds.is_nan() { 0.0 } else { seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_an_address_are_told_as_basic() {
        let uri: Uri = "https://al%40x:p%3a@host:8443/hook?a=b".parse().unwrap();
        let request = request(&uri, "id", Vec::new()).unwrap();
        assert_eq!(request.headers()[AUTHORIZATION], format!("Basic {}", STANDARD.encode("al@x:p:")));
        assert_eq!((request.headers()[HOST].as_bytes(), request.uri().path()), (&b"host:8443"[..], "/hook"));
        assert!(!format!("{:?}", request.headers()).contains("Basic"));
    }

    #[test]
    fn a_target_puts_off_for_a_while_at_most() {
        let of = |text: &str| {
            let headers = [(RETRY_AFTER, HeaderValue::from_str(text).unwrap())].into_iter().collect();
            retry_after(&headers)
        };
        assert_eq!(of("1.5"), Some(Duration::from_millis(1_500)));
        assert_eq!(of("-1"), Some(Duration::ZERO));
        assert_eq!(of("NaN"), Some(Duration::ZERO));
        assert_eq!((of("1e99"), of("soon")), (Some(PUT_OFF_MAX), None));
    }
}
