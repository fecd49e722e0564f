//! Values with a form of their own: secrets and instance addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// Bytes nobody may print. `Debug` shows the length alone; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes as they are.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that uses them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Protocol of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in clear text.
    Http,
    /// TLS; HTTP/2 or HTTP/1.1, whichever the instance chooses.
    Https,
    /// HTTP/2 in clear text.
    H2c,
    /// HTTP/1.1 over a Unix socket.
    Unix,
}

impl Scheme {
    /// The word before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::Unix => "unix",
        }
    }
}

/// Address of an instance: scheme, host and port (or the path of a Unix socket), nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceUrl {
    /// Its protocol.
    pub scheme: Scheme,
    /// Lower-case DNS name or IP address, IPv6 without brackets; empty for a Unix socket.
    pub host: String,
    /// Its port, never 0; 0 for a Unix socket.
    pub port: u16,
    /// Absolute path of the Unix socket, at most [`UNIX_PATH_BYTES_MAX`]; empty for the other schemes.
    pub path: String,
}

/// LIMIT: bytes of a Unix socket's path: what every kernel takes, less a margin.
pub const UNIX_PATH_BYTES_MAX: usize = 100;

/// Why a text is no instance address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// No `scheme:`.
    #[error("an instance address starts with `http://`, `https://`, `h2c://` or `unix:/`")]
    NoScheme,
    /// A scheme no instance has.
    #[error("`{0}` is not a scheme of an instance; use `http`, `https`, `h2c` or `unix`")]
    UnknownScheme(String),
    /// A scheme that only files may name.
    #[error("`{0}` instances come from the configuration alone")]
    FilesOnly(&'static str),
    /// No absolute path after `unix:`, or one no kernel takes.
    #[error("`unix:` is followed by an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes")]
    BadSocketPath,
    /// `user:password@`.
    #[error("an instance address carries no user name or password")]
    Credentials,
    /// A path, query or fragment.
    #[error("an instance address ends after the port: no path, query or fragment")]
    NotBare,
    /// No DNS name and no IP address.
    #[error("the host of an instance is a DNS name or an IP address")]
    BadHost,
    /// Not 1 to 65535.
    #[error("the port of an instance is a number from 1 to 65535")]
    BadPort,
}

impl InstanceUrl {
    /// No address yet: what stands in place of one that is missing or malformed.
    pub(crate) fn nowhere() -> Self {
        Self { scheme: Scheme::Http, host: String::new(), port: 0, path: String::new() }
    }

    /// True for what stands in place of an address.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.host.is_empty() && self.path.is_empty()
    }

    /// `host:port`, IPv6 in brackets: what a connect call and a `Host` header want; `localhost` for a
    /// Unix socket.
    pub fn authority(&self) -> String {
        if self.scheme == Scheme::Unix {
            "localhost".to_owned()
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address where the host is one already; `None` where it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for InstanceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::Unix => write!(f, "unix:{}", self.path),
            scheme => write!(f, "{}://{}", scheme.as_str(), self.authority()),
        }
    }
}

impl FromStr for InstanceUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(UrlError::NoScheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "h2c" => Scheme::H2c,
            "unix" => return unix_socket(rest),
            other if rest.starts_with("//") => {
                return Err(UrlError::UnknownScheme(other.chars().take(16).collect()));
            }
            _ => return Err(UrlError::NoScheme),
        };
        let rest = rest.strip_prefix("//").ok_or(UrlError::NoScheme)?;
        if rest.contains('@') {
            return Err(UrlError::Credentials);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(UrlError::NotBare);
        }
        let (host, port) = split_authority(rest, if scheme == Scheme::Https { 443 } else { 80 })?;
        Ok(Self { scheme, host, port, path: String::new() })
    }
}

fn unix_socket(path: &str) -> Result<InstanceUrl, UrlError> {
    let plain = path.starts_with('/') && !path.starts_with("//") && path.len() > 1;
    if !plain || path.len() > UNIX_PATH_BYTES_MAX || path.contains(char::is_control) {
        return Err(UrlError::BadSocketPath);
    }
    Ok(InstanceUrl { scheme: Scheme::Unix, host: String::new(), port: 0, path: path.to_owned() })
}

fn split_authority(text: &str, default_port: u16) -> Result<(String, u16), UrlError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(UrlError::BadHost)?;
        let host: std::net::Ipv6Addr = host.parse().map_err(|_| UrlError::BadHost)?;
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':').ok_or(UrlError::BadPort)?),
        };
        return Ok((host.to_string(), parse_port(port, default_port)?));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.to_ascii_lowercase();
    if !is_host(&host) {
        return Err(UrlError::BadHost);
    }
    Ok((host, parse_port(port, default_port)?))
}

fn parse_port(text: Option<&str>, default: u16) -> Result<u16, UrlError> {
    let Some(text) = text else { return Ok(default) };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::BadPort);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(UrlError::BadPort),
        Ok(port) => Ok(port),
    }
}

/// True for an IPv4 address and for a lower-case DNS name. A name whose last label is a number, `0x7f` too, is
/// no name: resolvers read it as an address that is written another way.
pub(crate) fn is_host(text: &str) -> bool {
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    (1..=253).contains(&text.len())
        && text.split('.').all(label)
        && text.rsplit('.').next().is_some_and(|last| !is_number(last))
}

fn is_number(label: &str) -> bool {
    let hexadecimal =
        label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    hexadecimal || label.bytes().all(|b| b.is_ascii_digit())
}
