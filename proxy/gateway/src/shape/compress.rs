//! Text compressed on its way to clients that take it.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, ETAG, SET_COOKIE, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, HeaderValue};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType};
use sluice_policy::compress::{Facts, has_directive, is_eligible, takes_gzip};

use super::cors::varies_by;
use crate::conn::Protocol;
use crate::ctx::{Exchange, Target};
use crate::state::Shared;

/// LIMIT: answers compressed at once; each holds about 300 KiB. What comes beyond goes out as it is.
const SQUEEZED_MAX: usize = 128;
/// How hard it is tried: most of what there is to gain, at a fraction of the time.
const LEVEL: u32 = 3;

/// An answer that is being compressed.
pub(super) struct Squeezed {
    encoder: GzEncoder<Vec<u8>>,
    /// Whether each piece leaves at once: an answer without length may be one that goes on.
    at_once: bool,
    taken: usize,
    given: usize,
    _place: Place,
}

/// A place among the answers that are compressed; given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn place(shared: &Shared) -> Option<Place> {
    let place = Place(Arc::clone(&shared.shaped.squeezed));
    (place.0.fetch_add(1, Ordering::Relaxed) < SQUEEZED_MAX).then_some(place)
}

/// Decides about an answer's body and makes its head fit.
pub(crate) fn begin(
    shared: &Shared,
    x: &mut Exchange,
    asked: &HeaderMap,
    response: &mut ResponseHeader,
) -> pingora::Result<()> {
    let on = matches!(&x.target, Target::Service(route) if route.service.compress);
    // What is kept for a key may go to another client later, which may take no compression.
    if !on || x.call || x.streaming || x.key.is_some() || !is_eligible(&facts(x, asked, response)) {
        return Ok(());
    }
    if !varies_by(response, "accept-encoding") {
        response.append_header(VARY, HeaderValue::from_static("accept-encoding"))?;
    }
    // HTTP/1.0 knows no chunks, and the length is not known before the end.
    let takes = takes_gzip(asked.get_all(ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes));
    if !takes || x.arrival.protocol == Protocol::Http10 {
        return Ok(());
    }
    let Some(place) = place(shared) else { return Ok(()) };
    let at_once = response.remove_header(&CONTENT_LENGTH).is_none();
    response.remove_header(&ACCEPT_RANGES);
    response.insert_header(CONTENT_ENCODING, HeaderValue::from_static("gzip"))?;
    response.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    weaken(response)?;
    let encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    x.shape.squeezed = Some(Box::new(Squeezed { encoder, at_once, taken: 0, given: 0, _place: place }));
    Ok(())
}

fn facts<'a>(x: &Exchange, asked: &HeaderMap, response: &'a ResponseHeader) -> Facts<'a> {
    let headers = &response.headers;
    let says = |headers: &HeaderMap| {
        headers.get_all(CACHE_CONTROL).iter().any(|value| has_directive(value.as_bytes(), "no-transform"))
    };
    let certified = x.arrival.conn.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    let coded = headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    Facts {
        method: x.arrival.method,
        ambient: certified || asked.contains_key(COOKIE) || headers.contains_key(SET_COOKIE),
        no_transform: says(asked) || says(headers),
        status: response.status.as_u16(),
        content_type: headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes),
        coded: coded || headers.contains_key(CONTENT_RANGE),
        length: headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
    }
}

/// Other bytes under one name: the name no longer stands for bytes, only for what they mean.
fn weaken(response: &mut ResponseHeader) -> pingora::Result<()> {
    let Some(tag) = response.headers.get(ETAG).filter(|tag| tag.as_bytes().first() == Some(&b'"')) else {
        return Ok(());
    };
    let weak = [b"W/", tag.as_bytes()].concat();
    response.insert_header(ETAG, weak)
}

/// A piece of an answer that is compressed.
pub(crate) fn squeeze(
    shared: &Shared,
    x: &mut Exchange,
    body: &mut Option<Bytes>,
    end: bool,
) -> pingora::Result<()> {
    let Some(squeezed) = &mut x.shape.squeezed else { return Ok(()) };
    squeezed.taken += body.as_ref().map_or(0, Bytes::len);
    let taken = squeezed.take(body.as_ref().map_or(&b""[..], |piece| &piece[..]), end);
    taken.map_err(|error| Error::because(ErrorType::InternalError, "compressing", error))?;
    let given = std::mem::take(squeezed.encoder.get_mut());
    squeezed.given += given.len();
    *body = (!given.is_empty()).then(|| Bytes::from(given));
    if !end {
        return Ok(());
    }
    if let (Target::Service(route), Some(squeezed)) = (&x.target, x.shape.squeezed.take()) {
        shared.meters.squeezed(&route.service.name, squeezed.taken, squeezed.given);
    }
    Ok(())
}

/// What is left of an answer that is compressed where trailers end it; they have no place behind it.
pub(crate) fn end_squeeze(shared: &Shared, x: &mut Exchange) -> pingora::Result<Option<Bytes>> {
    let mut rest = None;
    squeeze(shared, x, &mut rest, true)?;
    Ok(rest)
}

impl Squeezed {
    fn take(&mut self, piece: &[u8], end: bool) -> std::io::Result<()> {
        self.encoder.write_all(piece)?;
        if end {
            return self.encoder.try_finish();
        }
        // A piece without bytes would read as the end.
        if !piece.is_empty() && (self.at_once || self.encoder.get_ref().is_empty()) {
            self.encoder.flush()?;
        }
        Ok(())
    }
}
