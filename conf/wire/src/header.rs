//! Header names that Sluice reads or sets, in lower case.

/// Correlates one request over every process and log.
pub const X_REQUEST_ID: &str = "x-request-id";
/// Subject of the verified caller; set by the edge only.
pub const X_USER: &str = "x-user";
/// Sorted, space-separated grants of the verified caller; set by the edge only.
pub const X_PERMISSIONS: &str = "x-permissions";
/// How the caller was verified; set by the edge only.
pub const X_AUTH_METHOD: &str = "x-auth-method";
/// Account of the verified caller where it differs from the subject; set by the edge only.
pub const X_ACCOUNT: &str = "x-account";
/// Which credential the edge verified, and from when until when it counts; set by the edge only, for workers only.
pub const X_INTERNAL_PROOF: &str = "x-internal-proof";
/// Proof of a role identity on an internal door.
pub const X_INTERNAL_KEY: &str = "x-internal-key";
/// Present when a role speaks for itself. The edge leaves it off what it forwards, so a forwarded
/// request without a verified caller is anonymous and never the edge.
pub const X_INTERNAL_SELF: &str = "x-internal-self";
/// What a worker tells the edge with its answer, at the internal door only: [`REFUSED_CREDENTIAL`]. The edge believes it
/// of workers alone and passes it on to nobody.
pub const X_INTERNAL_REFUSED: &str = "x-internal-refused";
/// The credential that the request carried was none, in its fields or in its body.
pub const REFUSED_CREDENTIAL: &str = "credential";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// What tracing systems keep beside it.
pub const TRACESTATE: &str = "tracestate";
/// Legacy API key.
pub const X_API_KEY: &str = "x-api-key";
/// Token of Vault-compatible clients.
pub const X_VAULT_TOKEN: &str = "x-vault-token";
/// Client-chosen key that makes a publish or an order repeatable.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Client addresses added by proxies.
pub const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// Scheme the client used.
pub const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Host the client asked for.
pub const X_FORWARDED_HOST: &str = "x-forwarded-host";
/// How long the caller waits, ms from the moment the request was sent; the edge passes on what is left.
pub const X_REQUEST_DEADLINE_MS: &str = "x-request-deadline-ms";
/// The same of a gRPC call, with a unit.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";
/// What became of a gRPC call that the edge answered itself: not_sent, rejected or unknown.
pub const SLUICE_OUTCOME: &str = "sluice-outcome";
/// Where an event stream is to resume.
pub const LAST_EVENT_ID: &str = "last-event-id";
/// Remaining quota, structured field.
pub const RATELIMIT: &str = "ratelimit";
/// Quota policy, structured field.
pub const RATELIMIT_POLICY: &str = "ratelimit-policy";
/// Legacy quota header: requests allowed.
pub const X_RATELIMIT_LIMIT: &str = "x-ratelimit-limit";
/// Legacy quota header: requests left.
pub const X_RATELIMIT_REMAINING: &str = "x-ratelimit-remaining";
/// Legacy quota header: epoch seconds at which the quota is whole again.
pub const X_RATELIMIT_RESET: &str = "x-ratelimit-reset";
