//! The one spelling of a secret's path, and the names services may have.
//!
//! Router, policy, store and audit all see the same canonical string. What is not canonical is refused
//! rather than repaired: a repaired path is one the policy may not have meant.

use std::fmt;

use sluice_wire::code::Code;
use sluice_wire::role::Role;

use crate::error::VaultError;

/// LIMIT: longest path, bytes.
pub(crate) const PATH_BYTES_MAX: usize = 1_024;
/// LIMIT: segments of a path.
pub(crate) const SEGMENTS_MAX: usize = 32;
/// LIMIT: longest service name; it is one DNS label.
const SERVICE_BYTES_MAX: usize = 63;
/// First segment of the part of the tree that belongs to services.
const SERVICES: &str = "services";

/// Words that stand where a service's name stands in a path, or that name somebody else.
const RESERVED: [&str; 10] = [
    "validate",
    "generate",
    "issue",
    "refresh",
    "revoke",
    "role",
    "admin",
    "anonymous",
    "dev-admin",
    "localhost",
];

/// A canonical path: segments of `[A-Za-z0-9._@:+-]` joined by `/`; none empty, `.`, `..` or ending in a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SecretPath(String);

/// The name of a service: one lower-case DNS label (underscores allowed), not a role, not reserved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceName(String);

impl SecretPath {
    /// Accepts a path as it stands in a JSON body or a decoded query.
    pub(crate) fn parse(text: &str) -> Result<Self, VaultError> {
        let bad = |why: &str| Err(VaultError::invalid(Code::BadPath, why));
        if text.len() > PATH_BYTES_MAX {
            return bad("a secret path has at most 1024 bytes");
        }
        if text.split('/').count() > SEGMENTS_MAX {
            return bad("a secret path has at most 32 segments");
        }
        if !text.split('/').all(is_segment) {
            return bad(
                "a segment of a secret path is not empty, is of letters, digits and ._@:+- and does not end in a dot",
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// Accepts a path as it stands in a request target: percent-escapes are decoded once, and only those of
    /// characters that a segment may have, so an escaped slash or escape is refused.
    pub(crate) fn from_target(raw: &str) -> Result<Self, VaultError> {
        Self::parse(&decode_once(raw)?)
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The service whose part of the tree this is in, also for that part's root.
    pub(crate) fn tenant(&self) -> Option<&str> {
        let mut segments = self.0.split('/');
        (segments.next() == Some(SERVICES)).then(|| segments.next()).flatten()
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ServiceName {
    /// Accepts a service's name.
    pub(crate) fn parse(text: &str) -> Result<Self, VaultError> {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let well_formed = (1..=SERVICE_BYTES_MAX).contains(&bytes.len())
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b));
        if !well_formed {
            return Err(VaultError::invalid(
                Code::BadRequest,
                "a service name is 1 to 63 of lower-case letters, digits, - and _, letter or digit at both ends",
            ));
        }
        if RESERVED.contains(&text) || text.parse::<Role>().is_ok() {
            return Err(VaultError::invalid(Code::BadRequest, format!("`{text}` is a reserved name")));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && !segment.ends_with('.') && segment.bytes().all(is_path_byte)
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._@:+-".contains(&byte)
}

/// The canonical text of a path below a prefix in a request target, checked as a secret's path is, with room for
/// the words before it.
pub(crate) fn canonical(raw: &str) -> Result<String, VaultError> {
    let text = decode_once(raw)?;
    let fits = text.split('/').count() <= SEGMENTS_MAX + 4 && text.split('/').all(is_segment);
    if fits { Ok(text) } else { Err(VaultError::invalid(Code::BadPath, "a segment that is not accepted")) }
}

fn decode_once(raw: &str) -> Result<String, VaultError> {
    let bad = || VaultError::invalid(Code::BadPath, "the path has an escape that is not accepted");
    let mut pieces = raw.split('%');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = u8::from_str_radix(digits.ok_or_else(bad)?, 16).map_err(|_| bad())?;
        if !is_path_byte(byte) {
            return Err(bad());
        }
        text.push(char::from(byte));
        text.push_str(&piece[2..]);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_paths_are_refused_before_anything_looks_at_them() {
        let long = "a".repeat(1_025);
        let deep = vec!["a"; 33].join("/");
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "a/./b",
            "a/b.",
            "a b",
            "a\\b",
            "a;b",
            "a\0b",
            "a\nb",
            "a~",
            "a%2fb",
            "ａ",
            "e\u{301}",
            "a\u{200b}b",
            &long,
            &deep,
        ] {
            assert!(SecretPath::parse(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "a%2fb", "a%2Fb", "%2e%2e/b", "a/%2e%2e", "a%252fb", "a%", "a%4", "a%zz", "a%00", "a%c0%ae",
            "a%+1b", "a/%2E",
        ] {
            assert!(SecretPath::from_target(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn harmless_escapes_mean_the_character() {
        assert_eq!(SecretPath::from_target("a%40b%3Ac/%2Bd").unwrap().as_str(), "a@b:c/+d");
    }

    #[test]
    fn tenant_is_the_second_segment_under_services() {
        let tenant = |text: &str| SecretPath::parse(text).unwrap().tenant().map(str::to_owned);
        assert_eq!(tenant("services/bot/db"), Some("bot".to_owned()));
        assert_eq!(tenant("services/bot"), Some("bot".to_owned()));
        assert_eq!(tenant("services"), None);
        assert_eq!(tenant("servicesx/bot/db"), None);
        assert_eq!(tenant("a/services/bot"), None);
    }

    #[test]
    fn roles_and_reserved_words_are_no_services() {
        for bad in [
            "edge",
            "vault",
            "calc",
            "events",
            "supervisor",
            "demo",
            "validate",
            "generate",
            "issue",
            "refresh",
            "revoke",
            "role",
            "admin",
            "",
            "A",
            "a.b",
            "a/b",
            "-a",
            "a-",
            "_a",
            "ä",
            "a b",
        ] {
            assert!(ServiceName::parse(bad).is_err(), "{bad}");
        }
        for good in ["a", "my_service", "trading-bot", "0x", "data"] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
    }

    /// The rule as one would say it aloud.
    fn naive(text: &str) -> bool {
        let segments: Vec<&str> = text.split('/').collect();
        text.len() <= 1_024
            && segments.len() <= 32
            && segments.iter().all(|segment| {
                let mut chars = segment.chars();
                !segment.is_empty()
                    && *segment != "."
                    && *segment != ".."
                    && !segment.ends_with('.')
                    && chars.all(|c| c.is_ascii_alphanumeric() || "._@:+-".contains(c))
            })
    }

    proptest! {
        #[test]
        fn acceptance_agrees_with_the_naive_rule(text in "[a-c./%@ \\\\~é]{0,12}") {
            prop_assert_eq!(SecretPath::parse(&text).is_ok(), naive(&text));
        }

        #[test]
        fn anything_never_panics(text in any::<String>()) {
            drop((SecretPath::parse(&text), SecretPath::from_target(&text), ServiceName::parse(&text)));
        }

        #[test]
        fn escaping_any_byte_never_reaches_another_path(text in "[a-z]{1,3}(/[a-z]{1,3}){0,2}", at in any::<prop::sample::Index>(), upper in any::<bool>()) {
            let at = at.index(text.len());
            let byte = text.as_bytes()[at];
            let escape = if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
            let raw = format!("{}{escape}{}", &text[..at], &text[at + 1..]);
            let path = SecretPath::from_target(&raw).ok();
            prop_assert_eq!(path.as_ref().map(SecretPath::as_str), (byte != b'/').then_some(text.as_str()));
        }
    }
}
