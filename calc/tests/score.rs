//! Weights and rotation of strategies, against what they promise.

use proptest::prelude::*;
use sluice_calc::score::{Candidate, Member, Policy, Weighting, effective, rotate, weights};

proptest! {
    #[test]
    fn weights_add_up_and_stay_below_the_cap(
        members in prop::collection::vec((0.0..1.0_f64, prop::collection::vec(-0.1..0.1, 8)), 1..12),
        power in prop::option::of(0.0..4.0),
        above in 0.0..1.0,
    ) {
        let equal = 1.0 / members.len() as f64;
        let max = equal + above * (1.0 - equal);
        let rule = power.map_or(Weighting::Correlation, |power| Weighting::Score { power });
        let members: Vec<_> = members.iter().map(|(score, returns)| Member { score: *score, returns }).collect();
        let mut out = vec![f64::NAN; members.len()];
        weights(&members, rule, max, &mut out);
        prop_assert!((out.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{out:?}");
        prop_assert!(out.iter().all(|weight| (0.0..=max * (1.0 + 1e-9)).contains(weight)), "{max} {out:?}");
        prop_assert!((1.0 - 1e-9..=members.len() as f64 + 1e-9).contains(&effective(&out)));
        // By score alone nobody is behind who scored more.
        if let Weighting::Score { .. } = rule {
            for (a, one) in members.iter().zip(&out) {
                for (b, other) in members.iter().zip(&out) {
                    prop_assert!(a.score < b.score || one >= other || (one - other).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn a_round_keeps_its_promises_and_the_next_one_changes_nothing(
        all in prop::collection::vec((0_usize..4, 0.0..1.0_f64, prop::option::of(0_u64..6)), 0..12),
        (slots, floor, margin) in (0_usize..6, 0.2..0.8, 0.0..0.2),
        (min_hold, per_symbol) in (0_u64..4, 1_usize..3),
    ) {
        let names: Vec<String> = (0..all.len()).map(|at| format!("s{at:02}")).collect();
        let symbols = ["A", "B", "C", "D"];
        let list = |held: &dyn Fn(usize) -> Option<u64>| -> Vec<Candidate<'_>> {
            let of = |at: usize| Candidate { id: &names[at], symbol: symbols[all[at].0], score: all[at].1, held: held(at) };
            (0..all.len()).map(of).collect()
        };
        let policy = Policy { slots, floor, margin, min_hold, max_changes: usize::MAX, per_symbol };
        let before = list(&|at| all[at].2);
        let round = rotate(&before, &policy);
        let runs: Vec<usize> = round.keep.iter().copied().chain(round.add.iter().map(|change| change.at)).collect();
        let young = |at: usize| all[at].2.is_some_and(|held| held < min_hold);
        prop_assert!(runs.iter().all(|at| before[*at].score >= floor || young(*at)));
        prop_assert!(round.drop.iter().all(|change| !young(change.at)));
        // Who ran before goes on or ends, and nothing is added beyond what fits.
        let ran = before.iter().filter(|one| one.held.is_some()).count();
        prop_assert_eq!(round.keep.len() + round.drop.len(), ran);
        prop_assert!(round.add.is_empty() || runs.len() <= slots.max(round.keep.len() + round.add.iter().filter(|change| change.other.is_some()).count()));
        for change in &round.add {
            let same = runs.iter().filter(|at| before[**at].symbol == before[change.at].symbol).count();
            prop_assert!(same <= per_symbol, "{round:?}");
        }
        // Asked again in the same round.
        let after = list(&|at| runs.contains(&at).then(|| all[at].2.unwrap_or(0)));
        let again = rotate(&after, &policy);
        prop_assert!(again.add.is_empty() && again.drop.is_empty(), "{round:?} {again:?}");
    }
}
