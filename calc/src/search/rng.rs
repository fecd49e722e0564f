//! Chance that a seed decides: the same numbers on every machine and in every version.

/// SplitMix64: one word of state, every value once in 2^64 steps.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0; each is as likely as another, but for 2^-32 of a chance.
    pub(super) const fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * bound as u64) >> 32) as u32
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        // 53 bits: every f64 between 0 and 1 in equal steps.
        ((self.next() >> 11) as f64) * (1.0 / 9_007_199_254_740_992.0) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        let mut rng = Rng::new(1_234_567);
        let first = [rng.next(), rng.next(), rng.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut rng = Rng::new(7);
        let (mut counts, mut hits) = ([0_u32; 5], 0);
        for _ in 0..50_000 {
            counts[rng.below(5) as usize] += 1;
            hits += u32::from(rng.chance(0.15));
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert!((7_100..7_900).contains(&hits), "{hits}");
    }
}
