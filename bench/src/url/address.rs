//! A URL that is asked: where it leads, and what is written into the request.

use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, bail, ensure};
use http::Uri;

/// LIMIT: bytes of a URL.
const URL_BYTES_MAX: usize = 8 * 1024;

/// One URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As it was given.
    pub text: String,
    pub secure: bool,
    /// `ws` or `wss`: its connection is upgraded.
    pub upgraded: bool,
    pub host: String,
    pub port: u16,
    /// Host and port as the request's `Host` has them.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Address {
    /// Reads a URL of `http`, `https`, `ws` or `wss`.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        ensure!(text.len() <= URL_BYTES_MAX, "the URL has more than {URL_BYTES_MAX} bytes");
        let uri: Uri = text.parse().with_context(|| format!("`{text}` is no URL"))?;
        let (secure, upgraded) = match uri.scheme_str() {
            Some("http") => (false, false),
            Some("https") => (true, false),
            Some("ws") => (false, true),
            Some("wss") => (true, true),
            _ => bail!("`{text}`: begin with http://, https://, ws:// or wss://"),
        };
        let authority = uri.authority().context("no host")?;
        ensure!(
            !authority.as_str().contains('@'),
            "`{text}`: credentials go into a header, not into the URL"
        );
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            text: text.to_owned(),
            secure,
            upgraded,
            host,
            port,
            authority: authority.as_str().to_owned(),
            path: if path.is_empty() { "/".into() } else { path.to_owned() },
        })
    }

    /// The first address that its host has.
    pub(super) fn resolve(&self) -> anyhow::Result<SocketAddr> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found = found.with_context(|| format!("look up `{}`", self.host))?.next();
        found.with_context(|| format!("`{}` has no address", self.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let found = Address::parse("http://127.0.0.1:8080/a?b=c").unwrap();
        assert_eq!((found.host.as_str(), found.port, found.path.as_str()), ("127.0.0.1", 8080, "/a?b=c"));
        assert_eq!(
            (found.secure, found.upgraded, found.authority.as_str()),
            (false, false, "127.0.0.1:8080")
        );
        assert_eq!(found.resolve().unwrap().to_string(), "127.0.0.1:8080");
        let found = Address::parse("wss://[::1]").unwrap();
        assert_eq!((found.host.as_str(), found.port, found.path.as_str()), ("::1", 443, "/"));
        assert!(found.secure && found.upgraded);
        assert_eq!(Address::parse("https://h").unwrap().port, 443);
    }

    #[test]
    fn what_is_no_url_is_said() {
        for bad in [
            "",
            "host:80",
            "ftp://h/",
            "http://",
            "/path",
            "http://u:p@h/",
            &format!("http://h/{}", "x".repeat(9000)),
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
