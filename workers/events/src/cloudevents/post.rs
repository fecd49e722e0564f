//! `POST /events` with CloudEvents.

use std::sync::Arc;

use axum::extract::{FromRequest as _, FromRequestParts as _, Request, State};
use axum::response::Response;
use http::HeaderMap;
use sluice_http::{Authenticated, BodyBytes, BodyLimit, JsonBytes, Reject, StrictQuery};
use sluice_wire::json as strict;

use super::{BATCH, Foreign, STRUCTURED};
use crate::batch::{self, BATCH_BYTES_MAX, BatchQuery};
use crate::body::media_type;
use crate::context::Context;
use crate::error::Fault;
use crate::publish;

/// How a request carries CloudEvents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Binary,
    Structured,
    Batch,
}

/// The mode of a request; `None` when it carries an event of the worker's own form.
fn mode(headers: &HeaderMap) -> Option<Mode> {
    // The content type wins: a structured event may come with `ce-` fields beside it.
    match media_type(headers).as_deref() {
        Some(STRUCTURED) => Some(Mode::Structured),
        Some(BATCH) => Some(Mode::Batch),
        _ => headers.contains_key("ce-specversion").then_some(Mode::Binary),
    }
}

/// `POST /events`
pub(crate) async fn posted(
    context: State<Arc<Context>>,
    caller: Authenticated,
    mut request: Request,
) -> Result<Response, Reject> {
    let headers = request.headers().clone();
    match mode(&headers) {
        None => {
            let body = JsonBytes::from_request(request, &()).await?;
            publish::single(context, caller, headers, body).await
        }
        Some(Mode::Batch) => {
            request.extensions_mut().insert(BodyLimit(BATCH_BYTES_MAX));
            let (mut parts, body) = request.into_parts();
            let StrictQuery(query) = StrictQuery::<BatchQuery>::from_request_parts(&mut parts, &()).await?;
            let request = Request::from_parts(parts, body);
            let BodyBytes(body) = BodyBytes::from_request(request, &()).await?;
            let (State(context), Authenticated(caller)) = (context, caller);
            batch::foreign(&context, &caller, &query, &body).await
        }
        Some(mode) => {
            let BodyBytes(body) = BodyBytes::from_request(request, &()).await?;
            let (State(context), Authenticated(caller)) = (context, caller);
            // The id is the key: an idempotency key beside it says nothing more.
            publish::publish(&context, &caller, &headers, |author, _| {
                let foreign = if mode == Mode::Binary {
                    Foreign::of_binary(&headers, &body)?
                } else {
                    strict::check(&body)?;
                    let text = std::str::from_utf8(&body);
                    Foreign::of_structured(text.map_err(|_| Fault::event("", "not UTF-8"))?)?
                };
                author.prepare(&foreign.incoming(), None)
            })
            .await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_in_the_headers() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            mode(&headers)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("content-type", "application/json")]), None);
        assert_eq!(
            of(&[("ce-specversion", "1.0"), ("content-type", "application/json")]),
            Some(Mode::Binary)
        );
        assert_eq!(
            of(&[("content-type", "Application/CloudEvents+JSON; charset=utf-8")]),
            Some(Mode::Structured)
        );
        assert_eq!(of(&[("content-type", BATCH)]), Some(Mode::Batch));
    }
}
