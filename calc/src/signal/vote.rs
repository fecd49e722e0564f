//! Several rules voting: each weighs with its confidence, those that cannot be applied abstain.

use super::closes::Closes;
use super::strategy::Strategy;
use super::{Action, Faults, Reading, Reason, Rule, Watch};
use crate::series::Column;

/// Most members of a vote.
pub const MEMBERS_MAX: usize = 8;

/// `sum(weight * side * confidence) / sum(weight)` over the members that do not abstain, `side` 1 for
/// BUY, -1 for SELL; at the threshold or beyond it is BUY or SELL.
#[derive(Clone, Debug)]
pub(super) struct Vote {
    pub(super) members: Vec<(Strategy, f64)>,
    pub(super) threshold: f64,
    pub(super) columns: Vec<Column>,
}

/// A member following the series.
struct Member {
    name: &'static str,
    weight: f64,
    watch: Watch,
    closes: Closes,
}

impl Rule for Vote {
    fn window(&self) -> usize {
        self.members.iter().map(|(member, _)| member.window()).max().unwrap_or(1)
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn watch(&self) -> Watch {
        let follow = |(member, weight): &(Strategy, f64)| Member {
            name: member.entry().name,
            weight: *weight,
            watch: member.watch(),
            closes: Closes::new(member.window()),
        };
        let mut members: Vec<Member> = self.members.iter().map(follow).collect();
        let threshold = self.threshold;
        Box::new(move |bar| {
            let (mut score, mut weight, mut faults) = (0.0, 0.0, Faults::default());
            let mut figures = [("", 0.0); MEMBERS_MAX];
            for (member, figure) in members.iter_mut().zip(&mut figures) {
                member.closes.push(bar.close);
                let reading = (member.watch)(bar);
                let found = member.closes.faults(&reading.figures);
                let side = side(if found.is_empty() { reading.action } else { Action::Hold });
                if found.is_empty() {
                    score += member.weight * side * reading.confidence;
                    weight += member.weight;
                }
                faults.extend(found.iter());
                *figure = (member.name, side);
            }
            let figures = figures.into_iter().take(members.len());
            let score = if weight > 0.0 { score / weight } else { 0.0 };
            let says = if score >= threshold {
                (Action::Buy, Reason::VotedBuy)
            } else if score <= -threshold {
                (Action::Sell, Reason::VotedSell)
            } else {
                (Action::Hold, Reason::Undecided)
            };
            let reading = Reading::new(says, score.abs(), figures);
            // Only when nobody votes the members' faults are the vote's.
            Reading { faults: if weight > 0.0 { Faults::default() } else { faults }, ..reading }
        })
    }
}

const fn side(action: Action) -> f64 {
    match action {
        Action::Buy => 1.0,
        Action::Sell => -1.0,
        Action::Hold => 0.0,
    }
}
