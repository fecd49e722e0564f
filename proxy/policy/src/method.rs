//! The methods the edge knows, and sets of them.

use std::fmt;

/// A method the edge forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `LIST`: only under the prefixes of the vault that Vault clients use.
    List,
}

/// Why a method is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodFault {
    /// TRACE and CONNECT: known and refused, 405.
    #[error("method is not allowed here")]
    Refused,
    /// Any other word, 501.
    #[error("method is not implemented")]
    Unknown,
}

impl Method {
    /// Every method, in the order of [`MethodSet`]'s bits.
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options, Self::List];

    /// Reads the word of a request line; case counts (RFC 9110 section 9.1).
    ///
    /// # Errors
    /// [`MethodFault`].
    pub fn parse(word: &[u8]) -> Result<Self, MethodFault> {
        match word {
            b"GET" => Ok(Self::Get),
            b"HEAD" => Ok(Self::Head),
            b"POST" => Ok(Self::Post),
            b"PUT" => Ok(Self::Put),
            b"PATCH" => Ok(Self::Patch),
            b"DELETE" => Ok(Self::Delete),
            b"OPTIONS" => Ok(Self::Options),
            b"LIST" => Ok(Self::List),
            b"TRACE" | b"CONNECT" => Err(MethodFault::Refused),
            _ => Err(MethodFault::Unknown),
        }
    }

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::List => "LIST",
        }
    }

    /// True where a repeat changes nothing: GET, HEAD, OPTIONS, LIST.
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::List)
    }

    /// True where a second execution has the effect of one: the safe ones, PUT and DELETE.
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }

    /// False for LIST on any path but Vault's: there it is an unknown method (501).
    pub fn is_known_on(self, path: &str) -> bool {
        let under =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|t| t.is_empty() || t.starts_with('/'));
        self != Self::List || under("/v1") || under("/secrets")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of methods. The empty set stands for every method where a route is limited by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodSet(u8);

impl MethodSet {
    /// No method.
    pub const EMPTY: Self = Self(0);

    /// The methods that any path may take: all but LIST.
    pub const EVERYWHERE: Self = Self(!bit(Method::List));

    /// With this one too. HEAD goes with GET.
    #[must_use]
    pub const fn with(self, method: Method) -> Self {
        match method {
            Method::Get => Self(self.0 | bit(Method::Get) | bit(Method::Head)),
            other => Self(self.0 | bit(other)),
        }
    }

    /// The methods of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the method is in the set.
    pub const fn contains(self, method: Method) -> bool {
        self.0 & bit(method) != 0
    }

    /// True where no method is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many methods are in it.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The methods in it.
    pub fn iter(self) -> impl Iterator<Item = Method> {
        Method::ALL.into_iter().filter(move |method| self.contains(*method))
    }

    /// Value of an `Allow` field. Allocates; only for a 405.
    pub fn allow(self) -> String {
        self.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<Method> for MethodSet {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        methods.into_iter().fold(Self::EMPTY, Self::with)
    }
}

const fn bit(method: Method) -> u8 {
    1 << method as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_exact() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.as_str().as_bytes()), Ok(method));
        }
        assert_eq!(Method::parse(b"TRACE"), Err(MethodFault::Refused));
        assert_eq!(Method::parse(b"CONNECT"), Err(MethodFault::Refused));
        for odd in [&b"get"[..], b"", b"PROPFIND", b"GET ", b"GETX"] {
            assert_eq!(Method::parse(odd), Err(MethodFault::Unknown));
        }
    }

    #[test]
    fn head_goes_with_get_and_list_belongs_to_the_vault() {
        let set: MethodSet = [Method::Get, Method::Post].into_iter().collect();
        assert!(set.contains(Method::Head) && !set.contains(Method::Put));
        assert_eq!(set.allow(), "GET, HEAD, POST");
        assert_eq!(MethodSet::EVERYWHERE.allow(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        assert!(Method::List.is_known_on("/v1/secret/metadata") && Method::List.is_known_on("/secrets"));
        assert!(!Method::List.is_known_on("/v10") && !Method::List.is_known_on("/api/data"));
        assert!(Method::Get.is_known_on("/api/data"));
    }
}
