//! `GET /admin/tap`: requests as they end, server-sent events.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use sluice_audit::Decision;
use sluice_http::{Reject, StrictQuery, sse};
use sluice_policy::tap::Filter;
use sluice_wire::code::Code;

use super::Control;
use super::access::Access;
use crate::drain::Phase;
use crate::tap::Item;

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
    let shared = Arc::clone(&control.shared);
    let greeting = Bytes::from_static(b": following\n\n");
    let following =
        stream::unfold((Some(greeting), view, shared), |(greeting, mut view, shared)| async move {
            // The head leaves with the first bytes, so that a viewer knows it is connected.
            if let Some(greeting) = greeting {
                return Some((greeting, (None, view, shared)));
            }
            let mut phase = shared.drain.phase();
            let item = tokio::select! {
                item = view.next() => item?,
                _ = phase.wait_for(|phase| matches!(phase, Phase::Closing { .. })) => return None,
            };
            drop(phase);
            let frame = match item {
                Item::Line(line) => sse::frame(None, "request", &String::from_utf8_lossy(&line)),
                Item::Gap(missing) => sse::frame(None, "gap", &format!("{{\"missing\":{missing}}}")),
            };
            Some((frame, (None, view, shared)))
        });
    Ok(sse::response(following))
}
