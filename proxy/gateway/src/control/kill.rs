//! The kill switch: what is stopped, and stopping.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_audit::Decision;
use sluice_http::{Reject, StrictJson, StrictQuery};
use sluice_policy::kill_switch::Scope;
use sluice_policy::kill_switch::book::{REASON_BYTES_MAX, Wanted};
use sluice_wire::code::Code;

use super::Control;
use super::access::Access;
use crate::clock;
use crate::kill::{self, OffError, SWITCHES_PAGE_MAX, View};
use crate::state::Shared;

type Answer = Result<Json<Value>, Reject>;

/// Which part of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// A change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    scope: String,
    target: Option<String>,
    on: bool,
    reason: String,
    cancel_lane_open: Option<bool>,
}

fn time(ms: u64) -> Value {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or(Value::Null, |at| json!(at))
}

/// Whether the other edges can know of it: `none` where there is no stream, `unsigned` where they do not obey it.
fn broadcast(shared: &Shared, view: &View) -> &'static str {
    match (shared.workers.client(sluice_wire::role::Role::Events).is_some(), view.told) {
        (false, _) => "none",
        (true, true) if kill::is_unkeyed(shared) => "unsigned",
        (true, true) => "delivered",
        (true, false) => "pending",
    }
}

/// A switch that is on, as the list, the dashboard and the answer to a change have it.
pub(super) fn shown(shared: &Shared, view: &View) -> Value {
    json!({
        "scope": view.scope.as_str(),
        "target": view.scope.target(),
        "on": true,
        "cancel_lane_open": view.cancel_lane_open,
        "reason": view.reason,
        "by": view.by,
        "since": time(view.since_ms),
        "edge": view.edge.to_string(),
        "persisted": view.persisted,
        "broadcast": broadcast(shared, view),
    })
}

/// `all`, or `service:NAME` and the like.
fn cursor(scope: &Scope) -> String {
    sluice_ledger::switch_key(scope)
}

pub(super) async fn list(
    State(control): State<Arc<Control>>,
    access: Access,
    StrictQuery(page): StrictQuery<Page>,
) -> Answer {
    access.read()?;
    let after = match &page.cursor {
        Some(text) => Some(parse_cursor(text)?),
        None => None,
    };
    let limit = page.limit.unwrap_or(SWITCHES_PAGE_MAX);
    if !(1..=SWITCHES_PAGE_MAX).contains(&limit) {
        return Err(Reject::new(Code::BadQuery, format!("`limit` is 1 to {SWITCHES_PAGE_MAX}")));
    }
    let shared = &control.shared;
    let (mut views, count, edge) = kill::views(shared, after.as_ref(), limit + 1);
    let more = views.len() > limit;
    views.truncate(limit);
    let next = views.last().filter(|_| more).map(|view| cursor(&view.scope));
    Ok(Json(json!({
        "switches": views.iter().map(|view| shown(shared, view)).collect::<Vec<_>>(),
        "count": count,
        "next_cursor": next,
        "symbol_header": shared.generation().config.kill_switch.symbol_header,
        "edge": edge.to_string(),
        "following": shared.kill.is_following(),
    })))
}

fn parse_cursor(text: &str) -> Result<Scope, Reject> {
    let (word, target) = match text.split_once(':') {
        Some((word, target)) => (word, Some(target)),
        None => (text, None),
    };
    Scope::parse(word, target).map_err(|_| Reject::new(Code::BadQuery, "`cursor` is not one of this list"))
}

pub(super) async fn switch(
    State(control): State<Arc<Control>>,
    access: Access,
    StrictJson(asked): StrictJson<Asked>,
) -> Answer {
    let scope = Scope::parse(&asked.scope, asked.target.as_deref())
        .map_err(|fault| Reject::new(Code::Unprocessable, fault.to_string()))?;
    let reason = asked.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let detail = format!("`reason` takes 1 to {REASON_BYTES_MAX} bytes without control characters");
        return Err(Reject::new(Code::Unprocessable, detail));
    }
    if !asked.on && asked.cancel_lane_open.is_some() {
        let detail = "`cancel_lane_open` says something about a switch that is on";
        return Err(Reject::new(Code::Unprocessable, detail));
    }
    let wanted = |by: &str| Wanted {
        on: asked.on,
        cancel_lane_open: asked.cancel_lane_open.unwrap_or(true),
        reason: reason.to_owned(),
        by: by.to_owned(),
        at_ms: clock::unix_ms(),
    };
    if asked.on {
        on(&control, &access, &scope, wanted).await
    } else {
        off(&control, &access, &scope, wanted).await
    }
}

/// Acts first. Only who may not is written down before he is told so.
async fn on(
    control: &Control,
    access: &Access,
    scope: &Scope,
    wanted: impl FnOnce(&str) -> Wanted,
) -> Answer {
    let shared = &control.shared;
    let Some(author) = access.author() else {
        access.change("kill_switch_on", &cursor(scope)).await?;
        return Err(Reject::unauthenticated());
    };
    let wanted = wanted(&author.subject);
    let (changed, view) = kill::put_on(shared, scope, wanted, &author)
        .await
        .map_err(|full| Reject::new(Code::Unprocessable, full.to_string()))?;
    let mut answer = shown(shared, &view);
    answer["status"] = "success".into();
    answer["changed"] = changed.into();
    // What is not in the audit log does not count as kept.
    answer["persisted"] = (view.persisted && view.audited).into();
    answer["audited"] = view.audited.into();
    if let Scope::Service(name) = scope
        && shared.generation().service(name).is_none()
    {
        answer["warning"] = "no service of this name is configured at this edge".into();
    }
    Ok(Json(answer))
}

async fn off(
    control: &Control,
    access: &Access,
    scope: &Scope,
    wanted: impl FnOnce(&str) -> Wanted,
) -> Answer {
    let about = cursor(scope);
    let by = access.change("kill_switch_off", &about).await?.subject.clone();
    let wanted = wanted(&by);
    let reason = wanted.reason.clone();
    match kill::put_off(&control.shared, scope, wanted).await {
        Ok(changed) => Ok(Json(json!({
            "status": "success",
            "scope": scope.as_str(),
            "target": scope.target(),
            "on": false,
            "changed": changed,
            "reason": reason,
            "by": by,
        }))),
        Err(error) => {
            // That it failed is worth a record; that this one fails too changes nothing.
            drop(access.audit("kill_switch_off", &about, Decision::Error).await);
            tracing::error!(component = "kill_switch", error = &error as &dyn std::error::Error, "stays on");
            let (code, detail) = match error {
                OffError::Ledger(_) => {
                    (Code::LedgerUnavailable, "the ledger cannot be written; the switch stays on")
                }
                OffError::Stream(_) => (
                    Code::WorkerUnavailable,
                    "the event stream does not say that it has it; the switch stays on until it is heard there",
                ),
            };
            Err(Reject::new(code, detail))
        }
    }
}
