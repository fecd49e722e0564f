//! `--compare`: this run beside an older report of the same scenario; what got worse by more than the noise.
//!
//! A figure changed when the rounds of both runs lie apart: its medians differ by more than half of both ranges
//! together, and by [`BAND_MIN`] at least. A peer fails nothing: its program did not change with ours, so it tells of
//! the machine.

use std::fmt::Write as _;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::figures::Spread;
use crate::growth::{Grown, Step};
use crate::report::{Figures, SCHEMA};
use crate::scenario::{Scenario, ScenarioError};
use crate::sweep::Climbed;

/// Smallest change that counts, as a share: medians of a few rounds repeat no better.
const BAND_MIN: f64 = 0.05;
const REPORT_BYTES_MAX: u64 = 16 << 20;

/// An older report, as far as it is compared.
#[derive(Debug, Deserialize)]
pub(crate) struct Baseline {
    schema: String,
    scenario: Setting,
    machine: Cpu,
    cells: Vec<Cell>,
    #[serde(default)]
    sweeps: Vec<Knee>,
    #[serde(default)]
    growths: Vec<Rise>,
}

/// What must be the same for figures to be comparable.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Setting {
    name: String,
    quick: bool,
    connections: u32,
    body_bytes: u32,
}

#[derive(Debug, Deserialize)]
struct Cpu {
    cpu: String,
}

#[derive(Debug, Deserialize)]
struct Cell {
    subject: String,
    pace: String,
    cpu_us: Option<Spread>,
    requests_per_s: Option<Spread>,
    p99_ms: Option<Spread>,
}

#[derive(Debug, Deserialize)]
struct Knee {
    subject: String,
    knee_per_s: Option<Spread>,
}

#[derive(Debug, Deserialize)]
struct Rise {
    subject: String,
    points: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    at: u64,
    cpu_us: Option<Spread>,
    rss_bytes: Option<Spread>,
}

/// All that changed, or did not.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Comparison {
    pub baseline: String,
    /// The processor of the older run.
    pub baseline_cpu: String,
    pub changes: Vec<Change>,
}

/// One figure then and now.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Change {
    pub subject: String,
    pub pace: String,
    pub figure: &'static str,
    pub before: f64,
    pub after: f64,
    /// Share by which a change must exceed to count.
    pub band: f64,
    pub verdict: Direction,
}

/// Which way a figure went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    Better,
    Same,
    Worse,
}

impl Baseline {
    /// Reads an older report; one of another scenario or form is the caller's mistake.
    pub(crate) fn load(path: &Path, scenario: &Scenario) -> Result<Self, ScenarioError> {
        let mistake = |words: String| ScenarioError::Range(format!("--compare {}: {words}", path.display()));
        let read: Self = read(path)?;
        if read.schema != SCHEMA {
            return Err(mistake(format!("schema `{}`, not `{SCHEMA}`", read.schema)));
        }
        let setting = Setting {
            name: scenario.name.clone(),
            quick: scenario.quick,
            connections: scenario.connections,
            body_bytes: scenario.body_bytes,
        };
        if read.scenario != setting {
            return Err(mistake(format!("was {:?}, this run is {setting:?}", read.scenario)));
        }
        Ok(read)
    }

    /// Every figure that both runs have.
    pub(crate) fn compare(
        &self,
        path: &Path,
        cells: &[Figures],
        sweeps: &[Climbed],
        growths: &[Grown],
    ) -> Comparison {
        let asked = cells.iter().flat_map(|new| {
            let old = self.cells.iter().find(|old| (&old.subject, &old.pace) == (&new.subject, &new.pace));
            old.map(|old| changes(old, new)).unwrap_or_default()
        });
        let climbed = sweeps.iter().filter_map(|new| {
            let old = self.sweeps.iter().find(|old| old.subject == new.subject)?;
            change((&new.subject, "sweep"), ("rate held", true), old.knee_per_s, new.knee_per_s)
        });
        let grown = growths.iter().flat_map(|new| {
            let old = self.growths.iter().find(|old| old.subject == new.subject);
            old.map(|old| grew(old, new)).unwrap_or_default()
        });
        Comparison {
            baseline: path.display().to_string(),
            baseline_cpu: self.machine.cpu.clone(),
            changes: asked.chain(climbed).chain(grown).collect(),
        }
    }
}

/// A report of some kind, as far as its reader knows it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ScenarioError> {
    let mistake = |words: String| ScenarioError::Range(format!("--compare {}: {words}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| mistake(error.to_string()))?.len();
    if length > REPORT_BYTES_MAX {
        return Err(mistake(format!("larger than {REPORT_BYTES_MAX} bytes")));
    }
    let text = std::fs::read(path).map_err(|error| mistake(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| mistake(format!("no report: {error}")))
}

fn changes(old: &Cell, new: &Figures) -> Vec<Change> {
    let place = (new.subject.as_str(), new.pace.as_str());
    // A closed loop has no latency of its own, an open one no rate of its own.
    let second = if new.pace == "closed" {
        change(place, ("requests/s", true), old.requests_per_s, new.requests_per_s)
    } else {
        change(place, ("p99 ms", false), old.p99_ms, new.p99_ms)
    };
    [change(place, ("CPU µs a request", false), old.cpu_us, new.cpu_us), second]
        .into_iter()
        .flatten()
        .collect()
}

/// What both ladders have of each step.
fn grew(old: &Rise, new: &Grown) -> Vec<Change> {
    let of = |step: &Step| {
        let before = old.points.iter().find(|point| point.at == step.at)?;
        let words = format!("{} {}", step.at, new.of.words());
        let place = (new.subject.as_str(), words.as_str());
        let cpu = change(place, ("CPU µs each", false), before.cpu_us, step.cpu_us);
        Some(cpu.into_iter().chain(change(place, ("RSS bytes", false), before.rss_bytes, step.rss_bytes)))
    };
    new.points.iter().filter_map(of).flatten().collect()
}

/// A figure of a subject somewhere, then and now, where both runs have it.
pub(crate) fn change(
    (subject, pace): (&str, &str),
    (figure, more_is_better): (&'static str, bool),
    old: Option<Spread>,
    now: Option<Spread>,
) -> Option<Change> {
    let (old, now) = (old?, now?);
    let band = BAND_MIN.max(half_width(old) + half_width(now));
    let grown = now.median / old.median - 1.0;
    let worse_by = if more_is_better { -grown } else { grown };
    let verdict = match worse_by {
        by if by > band => Direction::Worse,
        by if by < -band => Direction::Better,
        _ => Direction::Same,
    };
    let (subject, pace) = (subject.to_owned(), pace.to_owned());
    Some(Change { subject, pace, figure, before: old.median, after: now.median, band, verdict })
}

fn half_width(spread: Spread) -> f64 {
    (spread.high - spread.low) / 2.0 / spread.median.max(f64::MIN_POSITIVE)
}

impl Change {
    fn is_ours(&self) -> bool {
        self.subject.starts_with("sluice")
    }
}

impl Comparison {
    /// Nothing of Sluice got worse, and something of it was compared.
    pub(crate) fn passed(&self) -> bool {
        let mut ours = self.changes.iter().filter(|change| change.is_ours()).peekable();
        ours.peek().is_some() && ours.all(|change| change.verdict != Direction::Worse)
    }

    /// As a table: all of Sluice's figures, and what moved of the others.
    pub(crate) fn render(&self, text: &mut String, cpu: &str) -> std::fmt::Result {
        writeln!(text, "\n### Compared with {}\n", self.baseline)?;
        if self.baseline_cpu != cpu {
            writeln!(text, "> Another machine: {}.\n", self.baseline_cpu)?;
        }
        writeln!(text, "| subject | pace | figure | before | now | change | noise | |")?;
        writeln!(text, "|---|---|---|---:|---:|---:|---:|---|")?;
        for change in self.changes.iter().filter(|c| c.is_ours() || c.verdict != Direction::Same) {
            let word = match (change.verdict, change.is_ours()) {
                (Direction::Worse, true) => "WORSE",
                (Direction::Worse, false) => "slower too",
                (Direction::Better, _) => "better",
                (Direction::Same, _) => "",
            };
            let percent = (change.after / change.before - 1.0) * 100.0;
            writeln!(
                text,
                "| {} | {} | {} | {:.2} | {:.2} | {percent:+.1} % | ±{:.1} % | {word} |",
                change.subject,
                change.pace,
                change.figure,
                change.before,
                change.after,
                change.band * 100.0
            )?;
        }
        let ours: Vec<_> = self.changes.iter().filter(|change| change.is_ours()).collect();
        let worse = ours.iter().filter(|change| change.verdict == Direction::Worse).count();
        match (ours.len(), worse) {
            (0, _) => writeln!(text, "\nMISSED: nothing of Sluice is in both reports."),
            (all, 0) => writeln!(text, "\nNone of Sluice's {all} figures got worse."),
            (all, worse) => writeln!(text, "\nMISSED: {worse} of Sluice's {all} figures got worse."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::report::tests::sample;
    use crate::scenario::tests::quick_edge;

    fn baseline(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Baseline, ScenarioError> {
        let mut document = serde_json::to_value(sample()).unwrap();
        edit(&mut document);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document.to_string()).unwrap();
        Baseline::load(file.path(), &quick_edge())
    }

    fn beside(older: &Baseline, now: &Report) -> Comparison {
        older.compare(Path::new("old.json"), &now.cells, &now.sweeps, &now.growths)
    }

    fn compared(subject: usize, before_us: f64) -> Comparison {
        let spread = serde_json::json!({ "median": before_us, "low": before_us, "high": before_us });
        let older = baseline(|document| document["cells"][subject]["cpu_us"] = spread).unwrap();
        beside(&older, &sample())
    }

    #[test]
    fn same_run_has_no_change() {
        let same = beside(&baseline(|_| ()).unwrap(), &sample());
        // Two subjects at two paces, a knee and three steps, two figures each but the knee.
        assert_eq!(same.changes.len(), 15);
        assert!(same.passed() && same.changes.iter().all(|change| change.verdict == Direction::Same));
    }

    /// The sample's closed-loop rounds differ by a tenth both ways: a change within it is noise.
    #[test]
    fn change_beyond_the_spread_counts_and_one_within_does_not() {
        for (before, expected, passed) in
            [(37.0, Direction::Same, true), (35.0, Direction::Worse, false), (46.0, Direction::Better, true)]
        {
            let comparison = compared(2, before);
            let change = &comparison.changes[4];
            assert_eq!((change.subject.as_str(), change.figure), ("sluice-policy", "CPU µs a request"));
            assert_eq!((change.verdict, comparison.passed()), (expected, passed), "{change:?}");
        }
        let mut text = String::new();
        compared(2, 35.0).render(&mut text, "another").unwrap();
        assert!(
            text.contains("| closed | CPU µs a request | 35.00 | 40.00 | +14.3 % | ±10.0 % | WORSE |"),
            "{text}"
        );
        assert!(text.contains("> Another machine"), "{text}");
        assert!(text.contains("MISSED: 1 of Sluice's 11 figures got worse."), "{text}");
    }

    #[test]
    fn slower_peer_fails_nothing_but_is_shown() {
        let comparison = compared(3, 10.0);
        assert!(comparison.passed());
        let mut text = String::new();
        comparison.render(&mut text, &comparison.baseline_cpu).unwrap();
        assert!(text.contains("| haproxy-bare | closed |") && text.contains("slower too"), "{text}");
    }

    #[test]
    fn fewer_requests_a_second_are_worse() {
        let spread = serde_json::json!({ "median": 2000.0, "low": 2000.0, "high": 2000.0 });
        let older = baseline(|document| document["cells"][2]["requests_per_s"] = spread).unwrap();
        let comparison = beside(&older, &sample());
        assert!(!comparison.passed());
    }

    #[test]
    fn lower_knees_and_heavier_steps_are_worse() {
        let spread = |value: f64| serde_json::json!({ "median": value, "low": value, "high": value });
        for (place, value, words) in [
            ("/sweeps/0/knee_per_s", 2000.0, "| sweep | rate held |"),
            ("/growths/0/points/1/cpu_us", 10.0, "| 100 connections | CPU µs each |"),
            ("/growths/0/points/2/rss_bytes", 1e7, "| 10000 connections | RSS bytes |"),
        ] {
            let older = baseline(|document| *document.pointer_mut(place).unwrap() = spread(value)).unwrap();
            let comparison = beside(&older, &sample());
            let mut text = String::new();
            comparison.render(&mut text, "").unwrap();
            assert!(!comparison.passed() && text.contains(words), "{place}: {text}");
        }
    }

    #[test]
    fn reports_of_something_else_are_refused() {
        for (path, value, words) in [
            ("/schema", serde_json::json!("other/1"), "schema `other/1`"),
            ("/scenario/quick", serde_json::json!(false), "this run is"),
            ("/cells", serde_json::json!(7), "no report"),
        ] {
            let error = baseline(|document| *document.pointer_mut(path).unwrap() = value).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(Baseline::load(Path::new("/no/such.json"), &quick_edge()).is_err());
        let without = baseline(|document| {
            for list in ["cells", "sweeps", "growths"] {
                document[list] = serde_json::json!([]);
            }
        });
        let without = without.unwrap();
        assert!(!beside(&without, &sample()).passed(), "nothing was compared");
    }
}
