//! Machine words of problem answers. Clients switch on these; the texts may change, the words do not.

macro_rules! codes {
    ($($variant:ident $word:literal $status:literal $title:literal;)*) => {
        /// Machine word of a problem, with its status and title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code, for documentation and coverage checks.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The short human text.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    BadRequest "bad_request" 400 "Bad request";
    BadFraming "bad_framing" 400 "Malformed HTTP framing";
    BadHost "bad_host" 400 "Missing or invalid Host";
    BadPath "bad_path" 400 "Path refused";
    BadQuery "bad_query" 400 "Invalid query parameter";
    InvalidJson "invalid_json" 400 "Invalid JSON";
    InvalidEvent "invalid_event" 400 "Invalid event";
    SymbolRequired "symbol_required" 400 "Order without its symbol while one is stopped";
    InvalidDeadline "invalid_deadline" 400 "Deadline of the request not valid";
    IdempotencyKeyMissing "idempotency_key_missing" 400 "Idempotency-Key needed";
    IdempotencyKeyInvalid "idempotency_key_invalid" 400 "Idempotency-Key not valid";
    InvalidToken "invalid_token" 401 "Invalid or missing credential";
    Forbidden "forbidden" 403 "Not allowed";
    InsufficientScope "insufficient_scope" 403 "Permission missing";
    AddressDenied "address_denied" 403 "Address not allowed";
    TlsRequired "tls_required" 403 "TLS required";
    SourceMismatch "source_mismatch" 403 "Source differs from the caller";
    ReservedType "reserved_type" 403 "Event type is reserved for Sluice";
    IdNotIndexed "id_not_indexed" 404 "Event id is not indexed any longer";
    NotFound "not_found" 404 "Not found";
    NoRoute "no_route" 404 "No service for this path";
    LoginDisabled "login_disabled" 404 "No users are configured";
    MethodNotAllowed "method_not_allowed" 405 "Method not allowed";
    NotAcceptable "not_acceptable" 406 "No acceptable form of the answer";
    RequestTimeout "request_timeout" 408 "Request not received in time";
    Conflict "conflict" 409 "Conflict";
    EventIdConflict "event_id_conflict" 409 "Event id known with other content";
    VersionConflict "version_conflict" 409 "Check-and-set version does not match";
    PrefixTaken "prefix_taken" 409 "Prefix is already routed";
    IdempotencyInFlight "idempotency_in_flight" 409 "A request with this key is under way";
    OutcomeUnknown "outcome_unknown" 409 "What became of the request with this key is not known";
    ResponseNotKept "response_not_kept" 409 "Executed, but its answer was not kept";
    BodyTooLarge "body_too_large" 413 "Body too large";
    UriTooLong "uri_too_long" 414 "Request target too long";
    UnsupportedMediaType "unsupported_media_type" 415 "Unsupported content type";
    ExpectationFailed "expectation_failed" 417 "Expectation not supported";
    Misdirected "misdirected" 421 "Host is not served here";
    Unprocessable "unprocessable" 422 "Request understood but not valid";
    IdempotencyKeyReused "idempotency_key_reused" 422 "Idempotency-Key belongs to another request";
    SchemaViolation "schema_violation" 422 "Data does not follow the schema of its type";
    UnknownIndicator "unknown_indicator" 422 "Unknown indicator";
    BadParameter "bad_parameter" 422 "Parameter out of range";
    BadSeries "bad_series" 422 "Series is not valid";
    NotAvailable "not_available" 422 "Not available in this version";
    UpgradeRequired "upgrade_required" 426 "Another protocol version is required";
    RateLimited "rate_limited" 429 "Too many requests";
    TooManyFailures "too_many_auth_failures" 429 "Too many failed authentications";
    QueueFull "queue_full" 429 "Queue is full";
    HeaderTooLarge "header_too_large" 431 "Header section too large";
    Internal "internal" 500 "Internal error";
    Integrity "integrity" 500 "Stored record failed its integrity check";
    NotImplemented "not_implemented" 501 "Not implemented";
    UpstreamRefused "upstream_refused" 502 "Upstream refused or broke the connection";
    UpstreamInvalid "upstream_invalid" 502 "Upstream answered with invalid HTTP";
    NoHealthyInstance "no_healthy_instance" 503 "No healthy instance";
    BreakerOpen "breaker_open" 503 "Circuit breaker is open";
    Overloaded "overloaded" 503 "Overloaded";
    Draining "draining" 503 "Draining";
    KillSwitch "kill_switch" 503 "Stopped by an operator";
    AuthUnavailable "auth_unavailable" 503 "Verification keys not available yet";
    AuthStale "auth_stale" 503 "Revocations not heard of lately";
    StoreUnavailable "store_unavailable" 503 "Store not available";
    WorkerUnavailable "worker_unavailable" 503 "Worker not available";
    AuditUnavailable "audit_unavailable" 503 "Audit log cannot be written";
    LedgerUnavailable "ledger_unavailable" 503 "The edge cannot write what it must remember";
    IdempotencyUnavailable "idempotency_unavailable" 503 "Idempotency-Key cannot be recorded";
    Sealed "sealed" 503 "Vault is sealed";
    VaultUnavailable "vault_unavailable" 503 "External vault not available";
    UpstreamTimeout "upstream_timeout" 504 "Upstream did not answer in time";
    VersionNotSupported "http_version_not_supported" 505 "HTTP version not supported";
    StoreFull "store_full" 507 "Store is full";
}

#[cfg(test)]
mod tests {
    use super::Code;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_unique_and_statuses_are_errors() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| (400..600).contains(&code.status())));
    }
}
