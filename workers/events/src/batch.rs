//! Publishing many events with one call: `POST /events/batch`, as JSON or as lines.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_http::{Authenticated, BodyBytes, Reject, StrictQuery};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::json::{self as strict, Refused, Scanner};
use sluice_wire::problem::{Outcome as Sent, Problem};
use uuid::Uuid;

use crate::access;
use crate::cloudevents::Foreign;
use crate::context::{Context, NDJSON, raw_json};
use crate::engine::Durability;
use crate::error::{Fault, append_problem};
use crate::event::{self, Author, Prepared};
use crate::incoming::{self, EVENT_BYTES_MAX, Incoming};
use crate::json::{self, Capped};
use crate::log::{Draft, Outcome};
use crate::metrics::Kind;
use crate::publish::{Published, answer, author, conflict, idempotency_key, refuse};

/// LIMIT: body of a batch.
pub(crate) const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// LIMIT: events of a batch.
const BATCH_EVENTS_MAX: usize = 1_000;

/// Query of a batch.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchQuery {
    /// All or nothing; for NDJSON, which has no place for it in the body.
    #[serde(default)]
    atomic: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    #[serde(borrow)]
    events: Capped<'a, BATCH_EVENTS_MAX>,
    #[serde(default)]
    atomic: bool,
}

/// `{published, duplicates, failed, results}`, the results as they were written.
#[derive(Default)]
struct BatchAnswer {
    published: usize,
    duplicates: usize,
    failed: usize,
    results: Vec<u8>,
}

/// The result of an event that is not stored; others are [`Published`] and their index.
#[derive(Serialize)]
struct Failed {
    index: usize,
    status: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
}

/// One event of a batch, checked or at fault.
type Checked = Result<Prepared, Fault>;

/// `POST /events/batch`
pub(crate) async fn batch(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(query): StrictQuery<BatchQuery>,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    publish(&context, &caller, query, &headers, &body).await
}

/// Publishes what a body holds.
pub(crate) async fn publish(
    context: &Context,
    caller: &Caller,
    query: BatchQuery,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Reject> {
    access::not_legacy(caller)?;
    let begun = Instant::now();
    let stored = async {
        let key = idempotency_key(headers)?;
        let id = |index| key.map(|key| event::id_of_key(&caller.subject, key, index));
        let (checked, atomic) = read(headers, body, &author(context, caller), id)?;
        context.admit(caller, checked.len())?;
        store(context, checked, atomic || query.atomic, begun).await
    };
    answered(context, stored.await)
}

/// `POST /events` with a batch of CloudEvents.
pub(crate) async fn foreign(
    context: &Context,
    caller: &Caller,
    query: &BatchQuery,
    body: &[u8],
) -> Result<Response, Reject> {
    access::not_legacy(caller)?;
    let begun = Instant::now();
    let stored = async {
        strict::check(body).map_err(|error| refusal(Code::InvalidJson, error.to_string()))?;
        let text = std::str::from_utf8(body).map_err(|_| refusal(Code::InvalidJson, "not UTF-8"))?;
        let events: Capped<'_, BATCH_EVENTS_MAX> =
            serde_json::from_str(text).map_err(|error| refusal(Code::BadRequest, error.to_string()))?;
        if events.count > BATCH_EVENTS_MAX {
            return Err(too_many(events.count));
        }
        let checked: Vec<Checked> = {
            let author = author(context, caller);
            let check = |raw: &&RawValue| {
                incoming::fits(raw.get())?;
                author.prepare(&Foreign::of_structured(raw.get())?.incoming(), None)
            };
            events.first.iter().map(check).collect()
        };
        context.admit(caller, checked.len())?;
        store(context, checked, query.atomic, begun).await
    };
    answered(context, stored.await)
}

fn answered(context: &Context, stored: Result<BatchAnswer, Box<Problem>>) -> Result<Response, Reject> {
    match stored {
        Ok(whole) => Ok(raw_json(whole.into_json())),
        Err(problem) => Err(refuse(context, *problem)),
    }
}

/// The events of a body, each checked, and whether they are all or nothing.
fn read(
    headers: &HeaderMap,
    body: &[u8],
    author: &Author<'_>,
    id: impl Fn(usize) -> Option<Uuid>,
) -> Result<(Vec<Checked>, bool), Box<Problem>> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or(""));
    let essence = content_type.map(|text| text.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
    match essence.as_deref() {
        None | Some("application/json") => array(body, author, id),
        Some(NDJSON) => Ok((lines(body, author, id)?, false)),
        Some(_) => {
            Err(refusal(Code::UnsupportedMediaType, format!("a batch is application/json or {NDJSON}")))
        }
    }
}

fn refusal(code: Code, detail: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(code).detail(detail).outcome(Sent::NotSent))
}

fn too_many(count: usize) -> Box<Problem> {
    let detail = format!("the batch has {count} events, at most {BATCH_EVENTS_MAX} are allowed");
    Box::new(refusal(Code::Unprocessable, detail).index(BATCH_EVENTS_MAX))
}

fn array(
    body: &[u8],
    author: &Author<'_>,
    id: impl Fn(usize) -> Option<Uuid>,
) -> Result<(Vec<Checked>, bool), Box<Problem>> {
    let events = match at_once(body) {
        Some(events) => events,
        None => judged(body)?,
    };
    if events.count > BATCH_EVENTS_MAX {
        return Err(too_many(events.count));
    }
    let check = |(index, (text, event)): (usize, (&str, Option<Incoming<'_>>))| {
        incoming::fits(text)?;
        author.prepare(&event.map_or_else(|| incoming::parse(text), Ok)?, id(index))
    };
    Ok((events.first.into_iter().enumerate().map(check).collect(), events.atomic))
}

/// What a batch's JSON holds.
#[derive(Default)]
struct Events<'a> {
    /// The first events: their text, and their members where they were understood at once.
    first: Vec<(&'a str, Option<Incoming<'a>>)>,
    /// How many there are.
    count: usize,
    atomic: bool,
}

/// Reads a batch in one pass; `None` for what takes another look.
fn at_once(body: &[u8]) -> Option<Events<'_>> {
    let mut scanner = Scanner::new(body).ok()?;
    let mut found = Events::default();
    let mut has_events = false;
    let read = scanner.object(|scanner, name| match name {
        "events" => {
            has_events = true;
            scanner.array(|scanner| {
                found.count += 1;
                if found.count > BATCH_EVENTS_MAX {
                    return scanner.value().map(|_| ());
                }
                found.first.push(incoming::scan(scanner)?);
                Ok(())
            })
        }
        "atomic" => match scanner.value()?.text {
            word @ ("true" | "false") => {
                found.atomic = word == "true";
                Ok(())
            }
            _ => Err(Refused),
        },
        _ => Err(Refused),
    });
    read.ok()?;
    scanner.end().ok()?;
    has_events.then_some(found)
}

/// The same, with what is wrong.
fn judged(body: &[u8]) -> Result<Events<'_>, Box<Problem>> {
    strict::check(body).map_err(|error| refusal(Code::InvalidJson, error.to_string()))?;
    // As text, so that no string in it is checked for UTF-8 again.
    let body = std::str::from_utf8(body).map_err(|_| refusal(Code::InvalidJson, "not UTF-8"))?;
    let BatchBody { events, atomic } =
        serde_json::from_str(body).map_err(|error| refusal(Code::BadRequest, error.to_string()))?;
    let first = events.first.into_iter().map(|raw| (raw.get(), None)).collect();
    Ok(Events { first, count: events.count, atomic })
}

/// Lines are documents of their own: one that is no JSON is that line's fault.
fn lines(
    body: &[u8],
    author: &Author<'_>,
    id: impl Fn(usize) -> Option<Uuid>,
) -> Result<Vec<Checked>, Box<Problem>> {
    let filled = || body.split(|b| *b == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace));
    let count = filled().count();
    if count > BATCH_EVENTS_MAX {
        return Err(too_many(count));
    }
    let check = |(index, line): (usize, &[u8])| {
        if line.len() > EVENT_BYTES_MAX {
            return Err(Fault::new(Code::BodyTooLarge, "the event is too large"));
        }
        author.prepare(&incoming::read(line)?, id(index))
    };
    Ok(filled().enumerate().map(check).collect())
}

async fn store(
    context: &Context,
    checked: Vec<Checked>,
    atomic: bool,
    begun: Instant,
) -> Result<BatchAnswer, Box<Problem>> {
    let mut drafts = Vec::with_capacity(checked.len());
    let mut places: Vec<Result<(Uuid, Kind), Fault>> = Vec::with_capacity(checked.len());
    let mut kind = Kind::default();
    for (index, checked) in checked.into_iter().enumerate() {
        match checked {
            Ok(Prepared { draft, event_id }) => {
                if drafts.last().is_none_or(|last: &Draft| !last.is_alike(&draft)) {
                    kind = context.metrics.kind(draft.kind());
                }
                places.push(Ok((event_id, kind)));
                drafts.push(draft);
            }
            Err(fault) if atomic => return Err(Box::new(fault.problem().index(index))),
            Err(fault) => places.push(Err(fault)),
        }
    }
    if atomic {
        of_one_key(context, &drafts)?;
    }
    let (outcomes, durability) = append(context, drafts, atomic, begun).await?;
    if atomic {
        // Every draft is an event of the batch here: places and outcomes agree.
        for (index, outcome) in outcomes.iter().enumerate() {
            if let Outcome::Conflict(stamp) = outcome {
                return Err(Box::new(conflict(Some(*stamp)).index(index)));
            }
        }
    }
    let mut outcomes = outcomes.into_iter();
    let mut whole = BatchAnswer { results: Vec::with_capacity(places.len() * 192), ..BatchAnswer::default() };
    for (index, place) in places.into_iter().enumerate() {
        let result = match place {
            Ok((event_id, kind)) => match outcomes.next() {
                Some(outcome) => answer(context, event_id, kind, outcome, durability),
                None => Err(Box::new(Problem::new(Code::Internal))),
            },
            Err(fault) => Err(Box::new(fault.problem())),
        };
        whole.add(context, index, result);
    }
    Ok(whole)
}

/// All or nothing is promised within one partition key, also where two keys share a partition: what is accepted does
/// not depend on their number.
fn of_one_key(context: &Context, drafts: &[Draft]) -> Result<(), Box<Problem>> {
    let (Some(partitions), Some(first)) = (context.settings.partitions, drafts.first()) else {
        return Ok(());
    };
    let key = |draft: &Draft| partitions.key(draft.labels()).to_owned();
    let own = key(first);
    match drafts.iter().position(|draft| partitions.key(draft.labels()) != own) {
        None => Ok(()),
        Some(index) => {
            let detail = format!(
                "an atomic batch has events of one partition key: \"{own}\", and \"{}\" is another one",
                key(&drafts[index])
            );
            Err(Box::new(refusal(Code::Conflict, detail).index(index)))
        }
    }
}

async fn append(
    context: &Context,
    drafts: Vec<Draft>,
    atomic: bool,
    begun: Instant,
) -> Result<(Vec<Outcome>, Durability), Box<Problem>> {
    if drafts.is_empty() {
        return Ok((Vec::new(), Durability::Fsync));
    }
    let receipt = context.append(drafts, atomic).await.map_err(|error| append_problem(&error))?;
    context.metrics.answered(receipt.durability, begun.elapsed());
    Ok((receipt.outcomes, receipt.durability))
}

impl BatchAnswer {
    fn add(&mut self, context: &Context, index: usize, result: Result<Published, Box<Problem>>) {
        if index > 0 {
            self.results.push(b',');
        }
        match result {
            Ok(published) => {
                *(if published.duplicate { &mut self.duplicates } else { &mut self.published }) += 1;
                self.results.extend_from_slice(b"{\"index\":");
                json::number(index as u64, &mut self.results);
                self.results.push(b',');
                published.write(&mut self.results);
                self.results.push(b'}');
            }
            Err(problem) => {
                self.failed += 1;
                context.metrics.rejected.with_label_values(&[problem.code.word()]).inc();
                let failed = Failed {
                    index,
                    status: "failed",
                    code: problem.code.word(),
                    detail: problem.detail,
                    pointer: problem.pointer,
                };
                serde_json::to_writer(&mut self.results, &failed)
                    .expect("texts and numbers have a JSON form");
            }
        }
    }

    fn into_json(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.results.len() + 96);
        let counts = [
            ("{\"published\":", self.published),
            (",\"duplicates\":", self.duplicates),
            (",\"failed\":", self.failed),
        ];
        for (name, count) in counts {
            out.extend_from_slice(name.as_bytes());
            json::number(count as u64, &mut out);
        }
        out.extend_from_slice(b",\"results\":[");
        out.extend_from_slice(&self.results);
        out.extend_from_slice(b"]}");
        out
    }
}
