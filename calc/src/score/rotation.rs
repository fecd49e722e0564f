//! Which strategies are run: the best stay, and one is only replaced by a clearly better one. The rule
//! is our own.

/// A strategy that runs or could.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Its name; ties are decided by it.
    pub id: &'a str,
    /// What it trades.
    pub symbol: &'a str,
    /// Its score.
    pub score: f64,
    /// Rounds it has been running; `None` when it is not.
    pub held: Option<u64>,
}

/// When to change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// How many run.
    pub slots: usize,
    /// Score below which none runs.
    pub floor: f64,
    /// How much better a newcomer is than the one it replaces.
    pub margin: f64,
    /// Rounds a strategy runs at least, whatever its score.
    pub min_hold: u64,
    /// Most strategies that begin or end in one round for a better one or a free slot.
    pub max_changes: usize,
    /// Most strategies of one symbol.
    pub per_symbol: usize,
}

/// Why a strategy begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its score is below the floor.
    BelowFloor,
    /// Another is better by the margin.
    Replaced,
    /// A slot was free.
    FreeSlot,
    /// It is better by the margin than the one it replaces.
    Better,
}

impl Why {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BelowFloor => "below_floor",
            Self::Replaced => "replaced",
            Self::FreeSlot => "free_slot",
            Self::Better => "better",
        }
    }
}

/// A strategy that begins or ends, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub at: usize,
    /// The one that it replaces, or that replaces it.
    pub other: Option<usize>,
    /// Why.
    pub why: Why,
}

/// What happens, as places in the list of candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Go on, best first.
    pub keep: Vec<usize>,
    /// Begin.
    pub add: Vec<Change>,
    /// End.
    pub drop: Vec<Change>,
}

/// Decides one round. Candidates with the same id count as different ones.
#[must_use]
pub fn rotate(candidates: &[Candidate<'_>], policy: &Policy) -> Rotation {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|a, b| better(&candidates[*a], &candidates[*b]).then(a.cmp(b)));
    let young = |at: usize| candidates[at].held.is_some_and(|held| held < policy.min_hold);
    let sound = |at: usize| candidates[at].score >= policy.floor;
    let running = |at: &usize| candidates[*at].held.is_some();
    let mut round = Rotation::default();
    for at in order.iter().copied().filter(running) {
        if sound(at) || young(at) {
            round.keep.push(at);
        } else {
            round.drop.push(Change { at, other: None, why: Why::BelowFloor });
        }
    }
    // Until nothing changes: one that leaves may make room for another's symbol.
    while round.add.len() < policy.max_changes {
        let waiting =
            |at: &usize| !running(at) && sound(*at) && round.add.iter().all(|change| change.at != *at);
        let mut newcomers = order.iter().copied().filter(waiting);
        let next = newcomers.find_map(|at| Some((at, place(&round, candidates, policy, at, young)?)));
        let Some((at, place)) = next else { break };
        let (why, replaced) = match place {
            Place::Free => (Why::FreeSlot, None),
            Place::Of(old) => (Why::Better, Some(old)),
        };
        if let Some(old) = replaced {
            round.keep.retain(|kept| *kept != old);
            round.drop.push(Change { at: old, other: Some(at), why: Why::Replaced });
        }
        round.add.push(Change { at, other: replaced, why });
    }
    round
}

/// Best first, then by name.
fn better(a: &Candidate<'_>, b: &Candidate<'_>) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.id.cmp(b.id))
}

/// Where a newcomer begins.
enum Place {
    /// A slot that nobody has.
    Free,
    /// That of the one at this place in the list.
    Of(usize),
}

/// Where a newcomer fits: a free slot, or in place of the worst that it may replace.
fn place(
    round: &Rotation,
    candidates: &[Candidate<'_>],
    policy: &Policy,
    at: usize,
    young: impl Fn(usize) -> bool,
) -> Option<Place> {
    let newcomer = &candidates[at];
    let runs = || round.keep.iter().copied().chain(round.add.iter().map(|change| change.at));
    let of_symbol = runs().filter(|other| candidates[*other].symbol == newcomer.symbol).count();
    if of_symbol > policy.per_symbol {
        // There are too many of it already: one for another would leave as many.
        return None;
    }
    let crowded = of_symbol == policy.per_symbol;
    if runs().count() < policy.slots && !crowded {
        return Some(Place::Free);
    }
    let worst = round.keep.iter().rev().copied().find(|kept| {
        let kept_one = &candidates[*kept];
        !young(*kept)
            && newcomer.score >= kept_one.score + policy.margin
            && (!crowded || kept_one.symbol == newcomer.symbol)
    });
    worst.filter(|_| runs().count() <= policy.slots).map(Place::Of)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { slots: 2, floor: 0.6, margin: 0.05, min_hold: 3, max_changes: 2, per_symbol: 1 };

    fn candidate<'a>(id: &'a str, symbol: &'a str, score: f64, held: Option<u64>) -> Candidate<'a> {
        Candidate { id, symbol, score, held }
    }

    #[test]
    fn only_a_clearly_better_one_replaces() {
        let mut all = vec![
            candidate("a", "X", 0.7, Some(9)),
            candidate("b", "Y", 0.65, Some(9)),
            candidate("c", "Z", 0.69, None),
        ];
        assert_eq!(rotate(&all, &POLICY).keep, [0, 1]);
        all[2].score = 0.72;
        let round = rotate(&all, &POLICY);
        assert_eq!(round.keep, [0]);
        assert_eq!(round.add, [Change { at: 2, other: Some(1), why: Why::Better }]);
        assert_eq!(round.drop, [Change { at: 1, other: Some(2), why: Why::Replaced }]);
        all[1].held = Some(1);
        assert_eq!(rotate(&all, &POLICY).keep, [0, 1], "b is too young to go");
    }

    #[test]
    fn the_floor_empties_slots_and_symbols_are_bounded() {
        let all = [
            candidate("a", "X", 0.5, Some(9)),
            candidate("b", "Y", 0.5, Some(1)),
            candidate("c", "Y", 0.9, None),
            candidate("d", "Z", 0.8, None),
            candidate("e", "V", 0.1, None),
        ];
        let round = rotate(&all, &POLICY);
        assert_eq!(round.keep, [1]);
        assert_eq!(round.drop, [Change { at: 0, other: None, why: Why::BelowFloor }]);
        assert_eq!(round.add, [Change { at: 3, other: None, why: Why::FreeSlot }]);
        let still = Policy { max_changes: 0, ..POLICY };
        assert!(rotate(&all, &still).add.is_empty());
    }
}
