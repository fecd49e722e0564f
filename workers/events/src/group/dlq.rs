//! The calls about dead letters.
//!
//! Reading them needs what reading their events needs; redriving and dropping them needs `events:admin`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::json;
use sluice_http::{Authenticated, Reject, StrictJson, StrictQuery};

use crate::access::may_administer;
use crate::context::{Context, json_response, raw_json};
use crate::params::Params;

use super::api::{cursor, limit, reader};
use super::body::{self, Object, RedriveBody};
use super::{LetterPage, Redrive, answer};

/// LIMIT: dead letters of a page.
const PAGE_MAX: usize = 1_000;
const PAGE_DEFAULT: usize = 100;

/// `GET /groups/{g}/dlq`
pub(crate) async fn letters(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
    StrictQuery(pairs): StrictQuery<Vec<(String, String)>>,
) -> Result<Response, Reject> {
    let readable = reader(&caller)?;
    let mut params = Params::new(pairs);
    let page = LetterPage {
        after: cursor(&mut params)?,
        limit: limit(&mut params, PAGE_DEFAULT, PAGE_MAX)?,
        filter: params.filter(readable)?,
    };
    params.finish()?;
    let found = context.groups.letters(body::name(&group)?, page).await?;
    Ok(raw_json(answer::letters(&found)))
}

/// `POST /groups/{g}/dlq/redrive`
pub(crate) async fn redrive(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
    StrictJson(Object(body)): StrictJson<Object<RedriveBody>>,
) -> Result<Response, Reject> {
    may_administer(&caller)?;
    let (filter, max, per_s) = body.read()?;
    let done = context.groups.redrive(body::name(&group)?, Redrive { filter, max, per_s }).await?;
    json_response(&json!({
        "redriven": done.count,
        "remaining": done.remaining,
        "completes_at": answer::time(done.last_ms),
    }))
}

/// `DELETE /groups/{g}/dlq`
pub(crate) async fn purge(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(group): Path<String>,
) -> Result<Response, Reject> {
    may_administer(&caller)?;
    let deleted = context.groups.purge(body::name(&group)?).await?;
    json_response(&json!({ "deleted": deleted }))
}
