//! What is done to the traffic of a service beside forwarding it.

use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// LIMIT: bytes of a rewrite's pattern, and of its replacement.
pub const REWRITE_BYTES_MAX: usize = 512;
/// LIMIT: memory of a compiled pattern, and of the automaton built from it while it runs, bytes each.
const PATTERN_BYTES: usize = 256 << 10;
/// LIMIT: groups, repetitions and classes inside one another.
const NESTING: u32 = 32;

/// LIMIT: bytes of the body of a fixed answer.
pub const FALLBACK_BYTES_MAX: usize = 16 << 10;

/// Which web pages may call a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins, `scheme://host[:port]` as browsers send them, or `*` alone; empty: the upstream decides.
    pub origins: Vec<String>,
    /// Whether pages may send cookies and credentials of the browser; never together with `*`.
    pub credentials: bool,
}

/// How the path is written for the upstream, after `strip_prefix`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// What is replaced, every place it matches; empty: nothing is.
    pub pattern: String,
    /// What takes its place: `$1` and `${name}` stand for groups, `$$` for `$`.
    pub replace: String,
}

/// What a client gets where the service gave no answer, for methods that change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Status of the fixed answer.
    pub status: u16,
    /// Its body; `None`: there is no fixed answer.
    pub body: Option<String>,
    /// How old an answer to the same question may be that is given instead; `None`: none is.
    pub stale: Option<Duration>,
}

impl Default for Fallback {
    fn default() -> Self {
        Self { status: 503, body: None, stale: None }
    }
}

/// A share of a service's callers that another service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// The other service.
    pub service: String,
    /// Its share in percent, 1 to 100; all arms together have at most 100.
    pub weight: u32,
}

/// A piece of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// What this group matched; nothing where it took no part.
    Group(usize),
}

/// A rewrite that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RewriteFault {
    /// The pattern is too long.
    #[error("a pattern has at most {REWRITE_BYTES_MAX} bytes")]
    Long,
    /// The pattern is no regular expression.
    #[error("this is no regular expression: {0}")]
    Pattern(String),
    /// The pattern compiles to something too large.
    #[error("this pattern takes more than {} KiB when it is compiled", PATTERN_BYTES >> 10)]
    Large,
    /// A character that no path has, or that would begin a query.
    #[error(
        "a replacement has at most {REWRITE_BYTES_MAX} characters that a path may have: no space, `?`, `#` or `\\`"
    )]
    Character,
    /// A `$` that names no group.
    #[error("a `$` stands before a group, as in `$1` or `${{name}}`, or before another `$`")]
    Dollar,
    /// A group that the pattern has not.
    #[error("the pattern has no group `{0}`")]
    Group(String),
}

impl Rewrite {
    /// Whether it replaces anything.
    pub fn is_on(&self) -> bool {
        !self.pattern.is_empty()
    }
}

/// The pattern of a rewrite, compiled: matches take time linear in the path, memory is bounded.
///
/// # Errors
/// [`RewriteFault`].
pub fn rewrite_pattern(pattern: &str) -> Result<Regex, RewriteFault> {
    if pattern.len() > REWRITE_BYTES_MAX {
        return Err(RewriteFault::Long);
    }
    let built = RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES)
        .nest_limit(NESTING)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => RewriteFault::Large,
        // Its last line says what is wrong; those before it draw the pattern.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            RewriteFault::Pattern(last.trim_start_matches("error: ").to_owned())
        }
    })
}

/// The replacement of a rewrite in pieces; `pattern` says which groups there are.
///
/// # Errors
/// [`RewriteFault`].
pub fn rewrite_pieces(replace: &str, pattern: &Regex) -> Result<Vec<Piece>, RewriteFault> {
    check_replacement(replace)?;
    let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), replace);
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let name = if let Some(behind) = after.strip_prefix('$') {
            text.push('$');
            rest = behind;
            continue;
        } else if let Some((name, behind)) = after.strip_prefix('{').and_then(|open| open.split_once('}')) {
            rest = behind;
            name
        } else if digits > 0 {
            rest = &after[digits..];
            &after[..digits]
        } else {
            return Err(RewriteFault::Dollar);
        };
        let group = group(name, pattern).ok_or_else(|| RewriteFault::Group(name.to_owned()))?;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Group(group));
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// A replacement by itself: its size and its characters.
///
/// # Errors
/// [`RewriteFault::Character`].
pub fn check_replacement(replace: &str) -> Result<(), RewriteFault> {
    let fits = |byte: u8| (0x21..0x7f).contains(&byte) && !b"?#\\\"<>".contains(&byte);
    if replace.len() <= REWRITE_BYTES_MAX && replace.bytes().all(fits) {
        Ok(())
    } else {
        Err(RewriteFault::Character)
    }
}

fn group(name: &str, pattern: &Regex) -> Option<usize> {
    match name.parse::<usize>() {
        Ok(number) => (number < pattern.captures_len()).then_some(number),
        Err(_) => pattern.capture_names().position(|known| known == Some(name)),
    }
}

/// Whether a text is an origin as browsers send it: `scheme://host[:port]` in lower case, without the scheme's
/// usual port. `null` stands for pages without an origin, which anybody can make, and is none.
pub fn is_origin(text: &str) -> bool {
    let Some((scheme, place)) = text.split_once("://") else { return false };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !place.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let usual = matches!((scheme, port), ("http", Some("80")) | ("https", Some("443")));
    let name = |host: &str| {
        host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
    };
    let v6 = |host: &str| {
        host.strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok_and(|known| known.to_string() == ip))
    };
    let scheme_ok = scheme.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let port_ok = |port: &str| {
        !port.is_empty()
            && !port.starts_with('0')
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok()
    };
    text.len() <= 320
        && scheme_ok
        && !host.is_empty()
        && (name(host) || v6(host))
        && !usual
        && port.is_none_or(port_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for good in ["https://a.example", "http://127.0.0.1:8080", "http://[::1]:3000", "app://desk"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "*",
            "null",
            "a.example",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "http://a.example:80",
            "https://a:b@c",
            "https://a.example:99999",
            "https://a.example:+8",
            "https://[x]",
            "https://[0:0:0:0:0:0:0:1]",
            "HTTPS://a.example",
            "https://a.example:",
            "https://a.example:080",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn replacements_are_read_into_pieces() {
        let pattern = rewrite_pattern("^/(?P<kind>[a-z]+)/([0-9]+)").expect("a pattern");
        let text = |text: &str| Piece::Text(text.to_owned());
        for (replace, pieces) in [
            ("", vec![]),
            ("/$2/x", vec![text("/"), Piece::Group(2), text("/x")]),
            ("/${kind}s", vec![text("/"), Piece::Group(1), text("s")]),
            ("$0", vec![Piece::Group(0)]),
            ("/$$5", vec![text("/$5")]),
        ] {
            assert_eq!(rewrite_pieces(replace, &pattern), Ok(pieces), "{replace}");
        }
        for (replace, fault) in [
            ("/$3", RewriteFault::Group("3".into())),
            ("/${name}", RewriteFault::Group("name".into())),
            ("/$x", RewriteFault::Dollar),
            ("/$", RewriteFault::Dollar),
            ("/${1", RewriteFault::Dollar),
            ("/a?b=$1", RewriteFault::Character),
            ("/a b", RewriteFault::Character),
        ] {
            assert_eq!(rewrite_pieces(replace, &pattern), Err(fault), "{replace}");
        }
    }

    #[test]
    fn patterns_are_bounded() {
        assert_eq!(rewrite_pattern(&"a".repeat(513)).err(), Some(RewriteFault::Long));
        assert_eq!(rewrite_pattern("([a-z]{1000}){1000}").err(), Some(RewriteFault::Large));
        let deep = format!("{}a{}", "(".repeat(60), ")".repeat(60));
        assert!(matches!(rewrite_pattern(&deep), Err(RewriteFault::Pattern(_))));
        assert!(
            matches!(rewrite_pattern("(a"), Err(RewriteFault::Pattern(what)) if what == "unclosed group")
        );
    }
}
