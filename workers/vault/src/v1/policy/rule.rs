//! One rule, and how a policy's text becomes rules.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hcl::{self, Item, Value};
use super::{PATH_BYTES_MAX, RULES_MAX, TEXT_BYTES_MAX};

/// Why a policy is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse policy: line {line}: {what}")]
pub(crate) struct PolicyError {
    /// One-based line; 0 where the form has none.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) what: String,
}

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Caps(u16);

/// A path and what may be done there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// As written: `*` at the end is a glob, `+` a whole segment.
    pub(crate) path: String,
    /// What may be done.
    pub(crate) caps: Caps,
}

/// The words of capabilities, in alphabetical order.
const WORDS: [(&str, Caps); 9] = [
    ("create", Caps::CREATE),
    ("delete", Caps::DELETE),
    ("deny", Caps::DENY),
    ("list", Caps::LIST),
    ("patch", Caps::PATCH),
    ("read", Caps::READ),
    ("scan", Caps::SCAN),
    ("sudo", Caps::SUDO),
    ("update", Caps::UPDATE),
];

impl Caps {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const CREATE: Self = Self(1);
    pub(crate) const READ: Self = Self(2);
    pub(crate) const UPDATE: Self = Self(4);
    pub(crate) const PATCH: Self = Self(8);
    pub(crate) const DELETE: Self = Self(16);
    pub(crate) const LIST: Self = Self(32);
    pub(crate) const SCAN: Self = Self(64);
    pub(crate) const SUDO: Self = Self(128);
    pub(crate) const DENY: Self = Self(256);

    /// Both together; `deny` leaves nothing else.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        let both = Self(self.0 | other.0);
        if both.0 & Self::DENY.0 != 0 { Self::DENY } else { both }
    }

    /// Whether every one of `others` is in it.
    pub(crate) const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The words, sorted; `deny` where there are none.
    pub(crate) fn words(self) -> Vec<&'static str> {
        let words: Vec<_> = WORDS.iter().filter(|(_, cap)| self.has(*cap)).map(|(word, _)| *word).collect();
        if words.is_empty() { vec!["deny"] } else { words }
    }

    fn of_word(word: &str) -> Option<Self> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, cap)| *cap)
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join("+"))
    }
}

/// Reads a policy, HCL or JSON.
pub(crate) fn parse(text: &str) -> Result<Vec<Rule>, PolicyError> {
    let fault = |line, what: String| PolicyError { line, what };
    if text.len() > TEXT_BYTES_MAX {
        return Err(fault(0, format!("a policy has at most {TEXT_BYTES_MAX} bytes")));
    }
    // The JSON form is an object; its members are what HCL has at the top.
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let mut rules: Vec<Rule> = Vec::new();
    for item in hcl::items(inner.unwrap_or(text))? {
        for rule in rules_of(&item)? {
            match rules.iter_mut().find(|known| known.path == rule.path) {
                Some(known) => known.caps = known.caps.and(rule.caps),
                None => rules.push(rule),
            }
            if rules.len() > RULES_MAX {
                return Err(fault(item.line, format!("a policy has at most {RULES_MAX} rules")));
            }
        }
    }
    Ok(rules)
}

fn rules_of(item: &Item) -> Result<Vec<Rule>, PolicyError> {
    let fault = |what: String| Err(PolicyError { line: item.line, what });
    match (item.kind.as_str(), item.labels.as_slice(), &item.value) {
        ("path", [path], Value::Object(members)) => Ok(vec![rule(item.line, path, members)?]),
        ("path", [], Value::Object(paths)) => paths
            .iter()
            .map(|(path, value)| match value {
                Value::Object(members) => rule(item.line, path, members),
                _ => Err(PolicyError { line: item.line, what: format!("path \"{path}\": expected a block") }),
            })
            .collect(),
        ("path", ..) => fault("a rule is `path \"…\" { … }`".into()),
        ("name", [], Value::Text(_)) => Ok(Vec::new()),
        (other, ..) => fault(format!("invalid key \"{other}\"")),
    }
}

fn rule(line: usize, path: &str, members: &[(String, Value)]) -> Result<Rule, PolicyError> {
    let fault = |what: &str| Err(PolicyError { line, what: format!("path \"{path}\": {what}") });
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return fault("a path has 1 to 1024 bytes");
    }
    if path.contains("{{") {
        return fault("templates are not supported");
    }
    let glob = path.strip_suffix('*').unwrap_or(path);
    if glob.contains('*') {
        return fault("`*` stands at the end only");
    }
    if path.ends_with("+*") {
        return fault("`+*` says nothing: write `+/*` or `*`");
    }
    if glob.split('/').any(|segment| segment.contains('+') && segment != "+") {
        return fault("`+` stands for a whole segment only");
    }
    let mut caps = Caps::NONE;
    for (name, value) in members {
        match (name.as_str(), value) {
            ("capabilities", Value::List(words)) => {
                for word in words {
                    match capability(word) {
                        Ok(cap) => caps = caps.and(cap),
                        Err(word) => return fault(&format!("invalid capability \"{word}\"")),
                    }
                }
            }
            ("policy", Value::Text(word)) => match shorthand(word) {
                Some(short) => caps = caps.and(short),
                None => return fault(&format!("invalid policy \"{word}\"")),
            },
            ("comment", Value::Text(_)) => {}
            // A restriction that is not obeyed must not be accepted.
            (
                "allowed_parameters"
                | "denied_parameters"
                | "required_parameters"
                | "min_wrapping_ttl"
                | "max_wrapping_ttl"
                | "mfa_methods"
                | "control_group"
                | "pagination_limit"
                | "expiration",
                _,
            ) => {
                return fault(&format!("`{name}` is not supported"));
            }
            _ => return fault(&format!("invalid key \"{name}\"")),
        }
    }
    Ok(Rule { path: path.to_owned(), caps })
}

fn capability(word: &Value) -> Result<Caps, String> {
    match word {
        Value::Text(word) => Caps::of_word(word).ok_or_else(|| word.clone()),
        other => Err(format!("{other:?}")),
    }
}

/// The older words for whole sets.
fn shorthand(word: &str) -> Option<Caps> {
    let read = Caps::READ.and(Caps::LIST);
    let write = read.and(Caps::CREATE).and(Caps::UPDATE).and(Caps::DELETE);
    match word {
        "deny" => Some(Caps::DENY),
        "read" => Some(read),
        "write" => Some(write),
        "sudo" => Some(write.and(Caps::SUDO)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> Vec<(String, Vec<&'static str>)> {
        let rules = parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        rules.into_iter().map(|rule| (rule.path, rule.caps.words())).collect()
    }

    #[test]
    fn both_forms_say_the_same() {
        let hcl = "# reads\npath \"secret/data/a/*\" {\n  capabilities = [\"read\", \"list\",] // both\n}\n\
                   path \"sys/+/x\" { policy = \"read\" } /* older */";
        let json =
            r#"{"path":{"secret/data/a/*":{"capabilities":["read","list"]},"sys/+/x":{"policy":"read"}}}"#;
        assert_eq!(rules(hcl), rules(json));
        assert_eq!(rules(hcl)[0], ("secret/data/a/*".into(), vec!["list", "read"]));
        assert_eq!(rules(super::super::DEFAULT).len(), 8);
        assert_eq!(rules(""), []);
    }

    #[test]
    fn deny_and_rules_of_one_path_are_taken_together() {
        let text = r#"path "a" { capabilities = ["read"] } path "a" { capabilities = ["update"] }
            path "b" { capabilities = ["read", "deny"] } path "c" { }"#;
        assert_eq!(
            rules(text),
            [("a".into(), vec!["read", "update"]), ("b".into(), vec!["deny"]), ("c".into(), vec!["deny"])]
        );
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line) in [
            ("path \"a\" {\n capabilities = [\"reed\"] }", 1),
            ("\n\npth \"a\" { }", 3),
            ("path \"a\" {\n\n", 3),
            ("path \"a\n", 1),
            ("path a { capabilities = [] }", 1),
            ("path \"a*b\" { }", 1),
            ("path \"a/x+/b\" { }", 1),
            ("path \"a/+*\" { }", 1),
            ("path \"a/{{identity.x}}\" { }", 1),
            ("path \"\" { }", 1),
            ("path \"a\" { allowed_parameters = { \"x\" = [] } }", 1),
            ("path \"a\" { capabilities = \"read\" }", 1),
            ("path \"a\" { capabilities = [\"read\" \"list\"] }", 1),
            ("/* a\n\n", 1),
            ("path \"a\" { capabilities = [], capabilities = [] }", 1),
            ("{\"path\":{\"a\":[]}}", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{error}: {text}");
        }
        assert!(parse(&"#".repeat(TEXT_BYTES_MAX + 1)).is_err());
        let many: String = (0..=RULES_MAX).map(|n| format!("path \"{n}\" {{}}\n")).collect();
        assert!(parse(&many).is_err());
        let deep = format!("path \"a\" {{ capabilities = {}{} }}", "[".repeat(100), "]".repeat(100));
        assert!(parse(&deep).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "[ -~\n]{0,60}|(path|\"a/\\*\"|\\{|\\}|=|\\[|\\]|capabilities|\"read\"|,| ){0,12}") {
            let _ended = parse(&text);
        }

        #[test]
        fn what_is_written_is_read(
            written in proptest::collection::btree_map("[a-c]{1,2}(/[a-c+]){0,2}(/\\*)?", 0u16..511, 0..5),
        ) {
            let mut text = String::new();
            for (path, bits) in &written {
                let words = Caps(*bits).words().iter().map(|word| format!("{word:?}")).collect::<Vec<_>>();
                text += &format!("path {path:?} {{\n capabilities = [{}]\n}}\n", words.join(", "));
            }
            let read = parse(&text).unwrap();
            prop_assert_eq!(read.len(), written.len());
            for rule in read {
                let bits = Caps(written[&rule.path]);
                let expected = if bits.has(Caps::DENY) || bits == Caps::NONE { Caps::DENY } else { bits };
                prop_assert_eq!(rule.caps, expected);
            }
        }
    }
}
