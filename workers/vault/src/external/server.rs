//! The one server that is spoken to: its connections, a request, an answer. Nothing is connected to but its address;
//! no redirect is followed, no proxy of the environment asked. Bodies and heads are bounded, every call has a deadline.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sluice_schema::{ExternalVault, InstanceUrl, Scheme};
use sluice_wire::header::X_VAULT_TOKEN;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::OpenError;

/// LIMIT: bytes of an answer: a value of 1 MiB with what describes it, or a folder of many names.
const BODY_BYTES_MAX: usize = 4 << 20;
/// LIMIT: bytes and fields of an answer's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;
/// LIMIT: certificates of a file.
const CERTIFICATES_MAX: usize = 64;
/// LIMIT: connections kept for the next call, and for how long: less than servers keep theirs.
const IDLE_MAX: usize = 16;
const IDLE_FOR: Duration = Duration::from_secs(30);

const VAULT_REQUEST: HeaderName = HeaderName::from_static("x-vault-request");
const TOKEN: HeaderName = HeaderName::from_static(X_VAULT_TOKEN);

type Sender = SendRequest<Full<Bytes>>;

/// The server.
pub(super) struct Server {
    url: InstanceUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token: HeaderValue,
    host: HeaderValue,
    timeout: Duration,
    idle: Mutex<Vec<(Sender, Instant)>>,
}

/// A call, below `/v1/`.
pub(super) struct Question {
    pub(super) method: Method,
    /// With its query.
    pub(super) target: String,
    pub(super) body: Option<Bytes>,
}

/// What was answered.
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer. No text holds a token or a value.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("no whole answer in time")]
    Timeout,
    #[error("the answer has more than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the request cannot be built")]
    Request(#[source] http::Error),
}

impl CallError {
    /// Whether the server has certainly not done it.
    pub(super) const fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Request(_))
    }
}

impl Server {
    /// Reads whom to believe.
    pub(super) fn open(config: &ExternalVault) -> Result<Self, OpenError> {
        let url = config.url.clone().ok_or(OpenError::Incomplete)?;
        let token = config.token.as_ref().ok_or(OpenError::Incomplete)?;
        let mut token = HeaderValue::from_bytes(token.expose()).map_err(|_| OpenError::Token)?;
        token.set_sensitive(true);
        let host = HeaderValue::from_str(&url.authority()).map_err(|_| OpenError::Host)?;
        let tls = match url.scheme {
            Scheme::Https => {
                let name = ServerName::try_from(url.host.clone()).map_err(|_| OpenError::Host)?;
                Some((connector(config.ca.as_deref())?, name))
            }
            _ => None,
        };
        Ok(Self { url, tls, token, host, timeout: config.timeout, idle: Mutex::default() })
    }

    /// Asks; the deadline covers everything from connecting to the last byte.
    pub(super) async fn ask(&self, question: Question) -> Result<Told, CallError> {
        let request = self.request(question).map_err(CallError::Request)?;
        let sent = AtomicBool::new(false);
        let whole = async {
            let (response, sender) = self.send(request, &sent).await?;
            let status = response.status().as_u16();
            let body = read(response.into_body()).await?;
            self.keep(sender);
            Ok(Told { status, body })
        };
        let late = || {
            let waited = io::Error::from(io::ErrorKind::TimedOut);
            if sent.load(Ordering::Relaxed) { CallError::Timeout } else { CallError::Connect(waited) }
        };
        tokio::time::timeout(self.timeout, whole).await.unwrap_or_else(|_| Err(late()))
    }

    fn request(&self, question: Question) -> Result<Request<Full<Bytes>>, http::Error> {
        let content_type = if question.method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let mut request = Request::builder()
            .method(question.method)
            .uri(format!("/v1/{}", question.target))
            .header(header::HOST, self.host.clone())
            .header(TOKEN, self.token.clone())
            .header(VAULT_REQUEST, HeaderValue::from_static("true"))
            .header(header::USER_AGENT, HeaderValue::from_static("sluice"));
        if question.body.is_some() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        request.body(Full::new(question.body.unwrap_or_default()))
    }

    /// Sends on a kept connection if one is alive, else on a new one. Only what was handed back unsent is sent again.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        sent: &AtomicBool,
    ) -> Result<(Response<Incoming>, Sender), CallError> {
        while let Some(mut sender) = self.kept() {
            if sender.ready().await.is_err() {
                continue;
            }
            sent.store(true, Ordering::Relaxed);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(CallError::Broken(error.into_error())),
                },
            }
            sent.store(false, Ordering::Relaxed);
        }
        let mut sender = self.connect().await.map_err(CallError::Connect)?;
        sent.store(true, Ordering::Relaxed);
        let response = sender.send_request(request).await.map_err(CallError::Broken)?;
        Ok((response, sender))
    }

    async fn connect(&self) -> io::Result<Sender> {
        let stream = TcpStream::connect((self.url.host.as_str(), self.url.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => handshake(connector.connect(name.clone(), stream).await?).await,
        }
    }

    fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE_FOR);
        idle.pop().map(|(sender, _)| sender)
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push((sender, Instant::now()));
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<Sender>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        // The sender sees the same error; nothing is lost here.
        let _ended = connection.await;
    });
    Ok(sender)
}

async fn read(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, CallError> {
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await.transpose().map_err(CallError::Broken)? {
        let data = frame.into_data().unwrap_or_default();
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(CallError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// TLS that believes the authorities of this machine, or those of a file alone.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, OpenError> {
    let mut store = RootCertStore::empty();
    let roots = match ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    // A machine with an odd certificate among its roots trusts the others.
    let (added, _) = store.add_parsable_certificates(roots);
    if added == 0 {
        return Err(OpenError::Nobody);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(OpenError::Tls)?.with_root_certificates(store).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let unread = |_| OpenError::Ca(path.to_owned());
    let found = CertificateDer::pem_file_iter(path).map_err(unread)?;
    found.take(CERTIFICATES_MAX).collect::<Result<_, _>>().map_err(unread)
}
