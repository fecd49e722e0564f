//! Randomness as an argument.
//!
//! A decision that needs chance takes a 64-bit seed; the shell draws it from its own generator.
//! The mix is splitmix64 (Steele, Lea, Flood 2014): one multiplication chain, every seed usable,
//! also 0, 1, 2, … Not for keys or tokens.

use std::time::Duration;

use crate::time::nanos;

/// Spreads a seed over 64 bits.
pub const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number below `bound`, near enough to uniform; 0 where `bound` is 0.
pub const fn below(bound: u64, seed: u64) -> u64 {
    ((mix(seed) as u128 * bound as u128) >> 64) as u64
}

/// A duration from `low` to `high`, both included.
pub fn between(low: Duration, high: Duration, seed: u64) -> Duration {
    let (low, high) = (nanos(low), nanos(high));
    let span = high.saturating_sub(low);
    Duration::from_nanos(low.saturating_add(below(span.saturating_add(1), seed)))
}

/// `base` moved by at most `percent` of itself, up or down.
pub fn jitter(base: Duration, percent: u32, seed: u64) -> Duration {
    let spread = base / 100 * percent;
    between(base.saturating_sub(spread), base.saturating_add(spread), seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbouring_seeds_spread_evenly() {
        let mut hits = [0_u32; 10];
        for seed in 0..10_000 {
            hits[below(10, seed) as usize] += 1;
        }
        assert!(hits.iter().all(|hit| (900..1100).contains(hit)), "{hits:?}");
    }

    proptest! {
        #[test]
        fn jitter_stays_inside_its_band(base_ms in 0_u64..10_000_000, percent in 0_u32..100, seed: u64) {
            let base = Duration::from_millis(base_ms);
            let moved = jitter(base, percent, seed);
            let spread = base / 100 * percent;
            prop_assert!(moved + spread >= base && moved <= base + spread);
        }
    }
}
