//! The shapes of bodies, as JSON Schema.

use serde_json::{Map, Value, json};
use sluice_http::openapi::{any, count, flag, list, object, shape, text};

type Shapes = Vec<(&'static str, Value)>;

/// Every shape by its name.
pub(super) fn all() -> Map<String, Value> {
    let groups = [tokens(), certificates(), secrets(), oauth(), falco(), acme(), users(), common()];
    groups.into_iter().flatten().map(|(name, shape)| (name.to_owned(), shape)).collect()
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn texts() -> Value {
    list(text())
}

fn either(shapes: &[Value]) -> Value {
    json!({ "anyOf": shapes })
}

/// Seconds, or text such as `15m`.
fn life() -> Value {
    json!({ "type": ["integer", "string"], "description": "whole seconds, or text such as 15m, 12h, 7d" })
}

fn audience() -> Value {
    either(&[text(), json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 8 })])
}

/// A page of something.
fn page(member: &str, of: &str) -> Value {
    object(&[(member, list(shape(of))), ("count!", count()), ("next", text())])
}

/// RFC 8705, 3.1.
fn confirmation() -> Value {
    object(&[("x5t#S256!", json!({ "type": "string", "minLength": 43, "maxLength": 43 }))])
}

fn tokens() -> Shapes {
    let told = [
        ("service_name!", text()),
        ("issued_at!", time()),
        ("expires_at!", time()),
        ("permissions!", texts()),
        ("jti!", text()),
    ];
    let issued =
        [("token!", text()), ("token_type!", json!({ "enum": ["Bearer"] })), ("expires_in!", count())];
    vec![
        (
            "TokenWish",
            object(&[
                ("service_name", text()),
                ("permissions", texts()),
                ("ttl", life()),
                ("audience", audience()),
                ("certificate_bound", flag()),
            ]),
        ),
        ("Token", object(&[&issued[..], &told[..]].concat())),
        ("TokenListed", object(&told)),
        ("Tokens", page("tokens!", "TokenListed")),
        ("TokenHeld", object(&[("token", text())])),
        (
            "Verdict",
            object(&[
                ("valid!", flag()),
                ("reason", json!({ "enum": ["expired", "revoked", "invalid"] })),
                ("service_name", text()),
                ("permissions", texts()),
                ("issued_at", time()),
                ("expires_at", time()),
                ("jti", text()),
                ("cnf", confirmation()),
            ]),
        ),
        ("Life", object(&[("ttl", life())])),
        ("TokenRevoke", object(&[("token", text()), ("jti", text()), ("service", text())])),
        (
            "Revoked",
            object(&[
                ("status!", json!({ "enum": ["revoked"] })),
                ("revoked!", count()),
                ("service_name", text()),
            ]),
        ),
        (
            "Jwk",
            object(&[
                ("kty!", text()),
                ("crv!", text()),
                ("x!", text()),
                ("y!", text()),
                ("kid!", text()),
                ("use!", text()),
                ("alg!", text()),
            ]),
        ),
        ("Jwks", object(&[("keys!", list(shape("Jwk")))])),
    ]
}

fn certificates() -> Shapes {
    let wish = [("csr", text()), ("ttl", life())];
    let issue = [("service_name", text()), ("dns_names", texts()), ("ip_addresses", texts())];
    let told = [
        ("service_name!", text()),
        ("certificate!", text()),
        ("serial_number!", text()),
        ("spiffe_id!", text()),
        ("issued_at!", time()),
        ("expires_at!", time()),
    ];
    let issued = [("private_key", text()), ("ca_certificate!", text()), ("ca_chain!", texts())];
    let kept = [
        ("dns_names!", texts()),
        ("revoked_at!", json!({ "type": ["string", "null"] })),
        ("days_left!", json!({ "type": "number" })),
        ("renew_at!", time()),
    ];
    let key =
        object(&[("use!", json!({ "enum": ["x509-svid", "jwt-svid"] })), ("kid", text()), ("x5c", texts())]);
    vec![
        ("CertificateWish", object(&[&wish[..], &issue[..]].concat())),
        ("Renewal", object(&[&wish[..], &[("serial_number", text())]].concat())),
        ("Certificate", object(&[&told[..], &issued[..]].concat())),
        ("Credential", object(&[&told[..], &kept[..]].concat())),
        ("Credentials", page("credentials!", "Credential")),
        ("CertificateRevoke", object(&[("serial_number", text())])),
        ("SvidWish", object(&[("audience!", audience()), ("ttl", life())])),
        (
            "Svid",
            object(&[
                ("service_name!", text()),
                ("spiffe_id!", text()),
                ("svid!", text()),
                ("audience!", texts()),
                ("issued_at!", time()),
                ("expires_at!", time()),
            ]),
        ),
        ("Pem", text()),
        (
            "Bundle",
            object(&[("spiffe_sequence!", count()), ("spiffe_refresh_hint!", count()), ("keys!", list(key))]),
        ),
    ]
}

fn secrets() -> Shapes {
    let changed = [
        ("status!", json!({ "enum": ["deleted", "undeleted", "destroyed"] })),
        ("path!", text()),
        ("versions!", list(count())),
    ];
    vec![
        (
            "SecretBody",
            json!({
                "type": "object",
                "description": "the value as `data`, with `cas` beside it; or the value itself",
                "properties": { "data": { "type": "object" }, "cas": { "type": "integer", "minimum": 0 } },
            }),
        ),
        ("SecretNamed", object(&[("path!", text()), ("data!", any()), ("cas", count())])),
        (
            "Stored",
            object(&[
                ("status!", json!({ "enum": ["success"] })),
                ("path!", text()),
                ("version!", count()),
                ("created_at!", time()),
            ]),
        ),
        ("Secret", object(&[("data!", any()), ("version!", count()), ("created_at!", time())])),
        ("Names", object(&[("path!", text()), ("keys!", texts()), ("next", text())])),
        (
            "History",
            object(&[
                ("path!", text()),
                ("current_version!", count()),
                ("created_at!", time()),
                ("updated_at!", time()),
                ("max_versions!", count()),
                ("versions!", any()),
            ]),
        ),
        ("VersionsChanged", object(&changed)),
        ("SecretRead", either(&["Secret", "Names", "History"].map(shape))),
        ("SecretWritten", either(&["Stored", "VersionsChanged"].map(shape))),
        ("Records", object(&[("records!", list(any())), ("count!", count()), ("next", count())])),
    ]
}

fn oauth() -> Shapes {
    let method = json!({ "enum": [
        "client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth",
    ] });
    let proof = [
        ("client_id", text()),
        ("client_secret", text()),
        ("client_assertion", text()),
        ("client_assertion_type", text()),
    ];
    let grant = [
        ("grant_type!", text()),
        ("scope", text()),
        ("subject_token", text()),
        ("subject_token_type", text()),
        ("requested_token_type", text()),
        ("audience", text()),
    ];
    let client = [
        ("client_id!", text()),
        ("client_name", text()),
        ("token_endpoint_auth_method", method),
        ("scope!", text()),
        ("tls_client_certificate_bound_access_tokens", flag()),
    ];
    let registered = [
        ("client_id_issued_at!", count()),
        ("registered_by!", text()),
        ("client_secret", text()),
        ("client_secret_expires_at", count()),
    ];
    vec![
        ("Grant", object(&[&grant[..], &proof[..]].concat())),
        ("TokenForm", object(&[&[("token!", text())], &proof[..]].concat())),
        (
            "Granted",
            object(&[
                ("access_token!", text()),
                ("token_type!", json!({ "enum": ["Bearer"] })),
                ("expires_in!", count()),
                ("scope!", text()),
                ("issued_token_type", text()),
            ]),
        ),
        (
            "Introspected",
            object(&[
                ("active!", flag()),
                ("scope", text()),
                ("client_id", text()),
                ("username", text()),
                ("token_type", text()),
                ("iss", text()),
                ("sub", text()),
                ("aud", texts()),
                ("exp", count()),
                ("iat", count()),
                ("nbf", count()),
                ("jti", text()),
                ("cnf", confirmation()),
            ]),
        ),
        ("Metadata", object(&[("issuer!", text()), ("jwks_uri!", text()), ("token_endpoint!", text())])),
        ("ClientWish", object(&[&client[..], &[("jwks", any()), ("token_ttl", life())]].concat())),
        ("Client", object(&[&client[..], &registered[..]].concat())),
        ("Clients", object(&[("clients!", list(shape("Client"))), ("count!", count())])),
    ]
}

fn falco() -> Shapes {
    let outcome =
        object(&[("action!", text()), ("identity", text()), ("rule!", text()), ("result!", text())]);
    let alert = [
        ("time!", time()),
        ("rule!", text()),
        ("priority!", text()),
        ("output!", text()),
        ("output_fields", any()),
        ("hostname", text()),
        ("source", text()),
        ("tags", texts()),
    ];
    vec![
        ("Alert", object(&alert)),
        ("Alerts", either(&[shape("Alert"), list(shape("Alert"))])),
        (
            "AlertsTaken",
            object(&[
                ("accepted!", count()),
                ("repeated!", count()),
                ("limited!", count()),
                ("responses!", list(outcome)),
            ]),
        ),
        ("KillSwitches", object(&[("switches!", list(any())), ("count!", count())])),
        ("Stop", any()),
        ("Quarantines", object(&[("quarantines!", list(any())), ("count!", count())])),
    ]
}

fn acme() -> Shapes {
    let told = [
        ("kid!", text()),
        ("service_name!", text()),
        ("identity!", flag()),
        ("created_at!", time()),
        ("expires_at!", time()),
        ("created_by!", text()),
        ("dns_names!", texts()),
        ("directory!", text()),
        ("hmac_key", text()),
    ];
    vec![
        ("Jws", object(&[("protected!", text()), ("payload!", text()), ("signature!", text())])),
        ("AcmeObject", json!({ "type": "object", "description": "RFC 8555, 7.1" })),
        ("Directory", json!({ "type": "object", "description": "RFC 8555, 7.1.1" })),
        ("RenewalInfo", object(&[("suggestedWindow!", object(&[("start!", time()), ("end!", time())]))])),
        ("BindingWish", object(&[("service_name!", text()), ("ttl", life()), ("identity", flag())])),
        ("Binding", object(&told)),
        ("Bindings", object(&[("external_accounts!", list(shape("Binding"))), ("count!", count())])),
    ]
}

fn users() -> Shapes {
    let proof = [("username!", text()), ("password!", text())];
    vec![
        ("Login", object(&proof)),
        ("First", object(&[&[("token!", text())], &proof[..]].concat())),
        ("NewPassword", object(&[&proof[..], &[("new_password!", text())]].concat())),
        (
            "Session",
            object(&[
                ("token!", text()),
                ("token_type!", text()),
                ("user!", text()),
                ("roles!", texts()),
                ("permissions!", texts()),
                ("expires_at!", time()),
                ("expires_in!", count()),
            ]),
        ),
        ("UserWish", object(&[("password", text()), ("roles", texts())])),
        (
            "User",
            object(&[
                ("user!", text()),
                ("roles!", texts()),
                ("created_at!", time()),
                ("updated_at!", time()),
            ]),
        ),
        ("Users", page("users!", "User")),
    ]
}

fn common() -> Shapes {
    vec![
        ("Document", any()),
        (
            "Problem",
            object(&[
                ("type!", text()),
                ("title!", text()),
                ("status!", count()),
                ("code!", text()),
                ("detail", text()),
                ("instance", text()),
            ]),
        ),
    ]
}
