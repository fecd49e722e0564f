//! Calls of the dashboard to the workers, passed on with the viewer's rights.
//!
//! Only what reads, and calculations, which change nothing. The worker believes this role's key and takes
//! the viewer for the caller, so its own scope checks apply. Answers stream through unbuffered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sluice_http::{BodyBytes, Reject};
use sluice_wire::code::Code;
use sluice_wire::header::{LAST_EVENT_ID, X_AUTH_METHOD, X_INTERNAL_KEY, X_PERMISSIONS, X_USER};
use sluice_wire::role::Role;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Control;
use super::access::Access;

/// Until a worker's answer begins.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn events(
    State(control): State<Arc<Control>>,
    uri: Uri,
    headers: HeaderMap,
    access: Access,
) -> Result<Response, Reject> {
    pass(&control, &access, Role::Events, Method::GET, &uri, &headers, Bytes::new()).await
}

pub(super) async fn series(
    State(control): State<Arc<Control>>,
    uri: Uri,
    headers: HeaderMap,
    access: Access,
) -> Result<Response, Reject> {
    pass(&control, &access, Role::Calc, Method::GET, &uri, &headers, Bytes::new()).await
}

pub(super) async fn calculations(
    State(control): State<Arc<Control>>,
    uri: Uri,
    headers: HeaderMap,
    access: Access,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    pass(&control, &access, Role::Calc, Method::POST, &uri, &headers, body).await
}

async fn pass(
    control: &Control,
    access: &Access,
    role: Role,
    method: Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, Reject> {
    let (user, permissions) = access.viewer()?;
    let Ok(place) = Arc::clone(&control.relays).try_acquire_owned() else {
        return Err(Reject::new(Code::Overloaded, "too many calls are relayed at once"));
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, "localhost")
        .header(X_INTERNAL_KEY, control.shared.internal_key.clone())
        .header(X_USER, user)
        .header(X_PERMISSIONS, permissions)
        .header(X_AUTH_METHOD, "control");
    for name in [ACCEPT.as_str(), CONTENT_TYPE.as_str(), LAST_EVENT_ID] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let request = request
        .body(Full::new(body))
        .map_err(|_| Reject::new(Code::BadRequest, "the request cannot be passed on"))?;
    let answer = tokio::time::timeout(HEAD_TIMEOUT, send(control, role, request))
        .await
        .map_err(|_| Reject::new(Code::UpstreamTimeout, "the worker did not answer in time"))??;
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(Body::new(Relayed { body, _place: place }));
    *response.status_mut() = parts.status;
    for name in [CONTENT_TYPE.as_str(), "cache-control", "retry-after", "x-accel-buffering"] {
        if let Some(value) = parts.headers.get(name) {
            response.headers_mut().insert(http::HeaderName::from_static(name), HeaderValue::clone(value));
        }
    }
    Ok(response)
}

async fn send(
    control: &Control,
    role: Role,
    request: Request<Full<Bytes>>,
) -> Result<http::Response<Incoming>, Reject> {
    let away = || Reject::new(Code::WorkerUnavailable, "the worker is not running");
    let socket = control.shared.sockets.get(&role).ok_or_else(away)?;
    let stream = UnixStream::connect(socket).await.map_err(|_| away())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| away())?;
    tokio::spawn(async move {
        // The answer's body reports what goes wrong here.
        drop(connection.await);
    });
    sender.send_request(request).await.map_err(|_| away())
}

/// A worker's body, with the place it takes.
struct Relayed {
    body: Incoming,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
