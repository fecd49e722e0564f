//! Thresholds: what a figure must hold, alone or against another subject, and the verdict.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::figures::{Cell, Run};
use crate::growth::Ladder;
use crate::load::Pace;
use crate::scenario::Scenario;
use crate::sweep::Climb;

/// One `[[threshold]]` of a scenario.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threshold {
    subject: String,
    figure: Figure,
    pace: RawPace,
    over: Option<String>,
    minus: Option<String>,
    at_most: Option<f64>,
    at_least: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Figure {
    CpuUs,
    RequestsPerS,
    P50Ms,
    P99Ms,
    P999Ms,
    MaxMs,
    RssMib,
    /// Requests that failed in a round.
    Failed,
    /// The highest rate that was held.
    KneePerS,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum RawPace {
    Open(u32),
    Word(Word),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Closed,
    /// Of the rates that were climbed.
    Sweep,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Verdict {
    pub check: String,
    /// The figure found; null when the subject or its peer was not measured.
    pub found: Option<f64>,
    pub result: Judgement,
    pub reason: Option<String>,
}

impl Verdict {
    /// The check, what was found and why that is so.
    pub(crate) fn told(&self) -> String {
        let found = self.found.map_or(String::new(), |value| format!(", found {value:.3}"));
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        format!("{}{found}{reason}", self.check)
    }
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Judgement {
    Met,
    Missed,
    NotMeasured,
}

impl Figure {
    fn of(self, run: &Run) -> f64 {
        match self {
            Self::CpuUs => run.cpu_us,
            Self::RequestsPerS => run.requests_per_s,
            Self::P50Ms => run.latency.p50,
            Self::P99Ms => run.latency.p99,
            Self::P999Ms => run.latency.p999,
            Self::MaxMs => run.latency.max,
            Self::RssMib => run.rss_bytes as f64 / 1_048_576.0,
            Self::Failed => run.failures.total() as f64,
            // Of a climb, not of a run.
            Self::KneePerS => f64::NAN,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::CpuUs => "CPU µs a request",
            Self::RequestsPerS => "requests/s",
            Self::P50Ms => "p50 ms",
            Self::P99Ms => "p99 ms",
            Self::P999Ms => "p99.9 ms",
            Self::MaxMs => "max ms",
            Self::RssMib => "RSS MiB",
            Self::Failed => "failed a round",
            Self::KneePerS => "highest rate held a second",
        }
    }
}

impl Threshold {
    /// Says what is wrong with the threshold itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.at_most.is_some() == self.at_least.is_some() {
            return Err(format!("threshold on `{}` needs exactly one of at_most, at_least", self.subject));
        }
        if self.over.is_some() && self.minus.is_some() {
            return Err(format!("threshold on `{}` has both over and minus", self.subject));
        }
        if (self.figure == Figure::KneePerS) != (self.pace == RawPace::Word(Word::Sweep)) {
            return Err(format!(
                "threshold on `{}`: knee_per_s and pace \"sweep\" go together",
                self.subject
            ));
        }
        Ok(())
    }

    /// The subjects it speaks of.
    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [Some(&self.subject), self.over.as_ref(), self.minus.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// Nothing where it speaks of a sweep.
    fn pace(&self) -> Option<Pace> {
        match self.pace {
            RawPace::Open(rate) => Some(Pace::Open(rate)),
            RawPace::Word(Word::Closed) => Some(Pace::Closed),
            RawPace::Word(Word::Sweep) => None,
        }
    }

    fn name(&self) -> String {
        let pace = match self.pace() {
            Some(Pace::Open(rate)) => format!("at {rate}/s"),
            Some(Pace::Closed) => "closed loop".into(),
            None => "sweep".into(),
        };
        let relation = match (&self.over, &self.minus) {
            (Some(peer), _) => format!(" ÷ {peer}"),
            (_, Some(peer)) => format!(" − {peer}"),
            _ => String::new(),
        };
        let limit = match (self.at_most, self.at_least) {
            (Some(limit), _) => format!("≤ {limit}"),
            (_, limit) => format!("≥ {}", limit.unwrap_or_default()),
        };
        format!("{}{relation}: {} {limit} ({pace})", self.subject, self.figure.name())
    }

    fn found(&self, cells: &[Cell], climbs: &[Climb]) -> Option<f64> {
        let Some(pace) = self.pace() else { return self.found_climbing(climbs) };
        let cell = |name: &str| cells.iter().find(|cell| cell.subject == name && cell.pace == pace);
        let own = cell(&self.subject)?;
        let figure = |run: &Run| self.figure.of(run);
        let spread = match (&self.over, &self.minus) {
            (Some(peer), _) => own.ratio(cell(peer)?, figure)?,
            (_, Some(peer)) => {
                return Some(own.spread(figure)?.median - cell(peer)?.spread(figure)?.median);
            }
            _ => own.spread(figure)?,
        };
        Some(spread.median)
    }

    fn found_climbing(&self, climbs: &[Climb]) -> Option<f64> {
        let knee = |name: &str| Some(climbs.iter().find(|climb| climb.subject == name)?.knee()?.median);
        let own = knee(&self.subject)?;
        Some(match (&self.over, &self.minus) {
            (Some(peer), _) => own / knee(peer)?,
            (_, Some(peer)) => own - knee(peer)?,
            _ => own,
        })
    }

    fn judge(&self, cells: &[Cell], climbs: &[Climb]) -> Verdict {
        let found = self.found(cells, climbs);
        let holds = |value: f64| {
            self.at_most.is_none_or(|limit| value <= limit)
                && self.at_least.is_none_or(|limit| value >= limit)
        };
        let result = match found {
            None => Judgement::NotMeasured,
            Some(value) if holds(value) => Judgement::Met,
            Some(_) => Judgement::Missed,
        };
        let reason = (result == Judgement::NotMeasured).then(|| "subject or peer was not measured".into());
        Verdict { check: self.name(), found, result, reason }
    }
}

/// Judges the sanity of every cell (right answers, rate kept, generator on time), then the thresholds.
pub(crate) fn judge(
    scenario: &Scenario,
    cells: &[Cell],
    climbs: &[Climb],
    ladders: &[Ladder],
) -> Vec<Verdict> {
    let stepped = ladders.iter().flat_map(|ladder| &ladder.cells).map(|(_, cell)| cell);
    let measured = cells.iter().chain(stepped).filter(|cell| !cell.runs.is_empty());
    let sane = measured.flat_map(|cell| sanity(scenario, cell));
    let grown = ladders.iter().flat_map(|ladder| [flatness(scenario, ladder), lightness(scenario, ladder)]);
    let grown = grown.flatten();
    let timely = climbs.iter().map(|climb| {
        let (late, words) =
            (climb.is_late(), "a rate was lost because the generator was late: its knee, not the subject's");
        Verdict {
            check: format!("{} sweep: the generator keeps every rate", climb.subject),
            found: None,
            result: if late { Judgement::Missed } else { Judgement::Met },
            reason: late.then(|| words.into()),
        }
    });
    let judged = scenario.thresholds.iter().map(|threshold| threshold.judge(cells, climbs));
    sane.chain(timely).chain(grown).chain(judged).collect()
}

/// Whether the last step costs at most so many times what the cheapest does; a quick run judges nothing.
fn flatness(scenario: &Scenario, ladder: &Ladder) -> Option<Verdict> {
    let most = scenario.growth.as_ref()?.last_over_least_max.filter(|_| !scenario.quick)?;
    if !ladder.subject.starts_with("sluice") {
        return None;
    }
    let cpu = |(_, cell): &(u64, Cell)| cell.spread(|run| run.cpu_us).map(|spread| spread.median);
    let costs: Vec<f64> = ladder.cells.iter().filter_map(cpu).collect();
    let found = costs.last()? / costs.iter().copied().fold(f64::INFINITY, f64::min);
    let met = found <= most;
    Some(Verdict {
        check: format!("{}: CPU time at the last step ÷ that at the cheapest ≤ {most}", ladder.subject),
        found: Some(found),
        result: if met { Judgement::Met } else { Judgement::Missed },
        reason: None,
    })
}

/// Whether each more of what grows costs little memory; a quick run judges nothing.
fn lightness(scenario: &Scenario, ladder: &Ladder) -> Option<Verdict> {
    let growth = scenario.growth.as_ref()?;
    let most = growth.bytes_each_max.filter(|_| !scenario.quick && ladder.subject.starts_with("sluice"))?;
    let found = ladder.bytes_each()?;
    Some(Verdict {
        check: format!("{}: bytes of memory for each of the {} ≤ {most}", ladder.subject, growth.of.words()),
        found: Some(found),
        result: if found <= most { Judgement::Met } else { Judgement::Missed },
        reason: None,
    })
}

fn sanity(scenario: &Scenario, cell: &Cell) -> Vec<Verdict> {
    let verdict = |check: &str, found: f64, holds: bool, reason: String| Verdict {
        check: format!("{} {}: {check}", cell.subject, pace_name(cell.pace)),
        found: Some(found),
        result: if holds { Judgement::Met } else { Judgement::Missed },
        reason: (!holds).then_some(reason),
    };
    let may_saturate = scenario.may_saturate.contains(&cell.subject);
    let failed = if may_saturate { cell.failed() - cell.left_waiting() } else { cell.failed() };
    let mut found = Vec::new();
    if !scenario.may_fail.contains(&cell.subject) {
        found.push(verdict("every answer is right", failed as f64, failed == 0, cell.complaints.join("; ")));
    }
    if let Pace::Open(rate) = cell.pace {
        let limit = scenario.send_lag_p99_ms_max;
        let lag = cell.spread(|run| run.lag_p99_ms).map_or(0.0, |spread| spread.median);
        let words = format!("the generator could not keep the rate: send lag p99 above {limit} ms");
        found.push(verdict("the generator keeps the rate", lag, lag <= limit, words));
        let answered = cell.spread(|run| run.requests_per_s).map_or(0.0, |spread| spread.median);
        let asked = u64::from(rate) * scenario.work.deliveries();
        let words = format!("answered {answered:.0} of {asked} a second");
        found.push(verdict("the subject keeps the rate", answered, cell.kept() || may_saturate, words));
    }
    found
}

/// A pace in words, for tables and verdicts.
pub(crate) fn pace_name(pace: Pace) -> String {
    match pace {
        Pace::Open(rate) => format!("open {rate}/s"),
        Pace::Closed => "closed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{cell, run};
    use crate::scenario::tests::quick_edge;

    fn threshold(text: &str) -> Threshold {
        toml::from_str(text).unwrap()
    }

    fn cells() -> Vec<Cell> {
        let rounds = |cpu: [f64; 3], rate| cpu.map(|us| run(us, rate)).to_vec();
        vec![
            cell("a", Pace::Closed, rounds([30.0, 32.0, 90.0], 5000.0)),
            cell("b", Pace::Closed, rounds([60.0, 64.0, 60.0], 4000.0)),
            cell("a", Pace::Open(100), rounds([50.0, 50.0, 50.0], 100.0)),
        ]
    }

    #[test]
    fn median_is_judged_not_the_outlier() {
        let limit = threshold("subject='a'\nfigure='cpu_us'\npace='closed'\nat_most=40.0");
        assert_eq!(limit.judge(&cells(), &[]).result, Judgement::Met);
        assert_eq!(limit.judge(&cells(), &[]).found, Some(32.0));
        let tight = threshold("subject='a'\nfigure='cpu_us'\npace='closed'\nat_most=31.0");
        assert_eq!(tight.judge(&cells(), &[]).result, Judgement::Missed);
    }

    #[test]
    fn ratio_difference_and_pace_are_respected() {
        let ratio = threshold("subject='a'\nfigure='cpu_us'\npace='closed'\nover='b'\nat_most=0.5");
        assert_eq!(ratio.judge(&cells(), &[]).found, Some(0.5));
        let added = threshold("subject='b'\nfigure='requests_per_s'\npace='closed'\nminus='a'\nat_least=0.0");
        let verdict = added.judge(&cells(), &[]);
        assert_eq!((verdict.found, verdict.result), (Some(-1000.0), Judgement::Missed));
        let open = threshold("subject='a'\nfigure='cpu_us'\npace=100\nat_most=50.0");
        assert_eq!(open.judge(&cells(), &[]).found, Some(50.0));
    }

    #[test]
    fn absent_subject_is_said_not_skipped() {
        let absent = threshold("subject='a'\nfigure='cpu_us'\npace='closed'\nover='nginx'\nat_most=1.0");
        let verdict = absent.judge(&cells(), &[]);
        assert_eq!((verdict.found, verdict.result), (None, Judgement::NotMeasured));
        assert!(verdict.reason.is_some());
    }

    #[test]
    fn meaningless_thresholds_are_refused() {
        for text in [
            "subject='a'\nfigure='cpu_us'\npace='closed'",
            "subject='a'\nfigure='cpu_us'\npace='closed'\nat_most=1.0\nat_least=1.0",
            "subject='a'\nfigure='cpu_us'\npace='closed'\nat_most=1.0\nover='b'\nminus='b'",
            "subject='a'\nfigure='knee_per_s'\npace='closed'\nat_least=1.0",
            "subject='a'\nfigure='cpu_us'\npace='sweep'\nat_least=1.0",
        ] {
            assert!(threshold(text).check().is_err(), "{text}");
        }
        assert!(
            toml::from_str::<Threshold>("subject='a'\nfigure='speed'\npace='closed'\nat_most=1.0").is_err()
        );
        assert!(
            toml::from_str::<Threshold>("subject='a'\nfigure='cpu_us'\npace='open'\nat_most=1.0").is_err()
        );
    }

    #[test]
    fn growth_is_judged_by_its_last_step() {
        let scenario = Scenario::load("growth-connections", false, None).unwrap();
        let most = scenario.growth.as_ref().unwrap().last_over_least_max.unwrap();
        let judged = |subject: &str, last: f64| {
            let step = |at, cpu| (at, cell(subject, Pace::Open(2000), vec![run(cpu, 2000.0); 3]));
            let ladder = Ladder {
                subject: subject.into(),
                cells: vec![step(1, 20.0), step(10, 10.0), step(100, last)],
            };
            flatness(&scenario, &ladder).map(|verdict| verdict.result)
        };
        assert_eq!(judged("sluice-bare", 10.0 * most), Some(Judgement::Met));
        assert_eq!(judged("sluice-bare", 10.1 * most), Some(Judgement::Missed));
        assert_eq!(judged("nginx-bare", 1000.0), None);
    }

    #[test]
    fn memory_is_judged_by_what_each_more_has_cost() {
        let scenario = Scenario::load("growth-connections", false, None).unwrap();
        let most = scenario.growth.as_ref().unwrap().bytes_each_max.unwrap();
        let judged = |subject: &str, each: f64| {
            let step = |at: u64, rss: [f64; 3]| {
                let runs = rss.map(|rss| Run { rss_bytes: rss as u64, ..run(20.0, 2000.0) });
                (at, cell(subject, Pace::Open(2000), runs.to_vec()))
            };
            // Memory that a round has taken is not given back for the next one: the first round has the least.
            let cells = vec![step(1, [1e6, 5e6, 5e6]), step(1001, [1e6 + 1000.0 * each; 3])];
            lightness(&scenario, &Ladder { subject: subject.into(), cells }).map(|verdict| verdict.result)
        };
        assert_eq!(judged("sluice-bare", most), Some(Judgement::Met));
        assert_eq!(judged("sluice-bare", most + 1.0), Some(Judgement::Missed));
        assert_eq!(judged("nginx-bare", 1e6), None);
    }

    #[test]
    fn late_generator_lost_rate_and_wrong_answers_each_miss() {
        let scenario = quick_edge();
        let mut bad = run(1.0, 1000.0);
        bad.lag_p99_ms = scenario.send_lag_p99_ms_max * 2.0;
        let missed = |bad: Run| {
            let cells = [cell("a", Pace::Open(1000), vec![run(1.0, 1000.0), bad.clone(), bad])];
            let missed: Vec<_> = judge(&scenario, &cells, &[], &[])
                .into_iter()
                .filter(|verdict| verdict.result == Judgement::Missed)
                .map(|verdict| verdict.check)
                .collect();
            missed.join(",")
        };
        assert_eq!(missed(bad), "a open 1000/s: the generator keeps the rate");
        let mut late = Run { kept: false, ..run(1.0, 500.0) };
        assert_eq!(missed(late.clone()), "a open 1000/s: the subject keeps the rate");
        late.failures.unanswered = 9;
        let peer = [cell("haproxy-policy-es256", Pace::Open(1000), vec![late])];
        assert!(judge(&scenario, &peer, &[], &[]).iter().all(|verdict| verdict.result == Judgement::Met));
        let mut wrong = run(1.0, 1000.0);
        wrong.failures = crate::load::Failures::of_status(500, 1);
        assert_eq!(missed(wrong), "a open 1000/s: every answer is right");
        assert_eq!(missed(run(1.0, 1000.0)), "");
    }
}
