//! Values of the workers' sections, of logs and of secrets.

use std::path::PathBuf;
use std::time::Duration;

use crate::code::Code;
use crate::kind::{Text, Wrong, did_you_mean, parse_duration, show_duration};
use crate::model::{AccessLog, Fsync, Seal, is_host};
use crate::report::quote;
use sluice_wire::symbol::Timeframe;

/// Where a secret is: a reference, never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretRef {
    /// `env:NAME`.
    Env(String),
    /// `file:PATH`.
    File(PathBuf),
    /// Read already; what is shown in place of it.
    Set,
}

/// A reference to a secret. No message quotes the text: it may be the secret itself.
pub(crate) const SECRET: Text<SecretRef> = Text {
    what: "a reference such as \"env:NAME\" or \"file:PATH\"",
    code: Code::SecretReference,
    parse: parse_secret,
    show: show_secret,
    pattern: "^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$",
};

/// The address of somebody who is told of alerts, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotifyUrl {
    /// As written.
    Plain(String),
    /// In a variable or a file.
    Reference(SecretRef),
}

/// The address of somebody who is told of alerts. No message quotes the text: it is mostly a secret.
pub(crate) const NOTIFY_URL: Text<NotifyUrl> = Text {
    what: "an address such as \"https://hooks.example.com/…\", \"env:NAME\" or \"file:PATH\"",
    code: Code::Url,
    parse: |text| {
        if text.starts_with("env:") || text.starts_with("file:") {
            return parse_secret(text)
                .map(NotifyUrl::Reference)
                .map_err(|wrong| wrong.code(Code::SecretReference));
        }
        Ok(NotifyUrl::Plain(text.to_owned()))
    },
    show: |url| match url {
        NotifyUrl::Plain(url) => url.clone(),
        NotifyUrl::Reference(reference) => show_secret(reference),
    },
    pattern: r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|(https?|smtps?)://[^\s]+)$",
};

/// Where the access log goes.
pub(crate) const ACCESS: Text<AccessLog> = Text {
    what: "one of \"stderr\", \"file:PATH\", \"off\"",
    code: Code::Word,
    parse: parse_access,
    show: show_access,
    pattern: "^(stderr|off|file:.+)$",
};

/// When a publish is acknowledged.
pub(crate) const FSYNC: Text<Fsync> = Text {
    what: "\"always\" or an interval such as \"interval:50ms\"",
    code: Code::Word,
    parse: parse_fsync,
    show: show_fsync,
    pattern: "^(always|interval:[0-9].*)$",
};

/// The path of a file or folder.
pub(crate) const PATH: Text<PathBuf> = Text {
    what: "a path",
    code: Code::Path,
    parse: parse_path,
    show: |path| path.display().to_string(),
    pattern: "^.+$",
};

/// How the vault opens.
pub(crate) const SEAL: Text<Seal> = Text {
    what: "\"auto\", \"shamir\" or \"file:PATH\"",
    code: Code::Word,
    parse: parse_seal,
    show: show_seal,
    pattern: "^(auto|shamir|file:.+)$",
};

/// Where an engine is mounted.
pub(crate) const MOUNT: Text<String> = Text {
    what: "where an engine is mounted, such as \"secret\"",
    code: Code::Name,
    parse: parse_mount,
    show: Clone::clone,
    pattern: "^[A-Za-z0-9_-]+([./]?[A-Za-z0-9_-]+)*$",
};

/// The name of a stream.
pub(crate) const STREAM: Text<String> = Text {
    what: "the name of a stream",
    code: Code::Name,
    parse: parse_stream,
    show: Clone::clone,
    pattern: "^[A-Za-z0-9._-]{1,64}$",
};

/// The length of a candle.
pub(crate) const TIMEFRAME: Text<Timeframe> = Text {
    what: "a timeframe such as \"1m\"",
    code: Code::Name,
    parse: parse_timeframe,
    show: |timeframe| timeframe.as_str().to_owned(),
    pattern: "^[1-9][0-9]{0,8}[smhd]$",
};

/// The issuer of tokens.
pub(crate) const ISSUER: Text<String> = Text {
    what: "an issuer such as \"https://sluice.internal\"",
    code: Code::Name,
    parse: parse_issuer,
    show: Clone::clone,
    pattern: r"^https://[\x21-\x7e]{1,240}$",
};

/// An audience of tokens.
pub(crate) const AUDIENCE: Text<String> = Text {
    what: "an audience",
    code: Code::Name,
    parse: parse_audience,
    show: Clone::clone,
    pattern: r"^[\x21-\x7e]{1,128}$",
};

/// A SPIFFE trust domain.
pub(crate) const TRUST_DOMAIN: Text<String> = Text {
    what: "a trust domain such as \"sluice.internal\"",
    code: Code::Name,
    parse: parse_trust_domain,
    show: Clone::clone,
    pattern: r"^[a-z0-9._-]{1,253}$",
};

fn parse_secret(text: &str) -> Result<SecretRef, Wrong> {
    if let Some(name) = text.strip_prefix("env:") {
        let formed = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return if formed && name.len() <= 128 {
            Ok(SecretRef::Env(name.to_owned()))
        } else {
            Err(Wrong::new("`env:` is followed by the name of a variable: letters, digits and `_`"))
        };
    }
    match file(text) {
        Some(path) => Ok(SecretRef::File(path)),
        None => Err(Wrong::new("a secret is not written here, only where it is")
            .help("write \"env:NAME\" for a variable or \"file:PATH\" for a file")),
    }
}

fn show_secret(reference: &SecretRef) -> String {
    match reference {
        SecretRef::Env(name) => format!("env:{name}"),
        SecretRef::File(path) => format!("file:{}", path.display()),
        SecretRef::Set => "***".to_owned(),
    }
}

/// The path of `file:PATH`.
fn parse_path(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.len() > 4096 || text.contains(char::is_control) {
        return Err(Wrong::new("this is not a path"));
    }
    Ok(PathBuf::from(text))
}

fn file(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("file:")?;
    (!path.is_empty() && path.len() <= 4096 && !path.contains('\0')).then(|| PathBuf::from(path))
}

fn parse_access(text: &str) -> Result<AccessLog, Wrong> {
    match text {
        "stderr" => Ok(AccessLog::Stderr),
        "off" => Ok(AccessLog::Off),
        _ => file(text).map(AccessLog::File).ok_or_else(|| none_of(text, ACCESS.what, &["stderr", "off"])),
    }
}

fn show_access(access: &AccessLog) -> String {
    match access {
        AccessLog::Stderr => "stderr".to_owned(),
        AccessLog::Off => "off".to_owned(),
        AccessLog::File(path) => format!("file:{}", path.display()),
    }
}

fn parse_fsync(text: &str) -> Result<Fsync, Wrong> {
    if text == "always" {
        return Ok(Fsync::Always);
    }
    let Some(interval) = text.strip_prefix("interval:") else {
        return Err(none_of(text, FSYNC.what, &["always"]));
    };
    let bounds = Duration::from_millis(1)..=Duration::from_secs(60);
    match parse_duration(interval) {
        Some(interval) if bounds.contains(&interval) => Ok(Fsync::Interval(interval)),
        Some(_) => Err(Wrong::new("the interval must be from 1ms to 1m").code(Code::Duration)),
        None => Err(Wrong::new(format!("{} is not a duration", quote(interval))).code(Code::Duration)),
    }
}

fn show_fsync(fsync: &Fsync) -> String {
    match fsync {
        Fsync::Always => "always".to_owned(),
        Fsync::Interval(interval) => format!("interval:{}", show_duration(*interval)),
    }
}

fn parse_seal(text: &str) -> Result<Seal, Wrong> {
    match text {
        "auto" => Ok(Seal::Auto),
        "shamir" => Ok(Seal::Shamir),
        "vault" => {
            Err(Wrong::new("`vault` (a root key kept by another vault) is not implemented in this version")
                .code(Code::PlannedValue)
                .help("write \"shamir\", or \"file:PATH\" with a key file outside the data directory"))
        }
        _ => file(text).map(Seal::File).ok_or_else(|| none_of(text, SEAL.what, &["auto", "shamir"])),
    }
}

fn show_seal(seal: &Seal) -> String {
    match seal {
        Seal::Auto => "auto".to_owned(),
        Seal::Shamir => "shamir".to_owned(),
        Seal::File(path) => format!("file:{}", path.display()),
    }
}

fn parse_mount(text: &str) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let part = |part: &str| {
        !part.is_empty()
            && !part.contains("..")
            && !part.starts_with('.')
            && !part.ends_with('.')
            && part.bytes().all(plain)
    };
    if text.len() <= 128 && text.split('/').all(part) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not where an engine is mounted", quote(text)))
        .help("write names of letters, digits, `.`, `_` and `-`, joined by `/`, without one at either end"))
}

fn none_of(text: &str, what: &str, words: &[&str]) -> Wrong {
    let wrong = Wrong::new(format!("{} is not {what}", quote(text)));
    match did_you_mean(text, words.iter().copied()) {
        Some(help) => wrong.help(help),
        None => wrong,
    }
}

fn parse_stream(text: &str) -> Result<String, Wrong> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // `.` and `..` would be directories, since the log lies in a folder of the stream's name.
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not a stream name", quote(text)))
        .help("a stream's name has 1 to 64 letters, digits, `.`, `_` or `-`"))
}

fn printable(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

/// Candles of every length begin at midnight UTC.
fn parse_timeframe(text: &str) -> Result<Timeframe, Wrong> {
    const DAY_MS: u64 = 86_400_000;
    let timeframe = Timeframe::parse(text).ok().filter(|timeframe| DAY_MS.is_multiple_of(timeframe.millis()));
    timeframe.ok_or_else(|| {
        Wrong::new(format!("{} is not the length of a candle", quote(text)))
            .help("write a length that divides a day, such as \"1m\", \"15m\" or \"1d\"")
    })
}

fn parse_issuer(text: &str) -> Result<String, Wrong> {
    let host = text.strip_prefix("https://").map(|rest| rest.split(['/', ':']).next().unwrap_or(rest));
    if host.is_some_and(is_host) && printable(text, 248) && !text.contains(['?', '#', '"', '\\']) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not an issuer", quote(text)))
        .help("an issuer is an https URL without query, such as \"https://sluice.internal\""))
}

fn parse_audience(text: &str) -> Result<String, Wrong> {
    if printable(text, 128) && !text.contains(['"', '\\']) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not an audience", quote(text)))
        .help("an audience is a word, such as \"sluice\""))
}

fn parse_trust_domain(text: &str) -> Result<String, Wrong> {
    if is_host(text) && text.parse::<std::net::IpAddr>().is_err() {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is not a trust domain", quote(text)))
        .help("a trust domain is a lower-case DNS name, such as \"sluice.internal\""))
}
