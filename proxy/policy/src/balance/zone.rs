//! How much stays in the edge's own zone.
//!
//! Exact conditions: the share of requests that stays near is the share of the zone's weight that is available,
//! times 1.4 ([`RESERVE`]), at most all. So a zone that has lost up to two sevenths of its weight carries on
//! alone; below, what it cannot carry goes to the other zones, each instance there getting its share by weight.
//! The whole zone counts but what an operator holds back: who drains half of a zone wants the other half to take
//! it. With nothing near, or nothing else, there is nothing to choose.
//!
//! Cost: zones are taken to have edges as they have instances; an only edge in a small zone loads that zone alone.

/// What a zone can carry beyond what it carried whole.
const RESERVE: f64 = 1.4;

/// The share of requests that stays near, 0 to 1, from weights: of the near instances that are available, of all
/// near ones, of the far ones that are available.
pub(super) fn near_share(available: u64, all: u64, elsewhere: u64) -> f64 {
    match (available, elsewhere) {
        (0, _) => 0.0,
        (_, 0) => 1.0,
        _ => (RESERVE * available as f64 / all.max(1) as f64).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::near_share;

    #[test]
    fn a_zone_carries_two_sevenths_more_than_its_part() {
        for (available, all, elsewhere, share) in [
            (7, 7, 9, 1.0),
            (5, 7, 9, 1.0),
            (1, 2, 9, 0.7),
            (1, 10, 9, 0.14),
            (1, 10, 0, 1.0),
            (0, 10, 9, 0.0),
        ] {
            let found = near_share(available, all, elsewhere);
            assert!((found - share).abs() < 1e-9, "{available} of {all}, {elsewhere}: {found}");
        }
    }
}
