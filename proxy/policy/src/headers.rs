//! Which header fields a request may carry through the edge.
//!
//! Names are lower case, as every header map holds them. A field is dropped for one of four reasons:
//! it claims something only the edge may say (identity, client address, internal proof), it would make
//! the upstream see another request than the one that was routed and authorised, it is a credential
//! that was meant for the edge, or it belongs to the connection and not to the request.
//!
//! Pure functions over names; no allocation.

/// What the edge knows when it judges a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The peer is one of `trusted_proxies`: what it says about the client is believed.
    pub trusted_peer: bool,
    /// Credentials reach the upstream: `forward_authorization`, or a worker that checks them itself.
    pub forward_credentials: bool,
}

/// Why a field is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Identity and internal proof: only the edge says these.
    Identity,
    /// The client's address, scheme or host as told by a peer nobody trusts.
    Forwarded,
    /// Replaces method or path behind the edge's back.
    Override,
    /// A name with `_`, which some upstreams read as `-`.
    Underscore,
    /// A credential for the edge.
    Credential,
    /// Belongs to the connection.
    HopByHop,
}

/// Judges a field a client sent; `None` keeps it.
pub fn judge(name: &str, rules: Rules) -> Option<Dropped> {
    if name.contains('_') {
        Some(Dropped::Underscore)
    } else if is_identity(name) {
        Some(Dropped::Identity)
    } else if is_override(name) {
        Some(Dropped::Override)
    } else if !rules.trusted_peer && is_forwarded(name) {
        Some(Dropped::Forwarded)
    } else if !rules.forward_credentials && is_credential(name) {
        Some(Dropped::Credential)
    } else if is_hop_by_hop(name) {
        Some(Dropped::HopByHop)
    } else {
        None
    }
}

/// `x-user*`, `x-roles`, `x-permissions`, `x-account`, `x-tenant`, `x-auth-method`, `x-client-cert*`,
/// `x-internal-*`.
pub fn is_identity(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x-") else { return false };
    matches!(rest, "roles" | "permissions" | "account" | "tenant" | "auth-method")
        || rest.starts_with("user")
        || rest.starts_with("client-cert")
        || rest.starts_with("internal-")
}

/// `x-forwarded-*`, `forwarded`, `x-real-ip`.
pub fn is_forwarded(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip")
}

/// Fields by which frameworks take another method or path than the request line's, and `proxy`, which
/// CGI programs mistake for their own setting.
pub fn is_override(name: &str) -> bool {
    matches!(
        name,
        "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-original-url"
            | "x-rewrite-url"
            | "proxy"
    )
}

/// `authorization`, `x-api-key`, `x-vault-token`.
pub fn is_credential(name: &str) -> bool {
    matches!(name, "authorization" | "x-api-key" | "x-vault-token")
}

/// Fields of the connection (RFC 9110 section 7.6.1), those of an upgrade included: the shell sets
/// `connection` and `upgrade` anew where it forwards a WebSocket.
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// The names a `Connection` value nominates for removal, trimmed, any case.
pub fn nominated(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Whether a client may nominate a field for removal. It may not make the edge drop what the edge or
/// the framing of the request relies on.
pub fn may_be_nominated(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let starts =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    let guarded =
        ["host", "content-length", "content-type", "authorization", "idempotency-key", "traceparent"];
    !guarded.into_iter().any(is) && !["x-", "forwarded", "cookie"].into_iter().any(starts)
}

impl Dropped {
    /// A fixed word for logs and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Forwarded => "forwarded",
            Self::Override => "override",
            Self::Underscore => "underscore",
            Self::Credential => "credential",
            Self::HopByHop => "hop_by_hop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Rules = Rules { trusted_peer: true, forward_credentials: true };

    #[test]
    fn client_cannot_claim_an_identity_whoever_forwards_it() {
        for name in [
            "x-user",
            "x-user-id",
            "x-username",
            "x-roles",
            "x-permissions",
            "x-account",
            "x-auth-method",
            "x-client-cert",
            "x-client-cert-san",
            "x-internal-key",
        ] {
            assert_eq!(judge(name, OPEN), Some(Dropped::Identity), "{name}");
        }
        assert_eq!(judge("x_user", OPEN), Some(Dropped::Underscore));
        assert_eq!(judge("x-http-method-override", OPEN), Some(Dropped::Override));
        assert_eq!(judge("x-original-url", OPEN), Some(Dropped::Override));
    }

    #[test]
    fn forwarded_and_credentials_depend_on_the_rules() {
        let strict = Rules::default();
        for name in ["x-forwarded-for", "x-forwarded-anything", "forwarded", "x-real-ip"] {
            assert_eq!(judge(name, strict), Some(Dropped::Forwarded));
            assert_eq!(judge(name, OPEN), None);
        }
        for name in ["authorization", "x-api-key", "x-vault-token"] {
            assert_eq!(judge(name, strict), Some(Dropped::Credential));
            assert_eq!(judge(name, OPEN), None);
        }
        for name in
            ["accept", "content-type", "x-request-id", "idempotency-key", "cookie", "x-symbol", "host"]
        {
            assert_eq!(judge(name, strict), None, "{name}");
        }
        assert_eq!(judge("keep-alive", OPEN).map(Dropped::as_str), Some("hop_by_hop"));
    }

    #[test]
    fn connection_cannot_nominate_what_the_edge_relies_on() {
        let names: Vec<&str> = nominated("close, X-User ,, foo").collect();
        assert_eq!(names, ["close", "X-User", "foo"]);
        for name in
            ["X-User", "x-permissions", "Host", "content-length", "X-Forwarded-For", "Cookie", "traceparent"]
        {
            assert!(!may_be_nominated(name), "{name}");
        }
        assert!(may_be_nominated("foo") && may_be_nominated("close") && may_be_nominated("Keep-Alive"));
    }

    #[test]
    fn what_is_the_edges_own_no_configuration_sets() {
        let sets = |name: &str| {
            let text = format!(
                "[[service]]\nname = \"a\"\nprefix = \"/a\"\nenabled = false\nrequest_headers = {{ set = {{ \"{name}\" = \"x\" }} }}\n"
            );
            let documents = [sluice_schema::Document::new("sluice.toml", text)];
            let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
            sluice_schema::check(
                &documents,
                &std::collections::BTreeMap::new(),
                sluice_schema::Mode::default(),
                &none,
            )
            .is_ok()
        };
        let own = [
            "x-user",
            "x-user-id",
            "x-roles",
            "x-permissions",
            "x-account",
            "x-tenant",
            "x-auth-method",
            "x-client-cert-san",
        ];
        let hops = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "proxy-authenticate",
            "proxy-authorization",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        for name in own.into_iter().chain(hops).chain([
            "x-internal-key",
            "forwarded",
            "x-forwarded-for",
            "x_user",
            "x_internal-key",
        ]) {
            assert!(judge(name, Rules::default()).is_some() && !sets(name), "{name}");
        }
        assert!(sets("x-desk") && sets("authorization"));
    }
}
