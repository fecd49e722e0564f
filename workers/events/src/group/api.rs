//! The calls under `/groups`, but for dead letters.
//!
//! Creating and changing a group needs `events:admin` or `events:group:NAME`, and calculation workers may do it to those
//! that feed their stores; removing one needs `events:admin`. Taking messages and saying what became of them
//! needs to read: with all of `events:read`, or with globs that cover every type which the group's filter names; a
//! group without such a filter can hand out anything, so it is closed to narrow readers. What a narrow reader may
//! not use it does not see either.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;
use sluice_http::{Authenticated, Reject, StrictJson, StrictQuery};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;

use crate::access;
use crate::context::{Context, json_response, raw_json};
use crate::log::Filter;
use crate::params::{Params, bad};

use super::answer::{self, Group};
use super::body::{self, LeaseBody, Object, PutBody, Said, SettleBody};
use super::{Ask, GroupError, How, Lease, Settle};

/// LIMIT: groups of a page.
const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;

/// What a caller may read, for calls of this worker's own making.
pub(super) fn reader(caller: &Caller) -> Result<Filter, Reject> {
    access::not_legacy(caller)?;
    access::readable(caller)
}

/// `PUT /groups/{g}`
pub(crate) async fn put(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
    StrictJson(Object(body)): StrictJson<Object<PutBody>>,
) -> Result<Response, Reject> {
    let name = body::name(&group)?;
    access::may_make(&caller, name)?;
    let (settings, start) = body.read()?;
    let put = context.groups.put(name, settings, start).await?;
    json_response(&Group::whole(&put.report, Some(put.created)))
}

/// `DELETE /groups/{g}`
pub(crate) async fn delete(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
) -> Result<Response, Reject> {
    access::may_administer(&caller)?;
    context.groups.delete(body::name(&group)?).await?;
    json_response(&json!({ "group": group, "deleted": true }))
}

/// `GET /groups`
pub(crate) async fn list(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
) -> Result<Response, Reject> {
    let readable = reader(&caller)?;
    let mut params = Params::new(pairs);
    let limit = limit(&mut params, PAGE_DEFAULT, PAGE_MAX)?;
    let after = params.one("cursor")?;
    params.finish()?;
    let after = after.as_deref().map(body::name).transpose()?;
    let found = context.groups.list(after, limit).await?;
    let next = found.last().filter(|_| found.len() == limit).map(|last| last.group.clone());
    let groups: Vec<_> =
        found.iter().filter(|group| group.settings.filter.is_within(&readable)).map(Group::of).collect();
    json_response(&json!({ "count": groups.len(), "groups": groups, "next_cursor": next }))
}

/// `GET /groups/{g}`
pub(crate) async fn report(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
) -> Result<Response, Reject> {
    let readable = reader(&caller)?;
    let report = context.groups.report(body::name(&group)?).await?;
    if !report.settings.filter.is_within(&readable) {
        return Err(GroupError::Unknown.into());
    }
    json_response(&Group::whole(&report, None))
}

/// `POST /groups/{g}/lease`
pub(crate) async fn lease(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
    StrictJson(Object(body)): StrictJson<Object<LeaseBody>>,
) -> Result<Response, Reject> {
    let readable = reader(&caller)?;
    let (consumer, max, wait) = body.read()?;
    let until = Instant::now() + wait;
    let asked =
        context.groups.lease(body::name(&group)?, |answer| Ask { consumer, max, until, readable, answer });
    let lease = tokio::select! {
        biased;
        lease = asked => lease?,
        // At drain nobody waits any longer. What was handed out meanwhile goes back.
        () = context.stop.wait() => Lease::default(),
    };
    for message in &lease.messages {
        context.metrics.consumed(message.event.kind());
    }
    context.metrics.gaps.inc_by(u64::from(lease.gap.is_some()));
    Ok(raw_json(answer::lease(&lease)))
}

/// `POST /groups/{g}/ack`
pub(crate) async fn ack(
    context: State<Arc<Context>>,
    caller: Authenticated,
    group: Path<String>,
    body: StrictJson<Object<SettleBody>>,
) -> Result<Response, Reject> {
    settle(context, caller, group, body, "acked").await
}

/// `POST /groups/{g}/nack`
pub(crate) async fn nack(
    context: State<Arc<Context>>,
    caller: Authenticated,
    group: Path<String>,
    body: StrictJson<Object<SettleBody>>,
) -> Result<Response, Reject> {
    settle(context, caller, group, body, "nacked").await
}

/// `POST /groups/{g}/extend`
pub(crate) async fn extend(
    context: State<Arc<Context>>,
    caller: Authenticated,
    group: Path<String>,
    body: StrictJson<Object<SettleBody>>,
) -> Result<Response, Reject> {
    settle(context, caller, group, body, "extended").await
}

async fn settle(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
    StrictJson(Object(body)): StrictJson<Object<SettleBody>>,
    done: &'static str,
) -> Result<Response, Reject> {
    let readable = reader(&caller)?;
    let Said { consumer, ids, delay_ms, reason } = body.read(done == "nacked")?;
    let how = match done {
        "acked" => How::Ack,
        "nacked" => How::Nack { delay_ms, reason },
        _ => How::Extend,
    };
    let settle = Settle { consumer, ids: ids.known, how, readable };
    let settled = context.groups.settle(body::name(&group)?, settle).await?;
    let mut unknown = ids.other;
    unknown.extend(settled.unknown.iter().map(ToString::to_string));
    let mut answer = json!({ done: settled.known, "unknown": unknown });
    match done {
        "nacked" => answer["dead"] = settled.dead.into(),
        "extended" => answer["lease_until"] = answer::time(settled.until_ms).into(),
        _ => {}
    }
    json_response(&answer)
}

/// The length of a page.
pub(super) fn limit(params: &mut Params, default: usize, max: usize) -> Result<usize, Reject> {
    let Some(text) = params.one("limit")? else { return Ok(default) };
    let limit = text.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| bad(format!("limit is a number from 1 to {max}")))
}

/// The place after which a page of messages begins.
pub(super) fn cursor(params: &mut Params) -> Result<Option<crate::log::MessageId>, Reject> {
    let text = params.one("cursor")?;
    text.map(|text| {
        text.parse().map_err(|_| Reject::new(Code::BadQuery, "cursor is not one that this query gave"))
    })
    .transpose()
}
