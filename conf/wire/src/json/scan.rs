//! The fast half of the strict check: one pass over a text that hands out spans of it and builds nothing.
//!
//! What passes here passes [`super::check`], which is the one that says what is wrong: a refusal here says only "not by
//! this way". It is given for everything that is wrong and for two rare things that are not: member names with escapes
//! (whether two of them are the same takes decoding) and numbers that only look too large.

use std::collections::HashSet;

use super::DEPTH_MAX;

/// Member names of one object that are compared one by one; more are kept in a set.
const NAMES_COMPARED_MAX: usize = 16;
/// Digits before the point that no exponent of two digits takes out of f64.
pub(super) const DIGITS_SURE: usize = 200;

/// The text is wrong, or takes [`super::check`] to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// A value as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    /// Its text, without white space around it.
    pub text: &'a str,
    /// No white space stands between its tokens.
    pub is_compact: bool,
}

/// A place in a text of which everything before was found good.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Bytes of white space that were passed.
    blanks: usize,
    /// Names of the open objects, the innermost one's last.
    names: Vec<&'a str>,
}

impl<'a> Scanner<'a> {
    /// Begins before the only value of a text.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(bytes).map_err(|_| Refused)?;
        let mut scanner = Self { text, at: 0, depth: 0, blanks: 0, names: Vec::with_capacity(16) };
        scanner.skip_blanks();
        Ok(scanner)
    }

    /// The first byte of what comes: what kind of value it is.
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes a value of any kind.
    pub fn value(&mut self) -> Result<Span<'a>, Refused> {
        self.span(|own| match own.peek() {
            Some(b'{') => own.object(|own, _| own.value().map(|_| ())),
            Some(b'[') => own.array(|own| own.value().map(|_| ())),
            Some(b'"') => own.string().map(|_| ()),
            Some(b't') => own.word("true"),
            Some(b'f') => own.word("false"),
            Some(b'n') => own.word("null"),
            _ => own.number(),
        })
    }

    /// Passes an object. `member` is called with each name, before its value, and passes that.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a str) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        self.open(b'{')?;
        if self.peek() == Some(b'}') {
            return self.close(b'}');
        }
        let first = self.names.len();
        let mut many = HashSet::new();
        loop {
            let name = self.name(first, &mut many)?;
            self.skip_blanks();
            self.expect(b':')?;
            self.skip_blanks();
            member(self, name)?;
            self.skip_blanks();
            if !self.take(b',') {
                break;
            }
            self.skip_blanks();
        }
        self.names.truncate(first);
        self.close(b'}')
    }

    /// Passes an array. `element` is called before each element and passes it.
    pub fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        self.open(b'[')?;
        if self.peek() == Some(b']') {
            return self.close(b']');
        }
        loop {
            element(self)?;
            self.skip_blanks();
            if !self.take(b',') {
                break;
            }
            self.skip_blanks();
        }
        self.close(b']')
    }

    /// Passes a value by a parser of the caller's, for values whose kind is known and worth one. It is given the text
    /// from the value's first byte on and says how many bytes the value takes; for what is in them it answers alone.
    pub fn by(&mut self, parser: impl FnOnce(&'a str) -> Result<usize, Refused>) -> Result<(), Refused> {
        let rest = &self.text[self.at..];
        let taken = parser(rest)?;
        if !rest.is_char_boundary(taken) {
            return Err(Refused);
        }
        self.at += taken;
        Ok(())
    }

    /// What the given steps pass, as it stands in the text.
    pub fn span(
        &mut self,
        steps: impl FnOnce(&mut Self) -> Result<(), Refused>,
    ) -> Result<Span<'a>, Refused> {
        let (begin, blanks) = (self.at, self.blanks);
        steps(self)?;
        Ok(Span { text: &self.text[begin..self.at], is_compact: blanks == self.blanks })
    }

    /// Makes sure that nothing follows.
    pub fn end(mut self) -> Result<(), Refused> {
        self.skip_blanks();
        if self.at == self.text.len() { Ok(()) } else { Err(Refused) }
    }

    fn open(&mut self, bracket: u8) -> Result<(), Refused> {
        if self.depth == DEPTH_MAX {
            return Err(Refused);
        }
        self.depth += 1;
        self.expect(bracket)?;
        self.skip_blanks();
        Ok(())
    }

    fn close(&mut self, bracket: u8) -> Result<(), Refused> {
        self.depth -= 1;
        self.expect(bracket)
    }

    /// Passes a member's name, which the object that began with the name `first` does not have yet.
    fn name(&mut self, first: usize, many: &mut HashSet<&'a str>) -> Result<&'a str, Refused> {
        let quoted = self.string()?;
        let name = &quoted[1..quoted.len() - 1];
        let own = &self.names[first..];
        if own.len() < NAMES_COMPARED_MAX {
            if own.contains(&name) || name.contains('\\') {
                return Err(Refused);
            }
            self.names.push(name);
            return Ok(name);
        }
        // std's hasher is keyed at random: chosen names cannot make it collide.
        if many.is_empty() {
            many.extend(own);
        }
        if name.contains('\\') || !many.insert(name) { Err(Refused) } else { Ok(name) }
    }

    /// Passes a string; its text with the quotes.
    fn string(&mut self) -> Result<&'a str, Refused> {
        let begin = self.at;
        self.expect(b'"')?;
        loop {
            self.at = plain_end(self.text.as_bytes(), self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.text[begin..self.at]);
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(Refused),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Refused> {
        self.at += 1;
        let kind = self.peek().ok_or(Refused)?;
        self.at += 1;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex()? {
                // The first half of a pair: the second one must follow.
                0xd800..=0xdbff => {
                    self.word("\\u")?;
                    if (0xdc00..=0xdfff).contains(&self.hex()?) { Ok(()) } else { Err(Refused) }
                }
                0xdc00..=0xdfff => Err(Refused),
                _ => Ok(()),
            },
            _ => Err(Refused),
        }
    }

    fn hex(&mut self) -> Result<u32, Refused> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Refused)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, digit| {
            char::from(*digit).to_digit(16).map(|digit| sum * 16 + digit).ok_or(Refused)
        })
    }

    fn number(&mut self) -> Result<(), Refused> {
        self.take(b'-');
        let begins_with_zero = self.peek() == Some(b'0');
        let whole = self.digits()?;
        if begins_with_zero && whole > 1 {
            return Err(Refused);
        }
        if self.take(b'.') {
            self.digits()?;
        }
        let mut exponent = 0;
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'-') {
                self.take(b'+');
            }
            exponent = self.digits()?;
        }
        if whole > DIGITS_SURE || exponent > 2 { Err(Refused) } else { Ok(()) }
    }

    /// Passes one digit at least; how many there were.
    fn digits(&mut self) -> Result<usize, Refused> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count > 0 { Ok(count) } else { Err(Refused) }
    }

    fn word(&mut self, word: &str) -> Result<(), Refused> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Refused);
        }
        self.at += word.len();
        Ok(())
    }

    fn expect(&mut self, byte: u8) -> Result<(), Refused> {
        if self.take(byte) { Ok(()) } else { Err(Refused) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
            self.blanks += 1;
        }
    }
}

/// Where a string's bytes end that stand for themselves: at a quote, a backslash, a control character, or the end.
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    // Long texts in wide steps, without a branch a byte: the compiler makes vectors of it.
    while let Some(wide) = bytes[at..].first_chunk::<32>() {
        let specials = wide.iter().fold(0, |found, byte| {
            found | u8::from(*byte < b' ') | u8::from(*byte == b'"') | u8::from(*byte == b'\\')
        });
        if specials != 0 {
            break;
        }
        at += 32;
    }
    while let Some(eight) = bytes[at..].first_chunk() {
        let special = special(u64::from_le_bytes(*eight));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &&u8| **byte >= b' ' && **byte != b'"' && **byte != b'\\';
    at + bytes[at..].iter().take_while(is_plain).count()
}

/// Has the lowest bit set in the lowest byte that is a quote, a backslash or a control character (bytes above it may
/// be marked for nothing: a borrow runs upwards).
fn special(eight: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let is = |byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
    (below(eight, b' ') | is(b'"') | is(b'\\')) & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_plain_stretch_ends_at_the_first_special_byte(
            bytes in prop::collection::vec(prop_oneof![60 => b' '..=0xff, 1 => Just(b'"'), 1 => Just(b'\\'), 1 => 0_u8..b' '], 0..200),
            at in 0_usize..200,
        ) {
            let at = at.min(bytes.len());
            let is_special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
            let expected = bytes[at..].iter().position(is_special).map_or(bytes.len(), |found| at + found);
            prop_assert_eq!(plain_end(&bytes, at), expected);
        }
    }
}
