//! Where the knee is: rates are tried upwards until one is not held, then between the last that was and the first that
//! was not. Pure: told what came of a rate, it says which is next.

/// The rates of a search, and when it ends.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// Tried upwards.
    ladder: Vec<u32>,
    /// The next rung.
    rung: usize,
    held: u32,
    /// The lowest rate that was not held, twice in a row.
    lost: Option<u32>,
    missed: Option<u32>,
    /// Rates tried between the two.
    refined: u32,
}

/// LIMIT: rates tried between the last that was held and the first that was not.
const REFINED_MAX: u32 = 4;
/// Finer than so, as a share, no knee is looked for.
const GRAIN: f64 = 0.04;

impl Search {
    /// Of rates from `from` to `to` in so many steps of the same ratio.
    pub(super) fn new(from: u32, to: u32, steps: u32) -> Self {
        let (low, ratio) = (f64::from(from), f64::from(to) / f64::from(from));
        let rate = |step: u32| low * ratio.powf(f64::from(step) / f64::from(steps - 1));
        let mut ladder: Vec<u32> = (0..steps).map(|step| rate(step).round() as u32).collect();
        ladder.dedup();
        Self { ladder, rung: 0, held: 0, lost: None, missed: None, refined: 0 }
    }

    /// The rate to try; nothing when the knee is known.
    pub(super) fn next(&self) -> Option<u32> {
        if self.missed.is_some() {
            return self.missed;
        }
        let Some(lost) = self.lost else { return self.ladder.get(self.rung).copied() };
        let between = (f64::from(self.held) * f64::from(lost)).sqrt() as u32;
        let apart = f64::from(lost - self.held) > GRAIN * f64::from(lost);
        (self.held > 0 && self.refined < REFINED_MAX && apart).then_some(between)
    }

    /// What came of the rate that [`Search::next`] said. One miss may be the machine's: it is tried once more.
    pub(super) fn told(&mut self, rate: u32, held: bool) {
        if !held && self.missed.is_none() {
            self.missed = Some(rate);
            return;
        }
        self.missed = None;
        if self.lost.is_some() {
            self.refined += 1;
        } else {
            self.rung += 1;
        }
        if held {
            self.held = rate;
        } else {
            self.lost = Some(rate);
        }
    }

    /// The highest rate that was held; zero when none was.
    pub(super) fn knee(&self) -> u32 {
        self.held
    }

    /// No rate was too high: the knee lies at or beyond the last.
    pub(super) fn is_open(&self) -> bool {
        self.lost.is_none()
    }

    /// LIMIT: rates tried at most, those tried twice included.
    pub(super) fn tries_max(steps: u32) -> u32 {
        steps + 2 * REFINED_MAX + 2 * steps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(mut search: Search, held: impl Fn(u32, u32) -> bool) -> (Search, u32) {
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.told(rate, held(rate, tries));
            tries += 1;
            assert!(tries < 1_000);
        }
        (search, tries)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn the_knee_of_a_steady_server_is_found_within_the_grain(
            from in 10_u32..1_000,
            times in 2_u32..100,
            steps in 2_u32..20,
            share in 0.0_f64..1.2,
        ) {
            let to = from * times;
            let most = (f64::from(to) * share) as u32;
            let (search, tries) = found(Search::new(from, to, steps), |rate, _| rate <= most);
            prop_assert!(tries <= Search::tries_max(steps));
            if most < from {
                prop_assert_eq!(search.knee(), 0);
            } else if most >= to {
                prop_assert!(search.is_open() && search.knee() == to);
            } else {
                prop_assert!(search.knee() <= most && !search.is_open());
                let lost = search.lost.unwrap();
                prop_assert!(lost > most);
                let step = f64::from(times).powf(1.0 / f64::from(steps - 1));
                // Four halvings of a step's logarithm, or the grain; each rounds to a whole number.
                let bound = step.powf(1.0 / 16.0).max(1.0 + 1.1 * GRAIN) + 8.0 / f64::from(from);
                prop_assert!(f64::from(lost) / f64::from(search.knee()) <= bound);
            }
        }
    }

    #[test]
    fn a_single_miss_is_forgiven() {
        let search = Search::new(100, 1_000, 4);
        let (search, tries) = found(search, |_, tries| tries != 1);
        assert_eq!((search.knee(), search.is_open(), tries), (1_000, true, 5));
    }
}
