//! What a service asks of its callers.
//!
//! Exact rules: a method with an entry in the service's `permissions` needs all words of that entry; a
//! method without one needs every word of the whole map, so that a forgotten method is not an open one;
//! HEAD is judged as GET. An empty map needs a valid identity and nothing more. `auth_required = false`
//! opens what needs no permission; a permission in the map is demanded even then. A CORS preflight
//! carries no credential by definition and needs nothing.
//!
//! Cost: the words are sorted out once a generation; a decision is one lookup by method and one
//! [`Grants::covers`] a needed word.

use sluice_identity::grants::Grants;
use thiserror::Error;

use crate::method::Method;

/// The demands of one service, by method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    identity: bool,
    needed: [Box<[String]>; Method::ALL.len()],
}

/// What one request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Nothing.
    Nothing,
    /// A valid identity.
    Identity,
    /// A valid identity whose grants cover all of these.
    All(&'a [String]),
}

/// A need that is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused<'a> {
    /// 401 `invalid_token`.
    #[error("a valid credential is needed")]
    NoIdentity,
    /// 403 `insufficient_scope`: the first word that is not covered.
    #[error("permission `{0}` is missing")]
    Missing(&'a str),
}

impl Access {
    /// The demands of a service. With `auth_enabled = false` it demands nothing.
    pub fn of_service(service: &sluice_schema::Service, auth_enabled: bool) -> Self {
        let words = |method: Method| -> Box<[String]> {
            let needed = if auth_enabled { service.permissions_for(method.as_str()) } else { Vec::new() };
            needed.into_iter().map(str::to_owned).collect()
        };
        Self { identity: auth_enabled && service.auth_required, needed: Method::ALL.map(words) }
    }

    /// What a request needs; `preflight` by [`is_preflight`].
    pub fn need(&self, method: Method, preflight: bool) -> Need<'_> {
        let words = &self.needed[method as usize];
        if preflight || (words.is_empty() && !self.identity) {
            Need::Nothing
        } else if words.is_empty() {
            Need::Identity
        } else {
            Need::All(words)
        }
    }
}

impl<'a> Need<'a> {
    /// Judges a caller; `None` is one without a valid credential.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(self, grants: Option<&Grants>) -> Result<(), Refused<'a>> {
        match (self, grants) {
            (Self::Nothing, _) | (Self::Identity, Some(_)) => Ok(()),
            (Self::Identity | Self::All(_), None) => Err(Refused::NoIdentity),
            (Self::All(words), Some(grants)) => match words.iter().find(|word| !grants.covers(word)) {
                Some(word) => Err(Refused::Missing(word)),
                None => Ok(()),
            },
        }
    }
}

/// Whether a request is a CORS preflight: OPTIONS with `Origin` and `Access-Control-Request-Method`.
pub fn is_preflight(method: Method, has_origin: bool, asks_for_method: bool) -> bool {
    method == Method::Options && has_origin && asks_for_method
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn service(auth_required: bool, permissions: &[(&str, &[&str])]) -> sluice_schema::Service {
        let entry = |(method, words): &(&str, &[&str])| {
            ((*method).to_owned(), words.iter().map(|word| (*word).to_owned()).collect())
        };
        sluice_schema::Service {
            auth_required,
            permissions: permissions.iter().map(entry).collect(),
            ..sluice_schema::Service::default()
        }
    }

    fn grants(words: &str) -> Grants {
        words.split_whitespace().collect()
    }

    #[test]
    fn a_method_without_entry_needs_every_permission() {
        let conf = service(true, &[("GET", &["read"]), ("POST", &["write", "trade"])]);
        let access = Access::of_service(&conf, true);
        let check = |method, words: &str| access.need(method, false).check(Some(&grants(words))).is_ok();
        assert!(check(Method::Get, "read") && check(Method::Head, "read"));
        assert!(!check(Method::Post, "read write") && check(Method::Post, "write trade"));
        assert!(!check(Method::Delete, "write trade") && check(Method::Delete, "read write trade"));
        assert!(check(Method::Patch, "admin"));
        assert_eq!(
            access.need(Method::Post, false).check(Some(&grants("write"))),
            Err(Refused::Missing("trade"))
        );
        assert_eq!(access.need(Method::Get, false).check(None), Err(Refused::NoIdentity));
    }

    #[test]
    fn empty_map_needs_an_identity_and_open_services_nothing() {
        let of = |conf: &sluice_schema::Service, enabled| {
            Access::of_service(conf, enabled).need(Method::Post, false).check(None).is_ok()
        };
        assert!(!of(&service(true, &[]), true) && of(&service(false, &[]), true));
        assert!(!of(&service(false, &[("GET", &["read"])]), true), "a permission is never ignored");
        assert!(of(&service(true, &[("GET", &["read"])]), false));
        let access = Access::of_service(&service(true, &[]), true);
        assert_eq!(access.need(Method::Get, false).check(Some(&grants(""))), Ok(()));
    }

    #[test]
    fn preflight_needs_nothing_and_other_options_do() {
        let access = Access::of_service(&service(true, &[("GET", &["read"])]), true);
        assert_eq!(access.need(Method::Options, is_preflight(Method::Options, true, true)), Need::Nothing);
        assert_ne!(access.need(Method::Options, is_preflight(Method::Options, true, false)), Need::Nothing);
        assert!(!is_preflight(Method::Get, true, true));
    }

    proptest! {
        #[test]
        fn agrees_with_the_rule_read_literally(
            map in proptest::collection::btree_map(0_usize..5, proptest::collection::vec(0_usize..4, 0..3), 0..4),
            held in proptest::collection::vec(0_usize..4, 0..4), method in 0_usize..7,
        ) {
            const WORDS: [&str; 4] = ["read", "write", "trade", "x:y"];
            const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
            let mut conf = service(true, &[]);
            conf.permissions = map.iter()
                .map(|(m, words)| (METHODS[*m].to_owned(), words.iter().map(|w| WORDS[*w].to_owned()).collect()))
                .collect();
            let method = Method::ALL[method];
            let entry = if method == Method::Head { "GET" } else { method.as_str() };
            let needed: Vec<&String> = match conf.permissions.get(entry) {
                Some(words) => words.iter().collect(),
                None => conf.permissions.values().flatten().collect(),
            };
            let model = needed.iter().all(|word| held.iter().any(|h| WORDS[*h] == word.as_str()));
            let grants: Grants = held.iter().map(|word| WORDS[*word]).collect();
            let access = Access::of_service(&conf, true);
            prop_assert_eq!(access.need(method, false).check(Some(&grants)).is_ok(), model);
        }
    }
}
