//! The scenario file: rates, windows, connections and thresholds; `[quick]` replaces them for CI.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::load::Pace;
use crate::question::Question;
use crate::threshold::Threshold;
use crate::voice::event_bytes_min;

/// Scenarios that the bench carries, by name.
const SHIPPED: [(&str, &str); 6] = [
    ("edge", include_str!("../scenarios/edge.toml")),
    ("edge-orders", include_str!("../scenarios/edge-orders.toml")),
    ("routes", include_str!("../scenarios/routes.toml")),
    ("events-publish", include_str!("../scenarios/events-publish.toml")),
    ("events-batch", include_str!("../scenarios/events-batch.toml")),
    ("events-fanout", include_str!("../scenarios/events-fanout.toml")),
];
/// A name that stands for another one.
const ALIASES: [(&str, &str); 1] = [("events", "events-publish")];
const SUBJECTS_MAX: usize = 32;
const RATES_MAX: usize = 8;
const RATE_PER_S_MAX: u32 = 200_000;
const CONNECTIONS_MAX: u32 = 2000;
const WINDOW_MAX: Duration = Duration::from_secs(300);
const BATCH_MAX: u32 = 1000;
const SUBSCRIBERS_MAX: u32 = 4000;
/// With its head it must fit the socket's buffer, because it is sent in one write.
const REQUEST_BYTES_MAX: u32 = 64 * 1024;
const SCENARIO_BYTES_MAX: u64 = 64 * 1024;

/// A scenario that cannot be run: the caller's mistake, exit code 2.
#[derive(Debug, Error)]
pub(crate) enum ScenarioError {
    #[error(
        "no scenario `{0}`: use edge, edge-orders, routes, events-publish, events-batch, events-fanout or a path to a TOML file"
    )]
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

/// A checked scenario.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scenario {
    pub name: String,
    pub quick: bool,
    pub repeats: u32,
    pub connections: u32,
    /// Bytes of the answer's body; of an event, where events are stored.
    pub body_bytes: u32,
    pub request: Question,
    pub work: Work,
    /// Who is measured, beside the direct line to the origin where there is one.
    pub subjects: Vec<String>,
    pub warmup_ms: u64,
    pub window_ms: u64,
    pub rates_per_s: Vec<u32>,
    /// The generator's own error allowed, 99th percentile.
    pub send_lag_p99_ms_max: f64,
    /// Subjects that may fall behind an open-loop rate without failing the run; the table says so.
    pub may_saturate: Vec<String>,
    #[serde(skip)]
    pub thresholds: Vec<Threshold>,
}

/// What the subjects are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Work {
    /// Pass requests on to the origin.
    #[default]
    Forward,
    /// Store events, so many with each request.
    Publish { batch: u32 },
    /// Store events and show each of them to so many subscribers; latency is that of the deliveries.
    Fanout { batch: u32, subscribers: u32 },
}

impl Work {
    /// Whether it is asked of an origin through proxies.
    pub(crate) fn is_forward(self) -> bool {
        self == Self::Forward
    }

    /// Deliveries that one request is to cause; 1 where its answer is what is measured.
    pub(crate) fn deliveries(self) -> u64 {
        match self {
            Self::Forward | Self::Publish { .. } => 1,
            Self::Fanout { batch, subscribers } => u64::from(batch) * u64::from(subscribers),
        }
    }

    fn check(self, event_bytes: u32) -> Result<(), String> {
        let (batch, subscribers) = match self {
            Self::Forward => return Ok(()),
            Self::Publish { batch } => (batch, 1),
            Self::Fanout { batch, subscribers } => (batch, subscribers),
        };
        if !(1..=BATCH_MAX).contains(&batch) || !(1..=SUBSCRIBERS_MAX).contains(&subscribers) {
            return Err(format!("`work`: batch is 1 to {BATCH_MAX}, subscribers are 1 to {SUBSCRIBERS_MAX}"));
        }
        let least = event_bytes_min();
        if (event_bytes as usize) < least || event_bytes.saturating_mul(batch) > REQUEST_BYTES_MAX {
            return Err(format!(
                "`body_bytes` of an event is at least {least}, and a request has at most {REQUEST_BYTES_MAX}"
            ));
        }
        Ok(())
    }
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
    full: RawTiming,
    quick: RawTiming,
    #[serde(default)]
    may_saturate: Vec<String>,
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
    /// Fewer of them, where all would take too long.
    subjects: Option<Vec<String>>,
}

impl Scenario {
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
            work: raw.work,
            subjects: timing.subjects.unwrap_or(raw.subjects),
            warmup_ms: timing.warmup_ms,
            window_ms: timing.window_ms,
            rates_per_s: timing.rates_per_s,
            send_lag_p99_ms_max: timing.send_lag_p99_ms_max,
            may_saturate: raw.may_saturate,
            // A short window on a shared machine proves no speed, only that everything works.
            thresholds: if quick { Vec::new() } else { raw.threshold },
        };
        scenario.check().map_err(ScenarioError::Range)?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let within = |what: &str, value: u64, low: u64, high: u64| match value {
            v if (low..=high).contains(&v) => Ok(()),
            v => Err(format!("`{what}` = {v} is outside {low}..={high}")),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 40 || !self.name.chars().all(plain) {
            return Err(
                "`name` must be 1 to 40 letters, digits, `-` or `_`: it names the report's files".into()
            );
        }
        within("repeats", self.repeats.into(), 3, 50)?;
        within("connections", self.connections.into(), 1, CONNECTIONS_MAX.into())?;
        within("body_bytes", self.body_bytes.into(), 16, 1 << 20)?;
        within("warmup_ms", self.warmup_ms, 20, 60_000)?;
        within("window_ms", self.window_ms, 50, WINDOW_MAX.as_millis() as u64)?;
        within("rates_per_s entries", self.rates_per_s.len() as u64, 1, RATES_MAX as u64)?;
        within("subjects", self.subjects.len() as u64, 1, SUBJECTS_MAX as u64)?;
        self.request.check()?;
        self.work.check(self.body_bytes)?;
        for rate in &self.rates_per_s {
            within("rates_per_s", u64::from(*rate), 10, RATE_PER_S_MAX.into())?;
        }
        if !(self.send_lag_p99_ms_max > 0.0 && self.send_lag_p99_ms_max.is_finite()) {
            return Err("`send_lag_p99_ms_max` must be above zero".into());
        }
        self.thresholds.iter().try_for_each(Threshold::check)
    }

    /// The paces of a round: each rate, then the closed loop.
    pub(crate) fn paces(&self) -> Vec<Pace> {
        self.rates_per_s.iter().map(|&rate| Pace::Open(rate)).chain([Pace::Closed]).collect()
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
            assert!(!full.thresholds.is_empty());
            assert_eq!(full.paces().last(), Some(&Pace::Closed));
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
            let runs = subjects * quick.paces().len() as u64 * u64::from(quick.repeats);
            let took_ms = runs * (quick.warmup_ms + quick.window_ms);
            assert!(took_ms < 45_000, "{name}: {took_ms} ms");
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
