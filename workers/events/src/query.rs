//! Reading stored events: pages by filter, and one by its id.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use sluice_http::{Authenticated, Reject, StrictQuery};
use sluice_wire::code::Code;
use uuid::Uuid;

use crate::access;
use crate::cloudevents;
use crate::context::{Context, NDJSON, accepts, ndjson, raw_json, typed};
use crate::engine::{ReadError, Reader};
use crate::frame;
use crate::log::{Filter, MessageId, Record};
use crate::params::{Params, bad};

/// LIMIT: events of a page.
const LIMIT_MAX: usize = 10_000;
const LIMIT_DEFAULT: usize = 100;
/// LIMIT: bytes of a page; it ends before, with a cursor.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// LIMIT: events looked at for one page; it ends before, with a cursor.
const PAGE_SCAN_MAX: u64 = 2_000_000;
/// Where a page says where to go on that has no place for it in the body: lines and CloudEvents.
const X_NEXT_CURSOR: &str = "x-next-cursor";

/// Which way a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// What is asked for.
#[derive(Debug)]
struct Page {
    filter: Filter,
    /// Another stream than the main one.
    stream: Option<String>,
    order: Order,
    limit: usize,
    after: Option<MessageId>,
    before: Option<MessageId>,
    /// Where to go on: the first seq of an ascending page, the seq behind the last of a descending one.
    cursor: Option<u64>,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    records: Vec<Record>,
    /// Cursor of the next page, when there may be one.
    next: Option<u64>,
}

/// `GET /events`
pub(crate) async fn list(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    let page = Page::parse(Params::new(pairs), access::readable(&caller)?)?;
    let form = Form::of(&headers);
    let (order, stream) = (page.order, page.stream.clone());
    context
        .read_stream(stream.as_deref(), move |reader| {
            let found = page.read(reader)?;
            let next = found.next.map(|seq| order.cursor(seq));
            Ok(form.page(&found, next.as_deref()))
        })
        .await
}

/// `GET /events/{id}`: an event id or a message id.
pub(crate) async fn one(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    access::not_legacy(&caller)?;
    let readable = access::readable(&caller)?;
    let found = if let Ok(id) = id.parse::<MessageId>() {
        context.read(move |reader| reader.by_message_id(id)).await?
    } else if let Ok(id) = Uuid::parse_str(&id) {
        context.read(move |reader| reader.by_event_id(id.as_u128())).await?
    } else {
        None
    };
    // What the caller may not read does not exist for it.
    let record = found
        .filter(|record| readable.admits(record))
        .ok_or_else(|| Reject::new(Code::NotFound, "no event with this event id or message id is stored"))?;
    let mut body = Vec::new();
    if accepts(&headers, cloudevents::STRUCTURED) {
        cloudevents::write(record.json(), &record.stamp.id.to_string(), record.lane, &mut body);
        return Ok(typed(cloudevents::STRUCTURED, body));
    }
    frame::write_json(&record, &mut body);
    Ok(raw_json(body))
}

/// What a page is told as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Lines,
    CloudEvents,
}

impl Form {
    fn of(headers: &HeaderMap) -> Self {
        if accepts(headers, cloudevents::BATCH) {
            Self::CloudEvents
        } else if accepts(headers, NDJSON) {
            Self::Lines
        } else {
            Self::Json
        }
    }

    fn page(self, found: &Found, next: Option<&str>) -> Response {
        let mut response = match self {
            Self::Json => return as_json(found, next),
            Self::Lines => ndjson(lines(found)),
            Self::CloudEvents => typed(cloudevents::BATCH, foreign(found)),
        };
        if let Some(cursor) = next.and_then(|cursor| HeaderValue::from_str(cursor).ok()) {
            response.headers_mut().insert(X_NEXT_CURSOR, cursor);
        }
        response
    }
}

impl Order {
    fn cursor(self, seq: u64) -> String {
        match self {
            Self::Ascending => format!("a{seq}"),
            Self::Descending => format!("d{seq}"),
        }
    }
}

impl Page {
    fn parse(mut params: Params, granted: Filter) -> Result<Self, Reject> {
        let filter = params.filter(granted)?;
        let order = match params.one("order")?.as_deref() {
            None | Some("asc") => Order::Ascending,
            Some("desc") => Order::Descending,
            Some(_) => return Err(bad("order is `asc` or `desc`")),
        };
        let limit = match params.one("limit")? {
            None => LIMIT_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| bad(format!("limit is a number from 1 to {LIMIT_MAX}")))?,
        };
        let page = Self {
            filter,
            stream: params.one("stream")?,
            order,
            limit,
            after: message_id(&mut params, "after")?,
            before: message_id(&mut params, "before")?,
            cursor: params.one("cursor")?.map(|text| order.place(&text)).transpose()?,
        };
        params.finish()?;
        Ok(page)
    }

    fn read(&self, reader: &Reader) -> Result<Found, ReadError> {
        let first = self.after.map(|id| reader.seq_after(id)).transpose()?.unwrap_or(0);
        let behind = self.before.map(|id| reader.seq_at(id)).transpose()?.unwrap_or(u64::MAX);
        match self.order {
            Order::Ascending => self.ascending(reader, first.max(self.cursor.unwrap_or(0)), behind),
            Order::Descending => self.descending(reader, first, behind.min(self.cursor.unwrap_or(u64::MAX))),
        }
    }

    fn ascending(&self, reader: &Reader, first: u64, behind: u64) -> Result<Found, ReadError> {
        let mut scan = reader.forward(first, self.filter.clone()).pausing_after(PAGE_SCAN_MAX);
        let mut room = Room::new(self.limit);
        let mut found = Found::default();
        while let Some(record) = scan.next()?.filter(|record| record.stamp.seq < behind) {
            if !room.take(&record) {
                found.next = Some(record.stamp.seq);
                return Ok(found);
            }
            found.records.push(record);
        }
        found.next = (scan.paused() && scan.position() < behind).then(|| scan.position());
        Ok(found)
    }

    fn descending(&self, reader: &Reader, first: u64, behind: u64) -> Result<Found, ReadError> {
        let mut scan = reader.backward(behind, self.filter.clone()).pausing_after(PAGE_SCAN_MAX);
        let mut room = Room::new(self.limit);
        let mut found = Found::default();
        while let Some(record) = scan.next()?.filter(|record| record.stamp.seq >= first) {
            if !room.take(&record) {
                found.next = Some(record.stamp.seq + 1);
                return Ok(found);
            }
            found.records.push(record);
        }
        found.next = (scan.paused() && scan.position() > first).then(|| scan.position());
        Ok(found)
    }
}

impl Order {
    fn place(self, text: &str) -> Result<u64, Reject> {
        let letter = if self == Self::Ascending { 'a' } else { 'd' };
        text.strip_prefix(letter)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| bad("cursor is not one that this query with this order gave"))
    }
}

fn message_id(params: &mut Params, name: &str) -> Result<Option<MessageId>, Reject> {
    let text = params.one(name)?;
    text.map(|text| text.parse().map_err(|error| bad(format!("{name}: {error}")))).transpose()
}

/// What is left of a page's bounds.
struct Room {
    events: usize,
    bytes: usize,
}

impl Room {
    fn new(events: usize) -> Self {
        Self { events, bytes: PAGE_BYTES_MAX }
    }

    fn take(&mut self, record: &Record) -> bool {
        if self.events == 0 || self.bytes == 0 {
            return false;
        }
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(record.json().len());
        true
    }
}

fn as_json(found: &Found, next: Option<&str>) -> Response {
    let mut body = b"{\"events\":[".to_vec();
    for (at, record) in found.records.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        frame::write_json(record, &mut body);
    }
    let next = next.map_or("null".to_owned(), |cursor| format!("\"{cursor}\""));
    body.extend_from_slice(
        format!("],\"count\":{},\"next_cursor\":{next}}}", found.records.len()).as_bytes(),
    );
    raw_json(body)
}

fn lines(found: &Found) -> Vec<u8> {
    let mut body = Vec::new();
    for record in &found.records {
        frame::write_json(record, &mut body);
        body.push(b'\n');
    }
    body
}

fn foreign(found: &Found) -> Vec<u8> {
    let mut body = b"[".to_vec();
    for (at, record) in found.records.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        cloudevents::write(record.json(), &record.stamp.id.to_string(), record.lane, &mut body);
    }
    body.push(b']');
    body
}
