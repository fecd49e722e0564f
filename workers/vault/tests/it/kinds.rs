//! Credentials of one kind shown where another is asked for: old tokens, tokens for others, parts of other protocols.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use sluice_schema::Secret;

use crate::harness::{PATIENCE, Reply, Setup, Vault};

const SHARED: &str = "an old secret that every service of the platform knows";
const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decoded(token: &str, index: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn hs256(key: &[u8], head: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encoded(head), encoded(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// A token as the older platform makes it.
fn old(name: &str, permissions: &[&str]) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "service": name, "permissions": permissions, "iat": now, "exp": now + 600 });
    hs256(SHARED.as_bytes(), &json!({ "alg": "HS256", "typ": "JWT" }), &claims)
}

async fn verdict(vault: &Vault, token: &str) -> Value {
    let reply = vault.call("POST", "/tokens/validate", None, &json!({ "token": token }).to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

/// A vault that takes old tokens.
async fn older() -> Vault {
    let mut setup = Setup::default();
    setup.config.auth.hs256_secret = Some(Secret::new(SHARED));
    let vault = setup.start();
    vault.ready().await;
    vault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_token_is_good_and_makes_nobody() {
    let vault = older().await;
    let bot = old("bot", &["read", "write", "trade"]);
    let good = verdict(&vault, &bot).await;
    assert_eq!((&good["valid"], &good["service_name"]), (&json!(true), &json!("bot")), "{good}");
    let service = vault.token("bot", &["read", "write"]).await;
    let by_id = json!({ "jti": decoded(&service, 1)["jti"] }).to_string();
    let role = json!({ "bound_subject": "bot", "token_policies": ["default"] }).to_string();
    assert_eq!(vault.as_admin("POST", "/v1/auth/jwt/role/bot", &role).await.status, 204);
    vault.as_admin("PUT", "/secrets/services/bot/db", r#"{"k":"v"}"#).await;
    vault.as_admin("POST", "/credentials/bot", "").await;

    for (method, path, body) in [
        ("POST", "/credentials/bot", ""),
        ("POST", "/security/credentials/issue", r#"{"service_name":"bot"}"#),
        ("POST", "/credentials/bot/renew", ""),
        ("POST", "/credentials/bot/revoke", ""),
        ("GET", "/credentials/bot", ""),
        ("POST", "/tokens/bot", r#"{"permissions":["read"]}"#),
        ("POST", "/tokens/generate", r#"{"service_name":"bot"}"#),
        ("POST", "/tokens/refresh", ""),
        ("POST", "/tokens/revoke", r#"{"service":"bot"}"#),
        ("POST", "/tokens/revoke", r#"{"service":"dev-admin"}"#),
        ("POST", "/tokens/revoke", &by_id),
        ("POST", "/acme/external-accounts", r#"{"service_name":"bot"}"#),
        ("POST", "/oauth2/clients", r#"{"client_id":"bot","scope":"read"}"#),
        ("GET", "/secrets/services/bot/db", ""),
        ("PUT", "/secrets/services/bot/db", r#"{"k":"w"}"#),
        ("DELETE", "/secrets/services/bot/db", ""),
        ("PUT", "/auth/users/eve", r#"{"password":"a long password","roles":["bot"]}"#),
        ("POST", "/auth/refresh", ""),
        ("GET", "/audit", ""),
        ("POST", "/falco/quarantine/bot/release", ""),
        ("GET", "/v1/secret/data/services/bot/db", ""),
        ("POST", "/v1/secret/data/services/bot/db", r#"{"data":{"k":"w"}}"#),
        ("POST", "/v1/auth/token/create", r#"{"policies":["default"]}"#),
        ("PUT", "/v1/sys/policies/acl/x", r#"{"policy":"path \"*\" {}"}"#),
        ("PUT", "/v1/sys/seal", ""),
    ] {
        let reply = vault.call(method, path, Some(&bot), body).await;
        assert_eq!(reply.status, 403, "{method} {path}: {reply:?}");
    }
    let login = json!({ "role": "bot", "jwt": bot }).to_string();
    assert_eq!(vault.call("POST", "/v1/auth/jwt/login", None, &login).await.status, 400);
    let gate = client(&vault, "gate", "read tokens:exchange").await;
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={bot}\
         &subject_token_type=urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(vault.raw("POST", "/oauth2/token", &gate, &form).await.status, 400);
    // None of it came about, and nobody was shut out.
    assert_eq!(verdict(&vault, &service).await["valid"], true);
    let kept = vault.call("GET", "/secrets/services/bot/db", Some(&service), "").await.json();
    assert_eq!((&kept["data"]["k"], &kept["version"]), (&json!("v"), &json!(1)));
    assert_eq!(vault.certified().await, ["bot"]);
    assert_eq!(vault.as_admin("GET", "/tokens?service=bot", "").await.json()["count"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_secret_signs_nothing_but_old_tokens() {
    let vault = older().await;
    let issued = vault.token("bot", &["read"]).await;
    let (head, claims) = (decoded(&issued, 0), decoded(&issued, 1));
    let key = vault.call("GET", "/.well-known/jwks.json", None, "").await.json()["keys"][0].clone();
    let point: Vec<u8> = ["x", "y"]
        .into_iter()
        .flat_map(|name| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap())
        .collect();
    let uncompressed = [&[4][..], &point].concat();
    // SubjectPublicKeyInfo of a P-256 key: what is in every PEM of it.
    let prefix = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
    let spki = [STANDARD.decode(prefix).unwrap(), point.clone()].concat();
    let text = STANDARD.encode(&spki);
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &text[..64], &text[64..]);
    let now = jiff::Timestamp::now().as_second();
    let wish = json!({ "service": "bot", "permissions": ["read"], "iat": now, "exp": now + 600 });
    let with = |name: &str, value: Value| {
        let mut wish = wish.clone();
        wish[name] = value;
        wish
    };
    let plain = json!({ "alg": "HS256", "typ": "JWT" });
    let named = json!({ "alg": "HS256", "typ": "JWT", "kid": head["kid"] });
    let keys: [&[u8]; 6] = [
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        &spki,
        &uncompressed,
        &point,
        key["x"].as_str().unwrap().as_bytes(),
    ];
    let mut forged = Vec::new();
    for key in keys.into_iter().chain([key.to_string().as_bytes(), b"", b"none"]) {
        for head in [&plain, &named] {
            forged.push(hs256(key, head, &wish));
            forged.push(hs256(key, head, &claims));
        }
    }
    for name in ["HS384", "HS512", "hs256", "none", "ES256", "RS256"] {
        forged.push(hs256(
            SHARED.as_bytes(),
            &json!({ "alg": name, "typ": "JWT", "kid": head["kid"] }),
            &wish,
        ));
        forged.push(hs256(SHARED.as_bytes(), &json!({ "alg": name, "typ": "JWT" }), &wish));
    }
    for (name, value) in [
        ("permissions", json!(["admin"])),
        ("permissions", json!(["tokens:mint"])),
        ("permissions", json!(["read", "secrets:admin"])),
        ("scope", json!("admin")),
        ("exp", json!(now + 366 * 86_400)),
        ("exp", json!(now - 60)),
        ("iat", json!(now + 600)),
        ("iat", json!(null)),
        ("service", json!(["bot"])),
        ("service", json!("bot\n")),
    ] {
        forged.push(hs256(SHARED.as_bytes(), &plain, &with(name, value)));
    }
    for token in &forged {
        assert_eq!(verdict(&vault, token).await["valid"], false, "{token}");
        for path in ["/secrets/services/bot/x", "/tokens"] {
            assert_eq!(vault.call("GET", path, Some(token), "").await.status, 401, "{token}");
        }
    }
    assert_eq!(
        verdict(&vault, &hs256(SHARED.as_bytes(), &plain, &wish)).await["valid"],
        true,
        "but this is one"
    );
    // Where no such secret was given there are no such tokens.
    let vault = Vault::start().await;
    for key in [SHARED.as_bytes(), b""] {
        assert_eq!(verdict(&vault, &hs256(key, &plain, &wish)).await["valid"], false);
    }
}

/// Registers a client; what it sends in its head.
async fn client(vault: &Vault, id: &str, scope: &str) -> String {
    let wish = json!({ "client_id": id, "scope": scope }).to_string();
    let made = vault.as_admin("POST", "/oauth2/clients", &wish).await.json();
    let secret = made["client_secret"].as_str().unwrap();
    format!("{FORM}authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_another_purpose_opens_no_route_of_the_vault() {
    let vault = Vault::start().await;
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let access = vault.token("bot", &["read", "write"]).await;
    let elsewhere = json!({ "permissions": ["read", "write", "admin"], "audience": "calc" }).to_string();
    let elsewhere = vault.as_admin("POST", "/tokens/bot", &elsewhere).await.json()["token"].clone();
    let elsewhere = elsewhere.as_str().unwrap().to_owned();
    let made = json!({ "client_id": "desk", "scope": "admin" }).to_string();
    let secret = vault.as_admin("POST", "/oauth2/clients", &made).await.json()["client_secret"].clone();
    let shown = format!("x-vault-token: {root}\r\n");
    let wrapped = format!("{shown}x-vault-wrap-ttl: 60\r\n");
    let opener = vault.raw("POST", "/v1/sys/wrapping/wrap", &wrapped, r#"{"a":"b"}"#).await.json();
    let opener = opener["wrap_info"]["token"].as_str().unwrap().to_owned();
    let admin = vault.admin();
    // A token of ours, dressed up as another kind: what is not signed with it is not believed.
    let parts: Vec<&str> = admin.split('.').collect();
    let dressed = |typ: &str| {
        let mut head = decoded(&admin, 0);
        head["typ"] = json!(typ);
        format!("{}.{}.{}", encoded(&head), parts[1], parts[2])
    };
    let mut strange = vec![
        elsewhere.clone(),
        secret.as_str().unwrap().to_owned(),
        format!("{admin}."),
        admin.to_uppercase(),
    ];
    strange.extend(["JWT", "id+jwt", "dpop+jwt", "secevent+jwt", "logout+jwt", ""].map(dressed));
    for token in &strange {
        for (method, path, body) in [
            ("GET", "/secrets/services/bot/x", ""),
            ("POST", "/tokens/bot", ""),
            ("POST", "/tokens/refresh", ""),
            ("POST", "/tokens/revoke", r#"{"service":"bot"}"#),
            ("GET", "/tokens", ""),
            ("POST", "/credentials/bot", ""),
            ("GET", "/credentials", ""),
            ("POST", "/acme/external-accounts", r#"{"service_name":"bot"}"#),
            ("GET", "/oauth2/clients", ""),
            ("GET", "/auth/verify", ""),
            ("POST", "/auth/refresh", ""),
            ("GET", "/auth/users", ""),
            ("GET", "/audit", ""),
            ("GET", "/falco/quarantine", ""),
        ] {
            let reply = vault.call(method, path, Some(token), body).await;
            assert_eq!(reply.status, 401, "{method} {path} with {token}: {reply:?}");
        }
        let reply =
            vault.raw("GET", "/v1/auth/token/lookup-self", &format!("x-vault-token: {token}\r\n"), "").await;
        assert_eq!(reply.status, 403, "{token}: {reply:?}");
    }
    // What opens a wrapping opens that alone, and nothing else opens it.
    for token in [root.as_str(), opener.as_str()] {
        for (method, path) in [
            ("POST", "/credentials/bot"),
            ("POST", "/tokens/bot"),
            ("GET", "/audit"),
            ("GET", "/oauth2/clients"),
        ] {
            let reply = vault.call(method, path, Some(token), "").await;
            assert_eq!(reply.status, 401, "{method} {path}: {reply:?}");
        }
    }
    let with = |token: &str| format!("x-vault-token: {token}\r\n");
    for path in ["/v1/secret/data/services/bot/x", "/v1/auth/token/lookup-self", "/secrets/services/bot/x"] {
        let reply = vault.raw("GET", path, &with(&opener), "").await;
        assert!([401, 403].contains(&reply.status), "{path}: {reply:?}");
    }
    for token in [&access, &elsewhere, &admin] {
        let unwrap = json!({ "token": token }).to_string();
        assert_eq!(vault.raw("POST", "/v1/sys/wrapping/unwrap", "", &unwrap).await.status, 400, "{token}");
    }
    assert_eq!(
        vault.raw("POST", "/v1/sys/wrapping/unwrap", &with(&opener), "").await.status,
        200,
        "unharmed"
    );
    access_tokens_are_no_grants(&vault, &access).await;
}

/// An access token is no refresh token, no assertion, no secret, no ID token and no key of an account.
async fn access_tokens_are_no_grants(vault: &Vault, access: &str) {
    let gate = client(vault, "gate", "read tokens:exchange").await;
    let told = |reply: Reply| (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned());
    let refused = |status: u16, word: &str| (status, word.to_owned());
    let form = format!("grant_type=refresh_token&refresh_token={access}");
    let reply = vault.raw("POST", "/oauth2/token", &gate, &form).await;
    assert_eq!(told(reply), refused(400, "unsupported_grant_type"));
    for kind in ["id_token", "refresh_token", "saml1", "saml2"] {
        let form = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={access}\
             &subject_token_type=urn:ietf:params:oauth:token-type:{kind}"
        );
        let reply = vault.raw("POST", "/oauth2/token", &gate, &form).await;
        assert_eq!(told(reply), refused(400, "invalid_request"), "{kind}");
    }
    let assertion = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    let form =
        format!("grant_type=client_credentials&client_assertion_type={assertion}&client_assertion={access}");
    assert_eq!(told(vault.raw("POST", "/oauth2/token", FORM, &form).await), refused(401, "invalid_client"));
    for head in [
        format!("{FORM}authorization: Bearer {access}\r\n"),
        format!("{FORM}authorization: Basic {}\r\n", STANDARD.encode(format!("gate:{access}"))),
    ] {
        let reply = vault.raw("POST", "/oauth2/token", &head, "grant_type=client_credentials").await;
        assert_eq!(told(reply), refused(401, "invalid_client"));
    }
    let login = json!({ "username": "bot", "password": access }).to_string();
    assert_ne!(vault.call("POST", "/auth/login", None, &login).await.status, 200);
    let bootstrap = json!({ "token": access, "username": "bot", "password": "a long password" }).to_string();
    assert_ne!(vault.call("POST", "/auth/bootstrap", None, &bootstrap).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_sluice_becomes_one_of_vaults_kind_where_a_role_says_so() {
    let mut setup = Setup::default();
    setup.config.auth.leeway = std::time::Duration::ZERO;
    let vault = setup.start();
    vault.ready().await;
    let policy = json!({ "policy": r#"path "secret/data/desk/*" { capabilities = ["read"] }"# }).to_string();
    assert_eq!(vault.as_admin("PUT", "/v1/sys/policies/acl/desk", &policy).await.status, 204);
    let role = json!({ "bound_subject": "bot", "token_policies": ["desk"], "token_ttl": 600 }).to_string();
    assert_eq!(vault.as_admin("POST", "/v1/auth/jwt/role/desk", &role).await.status, 204);
    vault.as_admin("PUT", "/secrets/desk/a", r#"{"k":"v"}"#).await;
    let login = async |role: &str, jwt: &str| {
        let body = json!({ "role": role, "jwt": jwt }).to_string();
        vault.call("POST", "/v1/auth/jwt/login", None, &body).await
    };
    let minted = async |body: Value| {
        let reply = vault.as_admin("POST", "/tokens/bot", &body.to_string()).await;
        reply.json()["token"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
    };
    let good = minted(json!({ "permissions": ["read"] })).await;
    let soon_over = minted(json!({ "permissions": ["read"], "ttl": 1 })).await;
    let elsewhere = minted(json!({ "permissions": ["read"], "audience": "calc" })).await;
    let other = vault.token("other", &["read"]).await;
    let reply = login("desk", &good).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let auth = reply.json()["auth"].clone();
    assert_eq!(
        (&auth["policies"], &auth["lease_duration"]),
        (&json!(["default", "desk"]), &json!(600)),
        "{auth}"
    );
    assert_eq!(auth["metadata"], json!({ "role": "desk", "subject": "bot" }));
    let held = auth["client_token"].as_str().unwrap().to_owned();
    let read = async |path: &str| vault.v1(&held, "GET", path, &Value::Null).await.status;
    assert_eq!((read("secret/data/desk/a").await, read("secret/data/services/bot/a").await), (200, 403));
    let root = std::fs::read_to_string(vault.dir.path().join("vault-token")).unwrap();
    let mut broken = good.clone();
    broken.replace_range(good.len() - 8.., "AAAAAAAA");
    for (role, jwt) in [
        ("desk", elsewhere.as_str()),
        ("desk", &other),
        ("none", &good),
        ("desk", &root),
        ("desk", &held),
        ("desk", &broken),
        ("desk", ""),
        ("", &good),
        ("../desk", &good),
    ] {
        let reply = login(role, jwt).await;
        assert_eq!(reply.status, 400, "{role} {jwt}: {reply:?}");
    }
    // Waits for the end of a token of one second, the shortest there is.
    let over = async { while login("desk", &soon_over).await.status == 200 {} };
    tokio::time::timeout(PATIENCE, over).await.expect("it ends");
    assert_eq!(login("desk", &soon_over).await.status, 400);
    // What it made ends with it, and so does what comes after a revocation.
    let ended = json!({ "token": good }).to_string();
    assert_eq!(vault.call("POST", "/tokens/revoke", None, &ended).await.status, 200);
    assert_eq!((read("secret/data/desk/a").await, login("desk", &good).await.status), (403, 400));
    let log = std::fs::read_to_string(vault.dir.path().join("audit/vault.jsonl")).unwrap();
    let refused =
        log.lines().filter(|line| line.contains("auth/jwt/login") && !line.contains(r#""decision":"allow""#));
    assert!(refused.count() >= 5, "{log}");
    assert!(!log.contains(&good) && !log.contains(&held));
}
