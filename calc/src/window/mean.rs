//! The rolling mean.

use super::rolling::{Sliding, Window, Windowed};
use crate::lanes::Lanes;
use crate::series::Column;

/// The sum of a window, divided by its length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    window: usize,
}

/// The mean of the last closes, or of whatever column it is run over.
pub(crate) type Means = Windowed<Sum, 1, 1, 1>;

/// Its streaming form.
pub(crate) type Mean = Window<Sum, 1, 1, 1>;

impl Means {
    pub(crate) const fn new(window: usize) -> Self {
        Windowed(Sum { window })
    }
}

impl Sliding<1, 1, 1> for Sum {
    const READS: [Column; 1] = [Column::Close];

    fn window(&self) -> usize {
        self.window
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 1] {
        // A sum begins with zero, and so never is a negative one.
        [V::splat(0.0) + oldest]
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, [sum]: &mut [V; 1], [next]: [V; 1]) {
        *sum = *sum + next;
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, [sum]: &mut [V; 1], [oldest]: [V; 1], [newest]: [V; 1]) {
        *sum = (*sum - oldest) + newest;
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, [sum]: &[V; 1], _: [V; 1]) -> [V; 1] {
        [*sum / V::splat(self.window as f64)]
    }
}
