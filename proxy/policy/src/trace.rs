//! Which trace a request belongs to, as its headers say (W3C Trace Context).
//!
//! Exact rules:
//! - `traceparent` is `VV-<32 hex>-<16 hex>-<2 hex>` in lower case; version `ff`, a trace or parent id of
//!   zeros, and anything after it in version `00` are refused. A later version is read by this prefix.
//! - Of the flags the two that are defined are kept: sampled and random.
//! - `tracestate` may come in several fields; they are one list. A member is `key=value` (keys of 1 to 256
//!   of `a-z0-9_-*/@` that begin with a letter or digit, values of 1 to 256 printable characters without
//!   `,` and `=`), empty members do not count. More than [`MEMBERS_MAX`] members, a key twice or a malformed
//!   member refuse the whole list: what cannot be read is not passed on.
//! - What is passed on has [`STATE_BYTES_MAX`] bytes at most; members at the end, the oldest, fall off first.
//!
//! What wins: without a valid `traceparent` there is no state either. Cost: [`parent`] allocates nothing.

use std::collections::BTreeSet;

/// Flag: the caller records this trace.
pub const SAMPLED: u8 = 1;
/// Flags that are passed on: sampled, and that the trace id is random.
const KNOWN_FLAGS: u8 = 3;
/// LIMIT: members of a `tracestate`.
pub const MEMBERS_MAX: usize = 32;
/// LIMIT: bytes of a `tracestate` that are passed on.
pub const STATE_BYTES_MAX: usize = 512;
/// LIMIT: bytes of a `tracestate` that are looked at.
const STATE_BYTES_READ: usize = 8 << 10;

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace, 32 lower-case hexadecimal digits.
    pub trace_id: [u8; 32],
    /// The caller's span, 16 lower-case hexadecimal digits.
    pub span_id: [u8; 16],
    /// The flags that are defined.
    pub flags: u8,
}

/// Reads a `traceparent`; `None` where it is not valid.
pub fn parent(text: &[u8]) -> Option<Parent> {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let (version, trace_id, span_id, flags) =
        (text.get(..2)?, text.get(3..35)?, text.get(36..52)?, text.get(53..55)?);
    let dashes = [2, 35, 52].iter().all(|&at| text[at] == b'-');
    let length_fits = text.len() == 55 || (version != b"00" && text[55] == b'-');
    let well_formed = dashes
        && length_fits
        && version != b"ff"
        && [version, trace_id, span_id, flags].into_iter().all(is_hex)
        && !is_zero(trace_id)
        && !is_zero(span_id);
    let digit = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte - b'a' + 10 };
    well_formed.then(|| Parent {
        trace_id: trace_id.try_into().expect("the slice is 32 long"),
        span_id: span_id.try_into().expect("the slice is 16 long"),
        flags: (digit(flags[0]) << 4 | digit(flags[1])) & KNOWN_FLAGS,
    })
}

/// The `tracestate` to pass on, from the values of all its fields in their order; `None` where nothing of it
/// may be. Allocates.
pub fn state<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let (mut members, mut keys, mut read) = (Vec::new(), BTreeSet::new(), 0);
    for value in values {
        read += value.len();
        if read > STATE_BYTES_READ {
            return None;
        }
        for member in std::str::from_utf8(value).ok()?.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            let (key, value) = member.split_once('=')?;
            if !is_key(key) || !is_value(value) || !keys.insert(key) || members.len() == MEMBERS_MAX {
                return None;
            }
            members.push(member);
        }
    }
    let mut kept = String::new();
    for member in members {
        let comma = usize::from(!kept.is_empty());
        if kept.len() + comma + member.len() > STATE_BYTES_MAX {
            break;
        }
        if comma > 0 {
            kept.push(',');
        }
        kept.push_str(member);
    }
    (!kept.is_empty()).then_some(kept)
}

fn is_key(key: &str) -> bool {
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let letter = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    begins && key.len() <= 256 && key.bytes().all(letter)
}

fn is_value(value: &str) -> bool {
    let printable = |byte: u8| (0x20..=0x7e).contains(&byte) && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.bytes().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn states(values: &[&str]) -> Option<String> {
        state(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_good_parent_is_read() {
        let read = parent(GOOD.as_bytes()).unwrap();
        assert_eq!(&read.trace_id, b"4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((&read.span_id, read.flags), (b"00f067aa0ba902b7", SAMPLED));
        assert_eq!(
            parent(GOOD.replace("-01", "-ff").as_bytes()).unwrap().flags,
            3,
            "undefined flags fall off"
        );
        assert!(parent(format!("01{}-more", &GOOD[2..]).as_bytes()).is_some(), "a later version");
    }

    #[test]
    fn a_malformed_parent_is_refused() {
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "",
        ] {
            assert_eq!(parent(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_state_is_one_list_and_read_strictly() {
        assert_eq!(states(&["a=1, ,b@x=2 3", "c=4"]).as_deref(), Some("a=1,b@x=2 3,c=4"));
        for bad in ["", "a", "A=1", "=1", "a=", "a=1,a=2", "a=1=2", "a=\u{e9}", "_a=1", "a=1\u{1}"] {
            assert_eq!(states(&[bad]), None, "{bad:?}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert_eq!(states(&[&many.join(",")]), None);
        assert!(states(&[&many[..32].join(",")]).is_some());
    }

    #[test]
    fn the_oldest_members_fall_off_at_the_bound() {
        let long = "v".repeat(250);
        let kept = states(&[&format!("a={long},b={long},c={long}")]).unwrap();
        assert_eq!(kept, format!("a={long},b={long}"));
        assert_eq!(states(&[&"a=1,".repeat(3000)]), None, "more than is looked at");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn whatever_comes_only_valid_things_leave(text in "[ -~]{0,80}", field in "[a-z=, @*]{0,60}") {
            if let Some(read) = parent(text.as_bytes()) {
                prop_assert!(read.flags <= 3);
            }
            if let Some(kept) = states(&[&field]) {
                prop_assert!(kept.len() <= STATE_BYTES_MAX);
                prop_assert_eq!(states(&[&kept]), Some(kept.clone()), "passing on changes nothing more");
            }
        }
    }
}
