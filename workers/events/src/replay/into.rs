//! Sending the events of a window elsewhere, marked as a replay, under the ids they have: into another stream, or to a
//! consumer group once more.

use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::problem::{Outcome as Sent, Problem};

use super::window::{Piece, Window};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::append_problem;
use crate::frame;
use crate::group::Replayed;
use crate::log::{Draft, Labels, Outcome};

/// What stands before a group's name in `into`.
pub(super) const GROUP: &str = "group:";

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Republished {
    /// Events of the window.
    pub(super) events: u64,
    /// Those that were there already: the dedup window of the other stream knew their ids, or the group holds them or
    /// comes to them by itself.
    pub(super) duplicates: u64,
}

/// Sends a window's events to what `into` names.
pub(super) async fn republish(context: &Context, window: Window, into: &str) -> Result<Republished, Reject> {
    if let Some(group) = into.strip_prefix(GROUP) {
        return hand_out(context, window, group).await;
    }
    let Some(name) = into.strip_prefix("stream:") else {
        return Err(Reject::new(Code::BadRequest, "into is `stream:NAME` or `group:NAME`"));
    };
    let engine = context.streams.made(name).await?;
    let (mut done, mut next) = (Republished::default(), 0);
    while next <= window.upto {
        let piece = {
            let window = window.clone();
            context.read(move |reader| window.read(reader, next)).await?
        };
        next = piece.next;
        unbroken(&piece, done)?;
        store(&engine, &piece, &mut done).await.map_err(|problem| broken_off(*problem, done))?;
    }
    Ok(done)
}

/// Makes a window's events messages of a group again.
async fn hand_out(context: &Context, window: Window, group: &str) -> Result<Republished, Reject> {
    let (mut done, mut next) = (Republished::default(), 0);
    while next <= window.upto {
        let piece = {
            let window = window.clone();
            context.read(move |reader| window.read(reader, next)).await?
        };
        next = piece.next;
        unbroken(&piece, done)?;
        let Replayed { count, known } = match context.groups.replay(group, piece.records).await {
            Ok(replayed) => replayed,
            Err(error) => return Err(broken_off(Reject::from(error).problem().clone(), done)),
        };
        done.events += count;
        done.duplicates += known;
    }
    Ok(done)
}

fn unbroken(piece: &Piece, done: Republished) -> Result<(), Reject> {
    if piece.trimmed.is_none() {
        return Ok(());
    }
    let text = format!("retention removed events of the window after {} were stored", done.events);
    Err(Reject::new(Code::Conflict, text))
}

async fn store(engine: &Engine, piece: &Piece, done: &mut Republished) -> Result<(), Box<Problem>> {
    let drafts: Result<Vec<Draft>, _> = piece.records.iter().map(draft).collect();
    let drafts =
        drafts.map_err(|error| Box::new(Problem::new(Code::Unprocessable).detail(error.to_string())))?;
    if drafts.is_empty() {
        return Ok(());
    }
    let receipt = engine.append(drafts, false).await.map_err(|error| Box::new(append_problem(&error)))?;
    done.events += receipt.outcomes.len() as u64;
    let known = |outcome: &&Outcome| !matches!(outcome, Outcome::Stored(_));
    done.duplicates += receipt.outcomes.iter().filter(known).count() as u64;
    Ok(())
}

fn draft(record: &crate::log::Record) -> Result<Draft, crate::log::DraftError> {
    let labels = Labels { kind: record.kind(), symbol: record.symbol(), source: record.source() };
    let json = frame::replayed(record.json());
    Draft::new(labels, record.time_us, record.event_id, record.fingerprint, &json)
}

/// Some events may be stored: a repeat stores the rest, for the ids are known.
fn broken_off(mut problem: Problem, done: Republished) -> Reject {
    if done.events == 0 {
        return problem.into();
    }
    let detail = problem.detail.take().unwrap_or_default();
    let detail = format!("{detail} ({} events were stored before)", done.events);
    problem.outcome(Sent::Unknown).detail(detail).into()
}
