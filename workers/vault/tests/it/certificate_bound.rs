//! Tokens that are bound to a certificate (RFC 8705): who gets them, and that nothing takes the bond off.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use x509_parser::pem::Pem;

use crate::harness::{Reply, Vault};

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";
const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
                        &subject_token_type=urn:ietf:params:oauth:token-type:access_token";
const BOUND: &str = r#"{"certificate_bound":true}"#;

fn claims(token: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn token(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    let token = answer.get("token").or_else(|| answer.get("access_token")).unwrap();
    token.as_str().unwrap().to_owned()
}

/// A certificate of a service: how the edge tells of a client that shows it, and how tokens name it.
async fn certificate(vault: &Vault, service: &str) -> (String, Value) {
    let issued = vault.as_admin("POST", &format!("/credentials/{service}"), "").await.json();
    let pem = issued["certificate"].as_str().unwrap();
    let leaf = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap().contents;
    let at = |name: &str| issued[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let told = format!(
        "x-user: {}\r\nx-account: {service}\r\nx-permissions: read\r\nx-auth-method: mtls\r\n\
         x-internal-proof: {} {} {}\r\n",
        issued["spiffe_id"].as_str().unwrap(),
        at("issued_at"),
        at("expires_at"),
        issued["serial_number"].as_str().unwrap()
    );
    (told, json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(digest(&SHA256, &leaf)) }))
}

/// How the edge tells of a client whose token it has verified, the bond included.
fn with_token(token: &str) -> String {
    let claims = claims(token);
    format!(
        "x-user: bot\r\nx-permissions: read\r\nx-auth-method: token\r\nx-internal-proof: {} {} {}\r\n",
        claims["iat"],
        claims["exp"],
        claims["jti"].as_str().unwrap()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_binds_a_token_to_the_certificate_it_shows() {
    let vault = Vault::start().await;
    let (shown, cnf) = certificate(&vault, "bot").await;
    let bound = token(&vault.vouched(&shown, "POST", "/tokens/bot", BOUND).await);
    assert_eq!(claims(&bound)["cnf"], cnf);
    let free = token(&vault.vouched(&shown, "POST", "/tokens/bot", "{}").await);
    assert!(claims(&free).get("cnf").is_none(), "only where it is asked for");

    // Here it is shown on a connection without any certificate.
    for (method, path) in
        [("GET", "/secrets/services/bot/x"), ("POST", "/tokens/refresh"), ("POST", "/credentials/bot")]
    {
        vault.call(method, path, Some(&bound), "").await.is(401, "invalid_token");
        let passed_on = format!("authorization: Bearer {bound}\r\n");
        vault.vouched(&passed_on, method, path, "").await.is(401, "invalid_token");
    }
    let verdict = vault.call("POST", "/tokens/validate", None, &json!({ "token": bound }).to_string()).await;
    assert_eq!((&verdict.json()["valid"], &verdict.json()["cnf"]), (&json!(true), &cnf));

    // What is made of it by who holds it is bound to the same.
    let held = with_token(&bound);
    for (path, body) in [("/tokens/refresh", ""), ("/tokens/bot", ""), ("/tokens/bot", BOUND)] {
        let made = token(&vault.vouched(&held, "POST", path, body).await);
        assert_eq!(claims(&made)["cnf"], cnf, "{path}");
    }
    vault.vouched(&with_token(&free), "POST", "/tokens/bot", BOUND).await.is(400, "bad_request");
    vault.as_admin("POST", "/tokens/bot", BOUND).await.is(400, "bad_request");
    let unknown = shown.replace("x-internal-proof: ", "x-internal-proof: 1 9999999999 0a0b\r\nx-none: ");
    vault.vouched(&unknown, "POST", "/tokens/bot", BOUND).await.is(400, "bad_request");
    let role = json!({ "bound_subject": "bot", "token_policies": ["default"] }).to_string();
    assert_eq!(vault.as_admin("POST", "/v1/auth/jwt/role/bot", &role).await.status, 204);
    for (jwt, status) in [(&bound, 400), (&free, 200)] {
        let login = json!({ "role": "bot", "jwt": jwt }).to_string();
        assert_eq!(vault.call("POST", "/v1/auth/jwt/login", None, &login).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_mutual_tls_gets_bound_tokens_and_nobody_exchanges_the_bond_away() {
    let vault = Vault::start().await;
    let register = async |id: &str, more: Value| {
        let mut wish = json!({ "client_id": id, "scope": "read tokens:exchange" });
        wish.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        vault.as_admin("POST", "/oauth2/clients", &wish.to_string()).await
    };
    let flag = "tls_client_certificate_bound_access_tokens";
    register("bot", json!({ flag: true })).await.is(400, "bad_request");
    let client =
        register("bot", json!({ flag: true, "token_endpoint_auth_method": "tls_client_auth" })).await;
    assert_eq!((client.status, &client.json()[flag]), (201, &json!(true)), "{client:?}");
    register("plain", json!({ "token_endpoint_auth_method": "tls_client_auth" })).await;
    let secret = register("gate", json!({})).await.json()["client_secret"].as_str().unwrap().to_owned();
    let metadata = vault.call("GET", "/.well-known/oauth-authorization-server", None, "").await.json();
    assert_eq!(metadata[flag], true);

    let (first, cnf) = certificate(&vault, "bot").await;
    let (second, other) = certificate(&vault, "bot").await;
    let (plain, _) = certificate(&vault, "plain").await;
    let ask = async |told: &str, path: &str, form: &str| {
        vault.vouched(&format!("{FORM}{told}"), "POST", path, form).await
    };
    let grant = "grant_type=client_credentials&client_id=bot&scope=read";
    let bound = token(&ask(&first, "/oauth2/token", grant).await);
    assert_eq!(claims(&bound)["cnf"], cnf);
    assert_eq!(claims(&token(&ask(&second, "/oauth2/token", grant).await))["cnf"], other);
    assert_eq!(ask(&plain, "/oauth2/token", grant).await.status, 401, "another service's certificate");
    let free = token(&ask(&plain, "/oauth2/token", "grant_type=client_credentials&client_id=plain").await);
    assert!(claims(&free).get("cnf").is_none());

    let basic = format!("authorization: Basic {}\r\n", STANDARD.encode(format!("gate:{secret}")));
    let known = ask(&basic, "/oauth2/introspect", &format!("token={bound}")).await.json();
    assert_eq!((&known["active"], &known["cnf"]), (&json!(true), &cnf));
    let known = ask(&basic, "/oauth2/introspect", &format!("token={free}")).await.json();
    assert!(known["active"] == true && known.get("cnf").is_none(), "{known}");

    let exchange = format!("{EXCHANGE}&subject_token={bound}");
    for (told, client) in [(&basic, "gate"), (&second, "bot"), (&plain, "plain")] {
        let refused = ask(told, "/oauth2/token", &format!("{exchange}&client_id={client}")).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")), "{client}");
    }
    let narrowed =
        token(&ask(&first, "/oauth2/token", &format!("{exchange}&client_id=bot&scope=read")).await);
    assert_eq!(claims(&narrowed)["cnf"], cnf);
}
