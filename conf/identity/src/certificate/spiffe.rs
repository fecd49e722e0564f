//! SPIFFE ids: `spiffe://<trust domain>/<path>`, exactly as the standard writes them.

use std::fmt;
use std::str::FromStr;

use sluice_wire::role::Role;

/// LIMIT: longest SPIFFE id, bytes (the standard's own).
pub const SPIFFE_ID_BYTES_MAX: usize = 2_048;
/// LIMIT: longest trust domain, bytes (the standard's own).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// The identity of a workload. Always has a path: an id without one names a trust domain, not a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// Who vouches for it: lower-case letters, digits, `.`, `-`, `_`.
    pub trust_domain: String,
    /// What it names there, with its leading `/`: segments of letters, digits, `.`, `-`, `_`.
    pub path: String,
}

/// The text is not the SPIFFE id of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Longer than the standard allows.
    #[error(
        "a SPIFFE id has at most {SPIFFE_ID_BYTES_MAX} bytes, its trust domain at most {TRUST_DOMAIN_BYTES_MAX}"
    )]
    TooLong,
    /// Does not begin with `spiffe://` in lower case.
    #[error("a SPIFFE id begins with `{SCHEME}`")]
    Scheme,
    /// The trust domain is empty or has a character it may not have (also a port or a user).
    #[error("a trust domain is of lower-case letters, digits, `.`, `-` and `_`")]
    TrustDomain,
    /// The path is missing, ends in `/`, or has a segment that is empty, a dot or of other characters.
    #[error("a SPIFFE path is of segments of letters, digits, `.`, `-` and `_`, none of them `.` or `..`")]
    Path,
}

impl SpiffeId {
    /// The service of `/service/<name>`. The trust domain is the caller's to compare.
    pub fn service(&self) -> Option<&str> {
        self.single("/service/")
    }

    /// The service of `/service/<name>` in one trust domain.
    pub fn service_in(&self, trust_domain: &str) -> Option<&str> {
        if self.trust_domain == trust_domain { self.service() } else { None }
    }

    /// The role of `/role/<name>`. The trust domain is the caller's to compare.
    pub fn role(&self) -> Option<Role> {
        self.single("/role/")?.parse().ok()
    }

    fn single(&self, prefix: &str) -> Option<&str> {
        self.path.strip_prefix(prefix).filter(|name| !name.contains('/'))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if trust_domain.len() > TRUST_DOMAIN_BYTES_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        if trust_domain.is_empty() || !trust_domain.bytes().all(is_domain_byte) {
            return Err(SpiffeIdError::TrustDomain);
        }
        let mut segments = path.split('/');
        // What stands before the first slash: nothing, unless the path is missing.
        let begun = segments.next() == Some("") && path.len() > 1;
        if !begun || !segments.all(is_segment) {
            return Err(SpiffeIdError::Path);
        }
        Ok(Self { trust_domain: trust_domain.to_owned(), path: path.to_owned() })
    }
}

fn is_domain_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte)
}

fn is_segment(segment: &str) -> bool {
    let known = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    known && !["", ".", ".."].contains(&segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<SpiffeId, SpiffeIdError> {
        text.parse()
    }

    #[test]
    fn services_and_roles_are_told_apart() {
        let bot = parse("spiffe://sluice.internal/service/bot").unwrap();
        assert_eq!((bot.service(), bot.role()), (Some("bot"), None));
        assert_eq!(bot.service_in("sluice.internal"), Some("bot"));
        assert_eq!(bot.service_in("other.example"), None);
        let edge = parse("spiffe://sluice.internal/role/edge").unwrap();
        assert_eq!((edge.service(), edge.role()), (None, Some(Role::Edge)));
        for neither in ["/service/a/b", "/role/nobody", "/service", "/x/service/a", "/Service/a"] {
            let id = parse(&format!("spiffe://d{neither}")).unwrap();
            assert_eq!((id.service(), id.role()), (None, None), "{neither}");
        }
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for (text, error) in [
            ("SPIFFE://d/a", SpiffeIdError::Scheme),
            ("spiffe:/d/a", SpiffeIdError::Scheme),
            ("https://d/a", SpiffeIdError::Scheme),
            ("", SpiffeIdError::Scheme),
            ("spiffe://", SpiffeIdError::TrustDomain),
            ("spiffe:///a", SpiffeIdError::TrustDomain),
            ("spiffe://D/a", SpiffeIdError::TrustDomain),
            ("spiffe://d:443/a", SpiffeIdError::TrustDomain),
            ("spiffe://u@d/a", SpiffeIdError::TrustDomain),
            ("spiffe://d?q/a", SpiffeIdError::TrustDomain),
            ("spiffe://d", SpiffeIdError::Path),
            ("spiffe://d/", SpiffeIdError::Path),
            ("spiffe://d/a/", SpiffeIdError::Path),
            ("spiffe://d//a", SpiffeIdError::Path),
            ("spiffe://d/./a", SpiffeIdError::Path),
            ("spiffe://d/a/..", SpiffeIdError::Path),
            ("spiffe://d/a%2fb", SpiffeIdError::Path),
            ("spiffe://d/a?q", SpiffeIdError::Path),
            ("spiffe://d/a#f", SpiffeIdError::Path),
            ("spiffe://d/a\0b", SpiffeIdError::Path),
            ("spiffe://d/é", SpiffeIdError::Path),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&format!("spiffe://{}/a", "d".repeat(256))), Err(SpiffeIdError::TooLong));
        assert_eq!(parse(&format!("spiffe://d/{}", "a".repeat(2_048))), Err(SpiffeIdError::TooLong));
        assert!(parse(&format!("spiffe://{}/a", "d".repeat(255))).is_ok());
    }

    proptest! {
        #[test]
        fn an_accepted_id_is_written_as_it_was_read(text in "spiffe://[a-zA-Z0-9._:@-]{0,4}(/[a-zA-Z0-9._%?-]{0,4}){0,3}") {
            if let Ok(id) = parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
