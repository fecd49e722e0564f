//! A hash of an event's content, kept in the log: it must be the same in every version.

/// Folds bytes into 64 bits, eight at a time (multiply and fold). It tells a repeated event from another one under
/// the same event id; it is not a seal: whoever chooses an event id chooses its content too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint(u64);

const MULTIPLIER: u64 = 0x9e6c_63d0_876a_3f6b;

impl Fingerprint {
    pub(crate) const fn new() -> Self {
        Self(0x2432_f6a8_885a_308d)
    }

    /// Adds one part; parts do not run into each other.
    #[must_use]
    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
        self.mix(bytes.len() as u64);
        self
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }

    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
        self.0 = (wide >> 64) as u64 ^ (wide as u64).rotate_left(23);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_for_ever() {
        let print = Fingerprint::new().part(b"trading_signal").part(b"").part(br#"{"a":1}"#);
        assert_eq!(print.value(), 16_685_952_944_599_530_034, "a stored fingerprint would no longer match");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let of =
            |parts: &[&[u8]]| parts.iter().fold(Fingerprint::new(), |print, part| print.part(part)).value();
        let all = [
            of(&[b"ab", b"c"]),
            of(&[b"a", b"bc"]),
            of(&[b"abc"]),
            of(&[b"abc", b""]),
            of(&[b"abc\0"]),
            of(&[b"12345678"]),
            of(&[b"12345678\0"]),
            of(&[b"12345679"]),
        ];
        let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
