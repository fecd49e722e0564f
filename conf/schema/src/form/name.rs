//! Names, prefixes, hosts, permissions.

use crate::code::Code;
use crate::kind::{Text, Wrong};
use crate::model::{RESERVED_PREFIXES, is_host};
use crate::report::quote;

/// LIMIT: a path prefix in bytes, and in segments.
const PREFIX_BYTES: usize = 256;
const PREFIX_SEGMENTS: usize = 16;

/// LIMIT: bytes of a SPIFFE id that is a caller.
const SPIFFE_BYTES: usize = 128;

/// Names of services that mean something else: roles of Sluice, and a word of the control port.
const TAKEN: [&str; 7] = ["edge", "events", "vault", "calc", "demo", "supervisor", "reset-all"];

/// The name of a service.
pub(crate) const SERVICE_NAME: Text<String> = Text {
    what: "the name of a service",
    code: Code::Name,
    parse: parse_service_name,
    show: Clone::clone,
    pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
};

/// The name of something else.
pub(crate) const NAME: Text<String> = Text { what: "a name", parse: parse_name, ..SERVICE_NAME };

/// The name of a role of `[auth.roles]`, or a service of another trust domain, by its whole SPIFFE id.
pub(crate) const ROLE_NAME: Text<String> = Text {
    what: "the name of a role",
    parse: parse_role_name,
    pattern: "^([A-Za-z0-9][A-Za-z0-9_.-]{0,63}|spiffe://[a-z0-9_.-]+/service/[A-Za-z0-9_.-]{1,64})$",
    ..SERVICE_NAME
};

/// A zone: a name, or nothing.
pub(crate) const ZONE: Text<String> = Text {
    what: "the name of a zone",
    parse: |text| if text.is_empty() { Ok(String::new()) } else { parse_name(text) },
    pattern: "^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$",
    ..SERVICE_NAME
};

/// The path prefix of a service.
pub(crate) const PREFIX: Text<String> = Text {
    what: "a path prefix such as \"/api/data\"",
    code: Code::Prefix,
    parse: parse_prefix,
    show: Clone::clone,
    pattern: "^(|/|(/[A-Za-z0-9._~-]+){1,16})$",
};

/// A host name.
pub(crate) const HOST: Text<String> = Text {
    what: "a host name",
    code: Code::Host,
    parse: parse_host,
    show: Clone::clone,
    pattern: r"^[A-Za-z0-9_.-]{1,253}$",
};

/// A host name, or `*.` and a domain for every name below it.
pub(crate) const WILD_HOST: Text<String> =
    Text { parse: parse_wild_host, pattern: r"^(\*\.)?[A-Za-z0-9_.-]{1,253}$", ..HOST };

/// A permission.
pub(crate) const PERMISSION: Text<String> = Text {
    what: "a permission",
    code: Code::Permission,
    parse: parse_permission,
    show: Clone::clone,
    pattern: "^[a-z][a-z0-9_-]*(:[A-Za-z0-9_.*-]+)*$",
};

fn parse_service_name(text: &str) -> Result<String, Wrong> {
    if TAKEN.contains(&text) {
        return Err(Wrong::new(format!("{} is a name of Sluice's own", quote(text))));
    }
    parse_name(text)
}

fn parse_name(text: &str) -> Result<String, Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not a name", quote(text)))
        .help("a name has up to 64 letters, digits, `_`, `.` or `-` and starts with a letter or digit"))
}

fn parse_role_name(text: &str) -> Result<String, Wrong> {
    let Some(id) = text.strip_prefix("spiffe://") else { return parse_name(text) };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    let is_service = id.split_once("/service/").is_some_and(|(domain, name)| {
        let plain = name.chars().all(|c| lower(c.to_ascii_lowercase()));
        plain && domain.chars().all(lower) && !domain.is_empty() && !["", ".", ".."].contains(&name)
    });
    if is_service && text.len() <= SPIFFE_BYTES {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not the SPIFFE id of a service", quote(text)))
        .help("write it whole, such as \"spiffe://desk.example/service/pricer\""))
}

fn parse_prefix(text: &str) -> Result<String, Wrong> {
    let wrong = |why: &str| Wrong::new(format!("the prefix {} {why}", quote(text)));
    if text.is_empty() {
        return Ok(String::new());
    }
    if !text.starts_with('/') {
        return Err(wrong("does not start with `/`").help(format!("write {}", quote(&format!("/{text}")))));
    }
    if text.len() > PREFIX_BYTES {
        return Err(wrong(&format!("is longer than {PREFIX_BYTES} bytes")));
    }
    if text == "/" {
        return Ok(text.to_owned());
    }
    if let Some(bare) = text.strip_suffix('/') {
        let help =
            format!("write {}: it matches the path itself and all below", quote(bare.trim_end_matches('/')));
        return Err(wrong("ends with `/`").help(help));
    }
    if text.matches('/').count() > PREFIX_SEGMENTS {
        return Err(wrong(&format!("has more than {PREFIX_SEGMENTS} segments")));
    }
    for segment in text[1..].split('/') {
        check_segment(segment).map_err(|why| wrong(&why))?;
    }
    match is_reserved(text) {
        Some(reserved) => {
            Err(wrong(&format!("lies at or below {}, which Sluice answers itself", quote(reserved)))
                .code(Code::ReservedPrefix)
                .help("choose another prefix, such as one below `/api/`"))
        }
        None => Ok(text.to_owned()),
    }
}

fn check_segment(segment: &str) -> Result<(), String> {
    match segment {
        "" => return Err("has an empty segment (`//`)".to_owned()),
        "." | ".." => return Err(format!("has the segment `{segment}`")),
        _ => {}
    }
    // Only characters that have one spelling: no other way to write the prefix may lead past it.
    let odd = |c: &char| !c.is_ascii_alphanumeric() && !"._~-".contains(*c);
    match segment.chars().find(odd) {
        Some('%') => Err("has an encoded byte (`%`); requests are matched decoded".to_owned()),
        Some(c) => Err(format!("has the character {}", quote(&c.to_string()))),
        None => Ok(()),
    }
}

/// The reserved prefix at or above `prefix`.
pub(crate) fn is_reserved(prefix: &str) -> Option<&'static str> {
    RESERVED_PREFIXES.into_iter().find(|reserved| {
        prefix.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn parse_host(text: &str) -> Result<String, Wrong> {
    let host = text.to_ascii_lowercase();
    if is_host(&host) {
        return Ok(host);
    }
    let wrong = Wrong::new(format!("{} is not a host name", quote(text)));
    Err(match text.rsplit_once(':') {
        Some((bare, port)) if port.parse::<u16>().is_ok() => {
            wrong.help(format!("write it without the port: {}", quote(bare)))
        }
        _ => wrong.help("write a DNS name such as \"api.example.com\", or an IPv4 address"),
    })
}

fn parse_wild_host(text: &str) -> Result<String, Wrong> {
    match text.strip_prefix("*.") {
        // `*.1.2.3` would be below an address.
        Some(domain) if domain.parse::<std::net::Ipv4Addr>().is_err() => {
            parse_host(domain).map(|domain| format!("*.{domain}"))
        }
        _ => parse_host(text),
    }
}

fn parse_permission(text: &str) -> Result<String, Wrong> {
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '*' | '-');
    let formed = first.starts_with(|c: char| c.is_ascii_lowercase())
        && first.chars().all(plain)
        && parts.all(|part| !part.is_empty() && part.chars().all(rest));
    if formed && text.len() <= 64 {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not a permission", quote(text)))
        .help("a permission is lower-case words joined by `:`, such as \"read\" or \"events:publish\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_absolute_and_normal() {
        for good in [
            "/",
            "/api",
            "/api/data",
            "/a.b/c-d_e~",
            "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16",
            "/healthy",
            "/api/servicesx",
            "/api",
        ] {
            assert_eq!(parse_prefix(good).expect(good), good);
        }
        // A service that only others name has none; a registration always has one.
        assert_eq!(parse_prefix("").expect("no prefix"), "");
        assert!(crate::form::service_prefix("").is_err());
        for bad in [
            "api",
            "/api/",
            "//",
            "/a//b",
            "/a/../b",
            "/a/.",
            "/a%2fb",
            "/a b",
            "/a?b",
            "/a\\b",
            "/ä",
            "/a:b",
            "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17",
        ] {
            assert!(parse_prefix(bad).is_err(), "{bad}");
        }
        assert!(parse_prefix(&format!("/{}", "a".repeat(PREFIX_BYTES))).is_err());
    }

    #[test]
    fn a_role_has_a_name_or_is_a_service_of_another_trust_domain() {
        for good in ["trader", "spiffe://desk.example/service/pricer", "spiffe://d/service/A_b-c.d"] {
            assert_eq!(parse_role_name(good).expect(good), good);
        }
        for bad in [
            "a b",
            "spiffe://desk.example",
            "spiffe:///service/a",
            "spiffe://Desk.example/service/a",
            "spiffe://desk.example/service/",
            "spiffe://desk.example/service/..",
            "spiffe://desk.example/service/a/b",
            "spiffe://desk.example/role/edge",
            "https://desk.example/service/a",
        ] {
            assert!(parse_role_name(bad).is_err(), "{bad}");
        }
        assert!(parse_role_name(&format!("spiffe://{}/service/a", "d".repeat(SPIFFE_BYTES))).is_err());
        assert!(parse_name("spiffe://desk.example/service/pricer").is_err());
    }

    #[test]
    fn a_wildcard_stands_for_the_first_labels_of_a_name() {
        assert_eq!(parse_wild_host("*.Example.com").expect("a wildcard"), "*.example.com");
        for bad in ["*", "*.", "*.*", "a.*", "*a.b", "*.1.2.3.4", "a b", "", "[::1]", "::1"] {
            assert!(parse_wild_host(bad).is_err(), "{bad}");
        }
        assert!(parse_host("*.example.com").is_err());
    }

    #[test]
    fn every_reserved_prefix_is_refused_with_all_below_it() {
        for reserved in RESERVED_PREFIXES {
            assert_eq!(parse_prefix(reserved).expect_err(reserved).code, Some(Code::ReservedPrefix));
            assert_eq!(is_reserved(&format!("{reserved}/x")), Some(reserved));
            assert_eq!(is_reserved(&format!("{reserved}x")), None);
        }
    }
}
