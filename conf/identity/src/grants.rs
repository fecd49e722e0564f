//! Grants: the permission words a caller holds.
//!
//! `a:b` covers `a:b` and everything below it (`a:b:*`); `admin` covers all. A `*` in the last
//! segment of a held grant matches as a glob (`events:publish:risk_*`). Nothing else is implied:
//! `events` alone does not cover `events:publish`, so a grant never widens by accident.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::str::FromStr;

/// Most grants one caller may hold; more are refused when a token is read.
pub const GRANTS_MAX: usize = 128;
/// Longest accepted grant, bytes.
pub const GRANT_BYTES_MAX: usize = 128;
/// The grant that covers every other.
pub const ADMIN: &str = "admin";

/// A set of grants, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(BTreeSet<String>);

impl Grants {
    /// Whether these grants cover one needed permission.
    pub fn covers(&self, needed: &str) -> bool {
        self.0.iter().any(|held| covers(held, needed))
    }

    /// Whether these grants cover all of the others: what may be passed on to another caller.
    pub fn covers_all(&self, others: &Self) -> bool {
        others.0.iter().all(|needed| self.covers(needed))
    }

    /// These grants without administration: what a role gives whoever bears its name. Administrators are made by
    /// administrators, not by a certificate or a token of the right name.
    #[must_use]
    pub fn without_admin(mut self) -> Self {
        self.0.remove(ADMIN);
        self
    }

    /// Whether the caller is an administrator.
    pub fn is_admin(&self) -> bool {
        self.0.contains(ADMIN)
    }

    /// The grants in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sorted and space-separated, as in `x-permissions` and the `scope` claim.
    pub fn to_header(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// Whether a word may be a grant: `[a-z0-9_.*-]` segments joined by `:`.
pub fn is_grant(word: &str) -> bool {
    (1..=GRANT_BYTES_MAX).contains(&word.len())
        && word.split(':').all(|segment| {
            !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.*-".contains(&b))
        })
}

fn covers(held: &str, needed: &str) -> bool {
    if held == ADMIN || held == needed {
        return true;
    }
    if let Some(rest) = needed.strip_prefix(held) {
        return rest.starts_with(':');
    }
    match (held.rsplit_once(':'), needed.rsplit_once(':')) {
        (Some((held_head, glob)), Some((needed_head, name))) if glob.contains('*') => {
            held_head == needed_head && glob_matches(glob, name)
        }
        _ => false,
    }
}

/// Matches `*` against any run of characters.
pub fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((head, tail)) = glob.split_once('*') else { return glob == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut pieces = tail.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

impl<S: Into<String>> FromIterator<S> for Grants {
    fn from_iter<I: IntoIterator<Item = S>>(words: I) -> Self {
        Self(words.into_iter().map(Into::into).filter(|word| is_grant(word)).take(GRANTS_MAX).collect())
    }
}

impl FromStr for Grants {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.split(' ').filter(|word| !word.is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grants(text: &str) -> Grants {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_covers_itself_and_what_lies_below() {
        assert!(grants("events:publish").covers("events:publish:risk_alert"));
        assert!(grants("events:publish").covers("events:publish"));
        assert!(!grants("events:publish").covers("events:publisher"));
        assert!(!grants("events:publish:risk_alert").covers("events:publish"));
        assert!(!grants("events").covers("admin"));
        assert!(grants("admin").covers("anything:at:all"));
    }

    #[test]
    fn globs_match_inside_the_last_segment_only() {
        assert!(grants("events:publish:risk_*").covers("events:publish:risk_alert"));
        assert!(!grants("events:publish:risk_*").covers("events:publish:order_executed"));
        assert!(!grants("events:*").covers("events:publish:x"));
        assert!(!grants("*").covers("read"));
        assert!(glob_matches("a*b*c", "a1b2c"));
        assert!(!glob_matches("a*b*c", "a1c2b"));
    }

    #[test]
    fn header_is_sorted() {
        assert_eq!(grants("write read  admin:x").to_header(), "admin:x read write");
    }

    proptest! {
        #[test]
        fn widening_never_happens(held in "[a-c](:[a-c]){0,3}", needed in "[a-c](:[a-c]){0,3}") {
            let covered = grants(&held).covers(&needed);
            let model = needed == held || needed.starts_with(&format!("{held}:"));
            prop_assert_eq!(covered, model);
        }
    }
}
