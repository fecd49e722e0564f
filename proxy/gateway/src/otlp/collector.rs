//! One collector: its connection and one call at a time.
//!
//! `https` trusts the certificates that the system trusts. LIMIT: [`CALL_WITHIN`] a call, [`ANSWER_BYTES`] of
//! its answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for a call, from connecting to the last byte of its answer.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// LIMIT: bytes of an answer.
const ANSWER_BYTES: usize = 64 << 10;
/// Where systems keep the certificates they trust.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A call that was not answered well.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectorError {
    /// No connection.
    #[error("no connection to the collector")]
    Connect(#[from] io::Error),
    /// The connection broke, or the answer is not HTTP.
    #[error("the connection to the collector broke")]
    Broken(#[from] hyper::Error),
    /// No answer in time.
    #[error("the collector did not answer within {CALL_WITHIN:?}")]
    Late,
    /// An answer other than 2xx.
    #[error("the collector answered {0}")]
    Status(StatusCode),
}

impl CollectorError {
    /// Whether the same call may go well later: what is refused as malformed will be refused again.
    pub(super) fn is_worth_another(&self) -> bool {
        match self {
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => true,
        }
    }
}

/// A collector.
pub(super) struct Collector {
    endpoint: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Collector {
    /// The collector at `http://host:port` or `https://host:port`; `None` where that is no address.
    pub(super) fn new(endpoint: &str) -> Option<Self> {
        Self::trusting(endpoint, system_roots)
    }

    fn trusting(endpoint: &str, roots: impl FnOnce() -> RootCertStore) -> Option<Self> {
        let uri: Uri = endpoint.parse().ok()?;
        let tls = uri.scheme_str()? == "https";
        Some(Self {
            endpoint: endpoint.to_owned(),
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls: tls.then(|| connector(roots())),
            connection: None,
        })
    }

    /// The address it was made for.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Posts one body; the number of spans that the collector says it did not take.
    pub(super) async fn post(&mut self, body: Bytes) -> Result<u64, CollectorError> {
        let called = tokio::time::timeout(CALL_WITHIN, self.call(body)).await;
        let result = called.unwrap_or(Err(CollectorError::Late));
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn call(&mut self, body: Bytes) -> Result<u64, CollectorError> {
        let mut connection = match self.kept().await {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from_static("/v1/traces");
        let authority = self.endpoint.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
        if let Ok(host) = http::HeaderValue::from_str(authority) {
            request.headers_mut().insert(HOST, host);
        }
        request.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        if !head.status.is_success() {
            return Err(CollectorError::Status(head.status));
        }
        // An answer that is too large says nothing about what was taken: the status does.
        let Ok(body) = body else { return Ok(0) };
        self.connection = Some(connection);
        Ok(refused(&body.to_bytes()))
    }

    /// The connection of the last call, where it still stands.
    async fn kept(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut kept = self.connection.take()?;
        kept.ready().await.is_ok().then_some(kept)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CollectorError> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let Some(tls) = &self.tls else { return handshake(socket).await };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        handshake(tls.connect(name, socket).await?).await
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, CollectorError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The sender sees the same error.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn connector(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the ring provider has suites for both versions of TLS");
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let bundle = BUNDLES.iter().find_map(|path| CertificateDer::pem_file_iter(path).ok());
    roots.add_parsable_certificates(bundle.into_iter().flatten().filter_map(Result::ok));
    roots
}

/// `{"partialSuccess":{"rejectedSpans":"3"}}`, the number as a text or as itself.
fn refused(answer: &[u8]) -> u64 {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let of = |text: &str| Collector::new(text).map(|one| (one.host, one.port, one.tls.is_some()));
        assert_eq!(of("http://127.0.0.1:4318"), Some(("127.0.0.1".into(), 4318, false)));
        assert_eq!(of("http://[::1]:4318/"), Some(("::1".into(), 4318, false)));
        assert_eq!(of("nothing"), None);
    }

    #[test]
    fn a_partial_success_is_counted() {
        assert_eq!(refused(br#"{"partialSuccess":{"rejectedSpans":"3"}}"#), 3);
        assert_eq!(refused(br#"{"partialSuccess":{"rejectedSpans":4}}"#), 4);
        assert_eq!([refused(b"{}"), refused(b"junk"), refused(b"")], [0, 0, 0]);
    }

    #[test]
    fn only_what_may_go_well_later_is_tried_again() {
        let status = |code| CollectorError::Status(StatusCode::from_u16(code).unwrap()).is_worth_another();
        assert!(status(503) && status(429) && CollectorError::Late.is_worth_another());
        assert!(!status(400) && !status(404) && !status(500));
    }

    #[tokio::test]
    async fn a_collector_is_reached_over_tls_only_where_it_is_trusted() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let leaf = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(leaf.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.cert.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut seen = Vec::new();
                while !seen.ends_with(b"{\"a\":1}")
                    && stream.read_buf(&mut seen).await.is_ok_and(|count| count > 0)
                {}
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                drop(stream.write_all(answer).await);
            }
        });
        let trusted = leaf.cert.der().clone();
        let mut good = Collector::trusting(&endpoint, || {
            let mut roots = RootCertStore::empty();
            roots.add(trusted).unwrap();
            roots
        })
        .unwrap();
        assert_eq!(good.post(Bytes::from_static(b"{\"a\":1}")).await.unwrap(), 0);
        let mut bad = Collector::trusting(&endpoint, RootCertStore::empty).unwrap();
        let refused = bad.post(Bytes::from_static(b"{\"a\":1}")).await.unwrap_err();
        assert!(matches!(refused, CollectorError::Connect(_)), "{refused}");
    }
}
