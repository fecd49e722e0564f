//! One number among others.
//!
//! Where numbers end is found for 64 bytes at once, so that one number need not be read before the next one is begun.
//! A number of up to 15 digits is then read eight digits at a time: they make a whole number below 10^15, which f64
//! holds exactly, as it does powers of ten up to 10^22, and the quotient of two exact numbers is rounded once, as IEEE
//! 754 asks: the result is that of [`str::parse`].

use wide::i8x16;

/// What the bytes of a stretch of text are, a bit each.
#[derive(Default)]
pub(super) struct Window {
    begin: usize,
    /// Neither digits nor points.
    others: u64,
    points: u64,
}

impl Window {
    const BYTES: usize = 64;

    /// A number of at most 15 digits without an exponent, and where it ends.
    #[inline(always)]
    pub(super) fn number(&mut self, bytes: &[u8], begin: usize) -> Option<(f64, usize)> {
        let (others, points) = self.from(bytes, begin)?;
        let length = others.trailing_zeros() as usize;
        let end = begin + length;
        // Bits of this number alone.
        let points = points & (others & others.wrapping_neg()).wrapping_sub(1);
        let (first, last) = (*bytes.get(begin)?, *bytes.get(end)?);
        if last | 0x20 == b'e' {
            return None;
        }
        if points == 0 {
            if length == 0 || length > DIGITS || (first == b'0' && length > 1) {
                return None;
            }
            return Some((exact(whole(bytes, end, length)?), end));
        }
        let before = points.trailing_zeros() as usize;
        let after = length - before - 1;
        let is_padded = first == b'0' && before > 1;
        if before == 0
            || is_padded
            || length > DIGITS + 1
            || after.wrapping_sub(1) >= 8
            || !points.is_power_of_two()
        {
            return None;
        }
        let whole = whole(bytes, begin + before, before)?;
        let decimals = eight(digits(bytes, end)? & upper(after));
        Some((exact(whole * TENS[after] + decimals) / exact(TENS[after]), end))
    }

    /// Others and points from a place on, one other at least among them; `None` where no other is near.
    #[inline(always)]
    fn from(&mut self, bytes: &[u8], at: usize) -> Option<(u64, u64)> {
        // A window that begins behind `at` is one of another place: the difference is then huge.
        let passed = at.wrapping_sub(self.begin);
        if passed < Self::BYTES && self.others >> passed != 0 {
            return Some((self.others >> passed, self.points >> passed));
        }
        *self = Self::look(bytes, at);
        (self.others != 0).then_some((self.others, self.points))
    }

    #[inline(always)]
    fn look(bytes: &[u8], begin: usize) -> Self {
        let rest = bytes.get(begin..).unwrap_or_default();
        let mut padded = [0; Self::BYTES];
        let text = rest.first_chunk().unwrap_or_else(|| {
            padded[..rest.len()].copy_from_slice(rest);
            &padded
        });
        let mut window = Self { begin, others: 0, points: 0 };
        for (at, lane) in text.as_chunks::<16>().0.iter().enumerate() {
            let lane = i8x16::from(lane.map(|byte| byte as i8));
            // Digits become the ten least of what a signed byte can hold.
            let digits =
                (lane + i8x16::splat(0x80_u8.wrapping_sub(b'0') as i8)).simd_lt(i8x16::splat(-128 + 10));
            let points = lane.simd_eq(i8x16::splat(b'.' as i8));
            window.others |= u64::from(!(digits | points).to_bitmask() & 0xffff) << (16 * at);
            window.points |= u64::from(points.to_bitmask() & 0xffff) << (16 * at);
        }
        window
    }
}

/// Most digits of a number that is read here: below 10^15 every whole number is an f64.
pub(super) const DIGITS: usize = 15;

/// The whole number of up to 15 digits that end before `end`.
#[inline(always)]
fn whole(bytes: &[u8], end: usize, count: usize) -> Option<u64> {
    if count <= 8 {
        return Some(eight(digits(bytes, end)? & upper(count)));
    }
    Some(eight(digits(bytes, end - 8)? & upper(count - 8)) * 100_000_000 + eight(digits(bytes, end)?))
}

/// The values of the eight bytes before `end`; the first in the lowest byte.
#[inline(always)]
fn digits(bytes: &[u8], end: usize) -> Option<u64> {
    Some(of(*bytes.get(..end)?.last_chunk()?))
}

/// The values of eight digits; the first in the lowest byte.
#[inline(always)]
pub(super) const fn of(digits: [u8; 8]) -> u64 {
    u64::from_le_bytes(digits) ^ ZEROS
}

/// A whole number below 10^15 as what it is; unlike an unsigned number, a signed one takes one instruction.
#[inline(always)]
pub(super) const fn exact(whole: u64) -> f64 {
    whole as i64 as f64
}

/// Keeps so many of the last digits, 1 to 8, and makes zeros of those before.
#[inline(always)]
pub(super) const fn upper(count: usize) -> u64 {
    u64::MAX << (64 - 8 * count)
}

/// A zero in each byte of eight.
const ZEROS: u64 = u64::MAX / 0xff * b'0' as u64;

/// Eight digits, the first in the lowest byte: neighbours are added with their weights, three times.
#[inline(always)]
pub(super) const fn eight(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let even = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(100 + (1_000_000 << 32));
    let odd = (pairs >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(1 + (10_000 << 32));
    even.wrapping_add(odd) >> 32
}

pub(super) const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
