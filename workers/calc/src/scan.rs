//! Candles in one pass over their bytes: rows of numbers, or columns of numbers.
//!
//! Only acceptance is decided here, and only of the plain forms. Whatever is wrong or merely unusual (records, a split
//! frame, times as text, names with escapes) is [`Refused`], and the parser of [`crate::data`] reads it again and says
//! what it is: there is one place that words a fault, and nothing is accepted here that is not accepted there, with the
//! same bits. A test holds the two against each other.
//!
//! Numbers of up to 15 digits are read by [`number`], to the last bit as [`str::parse`] reads them; longer ones and those
//! with an exponent go to `str::parse` itself.

#![allow(
    clippy::inline_always,
    reason = "the place in the text must stay in a register: each call would store and load it, 5 cycles a number"
)]

mod number;
mod stretch;

use sluice_wire::json::Refused;

use crate::data::Series;
use number::Window;

/// Columns of a row that mean something.
const MEANT: usize = 6;
/// Fewest and most values of a row.
const WIDTH: std::ops::RangeInclusive<usize> = 5..=12;
/// Columns of candles: room that is made at once is bounded by what the text can hold.
const ROWS_AHEAD_MAX: usize = 1 << 20;

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
            let [time, open, high, low, close, volume] = &mut columns;
            time.push(row[0]);
            open.push(row[1]);
            high.push(row[2]);
            low.push(row[3]);
            close.push(row[4]);
            volume.push(row[5]);
            if !self.more(b']')? {
                break;
            }
            row = if width == MEANT { self.candle()? } else { self.row(width)? };
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

    /// A row of six values, as most have.
    #[inline(always)]
    fn candle(&mut self) -> Result<[f64; MEANT], Refused> {
        if self.peek() == b'['
            && let Some((row, end)) = stretch::row(self.text.as_bytes(), self.at + 1)
        {
            self.at = end;
            return Ok(row);
        }
        self.row(MEANT)
    }

    /// A row with as many values as the first one.
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
        let mut rows = 0;
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
            let values = self.numbers(rows)?;
            rows = values.len();
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

    /// A column, with room for as many values as are expected.
    fn numbers(&mut self, expected: usize) -> Result<Vec<f64>, Refused> {
        self.expect(b'[')?;
        self.skip_blanks();
        let mut values = Vec::with_capacity(expected);
        if self.take(b']') {
            return Ok(values);
        }
        loop {
            self.at = stretch::numbers(self.text.as_bytes(), self.at, &mut values);
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

    #[cold]
    fn quoted(&mut self) -> Result<f64, Refused> {
        self.at += 1;
        let value = self.number()?;
        self.expect(b'"')?;
        Ok(value)
    }

    #[cold]
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
        match self.window.number(self.text.as_bytes(), begin) {
            Some((value, end)) => {
                self.at = end;
                Ok(if is_negative { -value } else { value })
            }
            None => self.long(),
        }
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

#[cfg(test)]
mod tests;
