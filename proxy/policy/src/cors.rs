//! Which web pages may call a service.
//!
//! Purpose: browsers keep pages of one origin from reading answers of another unless the answer says so.
//!
//! Exact conditions: an origin is allowed when it is listed, byte by byte, or when `*` is. A preflight of an
//! allowed origin is answered by the edge: the methods of the route, the fields it asks for, for ten
//! minutes. To a page of another origin nothing is said, and its browser refuses by itself; the request is
//! not treated otherwise, since whoever is no browser can write any origin. `credentials` lets pages send cookies
//! and tokens of the browser; together with `*` it would open a service to every page that anybody visits,
//! so that is an error. What an upstream says on the matter is dropped: one voice.
//!
//! Answers depend on the origin wherever origins are listed, and say so with `Vary`, or a cache would give one
//! page the leave of another.

/// LIMIT: bytes of the list of fields that a preflight asks for.
pub const FIELDS_BYTES_MAX: usize = 1024;
/// For how long browsers may remember a preflight, in seconds.
pub const MAX_AGE_S: u32 = 600;

/// Origins of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<String>,
    any: bool,
    credentials: bool,
}

/// The rules contradict themselves or say nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorsFault {
    /// Not of the form `scheme://host[:port]`.
    #[error("`{0}` is no origin: write scheme://host, with the port where it is not the usual one")]
    Origin(String),
    /// `*` together with credentials.
    #[error("`*` with credentials would open the service to every page on the web: list the origins")]
    AnyWithCredentials,
}

/// What an answer to an allowed page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed<'a> {
    /// `Access-Control-Allow-Origin`.
    pub origin: &'a str,
    /// Whether `Access-Control-Allow-Credentials: true` is said.
    pub credentials: bool,
}

impl Cors {
    /// The rules of a service.
    pub fn new(origins: &[String], credentials: bool) -> Result<Self, CorsFault> {
        let any = origins.iter().any(|origin| origin == "*");
        if any && credentials {
            return Err(CorsFault::AnyWithCredentials);
        }
        let bad = |origin: &&String| *origin != "*" && !is_origin(origin);
        match origins.iter().find(bad) {
            Some(origin) => Err(CorsFault::Origin(origin.clone())),
            None => Ok(Self { origins: origins.to_vec(), any, credentials }),
        }
    }

    /// Whether the service has rules at all.
    pub fn is_on(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Whether answers differ by origin.
    pub fn varies(&self) -> bool {
        self.is_on() && !self.any
    }

    /// What a page of this origin is told; `None`: nothing.
    pub fn allowed(&self, origin: &[u8]) -> Option<Allowed<'_>> {
        if self.any {
            return Some(Allowed { origin: "*", credentials: false });
        }
        let listed = self.origins.iter().find(|listed| listed.as_bytes() == origin)?;
        Some(Allowed { origin: listed, credentials: self.credentials })
    }
}

/// The fields that a preflight asks for, as they may be given back: field names in a list, not too long.
pub fn asked_fields(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= FIELDS_BYTES_MAX)?;
    let is_name = |name: &str| {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(token)
    };
    text.split(',').all(|name| is_name(name.trim_matches([' ', '\t']))).then_some(text)
}

/// `scheme://host[:port]` in lower case, as browsers write it; `null` stands for pages without an origin, which
/// anybody can make, and is none.
fn is_origin(text: &str) -> bool {
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
            .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let scheme_ok = scheme.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    scheme_ok
        && !host.is_empty()
        && (name(host) || v6(host))
        && !usual
        && port.is_none_or(|port| !port.starts_with('0') && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Result<Cors, CorsFault> {
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Cors::new(&origins, credentials)
    }

    #[test]
    fn listed_origins_are_named_and_others_hear_nothing() {
        let rules = cors(&["https://desk.example", "http://localhost:3000"], true).unwrap();
        let desk = Allowed { origin: "https://desk.example", credentials: true };
        assert_eq!(rules.allowed(b"https://desk.example"), Some(desk));
        for other in ["https://desk.example.evil", "https://DESK.example", "http://desk.example", "null", ""]
        {
            assert_eq!(rules.allowed(other.as_bytes()), None, "{other}");
        }
        assert!(rules.varies() && rules.is_on() && !Cors::default().is_on());
    }

    #[test]
    fn any_origin_comes_without_credentials() {
        let rules = cors(&["*"], false).unwrap();
        assert_eq!(rules.allowed(b"null"), Some(Allowed { origin: "*", credentials: false }));
        assert!(!rules.varies());
        assert_eq!(cors(&["*"], true), Err(CorsFault::AnyWithCredentials));
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for good in ["https://a.example", "http://127.0.0.1:8080", "http://[::1]:3000", "app://desk"] {
            assert!(cors(&[good], true).is_ok(), "{good}");
        }
        for bad in [
            "null",
            "a.example",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "http://a.example:80",
            "https://a:b@c",
            "https://a.example:99999",
            "https://[x]",
            "HTTPS://a.example",
            "https://a.example:",
            "https://a.example:080",
        ] {
            assert_eq!(cors(&[bad], true), Err(CorsFault::Origin(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn asked_fields_are_names_in_a_list() {
        assert_eq!(asked_fields(b"content-type, x-symbol"), Some("content-type, x-symbol"));
        for bad in [&b""[..], b"a,,b", b"a b", b"a\r\nx: y", b"\xff", &[b'a'; FIELDS_BYTES_MAX + 1]] {
            assert_eq!(asked_fields(bad), None, "{bad:?}");
        }
    }
}
