//! Names of servers and files of certificates.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::code::Code;
use crate::kind::{Text, Wrong};
use crate::model::{Authority, is_host};
use crate::report::quote;

/// LIMIT: a path in bytes: what the kernel takes.
const PATH_BYTES: usize = 4096;

/// The name of a TLS server: what its certificate must carry.
pub(crate) const SERVER_NAME: Text<String> = Text {
    what: "the name of a server such as \"orders.example.com\"",
    code: Code::Host,
    parse: parse_server_name,
    show: Clone::clone,
    pattern: r"^[A-Za-z0-9_.:-]{0,253}$",
};

/// A name in the automatic certificate; `*.` may stand for one label.
pub(crate) const TLS_NAME: Text<String> = Text {
    what: "a DNS name or an IP address",
    parse: parse_tls_name,
    pattern: r"^(\*\.)?[A-Za-z0-9_.:-]{1,253}$",
    ..SERVER_NAME
};

/// Who signs the certificates of the other side.
pub(crate) const AUTHORITY: Text<Authority> = Text {
    what: "\"auto\" or the path of a PEM file",
    code: Code::Path,
    parse: |text| match text {
        "auto" => Ok(Authority::Auto),
        _ => parse_file(text).map(Authority::File),
    },
    show: |authority| match authority {
        Authority::Auto => "auto".to_owned(),
        Authority::File(path) => path.display().to_string(),
    },
    pattern: "^.+$",
};

/// The path of a PEM file.
pub(crate) const CERTIFICATE_FILE: Text<PathBuf> = Text {
    what: "the path of a PEM file",
    code: Code::Path,
    parse: parse_file,
    show: |path| path.display().to_string(),
    pattern: "^.+$",
};

/// Empty where the service has no `https` instance.
fn parse_server_name(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Ok(String::new()) } else { parse_name(text) }
}

fn parse_tls_name(text: &str) -> Result<String, Wrong> {
    match text.strip_prefix("*.") {
        Some(domain) if domain.parse::<IpAddr>().is_err() => {
            parse_name(domain).map(|domain| format!("*.{domain}"))
        }
        _ => parse_name(text),
    }
}

fn parse_name(text: &str) -> Result<String, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = text.to_ascii_lowercase();
    if is_host(&name) {
        return Ok(name);
    }
    let wrong = Wrong::new(format!("{} is no name a certificate can carry", quote(text)));
    Err(match text.rsplit_once(':') {
        Some((bare, port)) if port.parse::<u16>().is_ok() => {
            wrong.help(format!("write it without the port: {}", quote(bare)))
        }
        _ => wrong.help("write a DNS name such as \"orders.example.com\", or an IP address"),
    })
}

fn parse_file(text: &str) -> Result<PathBuf, Wrong> {
    // PEM is written into the configuration by mistake; no message repeats a private key.
    if text.contains("-----BEGIN") {
        return Err(Wrong::new("a certificate or key is not written here, only where it is")
            .help("put it in a file and write the path"));
    }
    if text.is_empty() || text.len() > PATH_BYTES || text.contains(char::is_control) {
        return Err(Wrong::new("this is not the path of a file"));
    }
    Ok(PathBuf::from(text))
}
