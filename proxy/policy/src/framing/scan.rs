//! Finding bytes in a head quickly, without unsafe code.

/// Where the first control byte is: below 0x20 (tab too) or 0x7f.
pub(super) fn control_position(bytes: &[u8]) -> Option<usize> {
    let mut words = bytes.chunks_exact(8);
    for (index, word) in words.by_ref().enumerate() {
        let found = controls(u64::from_le_bytes(word.try_into().expect("chunks of eight")));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let rest = words.remainder();
    let start = bytes.len() - rest.len();
    rest.iter().position(u8::is_ascii_control).map(|at| start + at)
}

/// The high bit of each byte that is a control byte. A borrow can mark a byte above a true one by
/// mistake, never below it: the lowest mark is right.
const fn controls(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    (below | (delete.wrapping_sub(ONES) & !delete)) & HIGH
}

/// Where the token at the start of these bytes ends.
pub(super) fn token_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !TOKEN[usize::from(*byte)]).unwrap_or(bytes.len())
}

/// The characters of a method or field name (RFC 9110 section 5.6.2).
static TOKEN: [bool; 256] = token_table();

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    let mut byte: u8 = 0;
    while byte < 0x80 {
        table[byte as usize] |= byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_the_first_control_byte(
            bytes in proptest::collection::vec(prop_oneof![6 => any::<u8>(), 20 => 0x20_u8..=0xff, 1 => Just(0x7f_u8)], 0..70),
        ) {
            prop_assert_eq!(control_position(&bytes), bytes.iter().position(|byte| *byte < 0x20 || *byte == 0x7f));
        }
    }

    #[test]
    fn every_byte_is_judged_alike_at_every_place() {
        for byte in 0..=255_u8 {
            for place in 0..17 {
                let mut bytes = [b'a'; 17];
                bytes[place] = byte;
                let expected = byte.is_ascii_control().then_some(place);
                assert_eq!(control_position(&bytes), expected, "{byte:#x} at {place}");
            }
        }
        assert_eq!(token_end(b"Content-Length: 5"), 14);
        assert_eq!(token_end(b"a\x80"), 1);
        assert_eq!(TOKEN.iter().filter(|token| **token).count(), 77);
    }
}
