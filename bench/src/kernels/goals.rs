//! What the scenario asks of the kernels.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;

const SHIPPED: &str = include_str!("../../scenarios/calc.toml");

/// The scenario `calc`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CalcScenario {
    pub(super) name: String,
    full: Timing,
    quick: Timing,
    /// Nanoseconds a bar by kernel.
    pub(super) goals: BTreeMap<String, f64>,
    pub(super) limits: Limits,
}

/// How much is measured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timing {
    pub(super) bars: Vec<usize>,
    pub(super) rounds: u32,
    pub(super) runs: u32,
}

/// CalcScenario that are not of one kernel.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) times_talib: f64,
    pub(super) risk_ns: f64,
    pub(super) stream_ns: f64,
    pub(super) grid_per_s: f64,
}

impl CalcScenario {
    pub(super) fn shipped() -> anyhow::Result<Self> {
        toml::from_str(SHIPPED).context("scenarios/calc.toml")
    }

    pub(super) fn timing(&self, quick: bool, rounds: Option<u32>) -> Timing {
        let timing = if quick { &self.quick } else { &self.full };
        Timing { rounds: rounds.unwrap_or(timing.rounds), ..timing.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::KERNELS;

    #[test]
    fn every_kernel_has_a_goal_and_every_goal_a_kernel() {
        let goals = CalcScenario::shipped().unwrap();
        assert_eq!(goals.name, "calc");
        let mut kernels: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        kernels.sort_unstable();
        assert_eq!(goals.goals.keys().map(String::as_str).collect::<Vec<_>>(), kernels);
        assert_eq!(goals.timing(true, Some(4)).rounds, 4);
    }
}
