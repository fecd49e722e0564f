//! The parameters that are tried: some values for each gene of a rule, counted from 0.

use std::fmt;

use super::rule::Rule;
use crate::series::ShapeError;

/// LIMIT: genes of one rule.
pub(crate) const GENES_MAX: usize = 8;
/// LIMIT: values of one gene.
pub const VALUES_MAX: usize = 4_096;

/// Which value of each gene.
pub(crate) type Genome = [u16; GENES_MAX];

/// The values each gene of a rule may have. Combinations have numbers: the last gene varies fastest.
#[derive(Clone, Debug)]
pub struct Space {
    rule: &'static Rule,
    values: Vec<Vec<f64>>,
    size: u64,
}

/// Parameters that cannot be searched.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SpaceError {
    /// The rule has no such gene.
    UnknownGene {
        /// The rule.
        rule: &'static str,
        /// The name given.
        name: String,
    },
    /// A gene has no value, or more than [`VALUES_MAX`].
    Count {
        /// The gene.
        gene: &'static str,
        /// How many.
        found: usize,
    },
    /// A value outside the gene's range, or not whole where it must be.
    Value {
        /// The gene.
        gene: &'static str,
        /// The value.
        found: f64,
        /// Least and greatest value.
        range: (f64, f64),
        /// Whether values are whole numbers.
        whole: bool,
    },
    /// More combinations than can be counted.
    TooLarge,
    /// No combination keeps the rule's order (a fast window is shorter than a slow one).
    Empty,
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownGene { rule, name } => write!(f, "`{rule}` has no parameter `{name}`"),
            Self::Count { gene, found } => {
                write!(f, "`{gene}` has {found} values; at least 1 and at most {VALUES_MAX} are tried")
            }
            Self::Value { gene, found, range: (min, max), whole } => {
                let kind = if *whole { "a whole number" } else { "a number" };
                write!(f, "`{gene}` is {kind} from {min} to {max}, not {found}")
            }
            Self::TooLarge => f.write_str("there are more combinations than can be counted"),
            Self::Empty => f.write_str("no combination of these values keeps the rule's order of windows"),
        }
    }
}

impl std::error::Error for SpaceError {}

impl Space {
    /// The space of a rule: the values given for its genes, by name; the rule's own for the others.
    pub fn new(rule: &'static Rule, given: &[(&str, &[f64])]) -> Result<Self, SpaceError> {
        if let Some((name, _)) =
            given.iter().find(|(name, _)| rule.genes.iter().all(|gene| gene.name != *name))
        {
            return Err(SpaceError::UnknownGene { rule: rule.name, name: (*name).to_owned() });
        }
        let mut values = Vec::with_capacity(rule.genes.len());
        let mut size = 1_u64;
        for gene in rule.genes {
            let wanted = given.iter().find(|(name, _)| *name == gene.name);
            let wanted = wanted.map_or_else(|| gene.usual(), |(_, wanted)| wanted.to_vec());
            if wanted.is_empty() || wanted.len() > VALUES_MAX {
                return Err(SpaceError::Count { gene: gene.name, found: wanted.len() });
            }
            if let Some(found) = wanted.iter().find(|value| !gene.allows(**value)) {
                let range = (gene.min, gene.max);
                return Err(SpaceError::Value { gene: gene.name, found: *found, range, whole: gene.whole });
            }
            size = size.checked_mul(wanted.len() as u64).ok_or(SpaceError::TooLarge)?;
            values.push(wanted);
        }
        let space = Self { rule, values, size };
        if space.first_valid().is_none() { Err(SpaceError::Empty) } else { Ok(space) }
    }

    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> &'static Rule {
        self.rule
    }

    /// Number of combinations, those that break the rule's order included.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The values of a combination, gene by gene.
    pub(crate) fn values(&self, genome: &Genome) -> [f64; GENES_MAX] {
        let mut values = [0.0; GENES_MAX];
        for ((value, of), gene) in values.iter_mut().zip(&self.values).zip(genome) {
            *value = of[usize::from(*gene)];
        }
        values
    }

    /// Names and values of a combination.
    pub fn named(&self, number: u64) -> impl Iterator<Item = (&'static str, f64)> {
        let values = self.values(&self.genome(number));
        self.rule.genes.iter().map(|gene| gene.name).zip(values)
    }

    /// The combination of that number.
    pub(crate) fn genome(&self, mut number: u64) -> Genome {
        let mut genome = [0; GENES_MAX];
        for (gene, values) in genome.iter_mut().zip(&self.values).rev() {
            let radix = values.len() as u64;
            *gene = (number % radix) as u16;
            number /= radix;
        }
        genome
    }

    /// The number of a combination.
    pub(crate) fn number(&self, genome: &Genome) -> u64 {
        self.values
            .iter()
            .zip(genome)
            .fold(0, |number, (values, gene)| number * values.len() as u64 + u64::from(*gene))
    }

    /// How many values a gene has.
    pub(crate) fn radix(&self, gene: usize) -> u32 {
        self.values.get(gene).map_or(1, |values| values.len() as u32)
    }

    /// How many values the last gene has, the one in which neighbours differ.
    pub(crate) fn last_radix(&self) -> u64 {
        self.values.last().map_or(1, |values| values.len() as u64)
    }

    /// Whether the windows are in the rule's order.
    pub(crate) fn is_valid(&self, genome: &Genome) -> bool {
        let values = self.values(genome);
        self.rule.ordered.iter().all(|&(less, more)| values[less] < values[more])
    }

    /// One that is valid, where there is one.
    fn first_valid(&self) -> Option<Genome> {
        let mut genome = [0; GENES_MAX];
        for (gene, values) in genome.iter_mut().zip(&self.values) {
            let least = |best: usize, next: usize| if values[next] < values[best] { next } else { best };
            *gene = (0..values.len()).fold(0, least) as u16;
        }
        // From the least of all, each window takes the least value above the one it must exceed.
        for &(less, more) in self.rule.ordered {
            let floor = self.values(&genome)[less];
            let above = |index: &usize| self.values[more][*index] > floor;
            let least = |a: &usize, b: &usize| self.values[more][*a].total_cmp(&self.values[more][*b]);
            genome[more] = (0..self.values[more].len()).filter(above).min_by(least)? as u16;
        }
        self.is_valid(&genome).then_some(genome)
    }

    /// A valid combination, to begin with.
    pub(crate) fn any(&self) -> Genome {
        self.first_valid().unwrap_or_default()
    }
}

/// A search that cannot begin.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SearchError {
    /// The series lacks a column that the rule reads.
    MissingColumn(crate::series::Column),
    /// Columns of different length.
    Shape(ShapeError),
    /// A close is not positive: it has no return.
    NotPositive {
        /// The row.
        row: usize,
    },
    /// Fewer than two bars, or a range outside the series.
    Range,
    /// Whoever watches did not want more of it.
    Cancelled,
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingColumn(column) => {
                write!(f, "the rule reads `{}`, which the series lacks", column.name())
            }
            Self::Shape(error) => error.fmt(f),
            Self::NotPositive { row } => write!(f, "the close of row {row} is not positive"),
            Self::Range => f.write_str("at least two bars within the series are needed"),
            Self::Cancelled => f.write_str("the search was cancelled"),
        }
    }
}

impl std::error::Error for SearchError {}
