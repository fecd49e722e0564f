//! A client that speaks HTTP/2, with TLS or without: requests side by side on one connection.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::load::{Client, Fault, Target, arrived_once};
use super::origin::fresh;
use super::secure::NAME;

/// Requests of one exchange, every other one a write.
const SIDE_BY_SIDE: usize = 4;
/// Connections that may tell a client to leave before its requests are sent.
const CONNECTIONS: usize = 3;

/// Requests side by side, again and again. A connection that says goodbye is left; what was sent on it before
/// must be answered.
pub(crate) struct Two {
    target: Target,
    path: String,
    runtime: Runtime,
    sender: Option<SendRequest<Bytes>>,
}

impl Two {
    pub(crate) fn new(target: Target, path: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { target, path: path.to_owned(), runtime, sender: None }
    }
}

impl Client for Two {
    fn exchange(&mut self) -> Result<(), Fault> {
        let Self { target, path, runtime, sender } = self;
        runtime.block_on(async {
            let mut ready = None;
            for _ in 0..CONNECTIONS {
                let known = match sender.take() {
                    Some(known) => known,
                    None => connect(target).await?,
                };
                // One that says goodbye takes no more; another one does.
                if let Ok(known) = known.ready().await {
                    ready = Some(known);
                    break;
                }
            }
            let ready = ready.ok_or_else(|| Fault::Failed("goodbye on every new connection".to_owned()))?;
            *sender = Some(ready.clone());
            side_by_side(target, ready, path).await
        })
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Bytes>, Fault> {
    let failed = |error: std::io::Error| Fault::Connect(error.to_string());
    let stream = TcpStream::connect(target.address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let Some(tls) = &target.tls else { return greet(stream).await };
    let name = ServerName::try_from(NAME).unwrap();
    let shaken = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    greet(shaken.map_err(|error| Fault::Failed(format!("handshake: {error}")))?).await
}

async fn greet<T>(stream: T) -> Result<SendRequest<Bytes>, Fault>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let greeted = h2::client::handshake(stream).await;
    let (sender, connection) = greeted.map_err(|error| Fault::Failed(format!("greeting: {error}")))?;
    tokio::spawn(async move {
        // Whoever sent on it learns how it ended.
        drop(connection.await);
    });
    Ok(sender)
}

async fn side_by_side(target: &Target, mut sender: SendRequest<Bytes>, path: &str) -> Result<(), Fault> {
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let mut asked = Vec::new();
    for number in 0..SIDE_BY_SIDE {
        let id = (number % 2 == 1).then(fresh);
        let (method, path) = match id {
            Some(id) => ("POST", format!("{path}/once/{id}")),
            None => ("GET", path.to_owned()),
        };
        let request = Request::builder().method(method).uri(format!("{scheme}://{NAME}{path}")).body(());
        match sender.send_request(request.unwrap(), id.is_none()) {
            Ok((answer, mut body)) => {
                if id.is_some() {
                    // A stream that was refused meanwhile says so in its answer.
                    drop(body.send_data(Bytes::from_static(b"write"), true));
                }
                asked.push((id, answer));
            }
            // The goodbye came between two of them: nothing of this one was sent.
            Err(_) if number > 0 => break,
            Err(_) => return Ok(()),
        }
        sender = match sender.ready().await {
            Ok(sender) => sender,
            Err(_) => break,
        };
    }
    for (id, answer) in asked {
        let failed = |error: h2::Error| Fault::Failed(format!("{error}"));
        let answer = answer.await.map_err(failed)?;
        let (status, mut body) = (answer.status(), answer.into_body());
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(failed)?;
            drop(body.flow_control().release_capacity(piece.len()));
            text.extend(piece);
        }
        if status != 200 || text != b"ok" {
            return Err(Fault::Failed(format!("{status} {}", String::from_utf8_lossy(&text))));
        }
        id.map_or(Ok(()), arrived_once)?;
    }
    Ok(())
}
