//! Origins, patterns of rewrites, fixed answers, mirrors.

use crate::code::Code;
use crate::form::SERVICE_NAME;
use crate::kind::{Text, Wrong};
use crate::model::{FALLBACK_BYTES_MAX, check_replacement, is_origin, rewrite_pattern};
use crate::report::quote;

/// An origin that may call a service, or `*`.
pub(crate) const ORIGIN: Text<String> = Text {
    what: "an origin such as \"https://desk.example.com\"",
    code: Code::Origin,
    parse: parse_origin,
    show: Clone::clone,
    pattern: r"^(\*|[a-z][a-z0-9+.-]*://[^/?#@\s]+)$",
};

/// What a rewrite matches.
pub(crate) const PATTERN: Text<String> = Text {
    what: "a regular expression",
    code: Code::Pattern,
    parse: parse_pattern,
    show: Clone::clone,
    pattern: "^.{0,512}$",
};

/// What takes its place.
pub(crate) const REPLACEMENT: Text<String> = Text {
    what: "a path with groups such as \"/v2/$1\"",
    code: Code::Pattern,
    parse: parse_replacement,
    show: Clone::clone,
    pattern: r#"^[^\s?#\\"<>]{0,512}$"#,
};

/// The body of a fixed answer.
pub(crate) const BODY: Text<String> = Text {
    what: "the body of an answer",
    code: Code::BadFallback,
    parse: parse_body,
    show: Clone::clone,
    pattern: r"^[\s\S]{0,16384}$",
};

/// The name of another service, or nothing.
pub(crate) const MIRROR: Text<String> = Text {
    what: "the name of a service",
    parse: |text| if text.is_empty() { Ok(String::new()) } else { (SERVICE_NAME.parse)(text) },
    pattern: "^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$",
    ..SERVICE_NAME
};

fn parse_body(text: &str) -> Result<String, Wrong> {
    if text.len() <= FALLBACK_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("the body of a fixed answer has at most {FALLBACK_BYTES_MAX} bytes")))
}

fn parse_origin(text: &str) -> Result<String, Wrong> {
    if text == "*" || is_origin(text) {
        return Ok(text.to_owned());
    }
    let lower = text.trim_end_matches('/').to_ascii_lowercase();
    let usual = [("http://", ":80"), ("https://", ":443")];
    let bare = usual
        .iter()
        .find_map(|(scheme, port)| lower.strip_suffix(port).filter(|rest| rest.starts_with(scheme)));
    let meant = bare.unwrap_or(&lower);
    let wrong = Wrong::new(format!("{} is not an origin as browsers send it", quote(text)));
    Err(if is_origin(meant) {
        wrong.help(format!("write {}", quote(meant)))
    } else {
        wrong.help("write scheme://host, with the port where it is not the usual one")
    })
}

fn parse_pattern(text: &str) -> Result<String, Wrong> {
    if text.is_empty() {
        return Ok(String::new());
    }
    rewrite_pattern(text).map(|_| text.to_owned()).map_err(|fault| Wrong::new(fault.to_string()))
}

fn parse_replacement(text: &str) -> Result<String, Wrong> {
    check_replacement(text).map(|()| text.to_owned()).map_err(|fault| Wrong::new(fault.to_string()))
}
