//! Which instance is picked, ejected, marked.

use std::collections::BTreeMap;

use sluice_policy::Nanos;
use sluice_policy::balance::{Ask, Hold, Instance};
use sluice_policy::breaker::Outcome;
use sluice_policy::health::Change;
use sluice_policy::outlier::Ejection;
use sluice_schema::{Balance, Health, Service};

use super::super::edge::Way;
use super::{At, Oracle};

type Set = Vec<(String, u32)>;

/// What was picked, and what is known of instances.
#[derive(Debug, Default)]
pub(crate) struct Picks {
    /// Of `sticky`: edge, service and key, and the instance.
    bound: BTreeMap<(usize, usize, u64), u32>,
    /// Of `hash`: service and key, what could be picked, and the address that was.
    placed: BTreeMap<(usize, u64), Vec<(Set, String)>>,
    /// Failures in a row by edge, service, instance.
    rows: BTreeMap<(usize, usize, u32), u32>,
    /// Probes in a row with the same result, by edge, process, service, instance.
    probes: BTreeMap<(usize, u64, usize, u32), (bool, u32)>,
}

impl Picks {
    pub(super) fn forget(&mut self, edge: usize) {
        self.bound.retain(|(at, ..), _| *at != edge);
        self.rows.retain(|(at, ..), _| *at != edge);
    }

    /// A successor begins anew, but for what ejections it was told of.
    pub(super) fn hand_over(&mut self, edge: usize, old: usize) {
        for ((_, service, key), id) in
            self.bound.extract_if(.., |(at, ..), _| *at == edge).collect::<Vec<_>>()
        {
            self.bound.insert((old, service, key), id);
        }
        for ((_, service, id), row) in self.rows.extract_if(.., |(at, ..), _| *at == edge).collect::<Vec<_>>()
        {
            self.rows.insert((old, service, id), row);
        }
    }

    /// The same set gives the same instance everywhere; one that only lost others keeps it.
    fn places(&mut self, service: usize, key: u64, set: Set, address: &str) -> Result<(), String> {
        let known = self.placed.entry((service, key)).or_default();
        for (before, chosen) in known.iter() {
            let kept = set.iter().all(|one| before.contains(one)) && set.iter().any(|(url, _)| url == chosen);
            if kept && chosen != address {
                return Err(format!(
                    "a key of service {service} moved from {chosen} to {address} without need"
                ));
            }
        }
        if known.len() < 8 && !known.iter().any(|(before, _)| *before == set) {
            known.push((set, address.to_owned()));
        }
        Ok(())
    }
}

/// Read from what was written, not asked.
fn is_well(one: &Instance, now: Nanos) -> bool {
    one.is_healthy() && now >= one.ejected_until()
}

impl Oracle {
    /// An instance was picked, or none.
    #[expect(clippy::too_many_arguments, reason = "an oracle is told everything")]
    pub(crate) fn picked(
        &mut self,
        world: Nanos,
        at: At,
        service: &Service,
        zones: bool,
        way: &Way,
        ask: &Ask<'_>,
        picked: Option<usize>,
        now: Nanos,
    ) {
        let all = way.table.instances();
        let ready = || all.iter().filter(|one| one.held() == Hold::Ready);
        let well = ready().filter(|one| is_well(one, now)).count();
        let panics = (well as f64) < service.panic_threshold * ready().count() as f64;
        let usable = |one: &Instance| one.held() == Hold::Ready && (panics || is_well(one, now));
        let Some(index) = picked else {
            if all.iter().any(|one| usable(one)) {
                self.fail(world, format!("nothing was picked for service {} where something could", at.1));
            }
            return;
        };
        let chosen = &all[index];
        let (id, sticky) = (chosen.id, service.balance == Balance::Sticky);
        let key = (at.0, at.1, ask.key);
        let keeps = |one: &Instance| usable(one) || (one.held() == Hold::Drain && is_well(one, now));
        let bound = self.picks.bound.get(&key).copied().filter(|_| sticky);
        let bound = bound.and_then(|id| all.iter().find(|one| one.id == id && keeps(one)));
        let mut fault = None;
        if !usable(chosen) && bound.is_none_or(|bound| bound.id != id) {
            fault =
                Some(format!("instance {id} of service {} was picked and is {:?}", at.1, chosen.state(now)));
        }
        if ask.tried.contains(&id) && all.iter().any(|one| usable(one) && !ask.tried.contains(&one.id)) {
            fault = Some(format!("instance {id} was tried again before others"));
        }
        match bound {
            Some(bound) if !ask.tried.contains(&bound.id) && bound.id != id => {
                fault = Some(format!("a bound key went from instance {} to {id}", bound.id));
            }
            None if sticky => drop(self.picks.bound.insert(key, id)),
            _ => {}
        }
        let hashed = service.balance == Balance::Hash
            && service.slow_start.is_zero()
            && !zones
            && ask.tried.is_empty();
        if hashed {
            let set = all
                .iter()
                .filter(|one| usable(one))
                .map(|one| (one.url.host.clone(), one.weight()))
                .collect();
            fault = self.picks.places(at.1, ask.key, set, &chosen.url.host).err().or(fault);
        }
        if let Some(fault) = fault {
            self.fail(world, fault);
        }
    }

    /// The outcome of a try was counted for its instance. `was`: how many were ejected before, this one among them.
    #[expect(clippy::too_many_arguments, reason = "an oracle is told everything")]
    pub(crate) fn judged(
        &mut self,
        world: Nanos,
        at: At,
        id: u32,
        outcome: Outcome,
        was: (usize, bool),
        ejection: Option<Ejection>,
        way: &Way,
        settings: &sluice_schema::Outlier,
    ) {
        let all = way.table.instances().len();
        let share = ((settings.max_ejected * all as f64) as usize).max(1);
        let (before, itself) = was;
        let row = self.picks.rows.entry((at.0, at.1, id)).or_default();
        *row = match outcome {
            _ if itself => *row,
            Outcome::Failure => *row + 1,
            Outcome::Success => 0,
            Outcome::Neutral => *row,
        };
        let known = way.table.instances().iter().any(|one| one.id == id);
        let room = before < share && before + 1 < all;
        let due =
            known && !itself && outcome == Outcome::Failure && *row >= settings.consecutive.max(1) && room;
        if ejection.is_some() {
            *row = 0;
        }
        if ejection.is_some() != due {
            let row = *row;
            self.fail(
                world,
                format!(
                    "instance {id}: ejected={}, due={due} ({before} of {all} are, row {row})",
                    ejection.is_some()
                ),
            );
        }
    }

    /// A probe was counted.
    pub(crate) fn probed(
        &mut self,
        world: Nanos,
        key: (usize, u64, usize, u32),
        good: bool,
        change: Option<Change>,
        settings: &Health,
    ) {
        let row = self.picks.probes.entry(key).or_insert((good, 0));
        *row = if row.0 == good { (good, row.1 + 1) } else { (good, 1) };
        let needed = if good { settings.healthy } else { settings.unhealthy };
        let told = match change {
            Some(Change::BecameHealthy) => good,
            Some(Change::BecameUnhealthy) => !good,
            None => return,
        };
        let row = row.1;
        if !told || row < needed {
            self.fail(world, format!("instance {} changed its health after {row} probes", key.3));
        }
    }
}
