//! What can be picked at one moment.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sluice_schema::Balance;

use super::instance::{Hold, Instance};
use super::table::Table;
use super::weighted::Draw;
use super::zone::near_share;
use super::{Ask, SharedMemory, ewma, least, rendezvous, weighted};
use crate::time::Nanos;

/// Part of its weight with which an instance that is back begins.
pub const SLOW_START_LEAST: f64 = 0.1;
/// What a weight of 1 counts while an instance takes up its share.
const FINE: u64 = 1 << 10;
/// What all weights together count while two zones share.
const SHARED: f64 = (1_u64 << 30) as f64;
/// In how many steps an instance takes up its share.
const STEPS: u32 = 64;
/// The shortest of them.
const STEP_LEAST: Duration = Duration::from_millis(1);

/// What can be picked at one moment, until something changes.
#[derive(Debug)]
pub struct Field {
    balance: Balance,
    /// Those that share the requests.
    main: Vec<Candidate>,
    /// Those of other zones, where the own zone carries all: for another try.
    reserve: Vec<Candidate>,
    /// Where callers that are bound may stay: id and index.
    keeps: Vec<(u32, usize)>,
    draw: Draw,
    /// What a weight of 1 counts.
    pub(super) unit: u64,
    /// Tells fields of one service apart.
    pub(super) serial: u64,
    /// Too few were available, so all of them are candidates.
    panicking: bool,
    until: Nanos,
    version: u64,
    changes: u64,
}

/// One that can be picked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) instance: Arc<Instance>,
    /// Index in the table.
    pub(super) index: usize,
    /// Its effective weight, at least 1.
    pub(super) weight: u64,
}

impl Default for Field {
    /// Holds for no table.
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            main: Vec::new(),
            reserve: Vec::new(),
            keeps: Vec::new(),
            draw: Draw::default(),
            unit: 1,
            serial: 0,
            panicking: false,
            until: Nanos::ZERO,
            version: 0,
            changes: 0,
        }
    }
}

impl Field {
    /// What can be picked from a table now. Allocates: made anew only when [`Self::holds`] says no.
    #[must_use]
    pub fn next(&self, table: &Table, now: Nanos) -> Self {
        // Before anything is looked at: what changes meanwhile makes another field.
        let changes = table.changes();
        let every = || table.instances().iter().enumerate();
        let ready = || every().filter(|(_, instance)| instance.held() == Hold::Ready);
        let available = ready().filter(|(_, instance)| instance.is_well(now)).count();
        let panicking = (available as f64) < table.panic_threshold * ready().count() as f64;
        let usable = |instance: &Instance| panicking || instance.is_well(now);
        let all: Vec<_> = ready().filter(|(_, instance)| usable(instance)).map(Candidate::plain).collect();
        let bound = every().filter(|(_, one)| match one.held() {
            Hold::Ready => usable(one),
            Hold::Drain => one.is_well(now),
            Hold::Maint => false,
        });
        let mut field = Self {
            balance: table.balance,
            keeps: bound.map(|(index, instance)| (instance.id, index)).collect(),
            serial: self.serial + 1,
            panicking,
            until: Nanos(u64::MAX),
            version: table.version,
            changes,
            ..Self::default()
        };
        for (_, instance) in every().filter(|(_, instance)| instance.is_ejected(now)) {
            field.until = field.until.min(instance.ejected_until());
        }
        field.main = all;
        if !panicking {
            field.start_slowly(table.slow_start, now);
            field.share_zones(ready().map(|(_, instance)| instance.as_ref()));
        }
        if matches!(table.balance, Balance::Weighted | Balance::PeakEwma) {
            field.draw = Draw::of(field.main.iter().map(|candidate| candidate.weight));
        }
        field
    }

    /// Whether it still says what can be picked.
    pub fn holds(&self, table: &Table, now: Nanos) -> bool {
        self.version == table.version && self.changes == table.changes() && now < self.until
    }

    /// Whether too few instances are available, so that all of them are candidates.
    pub fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// Instances that are back get a part of their weight.
    fn start_slowly(&mut self, slow_start: Duration, now: Nanos) {
        let part = |candidate: &Candidate| {
            let back = candidate.instance.back_for(now).filter(|back| *back < slow_start)?;
            Some((back.as_secs_f64() / slow_start.as_secs_f64()).max(SLOW_START_LEAST))
        };
        if self.main.iter().all(|candidate| part(candidate).is_none()) {
            return;
        }
        self.unit = FINE;
        for candidate in &mut self.main {
            let part = part(candidate).unwrap_or(1.0);
            candidate.weight = ((candidate.weight * FINE) as f64 * part).max(1.0) as u64;
        }
        self.until = self.until.min(now.plus((slow_start / STEPS).max(STEP_LEAST)));
    }

    /// The own zone first.
    fn share_zones<'a>(&mut self, ready: impl Iterator<Item = &'a Instance>) {
        let plain = |instance: &Instance| u64::from(instance.weight());
        let (near, far): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.main).into_iter().partition(|candidate| candidate.instance.is_near());
        let all = ready.filter(|instance| instance.is_near()).map(plain).sum();
        let sum = |side: &[Candidate]| side.iter().map(|candidate| plain(&candidate.instance)).sum();
        let share = near_share(sum(&near), all, sum(&far));
        if share <= 0.0 {
            self.main = far;
        } else if share >= 1.0 {
            (self.main, self.reserve) = (near, far);
        } else {
            self.unit = (SHARED / (sum(&near) + sum(&far)) as f64).max(1.0) as u64;
            self.main = scaled(near, SHARED * share);
            self.main.extend(scaled(far, SHARED * (1.0 - share)));
            self.main.sort_unstable_by_key(|candidate| candidate.index);
        }
    }

    /// Picks an instance: its index in [`Table::instances`]. `None`: nothing is available and there is no panic,
    /// or there are no instances. Allocates after a change at most.
    pub fn pick(&self, ask: &Ask<'_>, now: Nanos, memory: &SharedMemory) -> Option<usize> {
        let lock = || memory.lock().unwrap_or_else(PoisonError::into_inner);
        if self.balance == Balance::Sticky {
            return lock().bindings.pick(self, ask, now);
        }
        let (side, fresh) = self.side(ask.tried);
        let usable = |candidate: &Candidate| !fresh || !ask.tried.contains(&candidate.instance.id);
        let is_main = std::ptr::eq(side, self.main.as_slice());
        let chosen = match self.balance {
            Balance::RoundRobin if is_main => lock().credits.pick(self, usable),
            Balance::Weighted | Balance::PeakEwma if side.len() <= 1 => side.first(),
            Balance::Weighted if is_main && !fresh => self.draw.one(ask.seed).map(|at| &side[at]),
            Balance::PeakEwma if is_main && !fresh => self
                .draw
                .two(ask.seed)
                .map(|(one, other)| ewma::cheaper(&side[one], &side[other], ask.seed, now)),
            Balance::RoundRobin | Balance::Weighted => weighted::by_weight(side, ask.seed, usable),
            Balance::LeastConnections => least::least_loaded(side, ask.seed, usable),
            Balance::PeakEwma => ewma::of_two(side, ask.seed, now, usable),
            Balance::Hash | Balance::Sticky => rendezvous::highest(side, ask.key, usable),
        };
        chosen.map(|candidate| candidate.index)
    }

    /// The candidates to pick among, and whether those tried have to be left out.
    pub(super) fn side(&self, tried: &[u32]) -> (&[Candidate], bool) {
        let fresh = |side: &[Candidate]| side.iter().any(|one| !tried.contains(&one.instance.id));
        match tried {
            [] => (&self.main, false),
            _ if fresh(&self.main) => (&self.main, true),
            _ if fresh(&self.reserve) => (&self.reserve, true),
            _ => (&self.main, false),
        }
    }

    /// The candidates that share the requests.
    pub(super) fn main(&self) -> &[Candidate] {
        &self.main
    }

    /// Where a caller that is bound to an instance finds it, while it may stay there.
    pub(super) fn keeps(&self, id: u32) -> Option<usize> {
        self.keeps.iter().find(|(known, _)| *known == id).map(|(_, index)| *index)
    }
}

impl Candidate {
    fn plain((index, instance): (usize, &Arc<Instance>)) -> Self {
        Self { instance: Arc::clone(instance), index, weight: u64::from(instance.weight()) }
    }
}

/// Weights that together count `total`.
fn scaled(mut side: Vec<Candidate>, total: f64) -> Vec<Candidate> {
    let sum = side.iter().map(|candidate| candidate.weight).sum::<u64>().max(1) as f64;
    for candidate in &mut side {
        candidate.weight = (candidate.weight as f64 / sum * total).max(1.0) as u64;
    }
    side
}
