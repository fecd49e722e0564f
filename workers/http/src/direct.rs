//! Calls that are answered without a router: the few that come tens of thousands of times a second.
//!
//! What surrounds such a call is what surrounds every handler ([`crate::layer`]): request id, caller, panics,
//! problems, figures. What it is spared is the router's way through boxed services, extensions and a caller of its
//! own, which costs more than the call itself. A request that is not of the plain kind goes to the router, whose
//! handler answers it as well.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http::request::Parts;
use hyper::body::Incoming;
use sluice_identity::caller::Caller;

use crate::body;
use crate::caller::resolve;
use crate::doors::Peer;
use crate::layer::{Outer, caught, request_id, unproven};
use crate::reject::Reject;
use crate::verified::Shown;

/// Calls of a worker that need no router.
pub trait Direct: Send + Sync + 'static {
    /// The most bytes that the body of this request may have; `None` leaves the request to the router.
    fn takes(&self, request: &Request<Incoming>) -> Option<usize>;

    /// Answers a request that was taken: who makes it is verified, its body is whole.
    fn answer<'a>(
        &'a self,
        caller: Arc<Caller>,
        head: &'a Parts,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Response, Reject>>;
}

/// Such calls, and what surrounds them.
pub(crate) struct Directly {
    pub(crate) calls: Arc<dyn Direct>,
    pub(crate) outer: Arc<Outer>,
}

impl Directly {
    /// The limit of the body of a request that is answered here.
    pub(crate) fn takes(&self, request: &Request<Incoming>) -> Option<usize> {
        self.calls.takes(request)
    }

    /// Answers a request.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        (peer, shown): (&Peer, &Shown),
        limit: usize,
    ) -> Response {
        let (head, body) = request.into_parts();
        let id = request_id(&head.headers);
        let resolved = resolve(peer, &head.headers, &self.outer.known, Some(shown));
        let response = if resolved.is_unproven() {
            unproven()
        } else {
            let answered = async {
                let caller = resolved.shared()?.ok_or_else(Reject::unauthenticated)?;
                let body = body::read(&head.headers, body, limit).await?;
                self.calls.answer(caller, &head, body).await
            };
            caught(async { answered.await.unwrap_or_else(Reject::into_response) }, &id).await
        };
        self.outer.finish(peer, response, &id, head.uri.path())
    }
}
