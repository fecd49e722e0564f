//! `POST /admin/archive`: closes the segment being written and copies what the archive does not hold yet.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use sluice_http::{Authenticated, Reject, require};
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;

use crate::access::not_legacy;
use crate::context::{Context, json_response};
use crate::engine::AppendError;
use crate::error::append_problem;
use crate::log::{ArchiveError, ArchivedSegment};

/// What was copied. When `left` is not zero, the next call goes on.
#[derive(Serialize)]
struct Answer {
    archived: Vec<ArchivedSegment>,
    segments: u64,
    events: u64,
    bytes: u64,
    held: u64,
    left: u64,
}

pub(crate) async fn archive(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Reject> {
    not_legacy(&caller)?;
    require(&caller, "events:admin")?;
    let Some(log) = context.log() else {
        return Err(Reject::new(Code::NotFound, "this store has no segments to archive"));
    };
    // A call that is given up goes on; the next one waits for it and finds its copies.
    let done = tokio::task::spawn_blocking(move || log.archive()).await;
    let archived = done
        .map_err(|_| Reject::new(Code::Internal, "archiving broke off"))?
        .map_err(|error| archive_problem(&error))?;
    json_response(&Answer {
        segments: archived.copied.len() as u64,
        events: archived.copied.iter().map(|segment| segment.events).sum(),
        bytes: archived.copied.iter().map(|segment| segment.bytes).sum(),
        archived: archived.copied,
        held: archived.held,
        left: archived.left,
    })
}

fn archive_problem(error: &ArchiveError) -> Problem {
    match error {
        ArchiveError::Off => Problem::new(Code::NotFound)
            .detail("no archive is configured: set `events.archive_dir` and start the worker again"),
        ArchiveError::Close(error) => append_problem(&AppendError::Log(error.clone())),
        ArchiveError::Copy { source, .. } => {
            tracing::error!(
                component = "archive",
                error = error as &dyn std::error::Error,
                "a segment could not be archived"
            );
            let full =
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            if full {
                Problem::new(Code::StoreFull).detail("the disk of the archive is full").retry_after_s(30)
            } else {
                Problem::new(Code::Internal).detail("a segment could not be copied to the archive")
            }
        }
    }
}
