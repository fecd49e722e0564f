//! Who runs and who waits at each gate, and whether each of its choices was fair.

use sluice_policy::Nanos;
use sluice_policy::gate::{Ask, Lane};

use super::{At, Oracle};

/// Lanes that are held to the limit and their weights, the highest first.
const HELD: [(Lane, u32); 3] = [(Lane::Order, 60), (Lane::Query, 30), (Lane::Analytics, 10)];

/// One gate.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    runs: Vec<One>,
    waits: Vec<One>,
    /// Lanes that were ever used here.
    lanes: Vec<Lane>,
}

#[derive(Clone, Copy, Debug)]
struct One {
    request: usize,
    lane: Lane,
    account: u64,
    since: Nanos,
    until: Nanos,
}

impl Seen {
    fn running(&self, lane: Lane) -> u32 {
        self.runs.iter().filter(|one| one.lane == lane).count() as u32
    }

    fn running_of(&self, lane: Lane, account: u64) -> usize {
        self.runs.iter().filter(|one| one.lane == lane && one.account == account).count()
    }

    fn waiting_of(&self, lane: Lane, account: u64) -> usize {
        self.waits.iter().filter(|one| one.lane == lane && one.account == account).count()
    }

    fn patient(&self, lane: Lane, now: Nanos) -> impl Iterator<Item = &One> {
        self.waits.iter().filter(move |one| one.lane == lane && now <= one.until)
    }

    /// A lane above that waits and has less than it can count on, whatever lanes there are.
    fn starved_above(&self, lane: Lane, limit: u32, now: Nanos) -> Option<Lane> {
        let above = HELD.iter().take_while(|(above, _)| *above < lane);
        let starves = |(above, weight): &&(Lane, u32)| {
            self.running(*above) < (limit * weight / 100).max(1) && self.patient(*above, now).next().is_some()
        };
        above.filter(|(above, _)| self.lanes.contains(above)).find(starves).map(|(above, _)| *above)
    }

    fn check_start(&self, one: &One, limit: u32, now: Nanos) -> Result<(), String> {
        let One { request, lane, .. } = *one;
        if lane == Lane::Cancel {
            return Ok(());
        }
        if self.runs.len() as u32 >= limit {
            return Err(format!("request {request} runs beyond the limit of {limit}"));
        }
        match self.starved_above(lane, limit, now) {
            Some(above) => {
                Err(format!("request {request} of lane {lane:?} runs while {above:?} waits below its share"))
            }
            None => Ok(()),
        }
    }
}

impl Oracle {
    fn gate(&mut self, at: At, lane: Lane) -> &mut Seen {
        let gate = self.gates.entry(at).or_default();
        if !gate.lanes.contains(&lane) {
            gate.lanes.push(lane);
        }
        gate
    }

    /// One runs as it comes.
    pub(crate) fn runs(&mut self, world: Nanos, at: At, request: usize, ask: &Ask, limit: u32, now: Nanos) {
        let one = One { request, lane: ask.lane, account: ask.account, since: now, until: now };
        let gate = self.gate(at, ask.lane);
        let mut fault = gate.check_start(&one, limit, now).err();
        if ask.lane != Lane::Cancel && gate.patient(ask.lane, now).next().is_some() {
            fault = Some(format!("request {request} overtakes those that wait"));
        }
        gate.runs.push(one);
        if let Some(fault) = fault {
            self.fail(world, fault);
        }
    }

    /// One waits, perhaps in another's place.
    pub(crate) fn waits(
        &mut self,
        world: Nanos,
        at: At,
        request: usize,
        ask: &Ask,
        sheds: Option<usize>,
        now: Nanos,
    ) {
        let gate = self.gate(at, ask.lane);
        let mut fault = (ask.lane == Lane::Cancel).then(|| format!("cancel {request} waits"));
        if let Some(shed) = sheds.and_then(|shed| gate.waits.iter().position(|one| one.request == shed)) {
            let shed = gate.waits.remove(shed);
            // It is counted no more here.
            let had = gate.waiting_of(ask.lane, shed.account) + 1;
            let most = gate.waits.iter().map(|one| gate.waiting_of(ask.lane, one.account)).max().unwrap_or(0);
            if had < most || had <= gate.waiting_of(ask.lane, ask.account) + 1 {
                fault = Some(format!(
                    "request {} was turned away for {request} and waited with {had}",
                    shed.request
                ));
            }
        }
        gate.waits.push(One {
            request,
            lane: ask.lane,
            account: ask.account,
            since: now,
            until: now.plus(ask.patience),
        });
        let waiting = gate.waits.iter().filter(|one| one.lane == ask.lane).count();
        if waiting > ask.queue {
            fault = Some(format!("{waiting} wait where {} may", ask.queue));
        }
        if let Some(fault) = fault {
            self.fail(world, fault);
        }
    }

    /// One is turned away.
    pub(crate) fn shed(&mut self, world: Nanos, at: At, ask: &Ask) {
        let gate = self.gate(at, ask.lane);
        let waiting = gate.waits.iter().filter(|one| one.lane == ask.lane).count();
        let own = gate.waiting_of(ask.lane, ask.account);
        let most = gate
            .waits
            .iter()
            .filter(|one| one.lane == ask.lane)
            .map(|one| gate.waiting_of(ask.lane, one.account))
            .max();
        let account = ask.account;
        if ask.lane == Lane::Cancel {
            self.fail(world, format!("a cancel of account {account} was shed"));
        } else if waiting < ask.queue {
            self.fail(world, format!("account {account} was turned away with places left"));
        } else if ask.queue > 0 && most.unwrap_or(0) > own + 1 {
            self.fail(world, format!("account {account} was turned away for one that waits with more"));
        }
    }

    /// The turn of one has come.
    pub(crate) fn named(&mut self, world: Nanos, at: At, request: usize, limit: u32, now: Nanos) {
        let Some(gate) = self.gates.get_mut(&at) else {
            return self.fail(world, format!("request {request} was named at a gate without requests"));
        };
        let Some(place) = gate.waits.iter().position(|one| one.request == request) else {
            return self.fail(world, format!("request {request} was named and did not wait"));
        };
        let one = gate.waits[place];
        let own = gate.running_of(one.lane, one.account);
        let least = gate.patient(one.lane, now).map(|other| gate.running_of(one.lane, other.account)).min();
        let mut fault = gate.check_start(&one, limit, now).err();
        if now > one.until {
            fault = Some(format!("request {request} waited too long, since {} ns", one.since.0));
        } else if own > least.unwrap_or(0) {
            fault = Some(format!("request {request} was named with {own} running, another has {least:?}"));
        }
        gate.waits.remove(place);
        gate.runs.push(one);
        if let Some(fault) = fault {
            self.fail(world, fault);
        }
    }

    /// One leaves the queue.
    pub(crate) fn abandoned(&mut self, world: Nanos, at: At, request: usize, waited: bool) {
        let gate = self.gates.entry(at).or_default();
        let place = gate.waits.iter().position(|one| one.request == request);
        if let Some(place) = place {
            gate.waits.remove(place);
        }
        if place.is_some() != waited {
            self.fail(world, format!("request {request} gave up: waited={waited}"));
        }
    }

    /// One gives its place back.
    pub(crate) fn left(&mut self, world: Nanos, at: At, request: usize) {
        let gate = self.gates.entry(at).or_default();
        match gate.runs.iter().position(|one| one.request == request) {
            Some(place) => drop(gate.runs.swap_remove(place)),
            None => self.fail(world, format!("request {request} gave back what it did not have")),
        }
    }

    /// Whether nobody is at any gate.
    pub(crate) fn gates_are_empty(&self) -> bool {
        self.gates.values().all(|gate| gate.runs.is_empty() && gate.waits.is_empty())
    }
}
