//! Names of header fields that `http` does not know, made once: to make one costs more than to use it.

use http::HeaderName;
use sluice_wire::header;

/// Correlates one request over every process and log.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static(header::X_REQUEST_ID);
/// Subject of the verified caller.
pub(crate) const USER: HeaderName = HeaderName::from_static(header::X_USER);
/// What it may do.
pub(crate) const PERMISSIONS: HeaderName = HeaderName::from_static(header::X_PERMISSIONS);
/// How it was verified.
pub(crate) const AUTH_METHOD: HeaderName = HeaderName::from_static(header::X_AUTH_METHOD);
/// Its account.
pub(crate) const ACCOUNT: HeaderName = HeaderName::from_static(header::X_ACCOUNT);
/// Which credential was verified.
pub(crate) const PROOF: HeaderName = HeaderName::from_static(header::X_INTERNAL_PROOF);
/// Proof of a role identity.
pub(crate) const INTERNAL_KEY: HeaderName = HeaderName::from_static(header::X_INTERNAL_KEY);
/// What a worker tells of a request's credential.
pub(crate) const REFUSED: HeaderName = HeaderName::from_static(header::X_INTERNAL_REFUSED);
/// Trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static(header::TRACEPARENT);
/// What tracing systems keep beside it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static(header::TRACESTATE);
/// Key of an external client.
pub(crate) const API_KEY: HeaderName = HeaderName::from_static(header::X_API_KEY);
/// How long the caller waits, ms.
pub(crate) const DEADLINE: HeaderName = HeaderName::from_static(header::X_REQUEST_DEADLINE_MS);
/// How long the caller of a method waits.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static(header::GRPC_TIMEOUT);
/// Token of Vault-compatible clients.
pub(crate) const VAULT_TOKEN: HeaderName = HeaderName::from_static(header::X_VAULT_TOKEN);
/// Client addresses added by proxies.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static(header::X_FORWARDED_FOR);
/// Scheme the client used.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static(header::X_FORWARDED_PROTO);
/// Host the client asked for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static(header::X_FORWARDED_HOST);
/// What an upstream is made of.
pub(crate) const POWERED_BY: HeaderName = HeaderName::from_static("x-powered-by");
/// Keeps browsers from guessing types.
pub(crate) const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
/// Remaining quota.
pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static(header::RATELIMIT);
/// Quota policy.
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static(header::RATELIMIT_POLICY);
/// Requests allowed.
pub(crate) const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static(header::X_RATELIMIT_LIMIT);
/// Requests left.
pub(crate) const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static(header::X_RATELIMIT_REMAINING);
/// When the quota is whole again.
pub(crate) const RATELIMIT_RESET: HeaderName = HeaderName::from_static(header::X_RATELIMIT_RESET);
