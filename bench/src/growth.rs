//! What more of something costs: the same question beside one and beside thousands of connections, services,
//! subscribers or stored events. What should not grow shows as a flat line.

use std::time::Duration;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::figures::{Cell, Run, Spread};
use crate::load::Pace;
use crate::scenario::{CONNECTIONS_MAX, Scenario};
use crate::stored::{FILL_LIMIT, fill};
use crate::subject::Running;
use crate::work::{STORED_MAX, SUBSCRIBERS_MAX, Work};

const STEPS_MAX: usize = 12;

/// `growth` of a scenario's timing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Growth {
    pub of: What,
    /// Upwards.
    pub steps: Vec<u64>,
    /// What Sluice's CPU time at the last step may be of that at the cheapest.
    pub last_over_least_max: Option<f64>,
    /// Memory that each more may cost Sluice, in bytes.
    pub bytes_each_max: Option<f64>,
}

/// What there is more and more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// Open connections, which are asked in turn.
    Connections,
    /// Services of the edge: each step has a subject of its own.
    Services,
    /// Subscribers of what is published.
    Subscribers,
    /// Events in the store.
    Stored,
}

/// One subject at all steps.
#[derive(Debug)]
pub(crate) struct Ladder {
    pub subject: String,
    pub cells: Vec<(u64, Cell)>,
}

/// A ladder as it is reported.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Grown {
    pub subject: String,
    pub of: What,
    pub points: Vec<Step>,
}

/// What a request, or a delivery, takes at one step.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct Step {
    pub at: u64,
    pub per_s: Option<Spread>,
    pub cpu_us: Option<Spread>,
    pub p50_ms: Option<Spread>,
    pub p99_ms: Option<Spread>,
    pub rss_bytes: Option<Spread>,
    pub failed: u64,
}

impl What {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Services => "services",
            Self::Subscribers => "subscribers",
            Self::Stored => "stored events",
        }
    }
}

impl Growth {
    /// Says what is wrong with it.
    pub(crate) fn check(&self, scenario: &Scenario) -> Result<(), String> {
        let most = match self.of {
            What::Connections => CONNECTIONS_MAX.into(),
            What::Services => u64::MAX,
            What::Subscribers => SUBSCRIBERS_MAX.into(),
            What::Stored => STORED_MAX,
        };
        let rising = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising
            || !(2..=STEPS_MAX).contains(&self.steps.len())
            || self.steps.iter().any(|step| !(1..=most).contains(step))
        {
            return Err(format!("`growth.steps` are 2 to {STEPS_MAX} rising numbers from 1 to {most}"));
        }
        let fits = matches!(
            (self.of, scenario.work),
            (What::Connections | What::Services, Work::Forward)
                | (What::Subscribers, Work::Fanout { .. })
                | (What::Stored, Work::Publish { .. })
        );
        if !fits {
            return Err(format!("`growth` of {} does not fit the scenario's `work`", self.of.words()));
        }
        if self.of == What::Services && scenario.subjects.len() != self.steps.len() {
            return Err("`growth` of services needs a subject for each step".into());
        }
        Ok(())
    }

    /// LIMIT: time beyond the runs themselves.
    pub(crate) fn preparing(&self) -> Duration {
        if self.of == What::Stored { FILL_LIMIT } else { Duration::ZERO }
    }

    /// The scenario at a step.
    fn at(&self, scenario: &Scenario, step: u64) -> Scenario {
        let number = u32::try_from(step).unwrap_or(u32::MAX);
        let mut here = scenario.clone();
        match (self.of, here.work) {
            (What::Connections, _) => here.connections = number,
            (What::Subscribers, Work::Fanout { batch, .. }) => {
                here.work = Work::Fanout { batch, subscribers: number };
            }
            _ => {}
        }
        here
    }

    /// Ladders without rounds.
    pub(crate) fn ladders(&self, scenario: &Scenario, subjects: &[(String, Running)]) -> Vec<Ladder> {
        let pace = scenario.rates_per_s.first().map_or(Pace::Closed, |rate| Pace::Open(*rate));
        let ladder = |name: &str| {
            let cells = self.steps.iter().map(|step| (*step, Cell::new(name, pace))).collect();
            Ladder { subject: name.to_owned(), cells }
        };
        if self.is_over_subjects() {
            return vec![ladder("sluice")];
        }
        subjects.iter().filter(|(_, running)| self.counts(running)).map(|(name, _)| ladder(name)).collect()
    }

    /// Whether a subject is measured: the origin has connections and nothing else to grow.
    pub(crate) fn counts(&self, running: &Running) -> bool {
        self.of == What::Connections || !running.is_origin
    }

    /// Whether each step is a subject of its own.
    pub(crate) fn is_over_subjects(&self) -> bool {
        self.of == What::Services
    }

    /// Whether rounds follow one another at each step, as what is stored stays stored.
    pub(crate) fn is_one_way(&self) -> bool {
        self.of == What::Stored
    }

    /// Measures one cell once, by `measure`; fills the store before, where that is the step.
    pub(crate) async fn measure(
        &self,
        scenario: &Scenario,
        running: &mut Running,
        (step, cell): &mut (u64, Cell),
        measure: impl AsyncFnOnce(&Scenario, &mut Running, &mut Cell) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.of == What::Stored {
            fill(scenario, running, *step).await.context("fill the store")?;
        }
        measure(&self.at(scenario, *step), running, cell).await
    }
}

impl Ladder {
    /// Memory that each more has cost: at the last step, beyond what there was before anything grew.
    pub(crate) fn bytes_each(&self) -> Option<f64> {
        let memory = |(_, cell): &(u64, Cell)| cell.spread(|run| run.rss_bytes as f64);
        let ([first, ..], [.., last]) = (&self.cells[..], &self.cells[..]) else { return None };
        Some((memory(last)?.median - memory(first)?.low) / (last.0 - first.0).max(1) as f64)
    }

    /// What is reported; nothing of steps without a round.
    pub(crate) fn told(&self, of: What) -> Grown {
        let step = |(at, cell): &(u64, Cell)| {
            let spread = |figure: fn(&Run) -> f64| cell.spread(figure);
            Step {
                at: *at,
                per_s: spread(|run| run.requests_per_s),
                cpu_us: spread(|run| run.cpu_us).filter(|_| cell.accounted),
                p50_ms: spread(|run| run.latency.p50),
                p99_ms: spread(|run| run.latency.p99),
                rss_bytes: spread(|run| run.rss_bytes as f64).filter(|_| cell.accounted),
                failed: cell.failed(),
            }
        };
        let points = self.cells.iter().filter(|(_, cell)| !cell.runs.is_empty()).map(step).collect();
        Grown { subject: self.subject.clone(), of, points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::{cell, run};

    fn scenario(name: &str) -> Scenario {
        Scenario::load(name, false, None).unwrap()
    }

    #[test]
    fn steps_rise_and_fit_what_is_done() {
        let connections = scenario("growth-connections");
        let growth = |of: What, steps: &[u64]| Growth {
            of,
            steps: steps.to_vec(),
            last_over_least_max: None,
            bytes_each_max: None,
        };
        assert!(growth(What::Connections, &[1, 10_000]).check(&connections).is_ok());
        for (of, steps) in [
            (What::Connections, &[1][..]),
            (What::Connections, &[10, 1]),
            (What::Connections, &[0, 1]),
            (What::Connections, &[1, 10_001]),
            (What::Stored, &[1, 2]),
            (What::Subscribers, &[1, 2]),
            // Three subjects.
            (What::Services, &[1, 2]),
        ] {
            assert!(growth(of, steps).check(&connections).is_err(), "{of:?} {steps:?}");
        }
        let many: Vec<u64> = (1..=13).collect();
        assert!(growth(What::Connections, &many).check(&connections).is_err());
    }

    #[test]
    fn each_step_changes_what_grows_and_nothing_else() {
        let growth = scenario("growth-connections").growth.unwrap();
        let at = growth.at(&scenario("growth-connections"), 77);
        assert_eq!((at.connections, at.rates_per_s), (77, scenario("growth-connections").rates_per_s));
        let fanout = scenario("growth-subscribers");
        let at = fanout.growth.as_ref().unwrap().at(&fanout, 50);
        assert_eq!(
            (at.work, at.connections),
            (Work::Fanout { batch: 10, subscribers: 50 }, fanout.connections)
        );
    }

    #[test]
    fn a_ladder_tells_the_steps_that_were_measured() {
        let cell = |runs| cell("sluice-bare", Pace::Open(10), runs);
        let cells = vec![(1, cell(vec![run(20.0, 10.0); 3])), (10, cell(Vec::new()))];
        let told = Ladder { subject: "sluice-bare".into(), cells }.told(What::Connections);
        assert_eq!(told.points.len(), 1);
        assert_eq!((told.points[0].at, told.points[0].cpu_us.unwrap().median), (1, 20.0));
    }
}
