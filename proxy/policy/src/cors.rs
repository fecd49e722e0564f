//! Which web pages may call a service.
//!
//! Purpose: browsers keep pages of one origin from reading answers of another unless the answer says so.
//!
//! Exact conditions: an origin is allowed when it is listed, byte by byte, or when `*` is. A preflight is answered
//! by the edge before anything is asked of its caller, since browsers send no credential with it: the methods of
//! the route that would take the request, the fields it asks for, for ten minutes. To a page of another origin
//! nothing is said, and its browser refuses by itself; its request is not treated otherwise, since whoever is no
//! browser can write any origin. Refusals of the edge say the same as answers, or a page could not read why it was
//! refused. `credentials` lets pages send cookies and tokens of the browser; with `*` it would open a service to
//! every page that anybody visits, and the configuration refuses that. What an upstream says on the matter is
//! dropped: one voice. A service without origins has no rules: there the upstream decides and sees the preflight.
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

/// What an answer to an allowed page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed<'a> {
    /// `Access-Control-Allow-Origin`.
    pub origin: &'a str,
    /// Whether `Access-Control-Allow-Credentials: true` is said.
    pub credentials: bool,
}

impl Cors {
    /// The rules of a service, as its configuration was checked: `*` is alone and without credentials.
    pub fn new(conf: &sluice_schema::Cors) -> Self {
        let any = conf.origins.iter().any(|origin| origin == "*");
        Self { origins: conf.origins.clone(), any, credentials: conf.credentials && !any }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Cors::new(&sluice_schema::Cors { origins, credentials })
    }

    #[test]
    fn listed_origins_are_named_and_others_hear_nothing() {
        let rules = cors(&["https://desk.example", "http://localhost:3000"], true);
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
        let rules = cors(&["*"], false);
        assert_eq!(rules.allowed(b"null"), Some(Allowed { origin: "*", credentials: false }));
        assert!(!rules.varies());
        // The configuration refuses this; here it opens nothing more.
        assert_eq!(
            cors(&["*"], true).allowed(b"https://a"),
            Some(Allowed { origin: "*", credentials: false })
        );
    }

    #[test]
    fn asked_fields_are_names_in_a_list() {
        assert_eq!(asked_fields(b"content-type, x-symbol"), Some("content-type, x-symbol"));
        for bad in [&b""[..], b"a,,b", b"a b", b"a\r\nx: y", b"\xff", &[b'a'; FIELDS_BYTES_MAX + 1]] {
            assert_eq!(asked_fields(bad), None, "{bad:?}");
        }
    }
}
