//! The rounds: every subject in turn at every pace, again and again, so that a slow minute hits all alike.

use anyhow::Context as _;

use crate::account::{CpuTime, resident_bytes, ticks_per_s, tree};
use crate::fault::told;
use crate::figures::Cell;
use crate::growth::Ladder;
use crate::load::{Pace, Plan, drive};
use crate::process::Guarded;
use crate::progress::Progress;
use crate::scenario::Scenario;
use crate::subject::Running;
use crate::sweep::Climb;
use crate::threshold::pace_name;
use crate::trial;
use crate::work::Work;

/// A cell without rounds for each of `subjects` at each pace.
pub(crate) fn empty(scenario: &Scenario, subjects: &[(String, Running)]) -> Vec<Cell> {
    let at = |pace: Pace| subjects.iter().map(move |(name, _)| Cell::new(name, pace));
    scenario.paces().into_iter().flat_map(at).collect()
}

/// Measures all of `subjects` in interleaved rounds (A B C, A B C, …) into their [`empty`] cells; what is there
/// when it is dropped is whole. Must run inside a `LocalSet`.
pub(crate) async fn rounds(
    scenario: &Scenario,
    subjects: &mut [(String, Running)],
    cells: &mut [Cell],
) -> anyhow::Result<()> {
    let count = subjects.len();
    let steps = cells.len() * scenario.repeats as usize;
    let mut progress = Progress::new(steps, scenario.warmup() + scenario.window());
    for round in 1..=scenario.repeats {
        for (at, cell) in cells.iter_mut().enumerate() {
            let (name, running) = &mut subjects[at % count];
            progress.step(&format!("round {round}: {name}, {}", pace_name(cell.pace)));
            one(scenario, running, cell).await.with_context(|| format!("measure {name}"))?;
        }
    }
    Ok(())
}

/// Climbs with all of `subjects`, where the scenario has a sweep; as [`rounds`], what is there is whole.
pub(crate) async fn sweeps(
    scenario: &Scenario,
    subjects: &mut [(String, Running)],
    climbs: &mut [Climb],
) -> anyhow::Result<()> {
    let Some(sweep) = scenario.sweep else { return Ok(()) };
    let steps = climbs.len() * (scenario.repeats * sweep.tries_max()) as usize;
    let mut progress = Progress::new(steps, scenario.warmup() + scenario.window());
    let mut done = 0;
    for round in 1..=scenario.repeats {
        for ((name, running), climb) in subjects.iter_mut().zip(&mut *climbs) {
            let measure = async |cell: &mut Cell| {
                progress.step(&format!("sweep {round}: {name}, {}", pace_name(cell.pace)));
                one(scenario, running, cell).await.with_context(|| format!("measure {name}"))
            };
            sweep.climb(climb, scenario.send_lag_p99_ms_max, measure).await?;
            // Most climbs end sooner than they may.
            done += sweep.tries_max() as usize;
            progress.is_at(done);
        }
    }
    Ok(())
}

/// Measures each ladder at each step, where the scenario grows; as [`rounds`], what is there is whole.
pub(crate) async fn growths(
    scenario: &Scenario,
    subjects: &mut [(String, Running)],
    ladders: &mut [Ladder],
) -> anyhow::Result<()> {
    let Some(growth) = &scenario.growth else { return Ok(()) };
    let (rounds, steps) = (scenario.repeats as usize, growth.steps.len());
    let mut progress = Progress::new(rounds * steps * ladders.len(), scenario.warmup() + scenario.window());
    for turn in 0..rounds * steps {
        let at = if growth.is_one_way() { turn / rounds } else { turn % steps };
        for (number, ladder) in ladders.iter_mut().enumerate() {
            // A ladder over subjects has another one at each step.
            let mut own = subjects.iter_mut().filter(|(_, running)| growth.counts(running));
            let place = if growth.is_over_subjects() { at } else { number };
            let (name, running) = own.nth(place).context("a subject is missing")?;
            let words = format!("{name}, {} {}", growth.steps[at], growth.of.words());
            progress.step(&words);
            let measured = growth.measure(scenario, running, &mut ladder.cells[at], one).await;
            measured.with_context(|| format!("measure {words}"))?;
        }
    }
    Ok(())
}

async fn one(scenario: &Scenario, running: &mut Running, cell: &mut Cell) -> anyhow::Result<()> {
    let plan = plan(scenario, cell.pace);
    for kept in [&running.spare, &running.store].into_iter().flatten() {
        kept.stands().await?;
    }
    // The tree is walked before the load starts: a walk over /proc would delay the generator.
    let pids = running.cpu_root.map(tree).unwrap_or_default();
    // A proxy that is replaced by another process when it reloads has no tree to account.
    let replaced = running.reload.is_some() && running.reload == running.cpu_root.and_then(told);
    let killed = matches!(scenario.work, Work::Restart { .. });
    cell.accounted = running.cpu_root.is_some() && !(replaced && scenario.reloads()) && !killed;
    let account = || CpuTime::of(&pids);
    let outcome = if scenario.work.is_trial() {
        trial::drive(running, scenario.work, plan, account).await?
    } else {
        drive(&running.target(scenario)?, plan, account).await?
    };
    running.child.as_mut().map_or(Ok(()), Guarded::assert_alive)?;
    running.beside.as_mut().map_or(Ok(()), Guarded::assert_alive)?;
    cell.add(&outcome, resident_bytes(&pids), ticks_per_s());
    Ok(())
}

fn plan(scenario: &Scenario, pace: Pace) -> Plan {
    Plan { pace, connections: scenario.connections, warmup: scenario.warmup(), window: scenario.window() }
}
