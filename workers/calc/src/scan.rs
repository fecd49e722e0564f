//! Candles in one pass over their bytes: rows of numbers, or columns of numbers.
//!
//! Only acceptance is decided here, and only of the plain forms. Whatever is wrong or merely unusual (records, a split
//! frame, times as text, names with escapes) is [`Refused`], and the parser of [`crate::data`] reads it again and says
//! what it is: there is one place that words a fault, and nothing is accepted here that is not accepted there, with the
//! same bits. A test holds the two against each other.
//!
//! Where numbers end is found for 64 bytes at once, so that one number need not be read before the next one is begun.
//! A number of up to 15 digits is then read eight digits at a time: they make a whole number below 10^15, which f64
//! holds exactly, as it does powers of ten up to 10^22, and the quotient of two exact numbers is rounded once, as IEEE
//! 754 asks: the result is that of [`str::parse`]. Longer numbers and those with an exponent go to `str::parse` itself.

#![allow(
    clippy::inline_always,
    reason = "the place in the text must stay in a register: each call would store and load it, 5 cycles a number"
)]

use sluice_wire::json::Refused;
use wide::i8x16;

use crate::data::Series;

/// Columns of a row that mean something.
const MEANT: usize = 6;
/// Fewest and most values of a row.
const WIDTH: std::ops::RangeInclusive<usize> = 5..=12;
/// Columns of candles: room that is made at once is bounded by what the text can hold.
const ROWS_AHEAD_MAX: usize = 1 << 16;

/// Reads rows or columns at the beginning of a text; also how many bytes they take.
pub(crate) fn series(text: &str) -> Result<(Series, usize), Refused> {
    let mut cursor = Cursor::new(text);
    let series = match cursor.peek() {
        b'[' => cursor.rows(),
        b'{' => cursor.columns(),
        _ => Err(Refused),
    }?;
    Ok((series, cursor.at))
}

/// A number that stands alone in a text, as JSON has it.
pub(crate) fn number(text: &str) -> Option<f64> {
    let mut cursor = Cursor::new(text);
    cursor.number().ok().filter(|_| cursor.at == text.len())
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
    window: Window,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, window: Window::default() }
    }
}

impl<'a> Cursor<'a> {
    /// The byte that comes; 0, which no JSON has, at the end.
    #[inline(always)]
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn skip_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\t' | b'\r') {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == byte;
        self.at += usize::from(is_there);
        is_there
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Result<(), Refused> {
        if self.take(byte) { Ok(()) } else { Err(Refused) }
    }

    /// Passes what stands between two values; whether another one follows.
    #[inline(always)]
    fn more(&mut self, end: u8) -> Result<bool, Refused> {
        // Without blanks first: that is how machines write.
        if let Some([b',', next]) = self.text.as_bytes().get(self.at..).and_then(<[u8]>::first_chunk)
            && *next > b' '
        {
            self.at += 1;
            return Ok(true);
        }
        self.skip_blanks();
        if self.take(b',') {
            self.skip_blanks();
            return Ok(true);
        }
        self.expect(end)?;
        Ok(false)
    }

    /// `[[time, open, high, low, close, volume], …]`.
    fn rows(&mut self) -> Result<Series, Refused> {
        self.expect(b'[')?;
        self.skip_blanks();
        if self.take(b']') {
            return Ok(Series::default());
        }
        let begin = self.at;
        let (first, width) = self.first_row()?;
        let row_bytes = self.at - begin;
        let ahead = (self.text.len() - begin) / row_bytes + 1;
        let mut columns: [Vec<f64>; MEANT] =
            std::array::from_fn(|_| Vec::with_capacity(ahead.min(ROWS_AHEAD_MAX)));
        let mut row = first;
        loop {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
            if !self.more(b']')? {
                break;
            }
            // Most rows have six values: a loop that the compiler knows the length of.
            row = if width == MEANT { self.row(MEANT)? } else { self.row(width)? };
        }
        let [time, open, high, low, close, volume] = columns;
        let volume = (width >= MEANT).then_some(volume);
        Ok(Series { time_ms: Some(time), open: Some(open), high: Some(high), low: Some(low), close, volume })
    }

    /// The first row, and how many values it has.
    fn first_row(&mut self) -> Result<([f64; MEANT], usize), Refused> {
        self.expect(b'[')?;
        self.skip_blanks();
        let mut row = [f64::NAN; MEANT];
        let mut width = 0;
        loop {
            let value = self.value()?;
            if let Some(meant) = row.get_mut(width) {
                *meant = value;
            }
            width += 1;
            if !self.more(b']')? {
                break;
            }
        }
        if WIDTH.contains(&width) { Ok((row, width)) } else { Err(Refused) }
    }

    /// A row with as many values as the first one.
    #[inline(always)]
    fn row(&mut self, width: usize) -> Result<[f64; MEANT], Refused> {
        self.expect(b'[')?;
        self.skip_blanks();
        let mut row = [f64::NAN; MEANT];
        for at in 0..width {
            let value = self.value()?;
            if let Some(meant) = row.get_mut(at) {
                *meant = value;
            }
            if self.more(b']')? != (at + 1 < width) {
                return Err(Refused);
            }
        }
        Ok(row)
    }

    /// `{"close": […], …}`.
    fn columns(&mut self) -> Result<Series, Refused> {
        let mut series = Series::default();
        let mut names: Vec<&str> = Vec::with_capacity(MEANT);
        self.expect(b'{')?;
        self.skip_blanks();
        if self.peek() == b'}' {
            return Err(Refused);
        }
        loop {
            let name = self.name()?;
            self.skip_blanks();
            self.expect(b':')?;
            self.skip_blanks();
            let values = self.numbers()?;
            let column = series.column(name).ok_or(Refused)?;
            // Two names of one column: which of them counts is not for this to say.
            if names.contains(&name) || !column.is_empty() {
                return Err(Refused);
            }
            *column = values;
            names.push(name);
            if !self.more(b'}')? {
                return Ok(series);
            }
        }
    }

    /// A name without escapes.
    fn name(&mut self) -> Result<&'a str, Refused> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|byte| byte == b'"').ok_or(Refused)?;
        let name = &rest[..end];
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Refused);
        }
        self.at += end + 1;
        Ok(name)
    }

    fn numbers(&mut self) -> Result<Vec<f64>, Refused> {
        self.expect(b'[')?;
        self.skip_blanks();
        let mut values = Vec::new();
        if self.take(b']') {
            return Ok(values);
        }
        loop {
            values.push(self.value()?);
            if !self.more(b']')? {
                return Ok(values);
            }
        }
    }

    /// A number, a quoted number, or null.
    #[inline(always)]
    fn value(&mut self) -> Result<f64, Refused> {
        match self.peek() {
            b'"' => self.quoted(),
            b'n' => self.null(),
            _ => self.number(),
        }
    }

    fn quoted(&mut self) -> Result<f64, Refused> {
        self.at += 1;
        let value = self.number()?;
        self.expect(b'"')?;
        Ok(value)
    }

    fn null(&mut self) -> Result<f64, Refused> {
        if !self.text.as_bytes()[self.at..].starts_with(b"null") {
            return Err(Refused);
        }
        self.at += 4;
        Ok(f64::NAN)
    }

    /// A number as JSON has it, that f64 can hold.
    #[inline(always)]
    fn number(&mut self) -> Result<f64, Refused> {
        let is_negative = self.peek() == b'-';
        let begin = self.at + usize::from(is_negative);
        match self.short(begin) {
            Some((value, end)) => {
                self.at = end;
                Ok(if is_negative { -value } else { value })
            }
            None => self.long(),
        }
    }

    /// A number of at most 15 digits without an exponent, and where it ends.
    #[inline(always)]
    fn short(&mut self, begin: usize) -> Option<(f64, usize)> {
        let bytes = self.text.as_bytes();
        let (others, points) = self.window.from(bytes, begin)?;
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

    /// A number of any length.
    #[cold]
    fn long(&mut self) -> Result<f64, Refused> {
        let begin = self.at;
        self.take(b'-');
        let begins_with_zero = self.peek() == b'0';
        let whole = self.digits()?;
        if begins_with_zero && whole > 1 {
            return Err(Refused);
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits()?;
        }
        let value: f64 = self.text[begin..self.at].parse().map_err(|_| Refused)?;
        if value.is_finite() { Ok(value) } else { Err(Refused) }
    }

    /// Passes one digit at least; how many there were.
    fn digits(&mut self) -> Result<usize, Refused> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(count) } else { Err(Refused) }
    }
}

/// What the bytes of a stretch of text are, a bit each.
#[derive(Default)]
struct Window {
    begin: usize,
    /// Neither digits nor points.
    others: u64,
    points: u64,
}

impl Window {
    const BYTES: usize = 64;

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
const DIGITS: usize = 15;

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
    let eight = bytes.get(..end)?.last_chunk()?;
    Some(u64::from_le_bytes(*eight) ^ ZEROS)
}

/// A whole number below 10^15 as what it is; unlike an unsigned number, a signed one takes one instruction.
#[inline(always)]
const fn exact(whole: u64) -> f64 {
    whole as i64 as f64
}

/// Keeps so many of the last digits, 1 to 8, and makes zeros of those before.
#[inline(always)]
const fn upper(count: usize) -> u64 {
    u64::MAX << (64 - 8 * count)
}

/// A zero in each byte of eight.
const ZEROS: u64 = u64::MAX / 0xff * b'0' as u64;

/// Eight digits, the first in the lowest byte: neighbours are added with their weights, three times.
#[inline(always)]
const fn eight(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let even = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(100 + (1_000_000 << 32));
    let odd = (pairs >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(1 + (10_000 << 32));
    even.wrapping_add(odd) >> 32
}

const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

#[cfg(test)]
mod tests;
