//! What only the other roles may ask, on the internal door.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::HeaderMap;
use http::request::Parts;
use jiff::Timestamp;
use prometheus::IntGauge;
use serde::Serialize;
use sluice_http::{MaybeCaller, Reject, Stop, StrictJson, sse};
use sluice_identity::caller::Caller;
use sluice_wire::certificate::CertificateRequest;
use sluice_wire::code::Code;
use sluice_wire::header as names;
use sluice_wire::role::Role;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::answer;
use crate::context::{Context, Vault};
use crate::feed::{Follower, heartbeat};
use crate::request::Act;

/// Pause between heartbeats of the feed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Only a role speaking for itself; for everybody else there is nothing here.
fn only_roles(caller: &MaybeCaller) -> Result<(), Reject> {
    let role = caller.0.as_ref().and_then(Caller::as_role);
    role.map(|_| ()).ok_or_else(nothing_here)
}

fn nothing_here() -> Reject {
    Reject::new(Code::NotFound, "there is nothing at this path")
}

pub(super) async fn feed(
    State(context): State<Arc<Context>>,
    caller: MaybeCaller,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    only_roles(&caller)?;
    let vault = context.vault()?;
    let last = headers.get(names::LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    let counted = Counted::new(vault.figures.followers.clone());
    let follower = vault.hub.follow(last);
    Ok(sse::response(frames(Following { follower, beat, stop: context.stop.clone(), _counted: counted })))
}

struct Following {
    follower: Follower,
    beat: Interval,
    stop: Stop,
    _counted: Counted,
}

/// Counts a follower for as long as its stream lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn frames(following: Following) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(following, |mut following| async move {
        let bytes = tokio::select! {
            // News before heartbeats, and the end before both.
            biased;
            () = following.stop.wait() => None,
            news = following.follower.next() => news,
            _ = following.beat.tick() => Some(heartbeat()),
        };
        bytes.map(|bytes| (bytes, following))
    })
}

/// A role speaking for itself; whoever is not one learns nothing, also not whether the body was sound.
pub(super) struct RoleAct {
    role: Role,
    act: Act,
}

impl FromRequestParts<Arc<Context>> for RoleAct {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Reject> {
        let act = Act::from_request_parts(parts, context).await?;
        let role = act.caller.as_ref().and_then(Caller::as_role);
        role.map(|role| Self { role, act }).ok_or_else(nothing_here)
    }
}

/// A certificate for the role that asks, and for no other.
pub(super) async fn issue(
    State(context): State<Arc<Context>>,
    RoleAct { role, act }: RoleAct,
    StrictJson(request): StrictJson<CertificateRequest>,
) -> Result<Response, Reject> {
    let issued = context.run(move |vault| vault.issue_role(&act, role, &request)).await?;
    Ok(answer(&issued))
}

/// The keys of the store of the role that asks, and of no other.
pub(super) async fn store_keys(
    State(context): State<Arc<Context>>,
    RoleAct { role, act }: RoleAct,
    Path(of): Path<String>,
) -> Result<Response, Reject> {
    let keys = context.run(move |vault| vault.store_keys(&act, role, &of)).await;
    let keys = keys.map_err(|reject| {
        let hidden = reject.problem().code == Code::Forbidden;
        if hidden { nothing_here() } else { reject }
    });
    Ok(answer(&keys?))
}

#[derive(Serialize)]
struct Certificates<T> {
    at: Timestamp,
    certificates: Vec<T>,
}

pub(super) async fn certificates(
    State(context): State<Arc<Context>>,
    caller: MaybeCaller,
) -> Result<Response, Reject> {
    only_roles(&caller)?;
    let certificates = context.run(Vault::watched).await?;
    Ok(answer(&Certificates { at: Timestamp::now(), certificates }))
}
