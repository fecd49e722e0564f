//! Numbers that stand close together, from one look at the text.
//!
//! What is no digit is found for 128 bytes at once, which is a row of candles or ten numbers of a column: where one
//! number ends need not be known before the next one is looked for. Numbers with up to eight digits on either side of
//! the point, or up to 15 without one, are read by the arithmetic of [`super::number`]; whatever else stands there is
//! left to the cursor.

use wide::i8x32;

use super::number::{DIGITS, TENS, eight, exact, of, upper};

/// Values of a row of candles.
const ROW: usize = 6;
/// Bytes looked at.
const LENGTH: usize = 64;
/// Bytes before them that are loaded with a number at their beginning: two times eight digits.
const BEFORE: usize = 16;

/// Powers of ten that f64 holds exactly, as many as a remainder by shifting needs.
static POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

struct Stretch<'a> {
    text: &'a [u8; BEFORE + LENGTH],
    /// What is no digit and was not passed, a bit a byte.
    others: u64,
    at: usize,
}

/// A row of six numbers, behind its bracket; also where it ends.
// Written out: a loop over an array writes it number by number and reads it as vectors, which waits for the writes.
#[inline(always)]
pub(super) fn row(bytes: &[u8], begin: usize) -> Option<([f64; ROW], usize)> {
    let ((time, open, high), at) = three(bytes, begin, b',')?;
    let ((low, close, volume), end) = three(bytes, at, b']')?;
    Some(([time, open, high, low, close, volume], end))
}

/// Three numbers, the last of which ends with `ender`.
#[inline(always)]
fn three(bytes: &[u8], begin: usize, ender: u8) -> Option<((f64, f64, f64), usize)> {
    let mut stretch = Stretch::look(bytes, begin)?;
    let three = (stretch.number(b',')?, stretch.number(b',')?, stretch.number(ender)?);
    Some((three, begin + stretch.at))
}

/// Numbers that are followed by another value; where the first one stands that is not taken.
pub(super) fn numbers(bytes: &[u8], mut begin: usize, values: &mut Vec<f64>) -> usize {
    while let Some(mut stretch) = Stretch::look(bytes, begin) {
        let mut taken = 0;
        while let Some(value) = stretch.number(b',') {
            values.push(value);
            taken = stretch.at;
        }
        if taken == 0 {
            break;
        }
        begin += taken;
    }
    begin
}

impl<'a> Stretch<'a> {
    /// `None` near either end of the text.
    #[inline(always)]
    fn look(bytes: &'a [u8], begin: usize) -> Option<Self> {
        let text: &[u8; BEFORE + LENGTH] = bytes.get(begin.checked_sub(BEFORE)?..)?.first_chunk()?;
        let ([low, high], _) = text[BEFORE..].as_chunks::<32>() else { return None };
        let others = u64::from(others(low)) | u64::from(others(high)) << 32;
        Some(Self { text, others, at: 0 })
    }

    /// The byte at a place.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.text[BEFORE + at % LENGTH]
    }

    /// The values of eight bytes, so many before a place.
    #[inline(always)]
    fn digits<const AWAY: usize>(&self, end: usize) -> Option<u64> {
        Some(of(*self.text.get(BEFORE - AWAY + end % LENGTH..)?.first_chunk()?))
    }

    /// Where the next byte stands that is no digit; behind all when there is none.
    #[inline(always)]
    fn next(&mut self) -> usize {
        let at = self.others.trailing_zeros() as usize;
        self.others &= self.others.wrapping_sub(1);
        at
    }

    /// A number that ends with `ender`; one blank before it is passed too.
    // Signs and blanks are branches, which are foreseen: where the next number begins must not wait for bytes.
    #[inline(always)]
    fn number(&mut self, ender: u8) -> Option<f64> {
        let (mut begin, mut point) = (self.at, self.next());
        if point == begin && self.byte(begin) == b' ' {
            (begin, point) = (begin + 1, self.next());
        }
        let is_negative = point == begin && self.byte(begin) == b'-';
        if is_negative {
            (begin, point) = (begin + 1, self.next());
        }
        // Huge where something else stands there.
        let whole = point.wrapping_sub(begin);
        if whole.wrapping_sub(1) >= DIGITS || (self.byte(begin) == b'0' && whole > 1) {
            return None;
        }
        let (value, end) = if self.byte(point) == b'.' {
            let end = self.next();
            (self.decimal(whole, point, end)?, end)
        } else if whole <= 8 {
            (exact(eight(self.digits::<8>(point)? & upper(whole))), point)
        } else {
            let high = eight(self.digits::<16>(point)? & upper(whole - 8));
            (exact(high * TENS[8] + eight(self.digits::<8>(point)?)), point)
        };
        if end >= LENGTH || self.byte(end) != ender {
            return None;
        }
        self.at = end + 1;
        Some(if is_negative { -value } else { value })
    }

    /// A number with a point.
    #[inline(always)]
    fn decimal(&self, whole: usize, point: usize, end: usize) -> Option<f64> {
        let after = end.wrapping_sub(point + 1);
        let count = whole.wrapping_add(after);
        let joined = if count <= 8 && after != 0 {
            // The digits before the point move to where it stands.
            let (moved, left) = (self.digits::<9>(end)?, self.digits::<8>(end)?);
            eight((moved & !upper(after) | left & upper(after)) & upper(count))
        } else if whole <= 8 && after.wrapping_sub(1) < 8 && count <= DIGITS {
            let whole = eight(self.digits::<8>(point)? & upper(whole));
            whole * TENS[after] + eight(self.digits::<8>(end)? & upper(after))
        } else {
            return None;
        };
        Some(exact(joined) / POWERS[after % POWERS.len()])
    }
}

/// What is no digit, a bit a byte.
#[inline(always)]
fn others(bytes: &[u8; 32]) -> u32 {
    let bytes = i8x32::from(bytes.map(|byte| byte as i8));
    // Digits become the ten least of what a signed byte can hold.
    let shifted = bytes + i8x32::splat(0x80_u8.wrapping_sub(b'0') as i8);
    shifted.simd_gt(i8x32::splat(-128 + 9)).to_bitmask()
}
