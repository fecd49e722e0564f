//! One try at an instance: a stream to it, the call's head there, then both directions.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use h2::Reason;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Uri};
use pingora::http::RequestHeader;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr as _, Result};

use super::flow::Flow;
use super::lines::Lines;
use crate::ctx::Exchange;
use crate::forward::{prepare, request_piece};
use crate::h2::{Asked, BodyError, Reply};
use crate::kill;
use crate::peer::check_instance;
use crate::state::Shared;

/// Why a try came to nothing.
pub(super) enum Failed {
    /// It was not made; the exchange has the answer, or the client has left.
    Refused(Box<Error>),
    /// The instance does not speak HTTP/2.
    Plain(Box<HttpPeer>),
    /// No connection.
    Connect(Box<Error>),
    /// The connection stood.
    Under(Box<Error>),
}

/// Makes one try, to the end of the call where it succeeds.
pub(super) async fn once(
    shared: &Arc<Shared>,
    lines: &Lines,
    asked: &mut Asked,
    x: &mut Exchange,
) -> Result<(), Failed> {
    let link = Arc::clone(&x.arrival.link);
    let reached = while_present(&mut asked.reply, reach(shared, lines, x, &asked.head.headers)).await;
    let (peer, mut session) = match reached {
        Some(reached) => reached?,
        None => return BodyError::Reset.fail(&link).map_err(Failed::Refused),
    };
    let flown = fly(shared, asked, x, &peer, &mut session).await;
    lines.release(session, &peer);
    flown.map_err(|error| {
        if matches!(error.etype(), ErrorType::H2Downgrade | ErrorType::InvalidH2)
            && peer.options.alpn.get_min_http_version() == 1
        {
            declined_http2(x);
        }
        Failed::Under(error)
    })
}

/// A stream to the instance that is next.
async fn reach(
    shared: &Shared,
    lines: &Lines,
    x: &mut Exchange,
    headers: &HeaderMap,
) -> Result<(Box<HttpPeer>, Http2Session), Failed> {
    let peer = kill::choose(shared, x, headers).await.map_err(Failed::Refused)?.peer(x);
    let endpoint = x.attempt.as_ref().and_then(|attempt| attempt.endpoint.as_ref());
    if !endpoint.is_some_and(|endpoint| endpoint.speaks_http2()) {
        return Err(Failed::Plain(peer));
    }
    let made = lines.stream(&peer).await.map_err(|mut error| {
        error.as_up();
        Failed::Connect(error)
    })?;
    let Some((session, reused)) = made else {
        declined_http2(x);
        return Err(Failed::Plain(peer));
    };
    if let Some(attempt) = x.attempt.as_mut().filter(|_| !reused) {
        attempt.connected = Some(attempt.started.elapsed());
    }
    Ok((peer, session))
}

fn declined_http2(x: &Exchange) {
    if let Some(endpoint) = x.attempt.as_ref().and_then(|attempt| attempt.endpoint.as_ref()) {
        endpoint.declined_http2();
    }
}

/// Does `work` while the client stays; `None` when it leaves.
async fn while_present<T>(reply: &mut Reply, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => reply.poll_left(cx).map(|()| None),
    })
    .await
}

/// Sends the head and carries both directions.
async fn fly(
    shared: &Arc<Shared>,
    asked: &mut Asked,
    x: &mut Exchange,
    peer: &HttpPeer,
    session: &mut Http2Session,
) -> Result<()> {
    check_instance(shared, x, peer, session.digest().and_then(|digest| digest.ssl_digest.as_deref()))?;
    let mut head = asked.head.clone();
    prepare(shared, x, &mut head)?;
    direct(&mut head, peer.is_tls())?;
    let bodiless = asked.body.is_empty();
    session.write_request_header(Box::new(head), bodiless).map_err(Error::into_up)?;
    if bodiless {
        request_piece(x, &mut None, true)?;
    }
    let sent = session.take_request_body_writer();
    let sent = sent.ok_or_else(|| Error::explain(ErrorType::InternalError, "a head without its stream"))?;
    let mut flow = Flow::new(shared, asked, x, session, sent, bodiless)?;
    let flown = poll_fn(|cx| flow.poll(cx)).await;
    if flown.is_err() {
        flow.cancel();
    }
    flown
}

/// Puts what HTTP/1 says in `Host` into the target, as HTTP/2 has it.
fn direct(head: &mut RequestHeader, secure: bool) -> Result<()> {
    let host = head.remove_header(&HOST);
    let host = host.as_ref().map_or(&b""[..], |host| host.as_bytes());
    let authority = Authority::try_from(host)
        .or_err(ErrorType::InvalidHTTPHeader, "the instance's authority")
        .map_err(Error::into_in)?;
    if authority.as_str().contains('@') {
        return Err(Error::new_in(ErrorType::InvalidHTTPHeader));
    }
    let target = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build();
    head.set_uri(uri.or_err(ErrorType::InvalidHTTPHeader, "the instance's target").map_err(Error::into_in)?);
    Ok(())
}

/// The reason that an instance gave when it broke its answer off.
pub(super) fn reset_of(error: &Error) -> Option<Reason> {
    let fault = error.root_cause().downcast_ref::<h2::Error>()?;
    let told = fault.is_reset() && fault.is_remote();
    fault.reason().filter(|reason| told && *reason != Reason::NO_ERROR)
}
