//! Numbers that stand close together, from one look at the text.
//!
//! What is no digit is found for 128 bytes at once, which is a row of candles or ten numbers of a column: where one
//! number ends need not be known before the next one is looked for. Numbers with up to eight digits on either side of
//! the point, or up to 15 without one, are read by the arithmetic of [`super::number`]; whatever else stands there is
//! left to the cursor.

use wide::i8x16;

use super::number::{DIGITS, TENS, eight, exact, of, upper};

/// Values of a row of candles.
const ROW: usize = 6;
/// Bytes looked at.
const LENGTH: usize = 128;
/// Bytes before them that are loaded with a number at their beginning: two times eight digits.
const BEFORE: usize = 16;

struct Stretch<'a> {
    text: &'a [u8; BEFORE + LENGTH],
    /// What is no digit and was not passed, a bit a byte.
    others: u128,
    at: usize,
}

/// A row of six numbers, behind its bracket; also where it ends.
#[inline(always)]
pub(super) fn row(bytes: &[u8], begin: usize) -> Option<([f64; ROW], usize)> {
    let mut stretch = Stretch::look(bytes, begin)?;
    let mut row = [0.0; ROW];
    let (last, others) = row.split_last_mut()?;
    for value in others {
        let (found, b',') = stretch.number()? else { return None };
        *value = found;
    }
    let (found, b']') = stretch.number()? else { return None };
    *last = found;
    Some((row, begin + stretch.at))
}

/// Numbers that are followed by another value; where the first one stands that is not taken.
pub(super) fn numbers(bytes: &[u8], mut begin: usize, values: &mut Vec<f64>) -> usize {
    while let Some(mut stretch) = Stretch::look(bytes, begin) {
        let mut taken = 0;
        while let Some((value, b',')) = stretch.number() {
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
        let [_, ahead @ ..] = text.as_chunks::<BEFORE>().0 else { return None };
        let half = |chunks: &[[u8; BEFORE]]| {
            chunks.iter().rev().fold(0_u64, |others, chunk| {
                let bytes = i8x16::from(chunk.map(|byte| byte as i8));
                // Digits become the ten least of what a signed byte can hold.
                let digits =
                    (bytes + i8x16::splat(0x80_u8.wrapping_sub(b'0') as i8)).simd_lt(i8x16::splat(-128 + 10));
                others << BEFORE | u64::from(!digits.to_bitmask() & 0xffff)
            })
        };
        let (first, second) = ahead.split_at(ahead.len() / 2);
        Some(Self { text, others: u128::from(half(second)) << 64 | u128::from(half(first)), at: 0 })
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

    /// A number and the byte that ends it; a blank behind a comma is passed too.
    // Signs and blanks are branches, which are foreseen: where the next number begins must not wait for bytes.
    #[inline(always)]
    fn number(&mut self) -> Option<(f64, u8)> {
        let is_negative = self.byte(self.at) == b'-';
        if is_negative {
            self.at = self.next() + 1;
        }
        let (begin, point) = (self.at, self.next());
        // Huge where something else stands there.
        let whole = point.wrapping_sub(begin);
        if point >= LENGTH || whole.wrapping_sub(1) >= DIGITS || (whole > 1 && self.byte(begin) == b'0') {
            return None;
        }
        let (value, end) = if self.byte(point) == b'.' {
            let end = self.next();
            let after = end - point - 1;
            if end >= LENGTH || after.wrapping_sub(1) >= 8 || whole > 8 || whole + after > DIGITS {
                return None;
            }
            let joined = if whole + after <= 8 {
                // The digits before the point move to where it stands.
                let (moved, left) = (self.digits::<9>(end)?, self.digits::<8>(end)?);
                eight((moved & !upper(after) | left & upper(after)) & upper(whole + after))
            } else {
                let whole = eight(self.digits::<8>(point)? & upper(whole));
                whole * TENS[after] + eight(self.digits::<8>(end)? & upper(after))
            };
            (exact(joined) / exact(TENS[after]), end)
        } else if whole <= 8 {
            (exact(eight(self.digits::<8>(point)? & upper(whole))), point)
        } else {
            let high = eight(self.digits::<16>(point)? & upper(whole - 8));
            (exact(high * TENS[8] + eight(self.digits::<8>(point)?)), point)
        };
        let ender = self.byte(end);
        self.at = end + 1;
        if ender == b',' && self.byte(self.at) == b' ' {
            self.at = self.next() + 1;
        }
        Some((if is_negative { -value } else { value }, ender))
    }
}
