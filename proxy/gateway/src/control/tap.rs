//! `GET /admin/tap`: requests as they end, server-sent events.
//!
//! The stream ends with the token that opened it, within [`TOKEN_CHECK`] of its end or revocation.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use serde::Deserialize;
use sluice_audit::Decision;
use sluice_http::{Reject, StrictQuery, is_token_good, sse};
use sluice_policy::tap::Filter;
use sluice_wire::code::Code;
use tokio::time::{Interval, MissedTickBehavior};

use super::Control;
use super::access::Access;
use crate::drain::Phase;
use crate::state::Shared;
use crate::tap::{Item, View};

/// Between two looks whether a viewer's token is still good.
const TOKEN_CHECK: Duration = Duration::from_millis(500);

/// What to show.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    route: Option<String>,
    status: Option<String>,
    client: Option<String>,
    method: Option<String>,
}

pub(super) async fn follow(
    State(control): State<Arc<Control>>,
    access: Access,
    headers: HeaderMap,
    StrictQuery(wanted): StrictQuery<Wanted>,
) -> Result<Response, Reject> {
    access.read_with_token()?;
    let Wanted { route, status, client, method } = wanted;
    let filter = Filter::new(route.as_deref(), status.as_deref(), client.as_deref(), method.as_deref())
        .map_err(|fault| Reject::new(Code::BadQuery, fault.to_string()))?;
    access.audit("tap", "requests", Decision::Allow).await?;
    let Some(view) = control.shared.tap.join(filter) else {
        return Err(Reject::new(Code::Overloaded, "too many viewers follow the traffic"));
    };
    let mut check = tokio::time::interval(TOKEN_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let viewer = Viewer { view, headers, check, shared: Arc::clone(&control.shared) };
    // The head leaves with the first bytes, so that a viewer knows it is connected.
    let greeting = Some(Bytes::from_static(b": following\n\n"));
    let following = stream::unfold((greeting, viewer), |(greeting, mut viewer)| async move {
        let frame = match greeting {
            Some(greeting) => greeting,
            None => viewer.next().await?,
        };
        Some((frame, (None, viewer)))
    });
    Ok(sse::response(following))
}

/// Somebody who looks on.
struct Viewer {
    view: View,
    /// The fields of the request, with its token.
    headers: HeaderMap,
    check: Interval,
    shared: Arc<Shared>,
}

impl Viewer {
    /// The next frame; `None` once connections close or the token is no longer good.
    async fn next(&mut self) -> Option<Bytes> {
        let mut phase = self.shared.drain.phase();
        loop {
            let item = tokio::select! {
                biased;
                _ = self.check.tick() => {
                    if !is_token_good(&self.headers, &self.shared.trust) {
                        return None;
                    }
                    continue;
                }
                _ = phase.wait_for(|phase| matches!(phase, Phase::Closing { .. })) => return None,
                item = self.view.next() => item?,
            };
            return Some(match item {
                Item::Line(line) => sse::frame(None, "request", &String::from_utf8_lossy(&line)),
                Item::Gap(missing) => sse::frame(None, "gap", &format!("{{\"missing\":{missing}}}")),
            });
        }
    }
}
