//! What needs somebody: computed from the state, with the time since when it holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sluice_http::{Reject, Status};
use sluice_policy::breaker::{Metrics, State as BreakerState};
use sluice_policy::kill_switch::Scope;

use super::Control;
use super::access::Access;
use super::snapshot::certificates;
use crate::clock;
use crate::kill;
use crate::pages::own_fault;
use crate::state::Shared;

/// LIMIT: alerts listed.
const ALERTS_MAX: usize = 100;
/// A leaf certificate is renewed long before; one that lives shorter than this was not.
const LEAF_HOURS: f64 = 2.0;
/// A CA certificate takes planning.
const CA_DAYS: f64 = 30.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Warning,
    Critical,
}

/// One thing that needs somebody.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Alert {
    level: Level,
    service: String,
    message: String,
    since: Timestamp,
    timestamp: Timestamp,
}

/// Since when each alert holds.
#[derive(Default)]
pub(super) struct Alerts {
    since: Mutex<BTreeMap<(String, &'static str), Timestamp>>,
}

/// What holds now.
struct Finding {
    level: Level,
    service: String,
    /// Which of its alerts.
    kind: &'static str,
    message: String,
    /// When it began, where that is known; else when it was first looked at.
    began: Option<Timestamp>,
}

impl Finding {
    fn new(level: Level, service: impl Into<String>, kind: &'static str, message: impl Into<String>) -> Self {
        Self { level, service: service.into(), kind, message: message.into(), began: None }
    }
}

impl Alerts {
    /// What holds now, newest first.
    pub(super) fn now(&self, shared: &Shared) -> Vec<Alert> {
        let findings = findings(shared);
        let now = Timestamp::now();
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|(service, kind), _| {
            findings.iter().any(|finding| finding.service == *service && finding.kind == *kind)
        });
        let mut alerts: Vec<Alert> = findings
            .into_iter()
            .map(|Finding { level, service, kind, message, began }| Alert {
                level,
                since: *since.entry((service.clone(), kind)).or_insert(began.unwrap_or(now)),
                service,
                message,
                timestamp: now,
            })
            .collect();
        drop(since);
        alerts.sort_by_key(|alert| (std::cmp::Reverse(alert.since), std::cmp::Reverse(alert.level)));
        alerts.truncate(ALERTS_MAX);
        alerts
    }
}

fn findings(shared: &Shared) -> Vec<Finding> {
    let mut findings = Vec::new();
    let generation = shared.generation();
    for route in &generation.services {
        let name = &route.service.name;
        findings.extend(breaker(name, &route.upstream.breaker().metrics(clock::now())));
        let roster = route.upstream.roster();
        let total = roster.endpoints().len();
        let down = roster.endpoints().iter().filter(|endpoint| !endpoint.instance.is_healthy()).count();
        if down > 0 {
            let level = if down == total { Level::Critical } else { Level::Warning };
            let text = format!("{down} of {total} instances unhealthy");
            findings.push(Finding::new(level, name, "instances", text));
        }
    }
    for (role, health) in shared.workers.all() {
        let Some(health) = health else { continue };
        let text = health.detail.clone().unwrap_or_else(|| "not well".to_owned());
        match health.status {
            Status::Healthy => {}
            Status::Degraded => findings.push(Finding::new(Level::Warning, role.as_str(), "worker", text)),
            Status::Unhealthy => findings.push(Finding::new(Level::Critical, role.as_str(), "worker", text)),
        }
    }
    if let (status, Some(text)) = own_fault(shared)
        && status != Status::Healthy
    {
        findings.push(Finding::new(Level::Warning, "edge", "edge", text));
    }
    for certificate in certificates(shared) {
        let bound = if certificate.is_ca { CA_DAYS } else { LEAF_HOURS / 24.0 };
        if certificate.days_left < bound {
            let level = if certificate.days_left <= 0.0 { Level::Critical } else { Level::Warning };
            let hours = certificate.days_left * 24.0;
            let text = format!("certificate expires in {hours:.1} h");
            findings.push(Finding::new(level, certificate.name, "certificate", text));
        }
    }
    findings.extend(kill::views(shared, None, ALERTS_MAX).0.into_iter().map(killed));
    findings
}

/// A breaker that is not simply closed.
fn breaker(service: &str, metrics: &Metrics) -> Option<Finding> {
    let (level, kind, text) = match metrics.state {
        BreakerState::Open => (Level::Critical, "breaker", "breaker open"),
        BreakerState::ForcedOpen => (Level::Critical, "breaker", "breaker forced open"),
        BreakerState::HalfOpen => (Level::Warning, "half_open", "breaker half open: probing"),
        BreakerState::ForcedClosed | BreakerState::Disabled => {
            (Level::Warning, "forced", "breaker held closed")
        }
        BreakerState::Closed => return None,
    };
    let began = metrics.opened_at.map(clock::wall);
    Some(Finding { began, ..Finding::new(level, service, kind, text) })
}

/// An operator has stopped something, which somebody has to end.
fn killed(view: kill::View) -> Finding {
    let service = view.scope.target().unwrap_or("all").to_owned();
    let (kind, what) = match &view.scope {
        Scope::All => ("kill_all", "everything is"),
        Scope::Service(_) => ("kill_service", "this service is"),
        Scope::Account(_) => ("kill_account", "this account is"),
        Scope::Symbol(_) => ("kill_symbol", "this symbol is"),
    };
    let cancels = if view.cancel_lane_open { "" } else { ", cancels too" };
    let text = format!("kill switch: {what} stopped{cancels} by {}: {}", view.by, view.reason);
    Finding::new(Level::Critical, service, kind, text)
}

pub(super) async fn list(State(control): State<Arc<Control>>, access: Access) -> Result<Json<Value>, Reject> {
    access.read()?;
    let alerts = control.alerts.now(&control.shared);
    Ok(Json(json!({ "alert_count": alerts.len(), "alerts": alerts })))
}
