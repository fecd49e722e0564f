//! Which version of a service a caller meets.
//!
//! What concerns the client is the asked service's: who may call, how often, how large, which pages, what its
//! answers look like. What concerns the upstream is the arm's: instances, balance, deadlines, retries, breaker, TLS and
//! the changes to request fields. So an arm is a route of its own, made of both, and a placed request goes on as
//! if it had been asked for.

use std::collections::BTreeMap;
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
        idempotency: asked.idempotency,
        allow: asked.allow,
        deny: asked.deny,
        body_bytes: asked.body_bytes,
        forward_authorization: asked.forward_authorization,
        response_headers: asked.response_headers,
        cors: asked.cors,
        compress: asked.compress,
        fallback: asked.fallback,
        mirror: asked.mirror,
        rewrite: asked.rewrite,
        split: Vec::new(),
        ..arm.clone()
    }
}

/// The route of an arm that answers for a service.
fn as_arm(asked: &ServiceRoute, arm: &ServiceRoute) -> Arc<ServiceRoute> {
    let service = merged(&asked.service, &arm.service);
    Arc::new(ServiceRoute {
        upstream: Arc::clone(&arm.upstream),
        approach: asked.approach.toward(&arm.approach),
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

/// Gives each service the routes of those it names.
pub(crate) fn join(routes: &mut [Arc<ServiceRoute>]) {
    let arms: Vec<Vec<Arc<ServiceRoute>>> = {
        let by_name = by_name(routes);
        let arms_of = |route: &Arc<ServiceRoute>| {
            let arms = route.service.split.iter().filter_map(|arm| by_name.get(arm.service.as_str()));
            arms.map(|arm| as_arm(route, arm)).collect()
        };
        routes.iter().map(arms_of).collect()
    };
    for (route, arms) in routes.iter_mut().zip(arms) {
        // Nobody else has a route that was just made.
        if let Some(route) = Arc::get_mut(route) {
            route.shaping.arms = arms;
        }
    }
    let by_name = by_name(routes);
    for route in routes.iter() {
        let Some(mirror) = by_name.get(route.service.mirror.as_str()) else { continue };
        for route in route.shaping.arms.iter().chain([route]) {
            // Each is set once, here.
            route.shaping.mirror.set(Arc::downgrade(mirror)).ok();
        }
    }
}

fn by_name(routes: &[Arc<ServiceRoute>]) -> BTreeMap<&str, &Arc<ServiceRoute>> {
    routes.iter().map(|route| (route.service.name.as_str(), route)).collect()
}

/// The arm that answers for the service that was asked; `None`: itself does.
pub(crate) fn arm(x: &Exchange) -> Option<Arc<ServiceRoute>> {
    let Target::Service(route) = &x.target else { return None };
    let shaping = &route.shaping;
    if !shaping.split.is_on() {
        return None;
    }
    let subject = x.identity.as_ref().map(|identity| identity.claims.sub.as_str());
    let at = shaping.split.arm(caller(subject, x.client))?;
    shaping.arms.get(at).map(Arc::clone)
}

/// Places an admitted request: from here on the arm answers for the service that was asked.
pub(crate) fn place(x: &mut Exchange) {
    let Some(arm) = arm(x) else { return };
    if let Target::Service(asked) = &x.target {
        x.shape.split_of = Some(Arc::clone(asked));
    }
    x.enter(Target::Service(arm));
}
