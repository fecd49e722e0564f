//! The report: one JSON document, from which the tables are drawn.

use schemars::JsonSchema;
use serde::Serialize;

use crate::compare::Comparison;
use crate::figures::{Cell, Percentiles, Spread, curve};
use crate::growth::Grown;
use crate::load::{Failures, Moment, Pace};
use crate::machine::Machine;
use crate::scenario::Scenario;
use crate::subject::Cores;
use crate::sweep::Climbed;
use crate::threshold::{Judgement, Verdict, pace_name};

/// Version of the document's shape.
pub(crate) const SCHEMA: &str = "sluice-bench/1";

/// All that is known about one run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Report {
    pub schema: &'static str,
    /// Seconds since the epoch when the run began.
    pub began_unix_s: u64,
    pub took_s: f64,
    /// A signal broke the run off: cells hold the rounds until then.
    pub interrupted: bool,
    pub scenario: Scenario,
    pub machine: Machine,
    /// Null when the cores could not be split; `pinning_note` says why.
    pub cores: Option<Cores>,
    pub pinning_note: Option<String>,
    /// CPU time of other processes and of the host during the measurement, as a share of one core.
    pub neighbours_cores: Option<f64>,
    pub subjects: Vec<Described>,
    pub cells: Vec<Figures>,
    /// Of each subject, rates until it did not keep up; empty without a sweep.
    pub sweeps: Vec<Climbed>,
    /// Of each subject, what more and more of something costs; empty without growth.
    pub growths: Vec<Grown>,
    pub ratios: Vec<Ratio>,
    pub verdicts: Vec<Verdict>,
    /// Null without `--compare`.
    pub comparison: Option<Comparison>,
    pub passed: bool,
}

/// One subject: measured, or why not.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Described {
    pub name: String,
    pub policies: String,
    /// Null when it was not available, as are the next two.
    pub version: Option<String>,
    /// Of the executable, in hexadecimal.
    pub sha256: Option<String>,
    /// Where the executable comes from: `PATH`, a package with its release, a path.
    pub source: Option<String>,
    /// Null when it was measured.
    pub not_available: Option<String>,
}

/// The figures of one subject at one pace over all rounds.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Figures {
    pub subject: String,
    pub pace: String,
    pub requests_per_s: Option<Spread>,
    pub cpu_us: Option<Spread>,
    /// Context switches, each answer's share.
    pub switches: Option<Spread>,
    pub core_busy: Option<Spread>,
    pub rss_bytes: Option<Spread>,
    pub p50_ms: Option<Spread>,
    pub p90_ms: Option<Spread>,
    pub p99_ms: Option<Spread>,
    pub p999_ms: Option<Spread>,
    pub max_ms: Option<Spread>,
    pub service_p99_ms: Option<Spread>,
    pub send_lag_p99_ms: Option<Spread>,
    /// Percentiles of all rounds' latencies together.
    pub merged_ms: Percentiles,
    /// Of the same, shares of the requests and the latency within which they were answered.
    pub curve_ms: Vec<(f64, f64)>,
    /// Latency of what was due in each slice of the window, all rounds together.
    pub over_time: Vec<Moment>,
    pub failed: u64,
    /// The failed by kind.
    pub failures: Failures,
    /// Of the failed, those never sent or not answered in time.
    pub left_waiting: u64,
    pub complaints: Vec<String>,
    pub kept_rate: bool,
}

/// CPU time a request of one subject over that of another, paired by round.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ratio {
    pub subject: String,
    pub peer: String,
    pub pace: String,
    pub cpu: Spread,
}

impl Figures {
    /// Draws the figures of a cell.
    pub(crate) fn of(cell: &Cell) -> Self {
        Self {
            subject: cell.subject.clone(),
            pace: pace_name(cell.pace),
            requests_per_s: cell.spread(|run| run.requests_per_s),
            cpu_us: cell.spread(|run| run.cpu_us).filter(|_| cell.accounted),
            switches: cell.spread(|run| run.switches).filter(|_| cell.accounted),
            core_busy: cell.spread(|run| run.core_busy).filter(|_| cell.accounted),
            rss_bytes: cell.spread(|run| run.rss_bytes as f64).filter(|_| cell.accounted),
            p50_ms: cell.spread(|run| run.latency.p50),
            p90_ms: cell.spread(|run| run.latency.p90),
            p99_ms: cell.spread(|run| run.latency.p99),
            p999_ms: cell.spread(|run| run.latency.p999),
            max_ms: cell.spread(|run| run.latency.max),
            service_p99_ms: cell.spread(|run| run.service_p99_ms),
            send_lag_p99_ms: cell.spread(|run| run.lag_p99_ms).filter(|_| cell.pace != Pace::Closed),
            merged_ms: Percentiles::of(&cell.merged),
            curve_ms: curve(&cell.merged),
            over_time: cell.moments(),
            failed: cell.failed(),
            failures: cell.failures(),
            left_waiting: cell.left_waiting(),
            complaints: cell.complaints.clone(),
            kept_rate: cell.kept(),
        }
    }
}

/// The shape of the document, as `sluice-bench schema` prints it.
pub(crate) fn schema_text() -> String {
    let schema = schemars::schema_for!(Report);
    serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n"
}

/// Ratios of every subject to every other at the same pace.
pub(crate) fn ratios(cells: &[Cell]) -> Vec<Ratio> {
    let pairs = cells.iter().flat_map(|own| cells.iter().map(move |peer| (own, peer)));
    pairs
        .filter(|(own, peer)| own.pace == peer.pace && own.subject != peer.subject)
        .filter(|(own, peer)| own.accounted && peer.accounted)
        .filter_map(|(own, peer)| {
            Some(Ratio {
                subject: own.subject.clone(),
                peer: peer.subject.clone(),
                pace: pace_name(own.pace),
                cpu: own.ratio(peer, |run| run.cpu_us)?,
            })
        })
        .collect()
}

/// No check was missed, and nothing of Sluice is slower than it was.
pub(crate) fn passed(verdicts: &[Verdict], comparison: Option<&Comparison>) -> bool {
    comparison.is_none_or(Comparison::passed)
        && verdicts.iter().all(|verdict| verdict.result != Judgement::Missed)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::figures::tests::{cell, run};
    use crate::growth::{Step, What};
    use crate::scenario::tests::quick_edge;
    use crate::sweep::{Point, Sweep};
    use crate::threshold::judge;

    /// A small report with a measured pair, a missing peer and one missed check.
    pub(crate) fn sample() -> Report {
        let rounds = |cpu| vec![run(cpu, 1000.0), run(cpu * 1.1, 1000.0), run(cpu * 0.9, 1000.0)];
        let mut slow = rounds(50.0);
        for run in &mut slow[1..] {
            (run.requests_per_s, run.kept) = (900.0, false);
        }
        let open = Pace::Open(1000);
        let cells = [
            cell("sluice-policy", open, slow),
            cell("haproxy-bare", open, rounds(25.0)),
            cell("sluice-policy", Pace::Closed, rounds(40.0)),
            cell("haproxy-bare", Pace::Closed, rounds(20.0)),
        ];
        let described = |name: &str, version: Option<&str>, missing: Option<&str>| Described {
            name: name.into(),
            policies: "some".into(),
            version: version.map(Into::into),
            sha256: version.map(|_| "0123456789abcdef".repeat(4)),
            source: version.map(|_| "PATH".into()),
            not_available: missing.map(Into::into),
        };
        let sweep = Sweep { from_per_s: 500, to_per_s: 1000, steps: 2, p99_ms_max: 5.0 };
        let scenario = Scenario { sweep: Some(sweep), ..quick_edge() };
        let verdicts = judge(&scenario, &cells, &[], &[]);
        Report {
            schema: SCHEMA,
            began_unix_s: 1_700_000_000,
            took_s: 12.5,
            interrupted: false,
            scenario,
            machine: Machine { load_at_start: 0.5, ..Machine::describe(2) },
            cores: Some(Cores { proxy: 0, load: 1 }),
            pinning_note: None,
            neighbours_cores: Some(0.4),
            subjects: vec![
                described("sluice-policy", Some("sluice 0.1.0"), None),
                described("haproxy-bare", Some("HAProxy 2.6"), None),
                described("nginx-bare", None, Some("no `nginx` in PATH")),
            ],
            cells: cells.iter().map(Figures::of).collect(),
            sweeps: vec![climbed()],
            growths: vec![grown()],
            ratios: ratios(&cells),
            passed: passed(&verdicts, None),
            verdicts,
            comparison: None,
        }
    }

    fn grown() -> Grown {
        let of = |at: u64, cpu: f64| Step {
            at,
            per_s: Spread::of([1000.0]),
            cpu_us: Spread::of([cpu, cpu * 1.1, cpu * 0.9]),
            p50_ms: Spread::of([0.2]),
            p99_ms: Spread::of([0.9]),
            rss_bytes: Spread::of([5e7]),
            failed: 0,
        };
        let points = vec![of(1, 20.0), of(100, 21.0), of(10_000, 22.0)];
        Grown { subject: "sluice-bare".into(), of: What::Connections, points }
    }

    fn climbed() -> Climbed {
        let point = |rate_per_s: u32, p99_ms| Point {
            rate_per_s,
            answered_per_s: 500.0,
            cpu_us: Some(20.0),
            p50_ms: 0.1,
            p99_ms,
            p999_ms: 10.0,
            send_lag_p99_ms: 0.1,
            failed: 0,
        };
        Climbed {
            subject: "sluice-policy".into(),
            knee_per_s: Spread::of([900.0]),
            beyond: false,
            generator_late: false,
            points: vec![point(500, 0.3), point(900, 0.5), point(1000, 40.0)],
        }
    }

    #[test]
    fn the_schema_is_that_of_the_report() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("report.schema.json");
        let now = schema_text();
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, &now).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(kept == now, "{} is old: run this test with UPDATE_EXPECT=1", file.display());
        let value = serde_json::to_value(sample()).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&now).unwrap();
        described(&schema, &schema, &value, "report");
    }

    /// Every member that the value has is described where its schema says.
    fn described(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value, at: &str) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return described(root, &root["$defs"][name], value, at);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let fits = |choice: &&serde_json::Value| value.is_null() == (choice["type"] == "null");
            return described(root, choices.iter().find(fits).unwrap(), value, at);
        }
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    let place = format!("{at}.{name}");
                    let known = schema["properties"].get(name);
                    let known = known.or_else(|| schema.get("additionalProperties"));
                    let tagged = schema["oneOf"].is_array();
                    match known {
                        Some(known) => described(root, known, value, &place),
                        None => assert!(tagged, "{place} is not described"),
                    }
                }
            }
            serde_json::Value::Array(items) => {
                for item in items {
                    let of = schema.get("items").or_else(|| schema["prefixItems"].get(0));
                    described(root, of.unwrap_or_else(|| panic!("{at}: items")), item, at);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn document_has_its_schema_and_no_number_is_lost() {
        let value = serde_json::to_value(sample()).unwrap();
        assert_eq!(value["schema"], SCHEMA);
        assert_eq!(value["passed"], false);
        assert_eq!(value["cells"][2]["cpu_us"]["median"], 40.0);
        assert_eq!(value["cells"][2]["send_lag_p99_ms"], serde_json::Value::Null);
        assert_eq!(value["subjects"][2]["not_available"], "no `nginx` in PATH");
        assert_eq!(value["machine"]["cores"], 2);
        assert_eq!(value["scenario"]["quick"], true);
    }

    #[test]
    fn ratios_pair_subjects_of_one_pace() {
        let report = sample();
        let found: Vec<_> =
            report.ratios.iter().map(|r| (r.subject.as_str(), r.pace.as_str(), r.cpu.median)).collect();
        assert_eq!(found.len(), 4);
        assert!(found.contains(&("sluice-policy", "closed", 2.0)), "{found:?}");
    }
}
