//! A server that answers as a test wants and remembers what it was asked. It has no engine: what one does is tried
//! against OpenBao in `tests/vault.py`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::harness::PATIENCE;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// What becomes of it.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Json(u16, Value),
    Text(u16, &'static str),
    /// Nothing, for ever.
    Silence,
    /// The connection ends.
    Close,
}

type Answers = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    asked: Mutex<Vec<Asked>>,
    came: Notify,
    answers: Mutex<Answers>,
    connections: Mutex<usize>,
}

impl Fake {
    pub(crate) async fn start(answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(None, answers).await
    }

    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            asked: Mutex::default(),
            came: Notify::new(),
            answers: Mutex::new(Arc::new(answers)),
            connections: Mutex::new(0),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                *state.connections.lock().unwrap() += 1;
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &state).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    /// Answers otherwise from now on.
    pub(crate) fn answer(&self, answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *self.state.answers.lock().unwrap() = Arc::new(answers);
    }

    /// What it was asked below this part of a target, in order.
    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        self.state.asked.lock().unwrap().iter().filter(|asked| asked.line.contains(part)).cloned().collect()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }

    /// Waits until it was asked this so many times.
    pub(crate) async fn was_asked(&self, part: &str, times: usize) {
        let wait = async {
            loop {
                let came = self.state.came.notified();
                if self.asked(part).len() >= times {
                    return;
                }
                came.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{part} {times} times: {:?}", self.state.asked.lock().unwrap());
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, state: &State) {
    let mut bytes = Vec::new();
    while let Some(asked) = next(&mut stream, &mut bytes).await {
        let answers = Arc::clone(&state.answers.lock().unwrap());
        let answer = answers(&asked);
        state.asked.lock().unwrap().push(asked);
        state.came.notify_waiters();
        let (status, text) = match answer {
            Answer::Json(status, value) => (status, value.to_string()),
            Answer::Text(status, text) => (status, text.to_owned()),
            Answer::Close => return,
            Answer::Silence => std::future::pending().await,
        };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all(&[head.as_bytes(), text.as_bytes()].concat()).await.is_err() {
            return;
        }
    }
}

async fn next<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> Option<Asked> {
    loop {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
            if rest.len() >= length {
                let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
                let asked = Asked { line, head: head.to_owned(), body: rest[..length].to_owned() };
                bytes.drain(..head.len() + 4 + length);
                return Some(asked);
            }
        }
        let mut more = [0; 4096];
        match stream.read(&mut more).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&more[..read]),
        }
    }
}

/// What a server says whose token does not end and whose engine is there; everything else is 404.
pub(crate) fn calm(asked: &Asked) -> Answer {
    match asked.line.as_str() {
        "GET /v1/auth/token/lookup-self" => {
            Answer::Json(200, json!({ "data": { "ttl": 0, "creation_ttl": 0, "renewable": false } }))
        }
        line if line.starts_with("GET /v1/sys/internal/ui/mounts/") => {
            Answer::Json(200, json!({ "data": { "type": "kv", "options": { "version": "2" } } }))
        }
        _ => Answer::Json(404, json!({ "errors": [] })),
    }
}

/// A certificate authority of its own: its file, and what a server for 127.0.0.1 shows.
pub(crate) fn authority(dir: &std::path::Path, name: &str) -> (PathBuf, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let file = dir.join(format!("{name}.pem"));
    std::fs::write(&file, root.pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    let own = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], own)
        .unwrap();
    (file, TlsAcceptor::from(Arc::new(config)))
}
