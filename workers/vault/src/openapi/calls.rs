//! Every call: what it is asked, what it answers, what it needs.

use sluice_http::openapi::{ANY, Call, Parameter};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const JOSE: &str = "application/jose+json";
const PEM: &str = "application/x-pem-file";
const CHAIN: &str = "application/pem-certificate-chain";
const LINES: &str = "application/x-ndjson";

/// The methods of a path that takes any.
#[cfg(test)]
pub(super) const EVERY: &[&str] = &["get", "post", "put", "delete"];

const PAGE: &[Parameter] =
    &[("limit", "integer", "at most so many"), ("cursor", "string", "the `next` of the page before")];
const VERSION: &[Parameter] = &[("version", "integer", "an older one")];
const PATH: &[Parameter] = &[("path", "string", "the secret's")];
const READ: &[Parameter] = &[
    ("list", "true", "the names below it in place of its value"),
    ("metadata", "string", "its history in place of its value"),
    ("cursor", "string", "with `list`: the `next` of the page before"),
];
const WRITE: &[Parameter] = &[
    ("undelete", "string", "these versions, `1,2`, are there again; without a body"),
    ("destroy", "string", "these versions are gone for good; without a body"),
];
const AUDIT: &[Parameter] = &[
    ("since", "string", "behind this number, or from this time on"),
    ("actor", "string", "of this caller"),
    ("path", "string", "at or below this path"),
    ("limit", "integer", "at most so many"),
];
const MINT: &str = "tokens:mint";

const fn call(method: &'static str, path: &'static str, summary: &'static str, scope: &'static str) -> Call {
    Call::new(method, path, summary, scope)
}

const fn mint(path: &'static str) -> Call {
    call("post", path, "Mint a token for a service: for itself, or by who may mint", ANY)
        .takes(&[(JSON, "TokenWish")])
        .answers("The token, this once.", "Token")
}

const fn validate(path: &'static str) -> Call {
    call("post", path, "Whether a token is good now; it is the credential", ANY)
        .open()
        .takes(&[(JSON, "TokenHeld")])
        .answers("What it says, or why it is not good.", "Verdict")
}

const fn issue(path: &'static str) -> Call {
    call("post", path, "Issue a certificate (X.509-SVID): for the service itself, or by who may issue", ANY)
        .takes(&[(JSON, "CertificateWish")])
        .answers("The certificate; its key where no request was given, this once.", "Certificate")
}

const fn form(
    path: &'static str,
    summary: &'static str,
    body: &'static [(&'static str, &'static str)],
) -> Call {
    call("post", path, summary, ANY).open().needs(body)
}

const fn acme(path: &'static str, summary: &'static str) -> Call {
    call("post", path, summary, ANY).open().needs(&[(JOSE, "Jws")])
}

const fn v1(method: &'static str) -> Call {
    call(method, "/v1/{path}", "The API of HashiCorp Vault and OpenBao; see their documentation", ANY)
}

/// Every call of the worker's port.
pub(super) const CALLS: &[Call] = &[
    mint("/security/tokens/generate"),
    mint("/tokens/generate"),
    mint("/tokens/{service}"),
    validate("/security/tokens/validate"),
    validate("/tokens/validate"),
    call("post", "/tokens/refresh", "A new token like the one shown", ANY)
        .takes(&[(JSON, "Life")])
        .answers("The token, this once.", "Token"),
    call("post", "/tokens/revoke", "End a token, or all of a service", ANY)
        .needs(&[(JSON, "TokenRevoke")])
        .answers("How many were live.", "Revoked"),
    call("get", "/tokens", "Live tokens: all of them with `tokens:mint`, else one's own", ANY)
        .query(&[PAGE, &[("service", "string", "of this service")]])
        .answers("A page, without the tokens themselves.", "Tokens"),
    call("get", "/.well-known/jwks.json", "Keys by which tokens are verified", ANY)
        .open()
        .answers("RFC 7517.", "Jwks"),
    issue("/security/credentials/issue"),
    issue("/credentials/issue"),
    issue("/credentials/{service}"),
    call("get", "/credentials/{service}", "The newest certificate of a service", ANY)
        .answers("The certificate, never its key.", "Credential"),
    call("post", "/credentials/{service}/renew", "The next certificate, with the names of the former", ANY)
        .takes(&[(JSON, "Renewal")])
        .answers("The certificate; its key where no request was given, this once.", "Certificate"),
    call("post", "/credentials/{service}/jwt-svid", "A JWT-SVID of the service for an audience", ANY)
        .needs(&[(JSON, "SvidWish")])
        .answers("The SVID.", "Svid"),
    call("post", "/credentials/{service}/revoke", "Revoke certificates of a service", ANY)
        .takes(&[(JSON, "CertificateRevoke")])
        .answers("How many were in force.", "Revoked"),
    call("get", "/credentials", "The newest certificate of each service that the caller may see", ANY)
        .query(&[PAGE])
        .answers("A page.", "Credentials"),
    call("get", "/ca/certificate", "The root", ANY).open().answers("PEM.", "Pem").by("200", PEM),
    call("get", "/ca/chain", "The intermediates, newest first, and the root", ANY)
        .open()
        .answers("PEM.", "Pem")
        .by("200", PEM),
    call("get", "/ca/crl", "The revocation lists", ANY)
        .open()
        .query(&[&[("format", "pem|der", "all as PEM, or the issuing intermediate's as DER")]])
        .answers("The lists.", "Pem")
        .by("200", PEM),
    call("get", "/ca/bundle", "The SPIFFE trust bundle", ANY).open().answers("The bundle.", "Bundle"),
    call("post", "/security/secrets/store", "Write a secret", ANY)
        .needs(&[(JSON, "SecretNamed")])
        .answers("The new version.", "Stored"),
    call("get", "/security/secrets/retrieve", "Read a secret", ANY)
        .query(&[PATH, VERSION])
        .answers("Its value.", "Secret"),
    call("get", "/security/secrets/retrieve/{path}", "Read a secret", ANY)
        .query(&[VERSION])
        .answers("Its value.", "Secret"),
    call("get", "/secrets", "Names at the root of the tree", ANY)
        .query(&[&[("list", "true", "needed"), ("cursor", "string", "the `next` of the page before")]])
        .answers("Names; folders end in a slash.", "Names"),
    call("get", "/secrets/{path}", "Read a secret, list below it, or tell its history", ANY)
        .query(&[VERSION, READ])
        .answers("Its value, names, or history.", "SecretRead"),
    call("put", "/secrets/{path}", "Write a secret, or change its versions", ANY)
        .query(&[WRITE])
        .takes(&[(JSON, "SecretBody")])
        .answers("The new version, or those that changed.", "SecretWritten"),
    call("post", "/secrets/{path}", "Write a secret, or change its versions", ANY)
        .query(&[WRITE])
        .takes(&[(JSON, "SecretBody")])
        .answers("The new version, or those that changed.", "SecretWritten"),
    call(
        "delete",
        "/secrets/{path}",
        "Delete the current version, or those named; they can be had again",
        ANY,
    )
    .query(&[&[("versions", "string", "these: `1,2`")]])
    .answers("Those that changed.", "VersionsChanged"),
    call("get", "/audit", "Audit records", "audit:read").query(&[AUDIT]).answers("A page.", "Records"),
    call("get", "/audit/key", "The key that signs the audit log", "audit:read").answers("The key.", "Jwk"),
    form(
        "/oauth2/token",
        "A token for a client (RFC 6749, 4.4), or one exchanged (RFC 8693)",
        &[(FORM, "Grant")],
    )
    .answers("The token.", "Granted"),
    form("/oauth2/introspect", "What is known of a token (RFC 7662)", &[(FORM, "TokenForm")])
        .answers("Its claims where it is good.", "Introspected"),
    form("/oauth2/revoke", "End a token of the client's (RFC 7009)", &[(FORM, "TokenForm")])
        .answers("Ended, or none.", "")
        .by("200", ""),
    call("get", "/.well-known/openid-configuration", "What `/oauth2` can do", ANY)
        .open()
        .answers("RFC 8414.", "Metadata"),
    call("get", "/.well-known/oauth-authorization-server", "What `/oauth2` can do", ANY)
        .open()
        .answers("RFC 8414.", "Metadata"),
    call("post", "/oauth2/clients", "Register a client", MINT)
        .needs(&[(JSON, "ClientWish")])
        .answers("The client; its secret, this once.", "Client")
        .by("201", JSON),
    call("get", "/oauth2/clients", "Clients", MINT).answers("All of them.", "Clients"),
    call("get", "/oauth2/clients/{id}", "One client", MINT).answers("It alone.", "Clients"),
    call("delete", "/oauth2/clients/{id}", "Remove a client and end its tokens", MINT)
        .answers("Removed.", "")
        .by("204", ""),
    call("post", "/oauth2/clients/{id}/secret", "Another secret; the old one ends", MINT)
        .answers("The secret, this once.", "Client"),
    call("post", "/falco/alerts", "Alerts of Falco, from a service's certificate", "falco:write")
        .needs(&[(JSON, "Alerts"), (LINES, "Alert")])
        .answers("What became of them.", "AlertsTaken")
        .by("202", JSON),
    call("post", "/falco/alerts/{secret}", "Alerts of Falco, from this machine", ANY)
        .open()
        .needs(&[(JSON, "Alerts"), (LINES, "Alert")])
        .answers("What became of them.", "AlertsTaken")
        .by("202", JSON),
    call("get", "/falco/quarantine", "Who is shut out", "admin").answers("All of them.", "Quarantines"),
    call("post", "/falco/quarantine/{service}/release", "Let a service in again", "admin")
        .answers("Released.", "")
        .by("204", ""),
    call("get", "/falco/kill-switch", "What alerts have stopped", "admin")
        .answers("All of it.", "KillSwitches"),
    call("post", "/falco/kill-switch/release", "Let go on what an alert has stopped", "admin")
        .needs(&[(JSON, "Stop")])
        .answers("Released.", "")
        .by("204", ""),
    call("get", "/acme/directory", "The addresses of ACME (RFC 8555)", ANY)
        .open()
        .answers("The directory.", "Directory"),
    call("get", "/acme/new-nonce", "A nonce, in `Replay-Nonce`", ANY)
        .open()
        .answers("A nonce.", "")
        .by("204", ""),
    acme("/acme/new-account", "An account, bound to a service")
        .answers("The account.", "AcmeObject")
        .by("201", JSON),
    acme("/acme/key-change", "Another key for an account").answers("The account.", "AcmeObject"),
    acme("/acme/new-order", "An order").answers("The order.", "AcmeObject").by("201", JSON),
    acme("/acme/revoke-certificate", "Revoke a certificate").answers("Revoked.", "").by("200", ""),
    acme("/acme/account/{id}", "Read, change or end an account").answers("The account.", "AcmeObject"),
    acme("/acme/account/{id}/orders", "Orders of an account").answers("Their addresses.", "AcmeObject"),
    acme("/acme/order/{id}", "Read an order").answers("The order.", "AcmeObject"),
    acme("/acme/order/{id}/finalize", "Have the certificate of an order made")
        .answers("The order.", "AcmeObject"),
    acme("/acme/authorization/{id}/{at}", "Read or give up an authorization")
        .answers("The authorization.", "AcmeObject"),
    acme("/acme/challenge/{id}/{at}", "Have a challenge looked at").answers("The challenge.", "AcmeObject"),
    acme("/acme/certificate/{serial}", "Fetch a certificate")
        .answers("It and its chain.", "Pem")
        .by("200", CHAIN),
    call("get", "/acme/renewal-info/{id}", "When to renew a certificate (RFC 9773)", ANY)
        .open()
        .answers("A window of time.", "RenewalInfo"),
    call(
        "post",
        "/acme/external-accounts",
        "A key that binds an account to a service, which is had like its certificate",
        ANY,
    )
    .needs(&[(JSON, "BindingWish")])
    .answers("The key, this once.", "Binding")
    .by("201", JSON),
    call("get", "/acme/external-accounts", "Keys that bind accounts", ANY)
        .answers("Without the keys.", "Bindings"),
    call("delete", "/acme/external-accounts/{kid}", "Remove such a key and end its accounts", ANY)
        .answers("Removed.", "")
        .by("204", ""),
    call("post", "/auth/login", "A session for a user", ANY)
        .open()
        .needs(&[(JSON, "Login")])
        .answers("Its token, this once.", "Session"),
    call(
        "post",
        "/auth/bootstrap",
        "The first administrator, by the one-time token; at this port alone",
        ANY,
    )
    .open()
    .needs(&[(JSON, "First")])
    .answers("Its token, this once.", "Session"),
    call("get", "/auth/verify", "Whether the token shown is good, for who forwards requests", ANY)
        .answers("What it says.", "Verdict"),
    call("post", "/auth/verify", "Whether the token shown is good, for who forwards requests", ANY)
        .answers("What it says.", "Verdict"),
    call("post", "/auth/refresh", "A new token for a user's session", ANY)
        .takes(&[(JSON, "Life")])
        .answers("Its token, this once.", "Session"),
    call("post", "/auth/password", "Change a password; the one there is is the credential", ANY)
        .open()
        .needs(&[(JSON, "NewPassword")])
        .answers("The user.", "User"),
    call("get", "/auth/users", "Users", "admin").query(&[PAGE]).answers("A page.", "Users"),
    call("get", "/auth/users/{name}", "One user", "admin").answers("The user.", "User"),
    call("put", "/auth/users/{name}", "Make or change a user", "admin")
        .needs(&[(JSON, "UserWish")])
        .answers("The user.", "User"),
    call("delete", "/auth/users/{name}", "Remove a user and end its sessions", "admin")
        .answers("Removed.", "")
        .by("204", ""),
    v1("get"),
    v1("post"),
    v1("put"),
    v1("delete"),
    call("get", "/openapi.json", "This document", ANY).open().answers("OpenAPI 3.1.", "Document"),
];
