//! OAuth: who becomes a client, how it proves itself, what its tokens are.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::harness::{Reply, Setup, Vault, bytes_below};

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";
const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
                        &subject_token_type=urn:ietf:params:oauth:token-type:access_token";

fn part(token: &str, index: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Registers a client; its secret.
async fn client(vault: &Vault, id: &str, scope: &str) -> String {
    let wish = json!({ "client_id": id, "scope": scope }).to_string();
    let reply = vault.as_admin("POST", "/oauth2/clients", &wish).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["client_secret"].as_str().unwrap().to_owned()
}

/// A form sent by a client with its secret.
async fn ask(vault: &Vault, path: &str, id: &str, secret: &str, form: &str) -> Reply {
    let basic = STANDARD.encode(format!("{id}:{secret}"));
    vault.raw("POST", path, &format!("{FORM}authorization: Basic {basic}\r\n"), form).await
}

/// A token of a client.
async fn token(vault: &Vault, id: &str, secret: &str, form: &str) -> String {
    let reply = ask(vault, "/oauth2/token", id, secret, form).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

async fn is_good(vault: &Vault, token: &str) -> bool {
    let reply = vault.call("POST", "/tokens/validate", None, &json!({ "token": token }).to_string()).await;
    reply.json()["valid"].as_bool().unwrap()
}

fn told(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status, reply.json()["error"].as_str()), (status, Some(error)), "{reply:?}");
    assert!(reply.head.contains("content-type: application/json\r\n"), "{reply:?}");
    assert!(reply.head.contains("cache-control: no-store"), "{reply:?}");
    assert_eq!(status == 401, reply.head.contains("www-authenticate: basic"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_the_tokens_of_its_service() {
    let vault = Vault::start().await;
    let secret = client(&vault, "bot", "read trade").await;
    let reply =
        ask(&vault, "/oauth2/token", "bot", &secret, "grant_type=client_credentials&scope=read").await;
    assert!(reply.status == 200 && reply.head.contains("no-store"), "{reply:?}");
    let answer = reply.json();
    assert_eq!((&answer["token_type"], &answer["scope"]), (&json!("Bearer"), &json!("read")));
    assert_eq!(answer["expires_in"], 86_400);
    assert!(answer.get("issued_token_type").is_none(), "that is for exchanges");
    let access = answer["access_token"].as_str().unwrap();
    assert_eq!(part(access, 0)["typ"], "at+jwt");
    let claims = part(access, 1);
    for (name, value) in [("sub", "bot"), ("client_id", "bot"), ("service", "bot"), ("scope", "read")] {
        assert_eq!(claims[name], value);
    }
    assert!(is_good(&vault, access).await);
    assert_eq!(vault.call("GET", "/secrets/services/bot/db", Some(access), "").await.status, 404);
    vault.call("GET", "/secrets/services/data/db", Some(access), "").await.is(403, "forbidden");

    let form = format!("grant_type=client_credentials&client_id=bot&client_secret={secret}");
    let posted = vault.raw("POST", "/oauth2/token", FORM, &form).await;
    assert_eq!(posted.json()["scope"], "read trade", "all it holds, where it asks for nothing");

    let held = format!("token={access}");
    let known = ask(&vault, "/oauth2/introspect", "bot", &secret, &held).await.json();
    assert_eq!(
        (&known["active"], &known["client_id"], &known["aud"]),
        (&json!(true), &json!("bot"), &json!(["sluice"]))
    );
    assert_eq!((&known["exp"], &known["jti"]), (&claims["exp"], &claims["jti"]));
    let gone = ask(&vault, "/oauth2/revoke", "bot", &secret, &held).await;
    assert_eq!((gone.status, gone.text.as_str()), (200, ""));
    let unknown = ask(&vault, "/oauth2/introspect", "bot", &secret, &held).await;
    assert_eq!(unknown.text, r#"{"active":false}"#);
    assert_eq!(ask(&vault, "/oauth2/revoke", "bot", &secret, "token=x").await.status, 200);
    assert!(!is_good(&vault, access).await);

    // One for another audience is ended too, and not only said to be.
    let minted = json!({ "permissions": ["read"], "audience": "calc" }).to_string();
    let minted = vault.as_admin("POST", "/tokens/bot", &minted).await.json()["token"].clone();
    let held = format!("token={}", minted.as_str().unwrap());
    assert_eq!(ask(&vault, "/oauth2/revoke", "bot", &secret, &held).await.status, 200);
    let again = vault.as_admin("POST", "/tokens/revoke", &json!({ "token": minted }).to_string()).await;
    assert_eq!(again.json()["revoked"], 0, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_worded_as_the_standards_have_it() {
    let vault = Vault::start().await;
    let secret = client(&vault, "bot", "read").await;
    let other = client(&vault, "other", "read").await;
    let grant = "grant_type=client_credentials";
    let cases = [
        ("", 400, "invalid_request"),
        ("grant_type=password&username=a&password=b", 400, "unsupported_grant_type"),
        ("grant_type=client_credentials&scope=write", 400, "invalid_scope"),
        ("grant_type=client_credentials&scope=admin", 400, "invalid_scope"),
        ("grant_type=client_credentials&scope=a%22b", 400, "invalid_scope"),
        ("grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        ("grant_type=client_credentials&client_secret=x", 400, "invalid_request"),
        ("grant_type=client_credentials&client_id=other", 400, "invalid_request"),
        ("grant_type=%ff", 400, "invalid_request"),
        (EXCHANGE, 400, "invalid_request"),
        (&format!("{EXCHANGE}&subject_token=x"), 400, "invalid_grant"),
        (&format!("{EXCHANGE}&subject_token=x&resource=https://a"), 400, "invalid_target"),
        (&format!("{EXCHANGE}&subject_token=x&actor_token=y"), 400, "invalid_request"),
        (&EXCHANGE.replace("access_token", "saml2"), 400, "invalid_request"),
    ];
    for (form, status, error) in cases {
        told(&ask(&vault, "/oauth2/token", "bot", &secret, form).await, status, error);
    }
    for (id, secret) in
        [("bot", "wrong"), ("bot", ""), ("nobody", "x"), ("../bot", "x"), ("bot", other.as_str())]
    {
        told(&ask(&vault, "/oauth2/token", id, secret, grant).await, 401, "invalid_client");
        told(&ask(&vault, "/oauth2/introspect", id, secret, "token=x").await, 401, "invalid_client");
        told(&ask(&vault, "/oauth2/revoke", id, secret, "token=x").await, 401, "invalid_client");
    }
    told(&vault.raw("POST", "/oauth2/token", FORM, grant).await, 401, "invalid_client");
    let bearer = format!("{FORM}authorization: Bearer {}\r\n", vault.admin());
    told(&vault.raw("POST", "/oauth2/token", &bearer, grant).await, 401, "invalid_client");
    told(&vault.raw("POST", "/oauth2/token", "", "{}").await, 400, "invalid_request");
    told(&vault.raw("POST", "/oauth2/token", FORM, &"a=b&".repeat(10_000)).await, 413, "invalid_request");
    let foreign = format!("token={}", token(&vault, "other", &other, grant).await);
    told(&ask(&vault, "/oauth2/revoke", "bot", &secret, &foreign).await, 400, "invalid_grant");
    let seen = ask(&vault, "/oauth2/introspect", "bot", &secret, &foreign).await.json();
    assert_eq!(seen["client_id"], "other", "a service that is shown a token may ask about it");
    let log = vault.as_admin("GET", "/audit?limit=500", "").await.text;
    assert!(log.contains("oauth2/clients/nobody") && log.contains("unverified"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchange_narrows_and_what_it_made_ends_with_its_origin() {
    let vault = Vault::start().await;
    let secret = client(&vault, "bot", "read trade").await;
    let gate = client(&vault, "gate", "read tokens:exchange").await;
    let whole = token(&vault, "bot", &secret, "grant_type=client_credentials").await;
    let exchange = |token: &str, rest: &str| format!("{EXCHANGE}&subject_token={token}{rest}");

    let reply = ask(&vault, "/oauth2/token", "gate", &gate, &exchange(&whole, "&scope=read")).await;
    let answer = reply.json();
    assert_eq!(answer["scope"], "read", "{reply:?}");
    assert_eq!(answer["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    let narrow = answer["access_token"].as_str().unwrap();
    let claims = part(narrow, 1);
    assert_eq!((&claims["sub"], &claims["client_id"]), (&json!("bot"), &json!("gate")));
    assert!(claims["exp"].as_i64() <= part(&whole, 1)["exp"].as_i64());

    let widened = ask(&vault, "/oauth2/token", "gate", &gate, &exchange(narrow, "&scope=trade")).await;
    told(&widened, 400, "invalid_scope");
    let foreign = vault.token("data", &["read"]).await;
    told(
        &ask(&vault, "/oauth2/token", "bot", &secret, &exchange(&foreign, "")).await,
        400,
        "unauthorized_client",
    );
    let elsewhere =
        ask(&vault, "/oauth2/token", "bot", &secret, &exchange(&whole, "&audience=elsewhere")).await;
    told(&elsewhere, 400, "invalid_target");

    let child = token(&vault, "gate", &gate, &exchange(narrow, "&audience=sluice")).await;
    let sibling = token(&vault, "bot", &secret, &exchange(&whole, "")).await;
    let revoked = vault.call("POST", "/tokens/revoke", None, &json!({ "token": narrow }).to_string()).await;
    assert_eq!(revoked.status, 200);
    assert!(!is_good(&vault, narrow).await && !is_good(&vault, &child).await, "a line ends from there on");
    assert!(is_good(&vault, &sibling).await && is_good(&vault, &whole).await);
    told(&ask(&vault, "/oauth2/token", "gate", &gate, &exchange(&child, "")).await, 400, "invalid_grant");
    vault.as_admin("POST", "/tokens/revoke", r#"{"service":"bot"}"#).await;
    assert!(!is_good(&vault, &sibling).await && !is_good(&vault, &whole).await);
    assert!(is_good(&vault, &token(&vault, "bot", &secret, "grant_type=client_credentials").await).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_its_own_proves_a_client_once_an_assertion() {
    let vault = Vault::start().await;
    let rng = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
    let point = key.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
    let wish = |jwk: &Value| {
        json!({ "client_id": "bot", "scope": "read", "token_endpoint_auth_method": "private_key_jwt",
                "jwks": { "keys": [jwk] } })
        .to_string()
    };
    let mut private = jwk.clone();
    private["d"] = json!("AA");
    let refused = vault.as_admin("POST", "/oauth2/clients", &wish(&private)).await;
    assert_eq!(refused.status, 400, "a private key is not ours to have: {refused:?}");
    let made = vault.as_admin("POST", "/oauth2/clients", &wish(&jwk)).await;
    assert!(made.status == 201 && made.json().get("client_secret").is_none(), "{made:?}");

    let assertion = |jti: &str, aud: &str| {
        let now = jiff::Timestamp::now().as_second();
        let claims =
            json!({ "iss": "bot", "sub": "bot", "aud": aud, "iat": now, "exp": now + 60, "jti": jti });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(json!({ "alg": "ES256" })), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(&rng, signed.as_bytes()).unwrap());
        format!(
            "grant_type=client_credentials&client_assertion={signed}.{signature}&client_assertion_type=\
             urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        )
    };
    let ours = "https://sluice.internal/oauth2/token";
    let form = assertion("1", ours);
    let at_once = [0; 8].map(|_| vault.raw("POST", "/oauth2/token", FORM, &form));
    let replies = futures_util::future::join_all(at_once).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "used once: {replies:?}");
    assert_eq!(replies.iter().filter(|reply| reply.status == 401).count(), 7);
    told(
        &vault.raw("POST", "/oauth2/token", FORM, &assertion("2", "https://x")).await,
        401,
        "invalid_client",
    );
    let typeless = assertion("3", ours).replace("jwt-bearer", "saml2-bearer");
    told(&vault.raw("POST", "/oauth2/token", FORM, &typeless).await, 400, "invalid_request");
    let (dir, ended) = vault.stop().await;
    ended.unwrap();
    let mut setup = Setup { dir, ..Setup::default() };
    setup.config.vault.quota.assertions = 2;
    let vault = setup.start();
    vault.ready().await;
    told(&vault.raw("POST", "/oauth2/token", FORM, &form).await, 401, "invalid_client");
    assert_eq!(vault.raw("POST", "/oauth2/token", FORM, &assertion("4", ours)).await.status, 200);
    // What is remembered of a client's assertions is bounded, also over a restart.
    let full = vault.raw("POST", "/oauth2/token", FORM, &assertion("5", ours)).await;
    told(&full, 429, "temporarily_unavailable");
    assert!(full.text.contains("assertions") && full.head.contains("retry-after: "), "{full:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_made_by_who_could_mint_as_much() {
    let vault = Vault::start().await;
    let ci = vault.token("ci", &["tokens:mint", "read"]).await;
    let bot = vault.token("bot", &["read"]).await;
    let wish = |id: &str, scope: &str| json!({ "client_id": id, "scope": scope }).to_string();
    let register = |token: &str, body: String| {
        let token = token.to_owned();
        let vault = &vault;
        async move { vault.call("POST", "/oauth2/clients", Some(&token), &body).await }
    };
    vault.call("POST", "/oauth2/clients", None, &wish("bot", "read")).await.is(401, "invalid_token");
    register(&bot, wish("bot", "read")).await.is(403, "insufficient_scope");
    register(&ci, wish("bot", "admin")).await.is(403, "forbidden");
    register(&ci, wish("bot", "write")).await.is(403, "forbidden");
    for (id, scope) in [("edge", "read"), ("a/b", "read"), ("Bot", "read"), ("bot", ""), ("bot", "a\\b")] {
        register(&ci, wish(id, scope)).await.is(400, "bad_request");
    }
    for odd in [
        r#"{"client_id":"bot","scope":"read","jwks":{"keys":[]},"token_endpoint_auth_method":"private_key_jwt"}"#,
        r#"{"client_id":"bot","scope":"read","token_ttl":"31d"}"#,
        r#"{"client_id":"bot","scope":"read","token_endpoint_auth_method":"none"}"#,
        r#"{"client_id":"bot","scope":"read","redirect_uris":[]}"#,
    ] {
        assert_eq!(register(&ci, odd.to_owned()).await.status, 400, "{odd}");
    }
    let made = register(&ci, wish("bot", "read")).await.json();
    register(&ci, wish("bot", "read")).await.is(409, "conflict");
    let secret = made["client_secret"].as_str().unwrap();
    let listed = vault.as_admin("GET", "/oauth2/clients", "").await;
    assert_eq!(listed.json()["clients"][0]["client_id"], "bot");
    assert!(!listed.text.contains("secret\":"), "{listed:?}");
    for (path, bytes) in bytes_below(vault.dir.path()) {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "the secret is in {}", path.display());
    }
    let grant = "grant_type=client_credentials";
    let access = token(&vault, "bot", secret, grant).await;
    let renewed = vault.as_admin("POST", "/oauth2/clients/bot/secret", "").await.json();
    told(&ask(&vault, "/oauth2/token", "bot", secret, grant).await, 401, "invalid_client");
    let secret = renewed["client_secret"].as_str().unwrap();
    assert!(is_good(&vault, &token(&vault, "bot", secret, grant).await).await);
    let path = "/oauth2/clients/bot";
    vault.call("DELETE", path, Some(&bot), "").await.is(403, "insufficient_scope");
    assert_eq!(vault.as_admin("DELETE", path, "").await.status, 204);
    vault.as_admin("GET", path, "").await.is(404, "not_found");
    told(&ask(&vault, "/oauth2/token", "bot", secret, grant).await, 401, "invalid_client");
    assert!(!is_good(&vault, &access).await, "its tokens went with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_names_what_there_is() {
    let vault = Vault::start().await;
    let document = vault.call("GET", "/.well-known/openid-configuration", None, "").await;
    assert!(document.head.contains("max-age=300"), "{document:?}");
    let same = vault.call("GET", "/.well-known/oauth-authorization-server", None, "").await;
    assert_eq!(document.text, same.text);
    let document = document.json();
    assert_eq!(document["issuer"], "https://sluice.internal");
    for name in ["jwks_uri", "token_endpoint", "introspection_endpoint", "revocation_endpoint"] {
        let path = document[name].as_str().unwrap().strip_prefix("https://sluice.internal").unwrap();
        let method = if name == "jwks_uri" { "GET" } else { "POST" };
        assert_ne!(vault.call(method, path, None, "").await.status, 404, "{name}");
    }
    assert_eq!(document["response_types_supported"], json!([]));
}
