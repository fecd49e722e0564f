//! A genetic algorithm over a rule's parameters: the same seed finds the same combinations.

use std::collections::BTreeMap;
use std::ops::Range;

use super::columns::LANES;
use super::figures::{Best, Figures, Found, better};
use super::rng::Rng;
use super::space::{GENES_MAX, Genome, SearchError};
use super::task::{Trials, Watch};

/// LIMIT: tries to find a combination that keeps the rule's order, before one is taken that does.
const DRAWS_MAX: usize = 64;
/// LIMIT: combinations tried, whatever is asked for.
const TRIED_MAX: usize = 1_000_000;

/// How a population changes from one generation to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Genetic {
    /// Combinations of one generation, at least 2.
    pub population: usize,
    /// Generations after the first one.
    pub generations: usize,
    /// Chance of each gene to be drawn anew.
    pub mutation: f64,
    /// Chance of two parents to be crossed, at one point.
    pub crossover: f64,
    /// Of so many, drawn by chance, the best becomes a parent.
    pub tournament: usize,
    /// Decides every chance.
    pub seed: u64,
}

impl Default for Genetic {
    fn default() -> Self {
        Self { population: 50, generations: 30, mutation: 0.15, crossover: 0.35, tournament: 3, seed: 0 }
    }
}

impl Trials<'_, '_> {
    /// Searches within these bars. Each combination is tried once, however often it comes up; the best of a
    /// generation lives on. Tells the watcher what was asked for, not what was new.
    pub fn genetic(
        &mut self,
        how: &Genetic,
        bars: Range<usize>,
        watch: &mut Watch<'_>,
    ) -> Result<(Best, u64), SearchError> {
        let space = self.task().space;
        let mut rng = Rng::new(how.seed);
        let mut known: BTreeMap<u64, Figures> = BTreeMap::new();
        let mut best = Best::new(self.task().rank, self.task().keep);
        let mut people: Vec<Genome> = (0..how.population.max(2)).map(|_| self.draw(&mut rng)).collect();
        for generation in 0..=how.generations {
            self.judge(&people, &bars, (&mut known, &mut best), watch)?;
            if !watch(people.len() as u64, best.found()) {
                return Err(SearchError::Cancelled);
            }
            if generation == how.generations || known.len() >= TRIED_MAX {
                break;
            }
            let mut judged: Vec<Found> = people
                .iter()
                .map(|genome| space.number(genome))
                .map(|number| Found { number, figures: known[&number] })
                .collect();
            judged.sort_by(|a, b| better(self.task().rank, a, b));
            let mut next = vec![space.genome(judged[0].number)];
            while next.len() < people.len() {
                let child = self.child(how, &judged, &mut rng);
                next.push(child);
            }
            people = next;
        }
        Ok((best, known.len() as u64))
    }

    /// Tries those that are not known yet.
    fn judge(
        &mut self,
        people: &[Genome],
        bars: &Range<usize>,
        (known, best): (&mut BTreeMap<u64, Figures>, &mut Best),
        watch: &mut Watch<'_>,
    ) -> Result<(), SearchError> {
        let space = self.task().space;
        // By number: neighbours share lines, and the order does not hang on who came first.
        let mut fresh: Vec<u64> = people.iter().map(|genome| space.number(genome)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        fresh.retain(|number| !known.contains_key(number));
        for numbers in fresh.chunks(LANES) {
            let genomes: Vec<_> = numbers.iter().map(|number| space.genome(*number)).collect();
            if !watch(0, best.found()) {
                return Err(SearchError::Cancelled);
            }
            let figures = self.eight(&genomes, bars.clone(), &mut || watch(0, best.found()))?;
            for (number, figures) in numbers.iter().zip(figures) {
                known.insert(*number, figures);
                best.add(Found { number: *number, figures });
            }
        }
        Ok(())
    }

    fn child(&self, how: &Genetic, judged: &[Found], rng: &mut Rng) -> Genome {
        let space = self.task().space;
        let genes = space.rule().genes.len();
        for _ in 0..DRAWS_MAX {
            let mut parent = || {
                // `judged` is sorted, so the least index drawn is the winner.
                let drawn = (0..how.tournament.max(1)).map(|_| rng.below(judged.len() as u32));
                space.genome(judged[drawn.min().unwrap_or(0) as usize].number)
            };
            let (mut child, other) = (parent(), parent());
            if genes > 1 && rng.chance(how.crossover) {
                let point = 1 + rng.below(genes as u32 - 1) as usize;
                child[point..].copy_from_slice(&other[point..]);
            }
            for (gene, value) in child.iter_mut().enumerate().take(genes) {
                if rng.chance(how.mutation) {
                    *value = rng.below(space.radix(gene)) as u16;
                }
            }
            if space.is_valid(&child) {
                return child;
            }
        }
        space.genome(judged[0].number)
    }

    fn draw(&self, rng: &mut Rng) -> Genome {
        let space = self.task().space;
        let mut genome = [0; GENES_MAX];
        for _ in 0..DRAWS_MAX {
            for (gene, value) in genome.iter_mut().enumerate().take(space.rule().genes.len()) {
                *value = rng.below(space.radix(gene)) as u16;
            }
            if space.is_valid(&genome) {
                return genome;
            }
        }
        space.any()
    }
}
