//! Which web pages may call a service, said in the fields of answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_policy::cors::{Cors, MAX_AGE_S, asked_fields};
use sluice_policy::method::{Method, MethodSet};
use sluice_schema::Service;

use crate::admit::{decided, preflight as is_preflight};
use crate::ctx::{Exchange, Target};
use crate::fields::Fields;
use crate::respond::Answer;

const TRUE: HeaderValue = HeaderValue::from_static("true");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// Fields of the edge, and those of resources, that pages may read beside the safelisted ones.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "etag, link, location, retry-after, www-authenticate, x-request-id, ratelimit, ratelimit-policy, \
     x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, idempotency-replayed, age, x-cache",
);
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers");

/// The pages that may call one service.
pub(super) struct Pages {
    rules: Cors,
    methods: HeaderValue,
}

/// What the page that made a request is told.
#[derive(Default)]
pub(super) struct Leave {
    /// Whether the service has rules.
    on: bool,
    /// Whether answers differ by origin.
    varies: bool,
    /// The origin that may read the answer.
    origin: Option<HeaderValue>,
    credentials: bool,
}

impl Pages {
    pub(super) fn new(service: &Service) -> Self {
        let listed = service.methods.iter().filter_map(|word| Method::parse(word.as_bytes()).ok());
        let listed = listed.fold(MethodSet::EMPTY, MethodSet::with);
        let methods = if listed.is_empty() { MethodSet::EVERYWHERE } else { listed };
        let methods = HeaderValue::try_from(methods.allow()).unwrap_or(ANY);
        Self { rules: Cors::new(&service.cors), methods }
    }

    /// What pages of a request's origin are told; two origins are none.
    pub(super) fn leave(&self, headers: &HeaderMap) -> Leave {
        if !self.rules.is_on() {
            return Leave::default();
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (Some(origin), None) => Some(origin),
            _ => None,
        };
        let allowed = origin.and_then(|origin| Some((origin, self.rules.allowed(origin.as_bytes())?)));
        Leave {
            on: true,
            varies: self.rules.varies(),
            credentials: allowed.is_some_and(|(_, allowed)| allowed.credentials),
            origin: allowed.map(|(origin, allowed)| if allowed.origin == "*" { ANY } else { origin.clone() }),
        }
    }
}

/// Whether preflights of a service are answered by the edge.
pub(crate) fn takes_preflight(route: &crate::generation::ServiceRoute) -> bool {
    route.shaping.cors.rules.is_on()
}

/// Answers a preflight of a service that has rules, before anything is asked of its caller. `Err` is the answer.
pub(crate) fn preflight(x: &mut Exchange, headers: &HeaderMap) -> Result<(), Answer> {
    let Target::Service(route) = &x.target else { return Ok(()) };
    if !takes_preflight(route) || !is_preflight(x, headers) {
        return Ok(());
    }
    let mut answer = Answer::nothing();
    // To a page that may not call the service nothing is said, and its browser stops.
    if x.shape.cors.origin.is_some() {
        answer = answer
            .with(ACCESS_CONTROL_ALLOW_METHODS, route.shaping.cors.methods.clone())
            .with(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_S));
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).map(HeaderValue::as_bytes);
        if let Some(fields) =
            asked.and_then(asked_fields).and_then(|fields| HeaderValue::from_str(fields).ok())
        {
            answer = answer.with(ACCESS_CONTROL_ALLOW_HEADERS, fields);
        }
    }
    Err(decided(x, "preflight", answer.with(VARY, PREFLIGHT_VARY)))
}

/// The fields that tell a page whether it may read an answer of the edge.
pub(crate) fn fields(x: &Exchange) -> Vec<(HeaderName, HeaderValue)> {
    let leave = &x.shape.cors;
    let mut fields = Vec::new();
    if let Some(origin) = &leave.origin {
        fields.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        fields.extend(leave.credentials.then_some((ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE)));
        fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED));
    }
    fields.extend(leave.varies.then_some((VARY, HeaderValue::from_static("origin"))));
    fields
}

/// Makes an upstream's answer say the same; what the upstream said on the matter is dropped.
pub(crate) fn decorate(x: &Exchange, response: &mut impl Fields) -> pingora::Result<()> {
    if !x.shape.cors.on {
        return Ok(());
    }
    response.drop_where(|name| name.as_str().starts_with("access-control-"));
    for (name, value) in fields(x) {
        if name != VARY {
            response.set(name, value)?;
        } else if !varies_by(response, "origin") {
            response.add(name, value)?;
        }
    }
    Ok(())
}

/// Whether an answer says already that it differs by a field, or by everything.
pub(super) fn varies_by(response: &impl Fields, field: &str) -> bool {
    let values = response.all(&VARY).filter_map(|value| value.to_str().ok());
    let mut names = values.flat_map(|value| value.split(',')).map(str::trim);
    names.any(|name| name == "*" || name.eq_ignore_ascii_case(field))
}
