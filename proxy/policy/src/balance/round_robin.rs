//! Smooth weighted round robin.
//!
//! Each usable candidate earns its weight; the richest is picked and pays what all earned. Credit is kept by id
//! over a change of the field, so that a changed weight, a new instance or one that went starts no round anew; it
//! is turned into the new field's units and never exceeds one round, so that a weight that shrank leaves no debt of
//! thousands of picks. An instance that was away begins without credit.

use super::field::{Candidate, Field};

/// Credit by instance, in the order of one field's candidates.
#[derive(Debug, Default)]
pub(super) struct Credits {
    serial: u64,
    unit: u64,
    of: Vec<(u32, i64)>,
}

impl Credits {
    pub(super) fn pick<'f>(
        &mut self,
        field: &'f Field,
        usable: impl Fn(&Candidate) -> bool,
    ) -> Option<&'f Candidate> {
        self.follow(field);
        let (mut total, mut best) = (0, None);
        for (at, candidate) in field.main().iter().enumerate().filter(|(_, candidate)| usable(candidate)) {
            let weight = candidate.weight as i64;
            total += weight;
            self.of[at].1 += weight;
            if best.is_none_or(|best: usize| self.of[at].1 > self.of[best].1) {
                best = Some(at);
            }
        }
        self.of[best?].1 -= total;
        field.main().get(best?)
    }

    /// Carries credit over to another field. Allocates, once a change.
    fn follow(&mut self, field: &Field) {
        if self.serial == field.serial {
            return;
        }
        let old = std::mem::take(&mut self.of);
        let round = field.main().iter().map(|candidate| candidate.weight as i64).sum::<i64>();
        let credit = |id| {
            let known = old.iter().find(|(known, _)| *known == id).map_or(0, |(_, credit)| *credit);
            let turned = i128::from(known) * i128::from(field.unit) / i128::from(self.unit.max(1));
            turned.clamp(-i128::from(round), i128::from(round)) as i64
        };
        self.of = field.main().iter().map(|one| (one.instance.id, credit(one.instance.id))).collect();
        (self.serial, self.unit) = (field.serial, field.unit);
    }
}
