//! What the rounds add up to: medians, ratios, checks, a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::goals::CalcScenario;
use super::table::KERNELS;
use super::timing::{CRATE, Length, OURS, Round, STREAM, TALIB, TULIP};
use crate::compare::{self, Comparison};
use crate::figures::Spread;
use crate::machine::Machine;
use crate::scenario::ScenarioError;

/// Name of the report's shape.
pub(super) const SCHEMA: &str = "sluice-bench-calc/1";

/// One length of series in one build.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    pub(super) bars: usize,
    pub(super) build: String,
    pub(super) kernels: BTreeMap<String, BTreeMap<String, f64>>,
    pub(super) others: BTreeMap<String, f64>,
    /// Sluice's own of each round, lowest and highest beside the median.
    pub(super) ours: BTreeMap<String, Spread>,
    /// Each kernel over longer and longer series.
    pub(super) growth: BTreeMap<String, Vec<Length>>,
}

/// A goal and what was found.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) figure: f64,
    pub(super) goal: f64,
    pub(super) met: bool,
}

/// The whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) scenario: String,
    pub(super) quick: bool,
    /// Broken off: figures are of the rounds until then.
    pub(super) interrupted: bool,
    pub(super) machine: Machine,
    /// Cores that others used meanwhile.
    pub(super) others_used: Option<f64>,
    pub(super) rounds: u32,
    /// Who was measured, and who was not and why.
    pub(super) rivals: BTreeMap<String, String>,
    pub(super) sections: Vec<Section>,
    pub(super) checks: Vec<Check>,
    /// Null without `--compare`.
    pub(super) comparison: Option<Comparison>,
}

/// An older report, as far as it is compared.
#[derive(Debug, Deserialize)]
pub(super) struct Older {
    schema: String,
    quick: bool,
    machine: OlderMachine,
    sections: Vec<OlderSection>,
}

#[derive(Debug, Deserialize)]
struct OlderMachine {
    cpu: String,
}

#[derive(Debug, Deserialize)]
struct OlderSection {
    bars: usize,
    build: String,
    ours: BTreeMap<String, Spread>,
}

impl Older {
    /// Reads an older report of the kernels; any other one is the caller's mistake.
    pub(super) fn load(path: &Path, quick: bool) -> Result<Self, ScenarioError> {
        let mistake = |words: String| ScenarioError::Range(format!("--compare {}: {words}", path.display()));
        let read: Self = compare::read(path)?;
        if (read.schema.as_str(), read.quick) != (SCHEMA, quick) {
            return Err(mistake(format!("schema `{}`, quick = {}", read.schema, read.quick)));
        }
        Ok(read)
    }

    /// Every kernel of the builds and lengths that both runs have.
    pub(super) fn compare(&self, path: &Path, now: &[Section]) -> Comparison {
        let beside = |new: &Section| {
            let fits = |old: &&OlderSection| (old.bars, &old.build) == (new.bars, &new.build);
            let old = self.sections.iter().find(fits)?;
            let place = format!("{} bars, {}", new.bars, new.build);
            let kernel = |(name, now): (&String, &Spread)| {
                let subject = format!("sluice {name}");
                compare::change(
                    (&subject, &place),
                    ("ns a bar", false),
                    old.ours.get(name).copied(),
                    Some(*now),
                )
            };
            Some(new.ours.iter().filter_map(kernel).collect::<Vec<_>>())
        };
        Comparison {
            baseline: path.display().to_string(),
            baseline_cpu: self.machine.cpu.clone(),
            changes: now.iter().filter_map(beside).flatten().collect(),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(rounds: &[Round], kernel: &str) -> Option<Spread> {
    Spread::of(rounds.iter().map(|round| round.kernels[kernel][OURS]))
}

/// Medians of the rounds, by kernel and length.
fn growth(rounds: &[Round]) -> BTreeMap<String, Vec<Length>> {
    let Some(first) = rounds.first() else { return BTreeMap::new() };
    let of = |name: &String, at: usize, first: &Length| {
        let all = |figure: fn(&Length) -> Option<f64>| -> Option<Vec<f64>> {
            rounds.iter().map(|round| figure(round.growth.get(name)?.get(at)?)).collect()
        };
        Length {
            bars: first.bars,
            ours: all(|one| Some(one.ours)).map_or(f64::NAN, median),
            talib: all(|one| one.talib).map(median),
        }
    };
    let told = first.growth.iter().map(|(name, lengths)| {
        (name.clone(), lengths.iter().enumerate().map(|(at, length)| of(name, at, length)).collect())
    });
    told.collect()
}

impl Section {
    /// Of all kernels at each length: geometric means of ours and of TA-Lib's.
    pub(super) fn lengths(&self) -> Vec<Length> {
        let Some(first) = self.growth.values().next() else { return Vec::new() };
        let mean = |at: usize, figure: fn(&Length) -> Option<f64>| -> Option<f64> {
            let logs: Option<Vec<f64>> =
                self.growth.values().map(|lengths| Some(figure(lengths.get(at)?)?.ln())).collect();
            logs.map(|logs| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
        };
        let of = |(at, length): (usize, &Length)| Length {
            bars: length.bars,
            ours: mean(at, |one| Some(one.ours)).unwrap_or(f64::NAN),
            talib: mean(at, |one| one.talib),
        };
        first.iter().enumerate().map(of).collect()
    }

    /// Medians of the rounds of one build and length.
    pub(super) fn of(bars: usize, rounds: &[Round]) -> Self {
        let mut kernels: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
        let mut others = BTreeMap::new();
        if let Some(first) = rounds.first() {
            for (name, figures) in &first.kernels {
                let of = |who: &String| median(rounds.iter().map(|round| round.kernels[name][who]).collect());
                kernels.insert(name.clone(), figures.keys().map(|who| (who.clone(), of(who))).collect());
            }
            let of = |name: &String| median(rounds.iter().map(|round| round.others[name]).collect());
            others = first.others.keys().map(|name| (name.clone(), of(name))).collect();
        }
        Self {
            bars,
            ours: kernels.keys().filter_map(|name| Some((name.clone(), spread(rounds, name)?))).collect(),
            growth: growth(rounds),
            build: rounds.first().map(|round| round.build.clone()).unwrap_or_default(),
            kernels,
            others,
        }
    }

    /// A rival's time over ours, geometric mean of the kernels.
    pub(super) fn times(&self, who: &str) -> Option<f64> {
        let logs: Option<Vec<f64>> =
            self.kernels.values().map(|figures| Some((figures.get(who)? / figures[OURS]).ln())).collect();
        logs.filter(|logs| !logs.is_empty()).map(|logs| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
    }

    /// CalcScenario of the scenario, held against this section.
    pub(super) fn judged(&self, goals: &CalcScenario) -> Vec<Check> {
        let most = |what: String, figure: f64, goal: f64| Check { what, figure, goal, met: figure <= goal };
        let least = |what: &str, figure: f64, goal: f64| Check {
            what: what.to_owned(),
            figure,
            goal,
            met: figure >= goal,
        };
        let mut checks: Vec<Check> = KERNELS
            .iter()
            .map(|kernel| {
                most(
                    format!("{} ns a bar", kernel.name),
                    self.kernels[kernel.name][OURS],
                    goals.goals[kernel.name],
                )
            })
            .collect();
        if let Some(times) = self.times(TALIB) {
            checks.push(least("times TA-Lib C", times, goals.limits.times_talib));
        }
        let slowest = self.kernels.values().map(|figures| figures[STREAM]).fold(0.0, f64::max);
        checks.push(most("slowest stream, ns a bar".to_owned(), slowest, goals.limits.stream_ns));
        checks.push(most(
            "all risk figures, ns a return".to_owned(),
            self.others["risk"],
            goals.limits.risk_ns,
        ));
        checks.push(least("combinations a second", self.others["grid"], goals.limits.grid_per_s));
        checks
    }

    fn render(&self, text: &mut String, goals: &CalcScenario) -> std::fmt::Result {
        writeln!(text, "### {} bars, {}\n", self.bars, self.build)?;
        let rivals = [TALIB, CRATE, TULIP].map(|who| (who, self.times(who)));
        let rivals: Vec<_> = rivals.into_iter().filter_map(|(who, times)| Some((who, times?))).collect();
        write!(text, "| kernel | ns a bar | goal | copies |")?;
        rivals.iter().try_for_each(|(who, _)| write!(text, " {who} | × |"))?;
        writeln!(text, " stream |")?;
        writeln!(text, "|---|---:|---:|---:|{}---:|", "---:|---:|".repeat(rivals.len()))?;
        for kernel in KERNELS {
            let figures = &self.kernels[kernel.name];
            let ours = figures[OURS];
            let copies = ours / self.others["copy"];
            write!(text, "| {} | {ours:.2} | {:.2} | {copies:.1} |", kernel.name, goals.goals[kernel.name])?;
            for (who, _) in &rivals {
                write!(text, " {:.2} | {:.2} |", figures[*who], figures[*who] / ours)?;
            }
            writeln!(text, " {:.1} |", figures[STREAM])?;
        }
        write!(text, "| geometric mean | | | |")?;
        rivals.iter().try_for_each(|(_, times)| write!(text, " | {times:.2} |"))?;
        let other = |name: &str| self.others[name];
        writeln!(text, " |\n")?;
        writeln!(
            text,
            "| bars of a series | ns a bar, geometric mean | {TALIB} | × |\n|---:|---:|---:|---:|"
        )?;
        for Length { bars, ours, talib } in self.lengths() {
            let (theirs, times) = talib.map_or(("–".into(), "–".into()), |talib| {
                (format!("{talib:.2}"), format!("{:.2}", talib / ours))
            });
            writeln!(text, "| {bars} | {ours:.2} | {theirs} | {times} |")?;
        }
        writeln!(text)?;
        writeln!(
            text,
            "A value copied {:.2} ns, filled {:.2}; every risk figure {:.1} ns a return; 32 exponential averages {:.2} ns a \
             bar and average; {:.0} combinations of 10,000 bars a second.\n",
            other("copy"),
            other("fill"),
            other("risk"),
            other("sweep"),
            other("grid")
        )
    }
}

impl Report {
    /// As Markdown.
    pub(super) fn render(&self, goals: &CalcScenario) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let form = if self.quick { " (quick: proves that it works, not how fast)" } else { "" };
        writeln!(text, "## {}{form}\n", self.scenario)?;
        writeln!(
            text,
            "One core of {}, Linux {}. {} rounds, in turns of the builds; all rivals in one process, one after the other, with \
             the same buffers; medians of the rounds.{}\n",
            self.machine.cpu,
            self.machine.kernel,
            self.rounds,
            self.others_used
                .map(|used| format!(" Others used {used:.2} cores meanwhile."))
                .unwrap_or_default()
        )?;
        if self.interrupted {
            writeln!(text, "> Broken off: figures are of the rounds until then.\n")?;
        }
        for (who, what) in &self.rivals {
            writeln!(text, "- {who}: {what}")?;
        }
        writeln!(text)?;
        self.sections.iter().try_for_each(|section| section.render(&mut text, goals))?;
        if let Some(comparison) = &self.comparison {
            comparison.render(&mut text, &self.machine.cpu)?;
            writeln!(text)?;
        }
        let met = self.checks.iter().filter(|check| check.met).count();
        writeln!(text, "{met} of {} goals met.", self.checks.len())?;
        for check in self.checks.iter().filter(|check| !check.met) {
            writeln!(text, "- missed: {}: {:.2}, goal {:.2}", check.what, check.figure, check.goal)?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(ns: f64) -> Vec<Section> {
        let kernels = BTreeMap::from([("sma".to_owned(), BTreeMap::from([(OURS.to_owned(), ns)]))]);
        vec![Section::of(1_000, &[Round { build: "baseline".into(), kernels, ..Round::default() }])]
    }

    #[test]
    fn a_kernel_that_got_slower_is_worse() {
        let report = Report {
            schema: SCHEMA,
            scenario: "calc".into(),
            quick: false,
            interrupted: false,
            machine: Machine::describe(1),
            others_used: None,
            rounds: 1,
            rivals: BTreeMap::new(),
            sections: sections(1.0),
            checks: Vec::new(),
            comparison: None,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), serde_json::to_string(&report).unwrap()).unwrap();
        let older = Older::load(file.path(), false).unwrap();
        for (ns, passed) in [(0.5, true), (1.04, true), (1.06, false)] {
            let comparison = older.compare(file.path(), &sections(ns));
            assert_eq!((comparison.changes.len(), comparison.passed()), (1, passed), "{ns}");
        }
        assert!(Older::load(file.path(), true).is_err());
        std::fs::write(file.path(), "{}").unwrap();
        assert!(Older::load(file.path(), false).is_err());
    }
}
