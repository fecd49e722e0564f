//! What a trading rule is: lines drawn from prices, and conditions between them.

use std::ops::RangeInclusive;

use crate::catalog;
use crate::series::Column;

/// A trading rule with its parameters. Flat, it enters where `enter` holds; in the market, it leaves where
/// `exit` holds. What the close of a bar decides, counts from that close on.
#[derive(Debug)]
pub struct Rule {
    /// Name on the wire.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Its parameters.
    pub genes: &'static [Gene],
    pub(crate) lines: &'static [Line],
    pub(crate) enter: Cond,
    pub(crate) exit: Cond,
    /// Genes of which the first must be less than the second.
    pub(crate) ordered: &'static [(usize, usize)],
}

/// One parameter of a rule.
#[derive(Debug)]
pub struct Gene {
    /// Its name.
    pub name: &'static str,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Whether values are whole numbers.
    pub whole: bool,
    /// The values tried where none are given: first, last, step.
    pub usual: (f64, f64, f64),
}

impl Rule {
    /// The columns that it reads, beside the closes.
    #[must_use]
    pub fn columns(&self) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        for column in self.lines.iter().flat_map(Line::columns) {
            if *column != Column::Close && !columns.contains(column) {
                columns.push(*column);
            }
        }
        columns
    }
}

impl Gene {
    /// A window of bars.
    pub(crate) const fn bars(name: &'static str, usual: RangeInclusive<u32>, step: u32) -> Self {
        let usual = (*usual.start() as f64, *usual.end() as f64, step as f64);
        Self { name, min: 1.0, max: 100_000.0, whole: true, usual }
    }

    /// A level of an oscillator, or a factor.
    pub(crate) const fn real(name: &'static str, range: (f64, f64), usual: (f64, f64, f64)) -> Self {
        Self { name, min: range.0, max: range.1, whole: false, usual }
    }

    pub(crate) fn allows(&self, value: f64) -> bool {
        (self.min..=self.max).contains(&value) && (!self.whole || value.fract() == 0.0)
    }

    pub(crate) fn usual(&self) -> Vec<f64> {
        let (first, last, step) = self.usual;
        let steps = ((last - first) / step + 1e-9) as usize;
        (0..=steps).map(|index| first + step * index as f64).collect()
    }
}

/// Something with a value at each bar.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    /// A column of the series.
    Price(Column),
    /// An output of an indicator.
    Drawn {
        indicator: &'static str,
        given: &'static [(&'static str, Arg)],
        output: &'static str,
        /// Of another line instead of the close.
        over: Option<&'static Self>,
        /// So many bars later than it is: the channel before this bar.
        late: usize,
    },
}

/// Where an indicator's parameter comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    Gene(usize),
    Number(f64),
}

/// A side of a comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Line(usize),
    Gene(usize),
    Number(f64),
}

/// What must hold at a bar. A comparison with a value that is not there yet does not hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cond {
    /// The first is above the second.
    Above(Operand, Operand),
    /// The first comes from at or below the second to above it.
    Rises(Operand, Operand),
    And(&'static Self, &'static Self),
    Or(&'static Self, &'static Self),
}

impl Line {
    /// The plain line of an indicator with one output.
    pub(crate) const fn of(indicator: &'static str, given: &'static [(&'static str, Arg)]) -> Self {
        Self::output(indicator, given, "value")
    }

    pub(crate) const fn output(
        indicator: &'static str,
        given: &'static [(&'static str, Arg)],
        output: &'static str,
    ) -> Self {
        Self::Drawn { indicator, given, output, over: None, late: 0 }
    }

    /// The columns that it is drawn from.
    fn columns(&self) -> &[Column] {
        match self {
            Self::Price(column) => std::slice::from_ref(column),
            Self::Drawn { over: Some(inner), .. } => inner.columns(),
            Self::Drawn { indicator, .. } => catalog::find(indicator).map_or(&[], |entry| entry.columns),
        }
    }

    /// The genes that it depends on.
    pub(crate) fn genes(&self) -> impl Iterator<Item = usize> {
        let (own, inner) = match *self {
            Self::Price(_) => (&[][..], None),
            Self::Drawn { given, over, .. } => (given, over),
        };
        let below = match inner {
            Some(Self::Drawn { given, .. }) => *given,
            _ => &[],
        };
        own.iter().chain(below).filter_map(|(_, arg)| match arg {
            Arg::Gene(gene) => Some(*gene),
            Arg::Number(_) => None,
        })
    }
}
