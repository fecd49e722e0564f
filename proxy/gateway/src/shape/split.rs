//! Which version of a service a caller meets.
//!
//! What concerns the client is the asked service's: who may call, how often, how large, which pages, what its
//! answers look like. What concerns the upstream is the arm's: instances, balance, deadlines, retries, breaker, TLS and
//! the changes to request fields. So an arm is a route of its own, made of both, and a placed request goes on as
//! if it had been asked for.

use std::sync::Arc;

use sluice_policy::split::caller;
use sluice_schema::Service;

use super::Shaping;
use crate::ctx::{Exchange, Target};
use crate::generation::ServiceRoute;
use crate::headers::Edits;

/// The settings of an arm that answers for a service.
fn merged(asked: &Service, arm: &Service) -> Service {
    let asked = asked.clone();
    Service {
        prefix: asked.prefix,
        hosts: asked.hosts,
        methods: asked.methods,
        headers: asked.headers,
        strip_prefix: asked.strip_prefix,
        auth_required: asked.auth_required,
        permissions: asked.permissions,
        rate_limit: asked.rate_limit,
        lane: asked.lane,
        allow: asked.allow,
        deny: asked.deny,
        body_bytes: asked.body_bytes,
        forward_authorization: asked.forward_authorization,
        response_headers: asked.response_headers,
        cors: asked.cors,
        rewrite: asked.rewrite,
        split: Vec::new(),
        ..arm.clone()
    }
}

/// The route of an arm that answers for a service.
pub(crate) fn as_arm(asked: &ServiceRoute, arm: &ServiceRoute) -> Arc<ServiceRoute> {
    let service = merged(&asked.service, &arm.service);
    Arc::new(ServiceRoute {
        upstream: Arc::clone(&arm.upstream),
        limit: asked.limit.clone(),
        request_edits: Edits::new(&service.request_headers),
        response_edits: Edits::new(&service.response_headers),
        access: asked.access.clone(),
        deny: asked.deny.clone(),
        allow: asked.allow.clone(),
        rules: arm.rules.clone(),
        shaping: Shaping::new(&service),
        service,
    })
}

/// Places an admitted request: from here on the arm answers for the service that was asked.
pub(crate) fn place(x: &mut Exchange) {
    let Target::Service(route) = &x.target else { return };
    let shaping = &route.shaping;
    if !shaping.split.is_on() {
        return;
    }
    let subject = x.identity.as_ref().map(|identity| identity.claims.sub.as_str());
    let Some(arm) = shaping.split.arm(caller(subject, x.client)).and_then(|at| shaping.arms.get(at)) else {
        return;
    };
    let (arm, asked) = (Arc::clone(arm), Arc::clone(route));
    x.shape.split_of = Some(asked);
    x.enter(Target::Service(arm));
}
