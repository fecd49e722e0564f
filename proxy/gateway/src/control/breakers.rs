//! The breakers' endpoints.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sluice_http::{Reject, StrictJson};
use sluice_policy::breaker::{Force, Metrics, State as BreakerState};
use sluice_wire::code::Code;

use super::Control;
use super::access::Access;
use crate::clock;
use crate::upstream::Upstream;

/// LIMIT: bytes of a reason.
const REASON_BYTES: usize = 512;

type Answer = Result<Json<Value>, Reject>;

/// The word that clients switch on; what an operator forced is told apart.
pub(super) const fn word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Open | BreakerState::ForcedOpen => "open",
        BreakerState::HalfOpen => "half_open",
        BreakerState::Closed | BreakerState::ForcedClosed | BreakerState::Disabled => "closed",
    }
}

/// What an operator forced; `None` where it decides by itself.
pub(super) const fn forced(state: BreakerState) -> Option<&'static str> {
    match state {
        BreakerState::ForcedOpen => Some("open"),
        BreakerState::ForcedClosed => Some("closed"),
        BreakerState::Disabled => Some("disabled"),
        _ => None,
    }
}

fn find(control: &Control, name: &str) -> Result<Arc<Upstream>, Reject> {
    let generation = control.shared.generation();
    let route = generation.service(name);
    route
        .map(|route| Arc::clone(&route.upstream))
        .ok_or_else(|| Reject::new(Code::NotFound, "no breaker of this name"))
}

fn figures(metrics: &Metrics) -> Value {
    let counted = metrics.successes + metrics.failures;
    let rate = if counted == 0 { 0.0 } else { metrics.failures as f64 / counted as f64 };
    json!({
        "total_requests": metrics.requests,
        "total_successes": metrics.successes,
        "total_failures": metrics.failures,
        "neutral": metrics.neutral,
        "rejected": metrics.rejected,
        "late": metrics.late,
        "failure_rate": rate,
        "consecutive_failures": metrics.consecutive_failures,
        "window_calls": metrics.window_calls,
        "window_failures": metrics.window_failures,
        "window_slow_calls": metrics.window_slow,
        "probes_in_flight": metrics.probes,
        "transitions": metrics.transitions,
    })
}

fn settings(conf: &sluice_schema::Breaker) -> Value {
    json!({
        "failure_threshold": conf.failure_threshold,
        "failure_rate": conf.failure_rate,
        "slow_call_s": conf.slow_call.as_secs_f64(),
        "slow_rate": conf.slow_rate,
        "window_s": conf.window.as_secs_f64(),
        "min_calls": conf.min_calls,
        "recovery_timeout_s": conf.recovery_timeout.as_secs_f64(),
        "success_threshold": conf.success_threshold,
        "half_open_max": conf.half_open_max,
    })
}

/// Everything about one breaker.
pub(super) fn whole(upstream: &Upstream) -> Value {
    let breaker = upstream.breaker();
    let metrics = breaker.metrics(clock::now());
    let config = settings(&breaker.settings().conf);
    drop(breaker);
    json!({
        "name": upstream.name,
        "state": word(metrics.state),
        "forced": forced(metrics.state),
        "metrics": figures(&metrics),
        "config": config,
        "opened_at": metrics.opened_at.map(clock::wall),
        "retry_at": metrics.retry_at.map(clock::wall),
    })
}

pub(super) async fn list(State(control): State<Arc<Control>>, access: Access) -> Answer {
    access.read()?;
    let generation = control.shared.generation();
    let breakers: Vec<Value> = generation.services.iter().map(|route| whole(&route.upstream)).collect();
    let names: Vec<&str> = generation.services.iter().map(|route| route.service.name.as_str()).collect();
    Ok(Json(json!({ "circuit_breakers": names, "count": names.len(), "breakers": breakers })))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    access: Access,
) -> Answer {
    access.read()?;
    Ok(Json(whole(&*find(&control, &name)?)))
}

pub(super) async fn metrics(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    access: Access,
) -> Answer {
    access.read()?;
    let upstream = find(&control, &name)?;
    let metrics = upstream.breaker().metrics(clock::now());
    Ok(Json(json!({ "name": name, "state": word(metrics.state), "metrics": figures(&metrics) })))
}

pub(super) async fn state(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    access: Access,
) -> Answer {
    access.read()?;
    let state = find(&control, &name)?.breaker().state();
    let word = word(state);
    Ok(Json(json!({
        "name": name,
        "state": word,
        "forced": forced(state),
        "is_open": word == "open",
        "is_half_open": word == "half_open",
        "is_closed": word == "closed",
    })))
}

pub(super) async fn reset(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    access: Access,
) -> Answer {
    let upstream = find(&control, &name)?;
    access.change("breaker_reset", &name).await?;
    upstream.with_breaker(|breaker| breaker.reset(clock::now()));
    Ok(Json(json!({ "status": "success", "name": name, "new_state": word(upstream.breaker().state()) })))
}

pub(super) async fn reset_all(State(control): State<Arc<Control>>, access: Access) -> Answer {
    access.change("breaker_reset", "*").await?;
    let generation = control.shared.generation();
    for route in &generation.services {
        route.upstream.with_breaker(|breaker| breaker.reset(clock::now()));
    }
    Ok(Json(json!({ "status": "success", "count": generation.services.len() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forcing {
    state: Wanted,
    reason: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    Open,
    Closed,
    Disabled,
}

pub(super) async fn force(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    access: Access,
    StrictJson(forcing): StrictJson<Forcing>,
) -> Answer {
    let upstream = find(&control, &name)?;
    let reason = forcing.reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES {
        return Err(Reject::new(Code::Unprocessable, format!("`reason` takes 1 to {REASON_BYTES} bytes")));
    }
    let (force, op) = match forcing.state {
        Wanted::Open => (Force::Open, "breaker_force_open"),
        Wanted::Closed => (Force::Closed, "breaker_force_closed"),
        Wanted::Disabled => (Force::Disabled, "breaker_disable"),
    };
    access.change(op, &format!("{name}: {reason}")).await?;
    upstream.with_breaker(|breaker| breaker.force(force, clock::now()));
    let state = upstream.breaker().state();
    Ok(Json(json!({ "status": "success", "name": name, "new_state": word(state), "forced": forced(state) })))
}

/// New settings until the configuration changes them; what is left out stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSettings {
    failure_threshold: Option<u32>,
    failure_rate: Option<f64>,
    #[serde(default, deserialize_with = "duration")]
    slow_call: Option<Duration>,
    slow_rate: Option<f64>,
    #[serde(default, deserialize_with = "duration")]
    window: Option<Duration>,
    min_calls: Option<u32>,
    #[serde(default, deserialize_with = "duration")]
    recovery_timeout: Option<Duration>,
    success_threshold: Option<u32>,
    half_open_max: Option<u32>,
}

/// A number of seconds, or a text such as `250ms`, `60s`, `5m`.
fn duration<'de, D: Deserializer<'de>>(raw: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Seconds(f64),
        Text(String),
    }
    let parsed = match Raw::deserialize(raw)? {
        Raw::Seconds(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Raw::Text(text) => {
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let unit_ms = match &text[digits..] {
                "ms" => Some(1),
                "s" => Some(1_000),
                "m" => Some(60_000),
                "h" => Some(3_600_000),
                _ => None,
            };
            let number: Option<u64> = text[..digits].parse().ok();
            number.zip(unit_ms).and_then(|(number, unit)| number.checked_mul(unit)).map(Duration::from_millis)
        }
    };
    parsed
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("a duration is seconds, or a text such as \"60s\""))
}

impl NewSettings {
    fn apply(&self, conf: &mut sluice_schema::Breaker) -> Result<(), &'static str> {
        const LONGEST: Duration = Duration::from_secs(24 * 3600);
        let count = |wanted: Option<u32>, name| match wanted {
            Some(0 | 1_000_001..) => Err(name),
            wanted => Ok(wanted),
        };
        let rate = |wanted: Option<f64>, name| match wanted {
            Some(rate) if !(rate > 0.0 && rate <= 1.0) => Err(name),
            wanted => Ok(wanted),
        };
        let time = |wanted: Option<Duration>, name| match wanted {
            Some(time) if time < Duration::from_millis(10) || time > LONGEST => Err(name),
            wanted => Ok(wanted),
        };
        set(&mut conf.failure_threshold, count(self.failure_threshold, "failure_threshold")?);
        set(&mut conf.failure_rate, rate(self.failure_rate, "failure_rate")?);
        set(&mut conf.slow_call, time(self.slow_call, "slow_call")?);
        set(&mut conf.slow_rate, rate(self.slow_rate, "slow_rate")?);
        set(&mut conf.window, time(self.window, "window")?);
        set(&mut conf.min_calls, count(self.min_calls, "min_calls")?);
        set(&mut conf.recovery_timeout, time(self.recovery_timeout, "recovery_timeout")?);
        set(&mut conf.success_threshold, count(self.success_threshold, "success_threshold")?);
        set(&mut conf.half_open_max, count(self.half_open_max, "half_open_max")?);
        Ok(())
    }
}

fn set<T>(value: &mut T, wanted: Option<T>) {
    if let Some(wanted) = wanted {
        *value = wanted;
    }
}

pub(super) async fn configure(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    access: Access,
    StrictJson(wanted): StrictJson<NewSettings>,
) -> Answer {
    let upstream = find(&control, &name)?;
    let mut settings = upstream.breaker().settings().clone();
    wanted
        .apply(&mut settings.conf)
        .map_err(|key| Reject::new(Code::Unprocessable, format!("`{key}` is out of range")))?;
    access.change("breaker_configure", &name).await?;
    upstream.with_breaker(|breaker| breaker.configure(settings));
    Ok(Json(whole(&upstream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_left_out_stay_and_odd_ones_are_refused() {
        let mut conf = sluice_schema::Breaker::default();
        let wanted: NewSettings =
            serde_json::from_str(r#"{"failure_threshold": 2, "recovery_timeout": "250ms", "window": 5}"#)
                .unwrap();
        wanted.apply(&mut conf).unwrap();
        assert_eq!(conf.failure_threshold, 2);
        assert_eq!(conf.recovery_timeout, Duration::from_millis(250));
        assert_eq!(conf.window, Duration::from_secs(5));
        assert_eq!(conf.success_threshold, sluice_schema::Breaker::default().success_threshold);
        for bad in [r#"{"failure_rate": 1.5}"#, r#"{"half_open_max": 0}"#, r#"{"slow_call": "0s"}"#] {
            let wanted: NewSettings = serde_json::from_str(bad).unwrap();
            assert!(wanted.apply(&mut conf).is_err(), "{bad}");
        }
        for bad in [r#"{"window": "5 s"}"#, r#"{"window": -1}"#, r#"{"threshold": 1}"#] {
            assert!(serde_json::from_str::<NewSettings>(bad).is_err(), "{bad}");
        }
    }
}
