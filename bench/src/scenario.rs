//! The scenario file: rates, windows, connections and thresholds; `[quick]` replaces them for CI.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fault::{Deed, Fault};
use crate::growth::Growth;
use crate::kernels;
use crate::load::Pace;
use crate::question::Question;
use crate::sweep::Sweep;
use crate::threshold::Threshold;
use crate::transport::Transport;
use crate::work::Work;

/// Scenarios that the bench carries, by name.
const SHIPPED: [(&str, &str); 31] = [
    ("edge", include_str!("../scenarios/edge.toml")),
    ("edge-tls", include_str!("../scenarios/edge-tls.toml")),
    ("edge-mtls", include_str!("../scenarios/edge-mtls.toml")),
    ("edge-h2", include_str!("../scenarios/edge-h2.toml")),
    ("edge-knee", include_str!("../scenarios/edge-knee.toml")),
    ("edge-reload", include_str!("../scenarios/edge-reload.toml")),
    ("edge-reload-time", include_str!("../scenarios/edge-reload-time.toml")),
    ("edge-failover", include_str!("../scenarios/edge-failover.toml")),
    ("edge-tokens", include_str!("../scenarios/edge-tokens.toml")),
    ("edge-orders", include_str!("../scenarios/edge-orders.toml")),
    ("routes", include_str!("../scenarios/routes.toml")),
    ("events-publish", include_str!("../scenarios/events-publish.toml")),
    ("events-batch", include_str!("../scenarios/events-batch.toml")),
    ("events-fanout", include_str!("../scenarios/events-fanout.toml")),
    ("events-failover", include_str!("../scenarios/events-failover.toml")),
    ("events-replay", include_str!("../scenarios/events-replay.toml")),
    ("events-restart", include_str!("../scenarios/events-restart.toml")),
    ("calc-forms", include_str!("../scenarios/calc-forms.toml")),
    ("growth-connections", include_str!("../scenarios/growth-connections.toml")),
    ("growth-connections-tls", include_str!("../scenarios/growth-connections-tls.toml")),
    ("growth-services", include_str!("../scenarios/growth-services.toml")),
    ("growth-subscribers", include_str!("../scenarios/growth-subscribers.toml")),
    ("growth-stored", include_str!("../scenarios/growth-stored.toml")),
    ("vault-read", include_str!("../scenarios/vault-read.toml")),
    ("vault-write", include_str!("../scenarios/vault-write.toml")),
    ("vault-issue", include_str!("../scenarios/vault-issue.toml")),
    ("vault-sign", include_str!("../scenarios/vault-sign.toml")),
    ("vault-sign-shared", include_str!("../scenarios/vault-sign-shared.toml")),
    ("vault-validate", include_str!("../scenarios/vault-validate.toml")),
    ("vault-revoke", include_str!("../scenarios/vault-revoke.toml")),
    ("vault-unseal", include_str!("../scenarios/vault-unseal.toml")),
];
/// Names that stand for every scenario that begins with them.
const GROUPS: [&str; 2] = ["growth", "vault"];
/// The name that stands for everything.
const ALL: &str = "all";
/// A name that stands for another one.
const ALIASES: [(&str, &str); 1] = [("events", "events-publish")];
/// Fewer rounds have no median.
const REPEATS_MIN: u64 = 3;
const SUBJECTS_MAX: usize = 32;
/// LIMIT: callers; each is a request of its own in memory.
const TOKENS_MAX: u64 = 10_000;
const RATES_MAX: usize = 8;
pub(crate) const RATE_PER_S_MAX: u32 = 200_000;
pub(crate) const CONNECTIONS_MAX: u32 = 10_000;
const WINDOW_MAX: Duration = Duration::from_secs(300);
const SCENARIO_BYTES_MAX: u64 = 64 * 1024;

/// A scenario that cannot be run: the caller's mistake, exit code 2.
#[derive(Debug, Error)]
pub(crate) enum ScenarioError {
    #[error("no scenario `{0}`: use {names}", names = shipped_names())]
    Unknown(String),
    #[error("read scenario {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("scenario {path} is not valid: {source}")]
    Parse { path: String, source: Box<toml::de::Error> },
    #[error("scenario: {0}")]
    Range(String),
    #[error("scenario {path} is larger than {SCENARIO_BYTES_MAX} bytes")]
    TooLarge { path: String },
}

/// Which cores a subject has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placing {
    /// One for itself; the generator has another.
    #[default]
    Apart,
    /// All, with the generator.
    Shared,
}

/// A checked scenario.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Scenario {
    pub name: String,
    pub quick: bool,
    pub repeats: u32,
    pub connections: u32,
    /// Bytes of the answer's body; of an event, where events are stored; of a secret's value, at a vault.
    pub body_bytes: u32,
    pub request: Question,
    pub work: Work,
    pub cores: Placing,
    pub transport: Transport,
    /// Origins behind each proxy: one or two.
    pub origins: u32,
    /// Callers who ask in turn, each with a token of its own, where tokens are asked for.
    pub tokens: u32,
    /// What happens in each round.
    pub faults: Vec<Fault>,
    /// Who is measured, beside the direct line to the origin where there is one.
    pub subjects: Vec<String>,
    pub warmup_ms: u64,
    pub window_ms: u64,
    pub rates_per_s: Vec<u32>,
    /// Whether the closed loop is measured too.
    pub closed: bool,
    pub sweep: Option<Sweep>,
    /// More and more of something, at the first rate; nothing else is measured then.
    pub growth: Option<Growth>,
    /// What is asked, in words, where the keys above do not say it.
    pub words: Option<String>,
    /// The generator's own error allowed, 99th percentile.
    pub send_lag_p99_ms_max: f64,
    /// Subjects that may fall behind an open-loop rate without failing the run; the table says so.
    pub may_saturate: Vec<String>,
    /// Subjects whose answers may fail without failing the run, because of what is done to them meanwhile.
    pub may_fail: Vec<String>,
    #[serde(skip)]
    pub thresholds: Vec<Threshold>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: String,
    body_bytes: u32,
    connections: u32,
    subjects: Vec<String>,
    #[serde(default)]
    request: Question,
    #[serde(default)]
    work: Work,
    #[serde(default)]
    cores: Placing,
    #[serde(default)]
    transport: Transport,
    #[serde(default = "one")]
    origins: u32,
    #[serde(default = "one")]
    tokens: u32,
    #[serde(default = "yes")]
    closed: bool,
    full: RawTiming,
    quick: RawTiming,
    #[serde(default)]
    may_saturate: Vec<String>,
    #[serde(default)]
    may_fail: Vec<String>,
    #[serde(default)]
    threshold: Vec<Threshold>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTiming {
    repeats: u32,
    warmup_ms: u64,
    window_ms: u64,
    rates_per_s: Vec<u32>,
    send_lag_p99_ms_max: f64,
    /// After the rates: faster and faster, until a subject does not keep up.
    sweep: Option<Sweep>,
    /// Instead of the rates: more and more of something, at the first of them.
    growth: Option<Growth>,
    /// What happens in each round.
    #[serde(default)]
    fault: Vec<Fault>,
    /// Fewer of them, where all would take too long.
    subjects: Option<Vec<String>>,
    /// Less of it, likewise.
    work: Option<Work>,
}

fn shipped_names() -> String {
    let (names, groups) = (SHIPPED.map(|(name, _)| name).join(", "), GROUPS.join(" or "));
    format!(
        "{names}, {}, {groups} (each with all of its own), {ALL}, or a path to a TOML file",
        kernels::NAME
    )
}

/// What the command line says of its argument.
pub(crate) fn help() -> String {
    format!("Scenarios, one after the other: {}", shipped_names())
}

fn within(what: &str, value: u64, low: u64, high: u64) -> Result<(), String> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(format!("`{what}` = {value} is outside {low}..={high}"))
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

impl Scenario {
    /// The scenarios that a name stands for: all, a group's, else itself.
    pub(crate) fn named(name: &str) -> Vec<&str> {
        let shipped = SHIPPED.iter().map(|(name, _)| *name);
        match GROUPS.iter().find(|group| **group == name) {
            Some(group) => shipped.filter(|name| name.starts_with(group)).collect(),
            None if name == ALL => shipped.chain([kernels::NAME]).collect(),
            None => vec![name],
        }
    }

    /// Loads a shipped scenario by name, or a file by path.
    pub(crate) fn load(name: &str, quick: bool, repeats: Option<u32>) -> Result<Self, ScenarioError> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::parse(text, name, quick, repeats);
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|extension| extension != "toml") {
            return Err(ScenarioError::Unknown(name.into()));
        }
        let read = |source| ScenarioError::Read { path: name.into(), source };
        if std::fs::metadata(path).map_err(read)?.len() > SCENARIO_BYTES_MAX {
            return Err(ScenarioError::TooLarge { path: name.into() });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, name, quick, repeats)
    }

    fn parse(text: &str, path: &str, quick: bool, repeats: Option<u32>) -> Result<Self, ScenarioError> {
        let raw: RawScenario = toml::from_str(text)
            .map_err(|source| ScenarioError::Parse { path: path.into(), source: Box::new(source) })?;
        let timing = if quick { raw.quick } else { raw.full };
        let scenario = Self {
            name: raw.name,
            quick,
            repeats: repeats.unwrap_or(timing.repeats),
            connections: raw.connections,
            body_bytes: raw.body_bytes,
            request: raw.request,
            work: timing.work.unwrap_or(raw.work),
            cores: raw.cores,
            transport: raw.transport,
            origins: raw.origins,
            tokens: raw.tokens,
            faults: timing.fault,
            subjects: timing.subjects.unwrap_or(raw.subjects),
            warmup_ms: timing.warmup_ms,
            window_ms: timing.window_ms,
            rates_per_s: timing.rates_per_s,
            closed: raw.closed,
            sweep: timing.sweep,
            growth: timing.growth,
            words: None,
            send_lag_p99_ms_max: timing.send_lag_p99_ms_max,
            may_saturate: raw.may_saturate,
            may_fail: raw.may_fail,
            // A short window on a shared machine proves no speed, only that everything works.
            thresholds: if quick { Vec::new() } else { raw.threshold },
        };
        scenario.check().map_err(ScenarioError::Range)?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        within("body_bytes", self.body_bytes.into(), 16, 1 << 20)?;
        let rates = if self.work.is_trial() { 0 } else { RATES_MAX as u64 };
        within("rates_per_s entries", self.rates_per_s.len() as u64, 0, rates)?;
        within("subjects", self.subjects.len() as u64, 1, SUBJECTS_MAX as u64)?;
        self.request.check()?;
        self.work.check(self.body_bytes)?;
        if self.transport != Transport::Plain && !self.work.is_forward() {
            return Err("`transport` is that of proxies".into());
        }
        within("origins", self.origins.into(), 1, 2)?;
        within("tokens", self.tokens.into(), 1, TOKENS_MAX)?;
        Fault::check_all(&self.faults, self.window_ms)?;
        self.growth.iter().try_for_each(|growth| growth.check(self))?;
        self.check_timing(REPEATS_MIN)?;
        self.thresholds.iter().try_for_each(Threshold::check)
    }

    /// Names, times and rates, with at least so many rounds.
    pub(crate) fn check_timing(&self, repeats_min: u64) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 40 || !self.name.chars().all(plain) {
            return Err(
                "`name` must be 1 to 40 letters, digits, `-` or `_`: it names the report's files".into()
            );
        }
        within("repeats", self.repeats.into(), repeats_min, 50)?;
        within("connections", self.connections.into(), 1, CONNECTIONS_MAX.into())?;
        within("warmup_ms", self.warmup_ms, 20, 60_000)?;
        within("window_ms", self.window_ms, 50, WINDOW_MAX.as_millis() as u64)?;
        for rate in &self.rates_per_s {
            within("rates_per_s", u64::from(*rate), 10, RATE_PER_S_MAX.into())?;
        }
        if let Some(sweep) = &self.sweep {
            sweep.check(RATE_PER_S_MAX)?;
        }
        if self.paces().is_empty() && self.sweep.is_none() && self.growth.is_none() {
            return Err("without rates, closed loop and sweep nothing is measured".into());
        }
        if !(self.send_lag_p99_ms_max > 0.0 && self.send_lag_p99_ms_max.is_finite()) {
            return Err("`send_lag_p99_ms_max` must be above zero".into());
        }
        Ok(())
    }

    /// The paces of a round: each rate, then the closed loop.
    pub(crate) fn paces(&self) -> Vec<Pace> {
        if self.growth.is_some() {
            return Vec::new();
        }
        let closed = self.closed.then_some(Pace::Closed);
        self.rates_per_s.iter().map(|&rate| Pace::Open(rate)).chain(closed).collect()
    }

    /// Whether a proxy is told to reload.
    pub(crate) fn reloads(&self) -> bool {
        self.faults.iter().any(|fault| fault.deed == Deed::Reload)
    }

    /// Time before anything is recorded.
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_millis(self.warmup_ms)
    }

    /// Time recorded.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The shipped scenario in quick form, for other modules' tests.
    pub(crate) fn quick_edge() -> Scenario {
        Scenario::load("edge", true, None).unwrap()
    }

    #[test]
    fn shipped_scenarios_are_valid_in_both_forms() {
        for (name, _) in SHIPPED {
            let full = Scenario::load(name, false, Some(7)).unwrap();
            assert_eq!((full.repeats, full.name.as_str()), (7, name));
            assert!(!full.thresholds.is_empty() || full.growth.is_some());
            assert!(!full.closed || full.growth.is_some() || full.paces().last() == Some(&Pace::Closed));
            let quick = Scenario::load(name, true, None).unwrap();
            assert!(quick.thresholds.is_empty());
            assert!(quick.subjects.iter().all(|subject| full.subjects.contains(subject)), "{name}");
        }
    }

    #[test]
    fn quick_forms_measure_for_less_than_45_s() {
        for (name, _) in SHIPPED {
            let quick = Scenario::load(name, true, None).unwrap();
            let direct = u64::from(quick.work.is_forward());
            let subjects = direct + quick.subjects.len() as u64;
            let steps = quick.growth.as_ref().map_or(0, |growth| growth.steps.len() as u64);
            let climbs = quick.sweep.map_or(steps, |sweep| sweep.steps.into());
            let runs = subjects * (quick.paces().len() as u64 + climbs) * u64::from(quick.repeats);
            let took_ms = runs * (quick.warmup_ms + quick.window_ms);
            assert!(took_ms < 45_000, "{name}: {took_ms} ms");
        }
    }

    #[test]
    fn names_stand_for_one_for_their_own_and_for_all() {
        assert_eq!(Scenario::named("edge"), ["edge"]);
        assert_eq!(Scenario::named("vault").len(), 8);
        assert!(Scenario::named("growth").iter().all(|name| name.starts_with("growth-")));
        let all = Scenario::named("all");
        assert!(all.len() == SHIPPED.len() + 1 && all.contains(&"calc") && all.contains(&"routes"));
    }

    #[test]
    fn trials_have_no_rates_and_values_a_least_size() {
        for (name, good, bad, word) in [
            ("vault-revoke", "rates_per_s = []", "rates_per_s = [10]", "rates_per_s"),
            ("vault-unseal", "secrets = 100000", "secrets = 0", "secrets"),
            ("vault-unseal", "body_bytes = 256", "body_bytes = 20", "body_bytes"),
            ("vault-read", "op = \"read\"", "op = \"guess\"", "guess"),
        ] {
            let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name).unwrap();
            assert!(text.contains(good), "{name}: {good}");
            let error = Scenario::parse(&text.replacen(good, bad, 1), "x", false, None).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn one_word_stands_for_the_first_scenario_of_events() {
        assert_eq!(Scenario::load("events", true, None).unwrap().name, "events-publish");
    }

    #[test]
    fn thresholds_and_exceptions_speak_of_measured_subjects() {
        for (name, _) in SHIPPED {
            let full = Scenario::load(name, false, None).unwrap();
            let known = |subject: &str| subject == "direct" || full.subjects.iter().any(|s| s == subject);
            assert!(full.may_saturate.iter().all(|subject| known(subject)), "{name}");
            assert!(full.thresholds.iter().flat_map(Threshold::names).all(known), "{name}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("connections = 32", "connections = 0", "connections"),
            ("connections = 32", "conections = 32", "conections"),
            ("name = \"edge\"", "name = \"../edge\"", "name"),
            ("[quick]\nrepeats = 3", "[quick]\nrepeats = 2", "repeats"),
            ("body_bytes = 1024", "body_bytes = 15", "body_bytes"),
            ("connections = 32", "connections = 32\nrequest = { method = \"PUT\" }", "PUT"),
            ("connections = 32", "connections = 32\nrequest = { method = \"POST\" }", "request.body_bytes"),
            ("connections = 32", "connections = 32\nwork = { kind = \"publish\", batch = 0 }", "batch"),
            ("connections = 32", "connections = 32\nwork = { kind = \"publish\", batch = 1000 }", "at most"),
            ("connections = 32", "connections = 32\nwork = { kind = \"sing\" }", "sing"),
            ("connections = 32", "connections = 32\ncores = \"most\"", "most"),
        ];
        let (_, edge) = SHIPPED[0];
        for (good, bad, word) in cases {
            assert!(edge.contains(good), "{good}");
            let error = Scenario::parse(&edge.replacen(good, bad, 1), "x", true, None).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(matches!(Scenario::load("nope", true, None), Err(ScenarioError::Unknown(_))));
        assert!(matches!(Scenario::load("/no/such.toml", true, None), Err(ScenarioError::Read { .. })));
    }
}
