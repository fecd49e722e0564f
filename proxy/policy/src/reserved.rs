//! Paths that belong to Sluice itself: the edge's own pages and the workers' routes.
//!
//! A `[[service]]` or a registration may not lie at or below one of them. The route table holds
//! these entries like any other, so one lookup decides; there is no order between "ours" and "theirs".

use sluice_schema::Lane;
use sluice_wire::role::Role;

use crate::route::Target;

/// Who checks the caller's credential of a reserved route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The edge verifies and demands one; the worker checks the scope.
    Edge,
    /// The edge verifies a bearer where one is sent; the worker decides.
    EdgeIfPresent,
    /// The worker alone; credential headers pass unchanged.
    Worker,
    /// The same, and the worker tells where one was none: those count as failures of the address.
    WorkerTells,
    /// Nobody, or the edge by a rule of its own (`/metrics`, `/api/register`).
    Open,
}

/// One reserved prefix.
#[derive(Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The prefix, matched on segment borders.
    pub prefix: &'static str,
    /// Who answers below it.
    pub target: Target,
    /// Who checks the credential.
    pub credential: Credential,
    /// Request body at most, in bytes.
    pub body_bytes_max: u64,
    /// Over plain HTTP only from loopback, else 403 `tls_required`.
    pub tls_required: bool,
    /// How much its requests matter; `None`: they never wait.
    pub lane: Option<Lane>,
    /// Requests a minute of one address; `None`: no limit.
    pub per_ip_minute: Option<u64>,
}

const MIB: u64 = 1 << 20;

const fn page(prefix: &'static str) -> Reserved {
    Reserved {
        prefix,
        target: Target::Edge,
        credential: Credential::Open,
        body_bytes_max: MIB,
        tls_required: false,
        lane: None,
        per_ip_minute: None,
    }
}

const fn worker(prefix: &'static str, role: Role, credential: Credential, body_bytes_max: u64) -> Reserved {
    Reserved { target: Target::Worker(role), credential, body_bytes_max, ..page(prefix) }
}

const fn laned(lane: Lane, entry: Reserved) -> Reserved {
    Reserved { lane: Some(lane), ..entry }
}

const fn vault(prefix: &'static str, credential: Credential) -> Reserved {
    worker(prefix, Role::Vault, credential, MIB)
}

const fn secret(entry: Reserved) -> Reserved {
    Reserved { tls_required: true, ..entry }
}

const fn guarded(entry: Reserved) -> Reserved {
    Reserved { per_ip_minute: Some(60), ..entry }
}

/// Where a worker makes, reads or judges what programs ask for often: nobody's flood reaches it.
const fn paced(entry: Reserved) -> Reserved {
    Reserved { per_ip_minute: Some(6_000), ..entry }
}

const fn withheld(prefix: &'static str) -> Reserved {
    Reserved { target: Target::Withheld, ..secret(vault(prefix, Credential::Worker)) }
}

/// Every reserved prefix. Those that are withheld open, close or rekey the vault, or make
/// its first administrator: never through the edge.
pub static RESERVED: [Reserved; 36] = [
    page("/health"),
    page("/livez"),
    page("/readyz"),
    page("/metrics"),
    page("/services"),
    page("/api/services"),
    page("/api/register"),
    page("/docs"),
    page("/openapi.json"),
    laned(Lane::Query, worker("/events", Role::Events, Credential::Edge, 8 * MIB)),
    laned(Lane::Query, worker("/groups", Role::Events, Credential::Edge, 8 * MIB)),
    laned(Lane::Query, worker("/schemas", Role::Events, Credential::Edge, 8 * MIB)),
    laned(Lane::Query, worker("/state", Role::Events, Credential::Edge, 8 * MIB)),
    laned(Lane::Analytics, worker("/calculations", Role::Calc, Credential::Edge, 64 * MIB)),
    laned(Lane::Analytics, worker("/series", Role::Calc, Credential::Edge, 64 * MIB)),
    paced(secret(vault("/security", Credential::EdgeIfPresent))),
    paced(secret(vault("/tokens", Credential::EdgeIfPresent))),
    paced(secret(vault("/credentials", Credential::EdgeIfPresent))),
    paced(secret(vault("/secrets", Credential::EdgeIfPresent))),
    secret(vault("/audit", Credential::EdgeIfPresent)),
    secret(vault("/falco", Credential::EdgeIfPresent)),
    paced(secret(vault("/v1", Credential::WorkerTells))),
    paced(secret(vault("/oauth2", Credential::Worker))),
    guarded(secret(vault("/oauth2/token", Credential::Worker))),
    guarded(secret(vault("/acme", Credential::Worker))),
    vault("/.well-known", Credential::Worker),
    vault("/ca", Credential::Worker),
    guarded(secret(vault("/auth", Credential::Worker))),
    withheld("/auth/bootstrap"),
    withheld("/v1/sys/init"),
    withheld("/v1/sys/seal"),
    withheld("/v1/sys/unseal"),
    withheld("/v1/sys/rekey"),
    withheld("/v1/sys/rotate"),
    withheld("/v1/sys/generate-root"),
    withheld("/v1/sys/generate-root-token"),
];

/// The lane of a worker's requests; `None` where they never wait.
pub fn lane_of(role: Role) -> Option<Lane> {
    RESERVED.iter().find(|reserved| reserved.target == Target::Worker(role))?.lane
}

/// The reserved prefix at or above `prefix`, which therefore may not be used for a service.
pub fn covering(prefix: &str) -> Option<&'static Reserved> {
    RESERVED.iter().find(|reserved| is_below(prefix, reserved.prefix))
}

/// Whether `path` is `prefix` or lies below it, on segment borders. `/` covers everything.
pub fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_covers_what_the_configuration_reserves() {
        for prefix in sluice_schema::RESERVED_PREFIXES {
            assert!(RESERVED.iter().any(|reserved| reserved.prefix == prefix), "{prefix}");
        }
        for reserved in &RESERVED {
            assert!(sluice_schema::RESERVED_PREFIXES.iter().any(|prefix| is_below(reserved.prefix, prefix)));
        }
    }

    #[test]
    fn prefixes_match_on_segment_borders() {
        assert_eq!(covering("/events/mine").map(|reserved| reserved.prefix), Some("/events"));
        assert_eq!(covering("/api/services").map(|reserved| reserved.prefix), Some("/api/services"));
        assert!(covering("/eventsx").is_none() && covering("/api").is_none() && covering("/").is_none());
    }

    #[test]
    fn a_worker_has_one_lane() {
        for reserved in &RESERVED {
            if let Target::Worker(role) = reserved.target {
                assert_eq!(reserved.lane, lane_of(role), "{}", reserved.prefix);
            }
        }
        let lanes = [Role::Events, Role::Calc, Role::Vault].map(lane_of);
        assert_eq!(lanes, [Some(Lane::Query), Some(Lane::Analytics), None]);
    }

    #[test]
    fn secrets_ask_for_tls_and_logins_are_slowed() {
        let of = |prefix: &str| RESERVED.iter().find(|reserved| reserved.prefix == prefix).unwrap();
        for prefix in [
            "/secrets",
            "/audit",
            "/falco",
            "/credentials",
            "/security",
            "/tokens",
            "/v1",
            "/auth",
            "/oauth2",
            "/oauth2/token",
            "/acme",
        ] {
            assert!(of(prefix).tls_required, "{prefix}");
        }
        for prefix in ["/auth", "/oauth2/token", "/acme"] {
            assert_eq!(of(prefix).per_ip_minute, Some(60), "{prefix}");
        }
        for prefix in ["/v1", "/oauth2", "/secrets", "/security", "/tokens", "/credentials"] {
            assert_eq!(of(prefix).per_ip_minute, Some(6_000), "{prefix}");
        }
        assert!(!of("/ca").tls_required && of("/events").per_ip_minute.is_none());
    }
}
