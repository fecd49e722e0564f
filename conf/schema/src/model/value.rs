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
}

/// Address of an instance: scheme, host and port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceUrl {
    /// Its protocol.
    pub scheme: Scheme,
    /// Lower-case DNS name or IP address, IPv6 without brackets.
    pub host: String,
    /// Its port, never 0.
    pub port: u16,
}

/// Why a text is no instance address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// No `scheme://`.
    #[error("an instance address starts with `http://`")]
    NoScheme,
    /// A scheme the contract names and this version lacks.
    #[error("`{0}` instances are not implemented in this version; use `http://`")]
    PlannedScheme(String),
    /// Any other scheme.
    #[error("`{0}` is not a scheme of an instance; use `http://`")]
    UnknownScheme(String),
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
    /// `host:port`, IPv6 in brackets: what a connect call and a `Host` header want.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
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
            Scheme::Http => write!(f, "http://{}", self.authority()),
        }
    }
}

impl FromStr for InstanceUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(UrlError::NoScheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            planned @ ("https" | "h2c" | "unix") => return Err(UrlError::PlannedScheme(planned.to_owned())),
            other if rest.starts_with("//") => {
                return Err(UrlError::UnknownScheme(other.chars().take(16).collect()));
            }
            _ => return Err(UrlError::NoScheme),
        }
        let rest = rest.strip_prefix("//").ok_or(UrlError::NoScheme)?;
        if rest.contains('@') {
            return Err(UrlError::Credentials);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '\\']) {
            return Err(UrlError::NotBare);
        }
        let (host, port) = split_authority(rest)?;
        Ok(Self { scheme: Scheme::Http, host, port })
    }
}

fn split_authority(text: &str) -> Result<(String, u16), UrlError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(UrlError::BadHost)?;
        let host: std::net::Ipv6Addr = host.parse().map_err(|_| UrlError::BadHost)?;
        let port = match port {
            "" => None,
            _ => Some(port.strip_prefix(':').ok_or(UrlError::BadPort)?),
        };
        return Ok((host.to_string(), parse_port(port)?));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.to_ascii_lowercase();
    if !is_host(&host) {
        return Err(UrlError::BadHost);
    }
    Ok((host, parse_port(port)?))
}

/// Port 80 where none is written.
fn parse_port(text: Option<&str>) -> Result<u16, UrlError> {
    let Some(text) = text else { return Ok(80) };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::BadPort);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(UrlError::BadPort),
        Ok(port) => Ok(port),
    }
}

/// True for an IPv4 address and for a lower-case DNS name; a name of digits and dots alone must be an address.
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
        && text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}
