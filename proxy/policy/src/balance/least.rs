//! Least connections: least `(in flight + 1) / weight`. Ties by chance, so that idle upstreams do not all get their
//! load on the first instance. Streams and tunnels are in flight for as long as they last.

use std::cmp::Ordering;

use super::field::Candidate;
use crate::random::below;

pub(super) fn least_loaded(
    side: &[Candidate],
    seed: u64,
    usable: impl Fn(&Candidate) -> bool,
) -> Option<&Candidate> {
    let mut best: Option<&Candidate> = None;
    let mut ties = 0;
    for candidate in side.iter().filter(|candidate| usable(candidate)) {
        match best.map_or(Ordering::Less, |best| by_load(candidate, best)) {
            Ordering::Less => (ties, best) = (1, Some(candidate)),
            Ordering::Equal => {
                ties += 1;
                if below(ties, seed ^ candidate.index as u64) == 0 {
                    best = Some(candidate);
                }
            }
            Ordering::Greater => {}
        }
    }
    best
}

/// Compares by requests in flight for their weight, one more included.
pub(super) fn by_load(one: &Candidate, other: &Candidate) -> Ordering {
    let load = |candidate: &Candidate| u64::from(candidate.instance.in_flight()) + 1;
    (load(one) * other.weight).cmp(&(load(other) * one.weight))
}
