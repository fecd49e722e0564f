//! Bounded request bodies and strict queries.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use sluice_wire::code::Code;
use sluice_wire::json;
use tokio::time::Instant;

use crate::reject::Reject;

/// Largest body where a route sets no other limit, bytes.
pub const BODY_BYTES_DEFAULT: usize = 1 << 20;
/// Time for a whole body: what drips in slower holds a connection for nothing.
pub(crate) const BODY_WITHIN: Duration = Duration::from_mins(1);
/// Room made at once for a body that comes in pieces.
const BODY_ROOM_MAX: usize = 64 * 1024;
/// Longest silence inside a body.
pub(crate) const BODY_GAP_MAX: Duration = Duration::from_secs(30);

/// Largest body of a route; set it with `.layer(Extension(BodyLimit(n)))`.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

/// The whole body, at most as long as the route's limit.
#[derive(Debug)]
pub struct BodyBytes(pub Bytes);

/// The whole body of a request that does not say it is anything but JSON; it is for the handler to check.
#[derive(Debug)]
pub struct JsonBytes(pub Bytes);

/// A JSON body, parsed strictly: depth, duplicate keys, numbers, trailing bytes.
#[derive(Debug)]
pub struct StrictJson<T>(pub T);

/// The query string as a struct; give it `deny_unknown_fields` to refuse unknown parameters.
#[derive(Debug)]
pub struct StrictQuery<T>(pub T);

impl<S: Sync> FromRequest<S> for BodyBytes {
    type Rejection = Reject;

    async fn from_request(request: Request, _: &S) -> Result<Self, Reject> {
        let limit = request.extensions().get::<BodyLimit>().map_or(BODY_BYTES_DEFAULT, |limit| limit.0);
        let (parts, body) = request.into_parts();
        read(&parts.headers, body, limit).await.map(Self)
    }
}

impl<S: Sync> FromRequest<S> for JsonBytes {
    type Rejection = Reject;

    async fn from_request(request: Request, state: &S) -> Result<Self, Reject> {
        says_json(request.headers())?;
        let BodyBytes(body) = BodyBytes::from_request(request, state).await?;
        Ok(Self(body))
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for StrictJson<T> {
    type Rejection = Reject;

    async fn from_request(request: Request, state: &S) -> Result<Self, Reject> {
        let JsonBytes(body) = JsonBytes::from_request(request, state).await?;
        json::from_slice(&body).map(Self).map_err(|error| sluice_wire::problem::Problem::from(error).into())
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Reject> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|error| {
            // The inner text names the parameter; the outer one only says that it failed.
            let cause =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Reject::new(Code::BadQuery, cause)
        })
    }
}

/// Refuses a body that says it is not JSON. A missing type counts as JSON: the platforms' older clients
/// send none.
fn says_json(headers: &HeaderMap) -> Result<(), Reject> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Reject::new(Code::UnsupportedMediaType, "the body must be application/json"))
}

/// Whether the body is as it was made: no content coding, or the one that does nothing.
fn is_plain(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut words = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.all(|word| word.trim_ascii().is_empty() || word.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Reads a body whole.
pub(crate) async fn read<B>(headers: &HeaderMap, mut body: B, limit: usize) -> Result<Bytes, Reject>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if !is_plain(headers) {
        let detail = "the body has a content coding, and none is taken here: send it as it is";
        // RFC 9110, 15.5.16: the answer names the codings that are taken.
        return Err(Reject::new(Code::UnsupportedMediaType, detail)
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let too_large = || Reject::new(Code::BodyTooLarge, format!("the body is larger than {limit} bytes"));
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    // What is announced is not believed further than this.
    let room = announced.map_or(0, |bytes| (bytes as usize).min(BODY_ROOM_MAX));
    let end = Instant::now() + BODY_WITHIN;
    loop {
        let frame = tokio::time::timeout_at(end.min(Instant::now() + BODY_GAP_MAX), body.frame())
            .await
            .map_err(|_| Reject::new(Code::RequestTimeout, "the body stopped arriving"))?;
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let frame = frame.map_err(|_| Reject::new(Code::BadRequest, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(too_large());
        }
        if whole.is_empty() && body.is_end_stream() {
            // All in one piece, as small bodies are: no copy.
            return Ok(data);
        }
        if whole.is_empty() {
            whole.reserve(room);
        }
        whole.extend_from_slice(&data);
    }
}
