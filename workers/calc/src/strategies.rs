//! `/calculations/strategies`: discovering strategies, and telling of one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value as Wire, json};
use sluice_calc::search::{Gene, Rule, find};
use sluice_http::{Authenticated, Reject, require};
use sluice_wire::code::Code;

use crate::api::{incoming, settle};
use crate::bounds::SMALL_BODY_BYTES_MAX;
use crate::context::Context;
use crate::discover::{self, KIND, Plan};
use crate::jobs::Record;
use crate::jobs::api::{blocking, find as find_job, new_record, taken};
use crate::pool::{Lane, Scratch};
use crate::signals;

pub(crate) async fn post_discover(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Reject> {
    // What is discovered is told to others as events.
    require(&caller, "write")?;
    let (incoming, room) = incoming(&context, "read", request).await?;
    let lane = if incoming.bytes.len() <= SMALL_BODY_BYTES_MAX { Lane::Small } else { Lane::Large };
    let record = new_record(caller.subject);
    let (own, job) = (Arc::clone(&context), record.job.clone());
    let parse = move |_: &mut Scratch| {
        let stored = |key: &_| own.series.get(key);
        let plan = discover::plan(incoming, own.settings.rows_max, job, &stored);
        drop(room);
        plan
    };
    let plan = settle(&context, "discover", context.pool.run(lane, parse).await)?;
    let record = of_plan(&plan, record);
    let bytes = plan.bytes;
    taken(&context, record, bytes, Box::new(plan)).await
}

pub(crate) fn of_plan(plan: &Plan, record: Record) -> Record {
    Record {
        kind: KIND.to_owned(),
        strategy: plan.strategy().to_owned(),
        rows: plan.rows(),
        combinations: plan.total,
        total: plan.total,
        ..record
    }
}

pub(crate) async fn get_one(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Json<Wire>, Reject> {
    require(&caller, "read")?;
    if let Some(named) = named(&id) {
        return Ok(Json(named));
    }
    let gone = || Reject::new(Code::NotFound, "there is no strategy of this name");
    let (job, request, rank) = discover::place(&id).ok_or_else(gone)?;
    let record = find_job(&context, &caller, job)?.record();
    if record.kind != KIND {
        return Err(gone());
    }
    let (jobs, job) = (Arc::clone(&context.jobs), record.job);
    let found =
        blocking(move || jobs.result(&job).ok().and_then(|text| discover::pick(&text, request, rank)));
    let mut found = found.await?.ok_or_else(gone)?;
    found["kind"] = json!("discovered");
    Ok(Json(found))
}

/// A strategy that signals, one that is searched, or one that does both: then with the searched one as `search`.
fn named(name: &str) -> Option<Wire> {
    let mut listed = signals::strategies();
    let signals =
        listed["strategies"].as_array_mut().and_then(|all| all.iter_mut().find(|one| one["name"] == name));
    match (signals.map(Wire::take), find(name).map(of_rule)) {
        (Some(mut signals), searched) => {
            if let Some(searched) = searched {
                signals["search"] = searched;
            }
            Some(signals)
        }
        (None, searched) => searched,
    }
}

/// A rule that is searched, with the values of its parameters.
fn of_rule(rule: &'static Rule) -> Wire {
    let parameters: Vec<Wire> = rule.genes.iter().map(of_gene).collect();
    let columns: Vec<&str> = rule.columns().iter().map(|column| column.name()).collect();
    json!({
        "kind": "rule", "name": rule.name, "summary": rule.summary, "columns": columns,
        "parameters": parameters,
    })
}

fn of_gene(gene: &Gene) -> Wire {
    let (first, last, step) = gene.usual;
    json!({
        "name": gene.name, "min": gene.min, "max": gene.max, "whole": gene.whole, "range": [first, last, step],
    })
}
