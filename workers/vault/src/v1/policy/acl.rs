//! All rules of a caller, and which of them decides.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::rule::{Caps, Rule};

/// What the rules of several policies allow together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acl {
    root: bool,
    exact: BTreeMap<String, Caps>,
    /// The most specific first.
    patterns: Vec<(Pattern, Caps)>,
}

/// A path with `+` for a segment or `*` at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    glob: bool,
}

impl Acl {
    /// Everything is allowed.
    pub(crate) fn root() -> Self {
        Self { root: true, ..Self::default() }
    }

    /// The rules of several policies together.
    pub(crate) fn of(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut together: BTreeMap<String, Caps> = BTreeMap::new();
        for rule in rules {
            let caps = together.entry(rule.path).or_default();
            *caps = caps.and(rule.caps);
        }
        let mut acl = Self::default();
        for (path, caps) in together {
            match Pattern::of(&path) {
                Some(pattern) => acl.patterns.push((pattern, caps)),
                None => {
                    acl.exact.insert(path, caps);
                }
            }
        }
        acl.patterns.sort_by(|(one, _), (other, _)| other.priority(one));
        acl
    }

    /// Whether nothing is forbidden.
    pub(crate) fn is_root(&self) -> bool {
        self.root
    }

    /// What may be done at a path: an exact rule before a pattern, of patterns the most specific.
    pub(crate) fn caps(&self, path: &str) -> Caps {
        self.found(path).unwrap_or(Caps::NONE)
    }

    /// The same for a listing, whose path ends in a slash; a rule for the path without it does too.
    pub(crate) fn caps_of_folder(&self, path: &str) -> Caps {
        let path = path.trim_end_matches('/');
        self.found(&format!("{path}/")).or_else(|| self.found(path)).unwrap_or(Caps::NONE)
    }

    fn found(&self, path: &str) -> Option<Caps> {
        let exact = self.exact.get(path).copied();
        exact.or_else(|| {
            self.patterns.iter().find(|(pattern, _)| pattern.matches(path)).map(|(_, caps)| *caps)
        })
    }
}

impl Pattern {
    fn of(path: &str) -> Option<Self> {
        let glob = path.ends_with('*');
        let text = path.strip_suffix('*').unwrap_or(path);
        (glob || text.split('/').any(|segment| segment == "+")).then(|| Self { text: text.to_owned(), glob })
    }

    fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        let mut segments = self.text.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segments.peek().is_none() && self.glob {
                return rest.starts_with(segment);
            }
            let (head, tail) = rest.split_once('/').map_or((rest, None), |(head, tail)| (head, Some(tail)));
            let fits = if segment == "+" { !head.is_empty() } else { head == segment };
            match (fits, segments.peek().is_some(), tail) {
                (true, true, Some(tail)) => rest = tail,
                (true, false, None) => return true,
                _ => return false,
            }
        }
        false
    }

    /// Greater is more specific: a later first wildcard, no glob, fewer `+`, longer, lexicographically greater.
    fn priority(&self, other: &Self) -> Ordering {
        let plus = |pattern: &Self| pattern.text.split('/').filter(|segment| *segment == "+").count();
        self.first_wildcard()
            .cmp(&other.first_wildcard())
            .then(other.glob.cmp(&self.glob))
            .then_with(|| plus(other).cmp(&plus(self)))
            .then(self.text.len().cmp(&other.text.len()))
            .then_with(|| self.text.cmp(&other.text))
    }

    fn first_wildcard(&self) -> usize {
        let mut at = 0;
        for segment in self.text.split('/') {
            if segment == "+" {
                return at;
            }
            at += segment.len() + 1;
        }
        self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acl(rules: &[(&str, Caps)]) -> Acl {
        Acl::of(rules.iter().map(|(path, caps)| Rule { path: (*path).to_owned(), caps: *caps }))
    }

    #[test]
    fn the_most_specific_rule_decides() {
        let acl = acl(&[
            ("secret/*", Caps::READ),
            ("secret/data/*", Caps::UPDATE),
            ("secret/data/a", Caps::DENY),
            ("secret/+/b", Caps::LIST),
            ("+/+/b", Caps::DELETE),
            ("secret/metadata/", Caps::LIST),
        ]);
        for (path, caps) in [
            ("secret/x", Caps::READ),
            ("secret/data/x/y", Caps::UPDATE),
            ("secret/data/a", Caps::DENY),
            ("secret/data/b", Caps::UPDATE),
            ("secret/other/b", Caps::LIST),
            ("x/y/b", Caps::DELETE),
            ("x/y/c", Caps::NONE),
            ("x//b", Caps::NONE),
            ("secrets", Caps::NONE),
        ] {
            assert_eq!(acl.caps(path), caps, "{path}");
        }
        assert_eq!(acl.caps_of_folder("secret/metadata"), Caps::LIST);
        assert!(!Acl::default().caps("a").has(Caps::READ));
    }

    /// The rule of matching as one would say it, by trying every way.
    fn naive_matches(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*'] => true,
            [b'+', rest @ ..] => {
                let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
                end > 0 && naive_matches(rest, &path[end..])
            }
            [byte, rest @ ..] => path.first() == Some(byte) && naive_matches(rest, &path[1..]),
        }
    }

    /// The documented order, term by term, over the written text.
    fn naive_is_lower(one: &str, other: &str) -> bool {
        let wildcard = |text: &str| text.find(['+', '*']).unwrap_or(usize::MAX);
        let pluses = |text: &str| text.matches('+').count();
        if wildcard(one) != wildcard(other) {
            return wildcard(one) < wildcard(other);
        }
        if one.ends_with('*') != other.ends_with('*') {
            return one.ends_with('*');
        }
        if pluses(one) != pluses(other) {
            return pluses(one) > pluses(other);
        }
        if one.len() != other.len() {
            return one.len() < other.len();
        }
        one < other
    }

    proptest! {
        #[test]
        fn decides_as_the_naive_model_does(
            rules in proptest::collection::btree_map("(a|b|\\+)(/(a|b|\\+)){0,3}(/?\\*|/)?", 0usize..8, 0..8),
            path in "(a|b|c)(/(a|b|c)){0,3}/?",
        ) {
            const CAPS: [Caps; 8] = [Caps::READ, Caps::LIST, Caps::UPDATE, Caps::CREATE, Caps::DELETE, Caps::SUDO, Caps::PATCH, Caps::DENY];
            // `+` before a glob without a slash between is no policy's path.
            let rules: Vec<_> = rules.iter().filter(|(text, _)| !text.ends_with("+*")).collect();
            let written: Vec<_> = rules.iter().map(|(text, caps)| (text.as_str(), CAPS[**caps])).collect();
            let mut best: Option<(&str, Caps)> = None;
            for (text, caps) in &written {
                let exact = !text.contains(['+', '*']);
                let matches = if exact { *text == path } else { naive_matches(text.as_bytes(), path.as_bytes()) };
                let better = best.is_none_or(|(known, _)| naive_is_lower(known, text));
                if matches && better {
                    best = Some((text, *caps));
                }
            }
            prop_assert_eq!(acl(&written).caps(&path), best.map_or(Caps::NONE, |(_, caps)| caps));
        }

        #[test]
        fn another_policy_never_lifts_a_deny(path in "(a|b)(/(a|b|\\+)){0,2}\\*?", caps in 0usize..4) {
            const CAPS: [Caps; 4] = [Caps::READ, Caps::SUDO, Caps::UPDATE, Caps::DENY];
            prop_assume!(!path.ends_with("+*"));
            let plain = path.replace('+', "a").replace('*', "");
            let both = acl(&[(&path, Caps::DENY), (&path, CAPS[caps])]);
            prop_assert_eq!(both.caps(&plain), Caps::DENY);
        }
    }
}
