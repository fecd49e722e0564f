//! JWT-SVIDs: what they say, who gets one, what they do not open.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use sluice_schema::{FalcoAction, FalcoPriority, FalcoResponse, Secret};

use crate::harness::{Setup, Vault, bytes_below};

const PATH: &str = "/credentials/bot/jwt-svid";
const WISH: &str = r#"{"audience":"spiffe://sluice.internal/service/data"}"#;

fn decoded(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

fn parts(svid: &str) -> (Value, Value) {
    let part = |index: usize| serde_json::from_slice(&decoded(svid.split('.').nth(index).unwrap())).unwrap();
    (part(0), part(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_what_spiffe_says_and_the_bundle_has_its_key() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read"]).await;
    let reply = vault.call("POST", PATH, Some(&bot), r#"{"audience":["data","calc"],"ttl":"1m"}"#).await;
    assert!(reply.status == 200 && reply.head.contains("cache-control: no-store"), "{reply:?}");
    let answer = reply.json();
    let svid = answer["svid"].as_str().unwrap();
    let (header, claims) = parts(svid);
    assert_eq!(header.as_object().unwrap().len(), 3, "no other member is allowed: {header}");
    assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("JWT")));
    assert_eq!(claims["sub"], "spiffe://sluice.internal/service/bot");
    assert_eq!((&claims["sub"], &claims["aud"]), (&answer["spiffe_id"], &json!(["data", "calc"])));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
    assert!(claims.get("iss").is_none() && claims.get("scope").is_none(), "{claims}");

    let bundle = vault.call("GET", "/ca/bundle", None, "").await.json();
    let keys: Vec<_> =
        bundle["keys"].as_array().unwrap().iter().filter(|key| key["use"] == "jwt-svid").collect();
    assert_eq!(keys.len(), 2, "the next key is published early");
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).unwrap();
    let point = [vec![4], decoded(key["x"].as_str().unwrap()), decoded(key["y"].as_str().unwrap())].concat();
    let (signed, signature) = svid.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &decoded(signature))
        .unwrap();

    let usual = vault.call("POST", PATH, Some(&bot), WISH).await.json();
    let (_, claims) = parts(usual["svid"].as_str().unwrap());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    let entry = bytes_below(vault.dir.path())
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains("audit"))
        .any(|(_, bytes)| String::from_utf8_lossy(&bytes).contains("jwt_svid"));
    assert!(entry, "each is recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_opens_nothing_here() {
    let vault = Vault::start().await;
    let wish = json!({ "audience": ["sluice", "https://sluice.internal"] }).to_string();
    let svid = vault.as_admin("POST", PATH, &wish).await.json()["svid"].as_str().unwrap().to_owned();
    for path in ["/tokens/validate", "/security/tokens/validate"] {
        let verdict = vault.call("POST", path, None, &json!({ "token": svid }).to_string()).await.json();
        assert_eq!(verdict, json!({ "valid": false, "reason": "invalid" }));
    }
    for (method, path) in [
        ("GET", "/secrets/services/bot/x"),
        ("GET", "/tokens"),
        ("POST", "/tokens/refresh"),
        ("POST", "/credentials/bot"),
        ("POST", PATH),
    ] {
        vault.call(method, path, Some(&svid), "").await.is(401, "invalid_token");
    }
    let role = json!({ "bound_subject": "bot", "token_policies": ["default"] }).to_string();
    vault.as_admin("POST", "/v1/auth/jwt/role/bot", &role).await;
    let login = json!({ "role": "bot", "jwt": svid }).to_string();
    assert_eq!(vault.call("POST", "/v1/auth/jwt/login", None, &login).await.status, 400);

    let wish = json!({ "client_id": "gate", "scope": "read tokens:exchange" }).to_string();
    let secret = vault.as_admin("POST", "/oauth2/clients", &wish).await.json();
    let basic = STANDARD.encode(format!("gate:{}", secret["client_secret"].as_str().unwrap()));
    let head = format!("content-type: application/x-www-form-urlencoded\r\nauthorization: Basic {basic}\r\n");
    let known = vault.raw("POST", "/oauth2/introspect", &head, &format!("token={svid}")).await;
    assert_eq!(known.json(), json!({ "active": false }));
    let exchange = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={svid}\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt"
    );
    let refused = vault.raw("POST", "/oauth2/token", &head, &exchange).await;
    assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_grant")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_had_by_whom_the_certificate_is_had() {
    let mut setup = Setup::default();
    setup.config.auth.roles.insert("web".to_owned(), vec!["read".to_owned(), "trade".to_owned()]);
    let vault = setup.start();
    vault.ready().await;
    let bot = vault.token("bot", &["read"]).await;
    let issuer = vault.token("issuer", &["credentials:issue"]).await;
    let part = vault.token("web", &["read"]).await;
    vault.call("POST", PATH, None, WISH).await.is(401, "invalid_token");
    vault.call("POST", "/credentials/data/jwt-svid", Some(&bot), WISH).await.is(403, "insufficient_scope");
    vault.call("POST", "/credentials/web/jwt-svid", Some(&part), WISH).await.is(403, "forbidden");
    assert_eq!(vault.call("POST", "/credentials/data/jwt-svid", Some(&issuer), WISH).await.status, 200);
    // The edge says whom it verified: an API key names nobody's token.
    let key = "x-user: bot\r\nx-permissions: read\r\nx-auth-method: api_key\r\n";
    assert_eq!(vault.vouched(key, "POST", PATH, WISH).await.status, 403);
    let narrowed = vault.as_admin("POST", "/oauth2/clients", r#"{"client_id":"bot","scope":"read"}"#).await;
    let secret = narrowed.json()["client_secret"].as_str().unwrap().to_owned();
    let form = format!(
        "client_id=bot&client_secret={secret}&grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
         &subject_token={bot}&subject_token_type=urn:ietf:params:oauth:token-type:access_token"
    );
    let head = "content-type: application/x-www-form-urlencoded\r\n";
    let narrow = vault.raw("POST", "/oauth2/token", head, &form).await.json();
    let narrow = narrow["access_token"].as_str().unwrap();
    vault.call("POST", PATH, Some(narrow), WISH).await.is(403, "forbidden");

    for (wish, code) in [
        (json!({}), "invalid_json"),
        (json!({ "audience": [] }), "bad_request"),
        (json!({ "audience": "" }), "bad_request"),
        (json!({ "audience": ["a b"] }), "bad_request"),
        (json!({ "audience": "a".repeat(129) }), "bad_request"),
        (json!({ "audience": vec!["a"; 9] }), "bad_request"),
        (json!({ "audience": "data", "ttl": 0 }), "bad_request"),
        (json!({ "audience": "data", "ttl": "61m" }), "bad_request"),
        (json!({ "audience": "data", "sub": "spiffe://sluice.internal/service/data" }), "invalid_json"),
    ] {
        vault.call("POST", PATH, Some(&bot), &wish.to_string()).await.is(400, code);
    }
    for reserved in ["edge", "role", "a.b", "A"] {
        let path = format!("/credentials/{reserved}/jwt-svid");
        vault.as_admin("POST", &path, WISH).await.is(400, "bad_request");
    }
    let short = vault.as_admin("POST", "/tokens/bot", r#"{"permissions":["read"],"ttl":60}"#).await.json();
    let short = short["token"].as_str().unwrap();
    let svid = vault.call("POST", PATH, Some(short), WISH).await.json();
    let (_, claims) = parts(svid["svid"].as_str().unwrap());
    assert!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 60,
        "no longer than its own"
    );
    vault.as_admin("POST", "/tokens/revoke", &json!({ "token": short }).to_string()).await;
    vault.call("POST", PATH, Some(short), WISH).await.is(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_in_quarantine_gets_one() {
    const ALERTS: &str = "/falco/alerts/a-path-that-nobody-guesses-0123456789";
    let mut setup = Setup::default();
    setup.config.falco.secret = Some(Secret::new(ALERTS.rsplit('/').next().unwrap()));
    setup.config.falco.responses = vec![FalcoResponse {
        rule: "Shell started by Sluice".into(),
        priority: FalcoPriority::Critical,
        action: FalcoAction::Quarantine,
        identity: Some("bot".into()),
        scope: None,
        target: None,
        ttl: std::time::Duration::from_mins(10),
        quorum: 1,
        dry_run: false,
    }];
    let vault = setup.start();
    vault.ready().await;
    vault.token("bot", &["read"]).await;
    assert_eq!(vault.as_admin("POST", PATH, WISH).await.status, 200);
    let alert = json!({
        "time": "2026-11-22T11:00:00Z", "rule": "Shell started by Sluice", "priority": "Critical",
        "source": "syscall", "hostname": "h", "output": "it happened", "output_fields": {},
    });
    let sent = vault.raw("POST", ALERTS, "content-type: application/json\r\n", &alert.to_string()).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    vault.as_admin("POST", PATH, WISH).await.is(403, "forbidden");
}
