//! The dashboard's files, embedded in the binary.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use sluice_http::Reject;
use sluice_wire::code::Code;

use super::Control;

/// What a browser may do with the page: its own files and its own origin, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file below `/dashboard/`.
pub(super) async fn file(
    State(control): State<Arc<Control>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    answer(&control, &path, &headers)
}

/// The page itself.
pub(super) fn page(control: &Control, headers: &HeaderMap) -> Result<Response, Reject> {
    answer(control, "index.html", headers)
}

fn answer(control: &Control, path: &str, headers: &HeaderMap) -> Result<Response, Reject> {
    let asset =
        (control.assets)(path).ok_or_else(|| Reject::new(Code::NotFound, "there is nothing at this path"))?;
    let known = headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == asset.etag);
    let mut response = Response::new(if known { Body::empty() } else { Body::from(asset.bytes) });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    fields.insert(ETAG, HeaderValue::from_static(asset.etag));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    fields.insert("x-frame-options", HeaderValue::from_static("DENY"));
    fields.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    Ok(response)
}
