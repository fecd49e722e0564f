//! The whole gate against a model that keeps lists and counts them anew for each question.

use proptest::prelude::*;

use super::*;

/// A request the model knows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    number: u64,
    lane: Lane,
    account: u64,
    since_ms: u64,
}

/// What the documentation of the gate says, without any state but who runs and who waits.
#[derive(Debug, Default)]
struct Model {
    lanes: [bool; 4],
    limit: u32,
    queue: usize,
    runs: Vec<Known>,
    waits: Vec<Known>,
}

const PATIENCE_MS: u64 = 50;
const WEIGHTS: [(Lane, u32); 3] = [(Lane::Order, 60), (Lane::Query, 30), (Lane::Analytics, 10)];

impl Model {
    fn running(&self, lane: Lane) -> u32 {
        self.runs.iter().filter(|one| one.lane == lane).count() as u32
    }

    fn of_account(list: &[Known], of: &Known) -> usize {
        list.iter().filter(|one| one.lane == of.lane && one.account == of.account).count()
    }

    fn share(&self, lane: Lane) -> u32 {
        let present = WEIGHTS.iter().filter(|(lane, _)| self.lanes[*lane as usize]);
        let all: u32 = present.clone().map(|(_, weight)| weight).sum();
        let own = present.clone().find(|(one, _)| *one == lane);
        own.map_or(0, |(_, weight)| (self.limit * weight / all).max(1))
    }

    fn patient(&self, now_ms: u64) -> impl Iterator<Item = &Known> {
        self.waits.iter().filter(move |one| now_ms - one.since_ms <= PATIENCE_MS)
    }

    fn owed(&self, lane: Lane, now_ms: u64) -> bool {
        self.patient(now_ms).any(|one| one.lane == lane) && self.running(lane) < self.share(lane)
    }

    fn may_run(&self, one: &Known, now_ms: u64) -> bool {
        if one.lane == Lane::Cancel {
            return true;
        }
        let spare = if Self::of_account(&self.runs, one) > 0 { self.limit / 8 } else { 0 };
        let used = self.runs.len() as u32 + spare;
        let above = WEIGHTS.iter().map(|(lane, _)| *lane).filter(|lane| *lane < one.lane);
        if self.running(one.lane) < self.share(one.lane) {
            return used < self.limit && !above.clone().any(|lane| self.owed(lane, now_ms));
        }
        let kept: u32 = above
            .map(|lane| (self.share(lane) / 4).min(self.share(lane).saturating_sub(self.running(lane))))
            .sum();
        let others = WEIGHTS.iter().filter(|(lane, _)| *lane != one.lane);
        used + kept < self.limit && !others.clone().any(|(lane, _)| self.owed(*lane, now_ms))
    }

    /// 0 runs, 1 waits, 2 is shed; and who is turned away.
    fn enter(&mut self, one: Known, now_ms: u64) -> (u8, Option<u64>) {
        let first = one.lane == Lane::Cancel || !self.patient(now_ms).any(|other| other.lane == one.lane);
        if first && self.may_run(&one, now_ms) {
            self.runs.push(one);
            return (0, None);
        }
        let mates: Vec<Known> = self.waits.iter().copied().filter(|other| other.lane == one.lane).collect();
        let mut sheds = None;
        if mates.len() >= self.queue {
            let most = mates.iter().map(|mate| Self::of_account(&self.waits, mate)).max().unwrap_or(0);
            if self.queue == 0 || most <= Self::of_account(&self.waits, &one) + 1 {
                return (2, None);
            }
            let newest = mates.iter().rev().find(|mate| Self::of_account(&self.waits, mate) == most);
            sheds = newest.map(|mate| mate.number);
            self.waits.retain(|other| Some(other.number) != sheds);
        }
        self.waits.push(one);
        (1, sheds)
    }

    fn next(&mut self, now_ms: u64) -> Option<u64> {
        for (lane, _) in WEIGHTS {
            let mut mates: Vec<Known> =
                self.patient(now_ms).copied().filter(|one| one.lane == lane).collect();
            let oldest = mates.first().map_or(now_ms, |mate| mate.since_ms);
            let late = (now_ms - oldest) * 2 > PATIENCE_MS && lane != Lane::Order;
            if late {
                mates.reverse();
            }
            let least = mates.iter().map(|mate| Self::of_account(&self.runs, mate)).min();
            let pick = mates.iter().find(|mate| Some(Self::of_account(&self.runs, mate)) == least);
            if let Some(pick) = pick.copied().filter(|pick| self.may_run(pick, now_ms)) {
                self.waits.retain(|one| one.number != pick.number);
                self.runs.push(pick);
                return Some(pick.number);
            }
        }
        None
    }
}

/// Gate and model side by side.
struct Pair {
    gate: Gate<u64>,
    model: Model,
    seats: Vec<(u64, Seat)>,
    tickets: Vec<(u64, Ticket)>,
}

impl Pair {
    fn enter(&mut self, one: Known, now_ms: u64) -> Result<(), TestCaseError> {
        let (limit, now) = (self.model.limit, Nanos::from_millis(now_ms));
        let asked = Ask { queue: self.model.queue, ..ask(one.lane, one.account) };
        let expected = self.model.enter(one, now_ms);
        let got = match self.gate.enter(&asked, limit, now, || one.number) {
            Entry::Runs(seat) => {
                self.seats.push((one.number, seat));
                (0, None)
            }
            Entry::Waits { ticket, sheds } => {
                self.tickets.push((one.number, ticket));
                (1, sheds)
            }
            Entry::Shed => (2, None),
        };
        prop_assert_eq!(got, expected, "{:?} into {:?}", one, self.model);
        self.tickets.retain(|(number, _)| Some(*number) != got.1);
        Ok(())
    }

    fn wake(&mut self, now_ms: u64) -> Result<(), TestCaseError> {
        loop {
            let named = self.gate.next(self.model.limit, Nanos::from_millis(now_ms));
            prop_assert_eq!(named.as_ref().map(|(number, _)| *number), self.model.next(now_ms));
            let Some((number, seat)) = named else { return Ok(()) };
            self.tickets.retain(|(waiting, _)| *waiting != number);
            self.seats.push((number, seat));
        }
    }

    fn leave(&mut self, place: usize) {
        let (number, seat) = self.seats.remove(place % self.seats.len());
        self.gate.leave(seat);
        self.model.runs.retain(|one| one.number != number);
    }

    fn abandon(&mut self, place: usize) -> Result<(), TestCaseError> {
        let (number, ticket) = self.tickets.remove(place % self.tickets.len());
        prop_assert!(self.gate.abandon(ticket) && !self.gate.abandon(ticket));
        self.model.waits.retain(|one| one.number != number);
        Ok(())
    }

    /// What must hold at any time, whatever model one has in mind.
    fn check(&self) -> Result<(), TestCaseError> {
        for lane in Lane::ALL {
            let Load { running, waiting } = self.gate.load(lane);
            prop_assert_eq!(running, self.model.running(lane));
            prop_assert_eq!(waiting, self.tickets.iter().filter(|(_, ticket)| ticket.lane == lane).count());
            prop_assert!(waiting <= self.model.queue);
        }
        prop_assert!(self.gate.load(Lane::Cancel).waiting == 0);
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_gate_does_what_the_model_does(
        lanes: [bool; 4], queue in 0_usize..6, limit in 1_u32..24,
        steps in proptest::collection::vec((0_u8..6, 0_usize..4, 0_u64..5, 0_u64..40), 1..250),
    ) {
        let model = Model { lanes, limit, queue, ..Model::default() };
        let mut pair = Pair { gate: Gate::new(lanes), model, seats: Vec::new(), tickets: Vec::new() };
        let mut now_ms = 0;
        for (number, (what, lane, account, pause_ms)) in steps.into_iter().enumerate() {
            now_ms += pause_ms;
            let known = Known { number: number as u64, lane: Lane::ALL[lane], account, since_ms: now_ms };
            match what {
                0..=2 => pair.enter(known, now_ms)?,
                3 if !pair.seats.is_empty() => pair.leave(account as usize),
                4 if !pair.tickets.is_empty() => pair.abandon(account as usize)?,
                5 => pair.model.limit = (limit + account as u32).saturating_sub(2).max(1),
                _ => {}
            }
            pair.wake(now_ms)?;
            pair.check()?;
        }
        for (_, seat) in std::mem::take(&mut pair.seats) { pair.gate.leave(seat); }
        for (_, ticket) in std::mem::take(&mut pair.tickets) { pair.gate.abandon(ticket); }
        prop_assert!(pair.gate.queues.iter().all(Queue::is_forgotten));
    }

    /// With nothing running, somebody who waits in time runs.
    #[test]
    fn an_empty_gate_keeps_nobody_waiting(
        lanes: [bool; 4], limit in 1_u32..40,
        waiting in proptest::collection::vec((0_usize..3, 0_u64..4), 1..8),
    ) {
        let mut gate = Gate::new(lanes);
        let mut seats: Vec<Seat> = Vec::new();
        // Everything is taken, then given back at once.
        for _ in 0..=limit {
            if let Entry::Runs(seat) = gate.enter(&ask(Lane::Cancel, 9), limit, Nanos::ZERO, || 0) {
                seats.push(seat);
            }
        }
        for (lane, account) in waiting {
            let entry = gate.enter(&ask(HELD[lane], account), limit, Nanos::ZERO, || 1);
            prop_assert!(matches!(entry, Entry::Waits { .. } | Entry::Shed), "{entry:?}");
        }
        for seat in seats { gate.leave(seat); }
        prop_assert!(gate.next(limit, Nanos::ZERO).is_some());
    }
}
