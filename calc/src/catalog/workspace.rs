//! What a computing thread keeps from one computation to the next.

use crate::dispatch::Cpu;

/// Most scratch columns any kernel needs.
pub(super) const COLUMNS_MAX: usize = 8;

/// Scratch memory, and the proof that this binary runs here. It grows to the longest series it has
/// served and is used again, so kernels allocate nothing.
#[derive(Clone, Debug)]
pub struct Workspace {
    cpu: Cpu,
    scratch: Vec<f64>,
}

impl Workspace {
    /// An empty workspace.
    #[must_use]
    pub const fn new(cpu: Cpu) -> Self {
        Self { cpu, scratch: Vec::new() }
    }

    /// The proof it was made with.
    #[must_use]
    pub const fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// Gives the memory back when it holds more than `values_max` values.
    pub fn trim(&mut self, values_max: usize) {
        if self.scratch.capacity() > values_max {
            self.scratch = Vec::new();
        }
    }

    /// Lends so many columns of `rows` values; what they hold is left from before.
    pub(super) fn with_columns(&mut self, columns: usize, rows: usize, work: impl FnOnce(&mut [&mut [f64]])) {
        let needed = columns * rows;
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0.0);
        }
        let mut free = self.scratch.as_mut_slice();
        let mut lent: [&mut [f64]; COLUMNS_MAX] = Default::default();
        for slot in &mut lent[..columns] {
            let (column, rest) = std::mem::take(&mut free).split_at_mut(rows);
            (*slot, free) = (column, rest);
        }
        work(&mut lent[..columns]);
    }
}
