//! The lines of a rule as columns: each is worked out once for all combinations that share it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::rule::{Arg, Line};
use super::space::{GENES_MAX, Genome, SearchError, Space};
use crate::catalog::{Indicator, Workspace};
use crate::compat::Compat;
use crate::entry::Value;
use crate::lanes::{BLOCK, Lanes as _, Wide, load_block};
use crate::series::Bars;

/// LIMIT: values kept; beyond that all are dropped and worked out again.
const KEPT_MAX: usize = 16_000_000;
/// Combinations side by side.
pub(super) const LANES: usize = Wide::WIDTH;

/// A line and the genes it depends on.
type Key = (usize, Genome);

/// What was worked out.
pub(super) struct Columns<'a> {
    bars: Bars<'a>,
    work: Workspace,
    kept: HashMap<Key, Column>,
}

/// LIMIT: bars of a line that are kept turned into lanes: 1 MiB, which the second cache holds.
const TILE_MAX: usize = 16_384;

/// A line for eight combinations. The bar before the first has a place too, without a value: bar `i` is at `i + 1`.
#[derive(Clone, Debug)]
pub(super) struct Eight {
    columns: [Arc<[f64]>; LANES],
    /// All of them are one.
    same: bool,
    /// Bars before the first value of each.
    pub(super) begins: [usize; LANES],
}

/// A column that is kept.
#[derive(Clone, Debug)]
struct Column {
    values: Arc<[f64]>,
    begins: usize,
}

impl Eight {
    /// The one column, where all of them are one.
    pub(super) fn same(&self) -> Option<&[f64]> {
        self.same.then(|| &*self.columns[0])
    }

    /// The lanes of these places, one after the other.
    pub(super) fn fill(&self, places: Range<usize>, lanes: &mut [Wide]) {
        let columns = self.columns.each_ref().map(|column| &column[places.clone()]);
        let whole = places.len() / BLOCK * BLOCK;
        let blocks = columns.map(|column| &column.as_chunks::<BLOCK>().0[..whole / BLOCK]);
        for (at, lanes) in lanes.chunks_exact_mut(BLOCK).enumerate().take(whole / BLOCK) {
            lanes.copy_from_slice(&load_block(blocks.map(|blocks| &blocks[at])));
        }
        for (place, lanes) in lanes.iter_mut().enumerate().take(places.len()).skip(whole) {
            *lanes = Wide::gather(|lane| columns[lane][place]);
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.columns.iter().zip(&other.columns).all(|(column, other)| Arc::ptr_eq(column, other))
    }
}

/// A line that the last eight combinations drew, turned into lanes once the next eight draw it too.
#[derive(Debug, Default)]
pub(super) struct Tile {
    drawn: Option<Eight>,
    lanes: Vec<Wide>,
}

impl Tile {
    /// The lanes of the whole line, if it was drawn for the eight before.
    pub(super) fn of(&mut self, eight: &Eight) -> Option<&[Wide]> {
        let places = eight.columns[0].len();
        if eight.same || places > TILE_MAX {
            return None;
        }
        if !self.drawn.as_ref().is_some_and(|drawn| drawn.is(eight)) {
            self.drawn = Some(eight.clone());
            self.lanes.clear();
            return None;
        }
        if self.lanes.is_empty() {
            self.lanes.resize(places, Wide::splat(0.0));
            eight.fill(0..places, &mut self.lanes);
        }
        Some(&self.lanes)
    }
}

impl<'a> Columns<'a> {
    pub(super) fn new(bars: Bars<'a>, work: Workspace) -> Self {
        Self { bars, work, kept: HashMap::new() }
    }

    /// A line for eight combinations; `go` says before each that is drawn whether to.
    pub(super) fn eight(
        &mut self,
        space: &Space,
        line: usize,
        genomes: &[Genome; LANES],
        go: &mut dyn FnMut() -> bool,
    ) -> Result<Eight, SearchError> {
        let mut found = Vec::with_capacity(LANES);
        for genome in genomes {
            found.push(self.column(space, line, genome, go)?);
        }
        let same = found.iter().all(|column| Arc::ptr_eq(&column.values, &found[0].values));
        let columns = std::array::from_fn(|lane| Arc::clone(&found[lane].values));
        Ok(Eight { columns, same, begins: std::array::from_fn(|lane| found[lane].begins) })
    }

    fn column(
        &mut self,
        space: &Space,
        line: usize,
        genome: &Genome,
        go: &mut dyn FnMut() -> bool,
    ) -> Result<Column, SearchError> {
        let drawn = &space.rule().lines[line];
        let mut key = (line, [0; GENES_MAX]);
        drawn.genes().for_each(|gene| key.1[gene] = genome[gene]);
        if let Some(column) = self.kept.get(&key) {
            return Ok(column.clone());
        }
        if !go() {
            return Err(SearchError::Cancelled);
        }
        let values = self.draw(drawn, &space.values(genome))?;
        let begins = values.iter().take_while(|value| value.is_nan()).count();
        let values: Arc<[f64]> = std::iter::once(f64::NAN).chain(values).collect();
        if (self.kept.len() + 1) * self.bars.len() > KEPT_MAX {
            self.kept.clear();
        }
        let column = Column { values, begins };
        self.kept.insert(key, column.clone());
        Ok(column)
    }

    fn draw(&mut self, line: &Line, genes: &[f64; GENES_MAX]) -> Result<Vec<f64>, SearchError> {
        let rows = self.bars.len();
        let (name, given, output, over, late) = match *line {
            Line::Price(column) => {
                let values = self.bars.column(column).ok_or(SearchError::MissingColumn(column))?;
                return Ok(values.to_vec());
            }
            Line::Drawn { indicator, given, output, over, late } => (indicator, given, output, over, late),
        };
        let inner = over.map(|line| self.draw(line, genes)).transpose()?;
        // A line over another one begins where that one has values.
        let begin = inner.as_ref().map_or(0, |inner| inner.iter().take_while(|value| value.is_nan()).count());
        let bars = inner.as_ref().map_or(self.bars, |inner| Bars::from_close(&inner[begin..]));
        let number = |arg: &Arg| match *arg {
            Arg::Gene(gene) => genes[gene],
            Arg::Number(number) => number,
        };
        let given: Vec<_> = given.iter().map(|(name, arg)| (*name, Value::Number(number(arg)))).collect();
        let mut column = vec![f64::NAN; rows];
        // INVARIANT: names of rules are checked by a test, genes against their ranges; what an indicator still
        // refuses (a window longer than it takes) has no values, so the rule never enters.
        let Ok(indicator) = Indicator::parse(name, Compat::TaLib, &given) else { return Ok(column) };
        let at = indicator.outputs().iter().position(|name| *name == output).unwrap_or_default();
        let mut outs = vec![vec![f64::NAN; bars.len()]; indicator.outputs().len()];
        let mut slices: Vec<_> = outs.iter_mut().map(Vec::as_mut_slice).collect();
        match indicator.compute(&mut self.work, &bars, &mut slices) {
            Ok(()) => {}
            Err(crate::catalog::ComputeError::MissingColumn { column, .. }) => {
                return Err(SearchError::MissingColumn(column));
            }
            Err(_) => return Ok(column),
        }
        let first = (begin + late).min(rows);
        let count = rows - first;
        column[first..].copy_from_slice(&outs[at][..count]);
        Ok(column)
    }
}
