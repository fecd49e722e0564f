//! One call: connection, deadline, bounded answer.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use sluice_wire::header as names;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;

/// Largest answer that is read whole, bytes.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// Time for a call, from connecting to the last byte of its answer.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections kept for the next call.
const IDLE_MAX: usize = 8;

/// Calls one worker. Cheap to clone; clones share kept connections.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    target: Target,
    credential: Credential,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

enum Target {
    Unix(PathBuf),
    Tcp(String),
}

enum Credential {
    None,
    Internal(String),
    Bearer(String),
    /// The token in a file, whatever it is by then.
    BearerFile(PathBuf),
}

/// LIMIT: bytes of a file with a token.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not `http://host:port`.
    #[error("`{0}` is not an http address")]
    Address(String),
    /// The file of the token cannot be read.
    #[error("the token in {} cannot be read", .0.display())]
    Token(PathBuf, #[source] std::io::Error),
    /// No connection.
    #[error("no connection to {0}")]
    Connect(String, #[source] std::io::Error),
    /// The connection broke, or the answer is not HTTP.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The request cannot be built.
    #[error("the request is not valid")]
    Request(#[source] http::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is larger than the bound.
    #[error("the answer is larger than {REPLY_BYTES_MAX} bytes")]
    TooLarge,
    /// The answer is an error; the text is its problem body's code or detail.
    #[error("answered {status}: {text}")]
    Status {
        /// Status.
        status: StatusCode,
        /// Code and detail of the problem.
        text: String,
    },
    /// The answer has another shape than expected.
    #[error("the answer has an unexpected shape")]
    Shape(#[source] serde_json::Error),
}

impl Client {
    /// Calls over a Unix internal door with this role's own key.
    pub fn internal(socket: PathBuf, key: impl Into<String>) -> Self {
        Self::new(Target::Unix(socket), Credential::Internal(key.into()))
    }

    /// Calls an API port, `http://host:port`, with a bearer token or without.
    pub fn api(base: &str, token: Option<String>) -> Result<Self, ClientError> {
        Self::tcp(base, token.map_or(Credential::None, Credential::Bearer))
    }

    /// The same with a token from a file, which is read for each call: it can be renewed in place.
    pub fn api_with_file(base: &str, token: Option<PathBuf>) -> Result<Self, ClientError> {
        Self::tcp(base, token.map_or(Credential::None, Credential::BearerFile))
    }

    fn tcp(base: &str, credential: Credential) -> Result<Self, ClientError> {
        let authority = base.trim_end_matches('/').strip_prefix("http://");
        let authority = authority.filter(|rest| rest.contains(':') && !rest.contains('/'));
        let authority = authority.ok_or_else(|| ClientError::Address(base.to_owned()))?.to_owned();
        Ok(Self::new(Target::Tcp(authority), credential))
    }

    fn new(target: Target, credential: Credential) -> Self {
        Self(Arc::new(Shared { target, credential, idle: Mutex::new(Vec::new()) }))
    }

    /// Makes a call and reads the answer whole, within the default time.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Reply, ClientError> {
        self.call_within(CALL_TIMEOUT, method, path, headers, body).await
    }

    /// The same for a call that may take another time.
    pub async fn call_within(
        &self,
        within: Duration,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Reply, ClientError> {
        let request = self.request(method, path, headers, body.into())?;
        let whole = async {
            let (response, connection) = self.send(request).await?;
            let reply = read(response).await?;
            self.keep(connection).await;
            Ok(reply)
        };
        tokio::time::timeout(within, whole).await.map_err(|_| ClientError::Timeout(within))?
    }

    /// Calls with a JSON body (`Value::Null`: none) and reads a JSON answer; any status but 2xx is
    /// an error.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        self.json_within(CALL_TIMEOUT, method, path, body).await
    }

    /// The same for a call that may take another time.
    pub(crate) async fn json_within<T: DeserializeOwned>(
        &self,
        within: Duration,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let mut headers = HeaderMap::new();
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            body.to_string().into_bytes()
        };
        self.call_within(within, method, path, headers, bytes).await?.json()
    }

    /// Makes a call and hands back the answer's head with its body still streaming.
    pub(crate) async fn open(
        &self,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.request(Method::GET, path, headers, Bytes::new())?;
        let opened = tokio::time::timeout(CALL_TIMEOUT, self.send(request)).await;
        Ok(opened.map_err(|_| ClientError::Timeout(CALL_TIMEOUT))??.0)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        request = request.header(header::HOST, self.0.target.host());
        request = match &self.0.credential {
            Credential::None => request,
            Credential::Internal(key) => {
                request.header(names::X_INTERNAL_KEY, key).header(names::X_INTERNAL_SELF, "1")
            }
            Credential::Bearer(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            Credential::BearerFile(path) => {
                let token = token(path).map_err(|error| ClientError::Token(path.clone(), error))?;
                request.header(header::AUTHORIZATION, format!("Bearer {token}"))
            }
        };
        request.body(Full::new(body)).map_err(ClientError::Request)
    }

    /// Sends on a kept connection if one is alive, else on a new one. Only a request that was handed
    /// back unsent is sent again: nothing can happen twice.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), ClientError> {
        let kept = self.0.idle.lock().await.pop();
        if let Some(mut connection) = kept
            && connection.ready().await.is_ok()
        {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => match error.take_message() {
                    // Taken back unsent: nothing reached the worker.
                    Some(request) => return self.send_new(request).await,
                    None => return Err(ClientError::Broken(error.into_error())),
                },
            }
        }
        self.send_new(request).await
    }

    async fn send_new(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), ClientError> {
        let mut connection = self.0.target.connect().await?;
        let response = connection.send_request(request).await.map_err(ClientError::Broken)?;
        Ok((response, connection))
    }

    async fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.0.idle.lock().await;
        if idle.len() < IDLE_MAX && !connection.is_closed() {
            idle.push(connection);
        }
    }
}

/// The token in a file, without the end of its line.
fn token(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

impl Target {
    fn host(&self) -> &str {
        match self {
            Self::Unix(_) => "localhost",
            Self::Tcp(authority) => authority,
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                handshake(stream.map_err(|error| ClientError::Connect(path.display().to_string(), error))?)
                    .await
            }
            Self::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await;
                let stream = stream.map_err(|error| ClientError::Connect(authority.clone(), error))?;
                let _latency_only = stream.set_nodelay(true);
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, ClientError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
    tokio::spawn(async move {
        // The sender sees the same error; nothing is lost here.
        let _seen_by_sender = connection.await;
    });
    Ok(sender)
}

/// Reads an answer whole.
pub(crate) async fn read(response: Response<Incoming>) -> Result<Reply, ClientError> {
    let (parts, mut body) = response.into_parts();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ClientError::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > REPLY_BYTES_MAX {
            return Err(ClientError::TooLarge);
        }
        whole.extend_from_slice(data);
    }
    Ok(Reply { status: parts.status, headers: parts.headers, body: whole.freeze() })
}

impl Reply {
    /// The answer when its status is 2xx.
    pub fn ok(self) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let word = |name: &str| problem.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        Err(ClientError::Status { status: self.status, text: format!("{} {}", word("code"), word("detail")) })
    }

    /// The JSON of a 2xx answer.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let reply = self.ok()?;
        serde_json::from_slice(&reply.body).map_err(ClientError::Shape)
    }
}
