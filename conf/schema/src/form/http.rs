//! Methods, headers, paths, and the words made of them.

use std::time::Duration;

use crate::code::Code;
use crate::kind::{Text, Wrong, did_you_mean, parse_duration, show_duration};
use crate::model::{HashOn, Hedge, METHODS, RateKey, RetryCause};
use crate::report::quote;

/// A method a service can be matched by.
pub(crate) const METHOD: Text<String> = Text {
    what: "a method",
    code: Code::Method,
    parse: parse_method,
    show: Clone::clone,
    pattern: "^(GET|POST|PUT|PATCH|DELETE|OPTIONS)$",
};

/// The name of a header an operator may change; lower case.
pub(crate) const HEADER_NAME: Text<String> = Text {
    what: "a header name",
    code: Code::Header,
    parse: parse_header_name,
    show: Clone::clone,
    pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$",
};

/// The value of a header. It may be a secret, so no message quotes it.
pub(crate) const HEADER_VALUE: Text<String> = Text {
    what: "the value of a header",
    code: Code::Header,
    parse: parse_header_value,
    show: Clone::clone,
    pattern: r"^[\t\x20-\x7e]{0,4096}$",
};

/// The name of a header a service can be matched by; lower case.
pub(crate) const MATCH_NAME: Text<String> = Text { parse: parse_match_name, ..HEADER_NAME };

/// What such a header must be. It may be a secret, so no message quotes it.
pub(crate) const MATCH_VALUE: Text<String> = Text {
    what: "the value of a header, or \"*\"",
    code: Code::Header,
    parse: parse_match_value,
    show: Clone::clone,
    pattern: r"^[\x21-\x7e]([\x20-\x7e]{0,254}[\x21-\x7e])?$",
};

/// The name of the header with a request's symbols; lower case.
pub(crate) const SYMBOL_HEADER: Text<String> = Text { parse: parse_symbol_header, ..HEADER_NAME };

/// The path of a health probe.
pub(crate) const HEALTH_PATH: Text<String> = Text {
    what: "a path such as \"/health\"",
    code: Code::Path,
    parse: parse_health_path,
    show: Clone::clone,
    pattern: r"^/[\x21\x24-\x3b\x3d\x40-\x5b\x5d-\x7e]{0,255}$",
};

/// Who shares a bucket.
pub(crate) const RATE_KEY: Text<RateKey> = Text {
    what: "one of `client`, `ip`, `service`, `sub`, `header:NAME`",
    code: Code::Word,
    parse: parse_rate_key,
    show: show_rate_key,
    pattern: "^(client|ip|service|sub|header:.+)$",
};

/// What a request is placed by.
pub(crate) const HASH_ON: Text<HashOn> = Text {
    what: "one of `sub`, `ip`, `header:NAME`",
    code: Code::Word,
    parse: parse_hash_on,
    show: HashOn::word,
    pattern: "^(sub|ip|header:.+)$",
};

/// What is tried again.
pub(crate) const RETRY_CAUSE: Text<RetryCause> = Text {
    what: "one of \"connect\", \"reset\" or a status such as \"503\"",
    code: Code::Word,
    parse: parse_retry_cause,
    show: |cause| show_retry_cause(*cause),
    pattern: "^(connect|reset|5[0-9][0-9])$",
};

/// When a reader's silent first try gets a second one.
pub(crate) const HEDGE: Text<Hedge> = Text {
    what: "\"off\", \"p95\" or a duration such as \"50ms\"",
    code: Code::Word,
    parse: parse_hedge,
    show: show_hedge,
    pattern: "^(off|p95|[0-9].*)$",
};

/// Headers that frame a message, or say who the caller is; Sluice alone writes them.
const OWNED: [&str; 18] = [
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-roles",
    "x-permissions",
    "x-account",
    "x-tenant",
    "x-auth-method",
    "x-request-id",
];
const OWNED_STARTS: [&str; 4] = ["x-user", "x-internal-", "x-client-cert", "x-forwarded-"];

fn parse_method(text: &str) -> Result<String, Wrong> {
    if METHODS.contains(&text) {
        return Ok(text.to_owned());
    }
    if text == "HEAD" {
        return Err(Wrong::new("HEAD goes with GET and is not named by itself").help("did you mean `GET`?"));
    }
    let wrong = Wrong::new(format!("{} is not a method a service can be matched by", quote(text)));
    Err(match did_you_mean(text, METHODS) {
        Some(help) => wrong.help(help),
        None => wrong.help(format!("this key takes {}", METHODS.join(", "))),
    })
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn parse_header_name(text: &str) -> Result<String, Wrong> {
    let name = text.to_ascii_lowercase();
    if !is_token(&name) {
        return Err(Wrong::new(format!("{} is not a header name", quote(text))));
    }
    if is_owned(&name) {
        return Err(Wrong::new(format!("the header {} is Sluice's own and cannot be changed", quote(text))));
    }
    Ok(name)
}

/// Headers that say who the caller is are not there when a request is routed.
fn parse_match_name(text: &str) -> Result<String, Wrong> {
    let name = text.to_ascii_lowercase();
    if name == "host" {
        return Err(Wrong::new("a service is matched by its host through `hosts`")
            .help("write hosts = [\"api.example.com\"]"));
    }
    if is_token(&name) && is_owned(&name) {
        return Err(Wrong::new(format!("the header {} is Sluice's own and cannot be matched", quote(text))));
    }
    parse_header_name(text)
}

/// Names with `_` do not reach an upstream, which must see the same symbols.
fn parse_symbol_header(text: &str) -> Result<String, Wrong> {
    let name = text.to_ascii_lowercase();
    if is_token(&name) && (is_owned(&name) || name == "host") {
        return Err(Wrong::new(format!("the header {} names no symbol", quote(text))));
    }
    if name.contains('_') {
        let wrong = Wrong::new(format!("the header {} does not reach a service", quote(text)));
        return Err(wrong.help(format!("write \"{}\"", name.replace('_', "-"))));
    }
    parse_header_name(text)
}

fn parse_match_value(text: &str) -> Result<String, Wrong> {
    let inside = (1..=256).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if inside && text.trim() == text {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("a header is matched by 1 to 256 printable ASCII characters without spaces at the ends")
        .help("write \"*\" for any value"))
}

fn is_owned(name: &str) -> bool {
    // Many servers read `_` as `-`.
    let name = name.replace('_', "-");
    OWNED.contains(&name.as_str()) || OWNED_STARTS.iter().any(|start| name.starts_with(start))
}

fn parse_header_value(text: &str) -> Result<String, Wrong> {
    if text.len() <= 4096 && text.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new("the value of a header is at most 4096 printable ASCII characters"))
}

fn parse_health_path(text: &str) -> Result<String, Wrong> {
    let odd = |byte: u8| !(0x21..0x7f).contains(&byte) || b"?#\"<>\\".contains(&byte);
    if text.starts_with('/') && text.len() <= 256 && !text.bytes().any(odd) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not a path", quote(text)))
        .help("write an absolute path without query, such as \"/health\""))
}

fn parse_rate_key(text: &str) -> Result<RateKey, Wrong> {
    match text {
        "client" => Ok(RateKey::Client),
        "ip" => Ok(RateKey::Ip),
        "service" => Ok(RateKey::Service),
        "sub" => Ok(RateKey::Subject),
        _ => match text.strip_prefix("header:") {
            Some(name) if is_token(name) => Ok(RateKey::Header(name.to_ascii_lowercase())),
            Some(name) => Err(Wrong::new(format!("{} is not a header name", quote(name))).code(Code::Header)),
            None => {
                let wrong =
                    Wrong::new(format!("{} is none of {}", quote(text), &RATE_KEY.what["one of ".len()..]));
                Err(match did_you_mean(text, ["client", "ip", "service", "sub"]) {
                    Some(help) => wrong.help(help),
                    None => wrong,
                })
            }
        },
    }
}

fn parse_hash_on(text: &str) -> Result<HashOn, Wrong> {
    match text {
        "sub" => Ok(HashOn::Subject),
        "ip" => Ok(HashOn::Ip),
        _ => match text.strip_prefix("header:") {
            Some(name) if is_token(name) => Ok(HashOn::Header(name.to_ascii_lowercase())),
            Some(name) => Err(Wrong::new(format!("{} is not a header name", quote(name))).code(Code::Header)),
            None => {
                let wrong =
                    Wrong::new(format!("{} is none of {}", quote(text), &HASH_ON.what["one of ".len()..]));
                Err(match did_you_mean(text, ["sub", "ip"]) {
                    Some(help) => wrong.help(help),
                    None => wrong,
                })
            }
        },
    }
}

fn show_rate_key(key: &RateKey) -> String {
    match key {
        RateKey::Client => "client".to_owned(),
        RateKey::Ip => "ip".to_owned(),
        RateKey::Service => "service".to_owned(),
        RateKey::Subject => "sub".to_owned(),
        RateKey::Header(name) => format!("header:{name}"),
    }
}

fn parse_retry_cause(text: &str) -> Result<RetryCause, Wrong> {
    match text {
        "connect" => Ok(RetryCause::Connect),
        "reset" => Ok(RetryCause::Reset),
        _ => match text.parse() {
            Ok(status @ 500..=599) if text.len() == 3 => Ok(RetryCause::Status(status)),
            _ => {
                let wrong = Wrong::new(format!("{} cannot be tried again", quote(text)));
                Err(wrong.help("this list takes \"connect\", \"reset\" and statuses from \"500\" to \"599\""))
            }
        },
    }
}

fn show_retry_cause(cause: RetryCause) -> String {
    match cause {
        RetryCause::Connect => "connect".to_owned(),
        RetryCause::Reset => "reset".to_owned(),
        RetryCause::Status(status) => status.to_string(),
    }
}

fn parse_hedge(text: &str) -> Result<Hedge, Wrong> {
    let bounds = Duration::from_millis(1)..=Duration::from_secs(3600);
    match text {
        "off" => Ok(Hedge::Off),
        "p95" => Ok(Hedge::P95),
        _ => match parse_duration(text) {
            Some(after) if bounds.contains(&after) => Ok(Hedge::After(after)),
            Some(_) => Err(Wrong::new("the duration must be from 1ms to 1h").code(Code::Duration)),
            None => {
                let wrong = Wrong::new(format!("{} is not {}", quote(text), HEDGE.what));
                Err(match did_you_mean(text, ["off", "p95"]) {
                    Some(help) => wrong.help(help),
                    None => wrong,
                })
            }
        },
    }
}

fn show_hedge(hedge: &Hedge) -> String {
    match hedge {
        Hedge::Off => "off".to_owned(),
        Hedge::P95 => "p95".to_owned(),
        Hedge::After(after) => show_duration(*after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_who_the_caller_is_can_be_neither_set_nor_matched() {
        for name in [
            "X-User",
            "x-user-id",
            "x-account",
            "x-permissions",
            "x-forwarded-for",
            "x_user",
            "X-Internal_Key",
        ] {
            assert!(parse_header_name(name).is_err(), "{name}");
            assert!(parse_match_name(name).is_err(), "{name}");
        }
        assert_eq!(parse_header_name("X-Desk").expect("an operator's own"), "x-desk");
    }
}
