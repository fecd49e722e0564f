//! Numbers side by side: what a kernel's step is written over, once for every width.
//!
//! A step knows only these operations, so it does the same roundings at every width, and width 1,
//! the plain `f64`, is the streaming form. Left out on purpose: fused operations, whose rounding
//! depends on the build; sums across lanes, whose order does; and polynomials for logarithms and
//! the like, which differ from the platform's.

mod block;

pub(crate) use block::{BLOCK, bar, load_block, load_blocks, output, store_block};

use std::array::from_fn;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};
use wide::f64x4;

/// The lanes in which a batch computes.
pub(crate) type Wide = Pair<f64x4>;

/// Some `f64` side by side.
pub(crate) trait Lanes:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// How many.
    const WIDTH: usize;

    /// A choice for each lane.
    type Mask: Copy + BitAnd<Output = Self::Mask> + BitOr<Output = Self::Mask>;

    /// The same value in every lane.
    fn splat(value: f64) -> Self;

    /// Lane `i` is `value(i)`.
    fn gather(value: impl FnMut(usize) -> f64) -> Self;

    /// The value of one lane.
    fn lane(self, lane: usize) -> f64;

    /// Where `self < other`; nowhere where either is `NaN`.
    fn lt(self, other: Self) -> Self::Mask;

    /// Where `self <= other`; nowhere where either is `NaN`.
    fn le(self, other: Self) -> Self::Mask;

    /// `yes` where the mask is set, else `no`; both are worked out, nothing branches.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    /// The value without its sign.
    fn abs(self) -> Self;

    /// The square root.
    fn sqrt(self) -> Self;

    /// The first values of a slice that has at least as many.
    fn load(values: &[f64]) -> Self;

    /// Writes the lanes to the beginning of a slice that has at least as many.
    fn store(self, values: &mut [f64]);

    /// The larger of the two, `other` when they are equal or either is `NaN`.
    #[inline(always)]
    fn top(self, other: Self) -> Self {
        Self::select(other.lt(self), self, other)
    }

    /// The smaller of the two, `other` when they are equal or either is `NaN`.
    #[inline(always)]
    fn bottom(self, other: Self) -> Self {
        Self::select(self.lt(other), self, other)
    }

    /// A bit for each lane, lane 0 the lowest.
    fn bits(mask: Self::Mask) -> u32;

    /// The value where it is positive, else 0.
    #[inline(always)]
    fn positive(self) -> Self {
        self.top(Self::splat(0.0))
    }
}

impl Lanes for f64 {
    const WIDTH: usize = 1;
    type Mask = bool;

    #[inline(always)]
    fn splat(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn gather(mut value: impl FnMut(usize) -> f64) -> Self {
        value(0)
    }

    #[inline(always)]
    fn lane(self, _: usize) -> f64 {
        self
    }

    #[inline(always)]
    fn lt(self, other: Self) -> bool {
        self < other
    }

    #[inline(always)]
    fn le(self, other: Self) -> bool {
        self <= other
    }

    #[inline(always)]
    fn select(mask: bool, yes: Self, no: Self) -> Self {
        if mask { yes } else { no }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::abs(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    #[inline(always)]
    fn bits(mask: bool) -> u32 {
        u32::from(mask)
    }

    #[inline(always)]
    fn load(values: &[f64]) -> Self {
        values[0]
    }

    #[inline(always)]
    fn store(self, values: &mut [f64]) {
        values[0] = self;
    }
}

impl Lanes for f64x4 {
    const WIDTH: usize = 4;
    type Mask = Self;

    #[inline(always)]
    fn splat(value: f64) -> Self {
        Self::splat(value)
    }

    #[inline(always)]
    fn gather(value: impl FnMut(usize) -> f64) -> Self {
        Self::new(from_fn(value))
    }

    #[inline(always)]
    fn lane(self, lane: usize) -> f64 {
        self.to_array()[lane]
    }

    #[inline(always)]
    fn lt(self, other: Self) -> Self {
        self.simd_lt(other)
    }

    #[inline(always)]
    fn le(self, other: Self) -> Self {
        self.simd_le(other)
    }

    #[inline(always)]
    fn select(mask: Self, yes: Self, no: Self) -> Self {
        mask.select(yes, no)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self::abs(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    #[inline(always)]
    fn top(self, other: Self) -> Self {
        self.fast_max(other)
    }

    #[inline(always)]
    fn bottom(self, other: Self) -> Self {
        self.fast_min(other)
    }

    #[inline(always)]
    fn bits(mask: Self) -> u32 {
        mask.to_bitmask()
    }

    #[inline(always)]
    fn load(values: &[f64]) -> Self {
        Self::new([values[0], values[1], values[2], values[3]])
    }

    #[inline(always)]
    fn store(self, values: &mut [f64]) {
        values[..4].copy_from_slice(&self.to_array());
    }
}

/// Twice as many lanes: two registers, whose chains do not wait for each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<V>(V, V);

macro_rules! lane_by_lane {
    ($($operator:ident $method:ident),*) => {$(
        impl<V: $operator<Output = V>> $operator for Pair<V> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0), self.1.$method(other.1))
            }
        }
    )*};
}

lane_by_lane!(Add add, Sub sub, Mul mul, Div div, BitAnd bitand, BitOr bitor);

impl<V> Pair<V> {
    #[inline(always)]
    const fn of(first: V, second: V) -> Self {
        Self(first, second)
    }

    #[inline(always)]
    fn halves(self) -> (V, V) {
        (self.0, self.1)
    }
}

impl<V: Lanes> Lanes for Pair<V> {
    const WIDTH: usize = 2 * V::WIDTH;
    type Mask = Pair<V::Mask>;

    #[inline(always)]
    fn splat(value: f64) -> Self {
        Self(V::splat(value), V::splat(value))
    }

    #[inline(always)]
    fn gather(mut value: impl FnMut(usize) -> f64) -> Self {
        Self(V::gather(&mut value), V::gather(|lane| value(V::WIDTH + lane)))
    }

    #[inline(always)]
    fn lane(self, lane: usize) -> f64 {
        if lane < V::WIDTH { self.0.lane(lane) } else { self.1.lane(lane - V::WIDTH) }
    }

    #[inline(always)]
    fn lt(self, other: Self) -> Self::Mask {
        Pair(self.0.lt(other.0), self.1.lt(other.1))
    }

    #[inline(always)]
    fn le(self, other: Self) -> Self::Mask {
        Pair(self.0.le(other.0), self.1.le(other.1))
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Self(V::select(mask.0, yes.0, no.0), V::select(mask.1, yes.1, no.1))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs(), self.1.abs())
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt(), self.1.sqrt())
    }

    #[inline(always)]
    fn top(self, other: Self) -> Self {
        Self(self.0.top(other.0), self.1.top(other.1))
    }

    #[inline(always)]
    fn bottom(self, other: Self) -> Self {
        Self(self.0.bottom(other.0), self.1.bottom(other.1))
    }

    #[inline(always)]
    fn bits(mask: Self::Mask) -> u32 {
        V::bits(mask.0) | V::bits(mask.1) << V::WIDTH
    }

    #[inline(always)]
    fn load(values: &[f64]) -> Self {
        Self(V::load(values), V::load(&values[V::WIDTH..]))
    }

    #[inline(always)]
    fn store(self, values: &mut [f64]) {
        self.0.store(values);
        self.1.store(&mut values[V::WIDTH..]);
    }
}

/// Eight values of each column, from `at` on.
#[inline(always)]
pub(crate) fn load_each<const C: usize>(columns: &[&[f64]; C], at: usize) -> [Wide; C] {
    let mut lanes = [Wide::splat(0.0); C];
    // Not `map`, which the compiler makes a call.
    for (lanes, column) in lanes.iter_mut().zip(columns) {
        *lanes = Wide::load(&column[at..][..Wide::WIDTH]);
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values that comparisons and roundings stumble over, and any others.
    fn values() -> impl Strategy<Value = [f64; 8]> {
        let odd = prop::sample::select(&[
            0.0,
            -0.0,
            1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            5e-324,
            f64::MAX,
        ]);
        let any = any::<u64>().prop_map(f64::from_bits);
        prop::array::uniform8(prop_oneof![odd, any, -1e3..1e3])
    }

    fn same(a: f64, b: f64) -> bool {
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    proptest! {
        #[test]
        fn eight_lanes_do_what_one_does(a in values(), b in values()) {
            let wide = (Wide::gather(|lane| a[lane]), Wide::gather(|lane| b[lane]));
            let check = |name: &str, eight: Wide, one: fn(f64, f64) -> f64| {
                for lane in 0..8 {
                    let (found, plain) = (eight.lane(lane), one(a[lane], b[lane]));
                    assert!(same(found, plain), "{name} of {} and {}: {found}, {plain}", a[lane], b[lane]);
                }
            };
            check("add", wide.0 + wide.1, |a, b| a + b);
            check("sub", wide.0 - wide.1, |a, b| a - b);
            check("mul", wide.0 * wide.1, |a, b| a * b);
            check("div", wide.0 / wide.1, |a, b| a / b);
            check("top", wide.0.top(wide.1), Lanes::top);
            check("bottom", wide.0.bottom(wide.1), Lanes::bottom);
            check("positive", wide.0.positive(), |a, _| Lanes::positive(a));
            check("abs", Lanes::abs(wide.0), |a, _| Lanes::abs(a));
            check("sqrt", Lanes::sqrt(wide.0), |a, _| Lanes::sqrt(a));
            for lane in 0..8 {
                prop_assert_eq!(Wide::bits(wide.0.lt(wide.1)) >> lane & 1 == 1, a[lane] < b[lane]);
            }
            let either = |a: Wide, b: Wide| Wide::select(a.lt(b) | b.lt(a), a, b);
            check("or", either(wide.0, wide.1), |a, b| if a < b || b < a { a } else { b });
            let both = |a: Wide, b: Wide| Wide::select(a.le(b) & b.le(a), a, b);
            check("and", both(wide.0, wide.1), |a, b| if a <= b && b <= a { a } else { b });
        }
    }

    #[test]
    fn lanes_go_in_and_come_out_in_order() {
        let values: [f64; 8] = from_fn(|lane| lane as f64);
        let lanes = Wide::load(&values);
        assert!((0..8).all(|lane| lanes.lane(lane) == values[lane]));
        let mut back = [0.0; 8];
        lanes.store(&mut back);
        assert_eq!(back, values);
    }
}
