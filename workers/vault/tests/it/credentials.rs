//! Certificates over HTTP.

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use x509_parser::prelude::*;

use crate::harness::Vault;

fn blocks(pem: &str) -> Vec<Vec<u8>> {
    Pem::iter_from_buffer(pem.as_bytes()).map(|block| block.unwrap().contents).collect()
}

fn request_for(key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issued_certificate_chains_to_the_published_root() {
    let vault = Vault::start().await;
    let root = vault.call("GET", "/ca/certificate", None, "").await;
    assert_eq!((root.status, blocks(&root.text).len()), (200, 1));
    let chain = vault.call("GET", "/ca/chain", None, "").await.text;
    assert_eq!(blocks(&chain).len(), 2);
    for path in ["/security/credentials/issue", "/credentials/issue", "/credentials/my_service"] {
        let issued = vault.as_admin("POST", path, r#"{"service_name":"my_service"}"#).await.json();
        assert_eq!(issued["ca_certificate"], root.text.as_str(), "{path}");
        assert_eq!(issued["spiffe_id"], "spiffe://sluice.internal/service/my_service");
        let certificates = blocks(issued["certificate"].as_str().unwrap());
        assert_eq!(certificates.len(), 2, "the leaf and its intermediate");
        let (_, leaf) = X509Certificate::from_der(&certificates[0]).unwrap();
        let (_, middle) = X509Certificate::from_der(&certificates[1]).unwrap();
        let anchor = blocks(&root.text);
        let (_, anchor) = X509Certificate::from_der(&anchor[0]).unwrap();
        leaf.verify_signature(Some(middle.public_key())).unwrap();
        middle.verify_signature(Some(anchor.public_key())).unwrap();
        let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names.iter().filter(|name| matches!(name, GeneralName::URI(_))).count(), 1);
        let key = KeyPair::from_pem(issued["private_key"].as_str().unwrap()).unwrap();
        assert_eq!(key.public_key_raw(), leaf.public_key().subject_public_key.data.as_ref());
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(life, 24 * 3_600 + 60);
    }
    let bundle = vault.call("GET", "/ca/bundle", None, "").await.json();
    let keys = bundle["keys"].as_array().unwrap();
    assert_eq!(keys[0]["use"], "x509-svid");
    assert!(keys[0].get("kid").is_none());
    assert_eq!(keys[1]["use"], "jwt-svid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_gives_its_key_and_nothing_else() {
    let vault = Vault::start().await;
    let key = KeyPair::generate().unwrap();
    let body = json!({ "csr": request_for(&key) }).to_string();
    let issued = vault.as_admin("POST", "/credentials/bot", &body).await;
    assert_eq!(issued.status, 200, "{issued:?}");
    assert!(issued.json().get("private_key").is_none());
    let leaf = blocks(issued.json()["certificate"].as_str().unwrap()).remove(0);
    let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
    assert!(!leaf.is_ca());
    assert!(!String::from_utf8_lossy(leaf.as_raw()).contains("evil.example"));
    assert_eq!(
        vault.as_admin("POST", "/credentials/bot", &body).await.status,
        200,
        "renewal with the same key"
    );
    vault.as_admin("POST", "/credentials/other", &body).await.is(409, "conflict");
    for bad in ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        let body = json!({ "csr": bad }).to_string();
        vault.as_admin("POST", "/credentials/bot", &body).await.is(400, "bad_request");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_get_their_own_certificates_with_their_own_names() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read"]).await;
    let issuer = vault.token("issuer", &["credentials:issue"]).await;
    let ask = |token: &str, service: &str, body: Value| {
        let (vault, token, target) = (&vault, token.to_owned(), format!("/credentials/{service}"));
        async move { vault.call("POST", &target, Some(&token), &body.to_string()).await.status }
    };
    vault.call("POST", "/credentials/bot", None, "").await.is(401, "invalid_token");
    assert_eq!(ask(&bot, "bot", json!({ "dns_names": ["localhost", "a.bot.sluice.internal"] })).await, 200);
    assert_eq!(ask(&bot, "bot", json!({ "ip_addresses": ["127.0.0.1", "::1"] })).await, 200);
    assert_eq!(ask(&bot, "other", json!({})).await, 403);
    assert_eq!(ask(&issuer, "other", json!({})).await, 200);
    for (body, status) in [
        (json!({ "dns_names": ["bank.example"] }), 403),
        (json!({ "dns_names": ["other.sluice.internal"] }), 403),
        (json!({ "dns_names": ["xbot.sluice.internal"] }), 403),
        (json!({ "ip_addresses": ["10.0.0.1"] }), 403),
        (json!({ "dns_names": ["*.bot.sluice.internal"] }), 400),
        (json!({ "ip_addresses": ["nonsense"] }), 400),
        (json!({ "ttl": "25h" }), 400),
        (json!({ "ttl": 0 }), 400),
        (json!({ "unknown": 1 }), 400),
    ] {
        assert_eq!(ask(&bot, "bot", body.clone()).await, status, "{body}");
    }
    let admin = vault.admin();
    assert_eq!(ask(&admin, "bot", json!({ "dns_names": ["bank.example"], "ttl": "7d" })).await, 200);
    for reserved in ["edge", "events", "validate", "role", "a.b", "A"] {
        assert_eq!(ask(&admin, reserved, json!({})).await, 400, "{reserved}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_certificate_is_on_the_list_and_keys_are_never_shown_again() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read"]).await;
    let issued = vault.call("POST", "/credentials/bot", Some(&bot), "").await.json();
    let read = vault.call("GET", "/credentials/bot", Some(&bot), "").await;
    assert_eq!(read.json()["serial_number"], issued["serial_number"]);
    assert!(!read.text.contains("PRIVATE KEY"));
    vault.as_admin("POST", "/credentials/other", "").await;
    assert_eq!(vault.certified().await, ["bot", "other"]);
    assert_eq!(vault.as_admin("GET", "/credentials?limit=1", "").await.json()["next"], "bot");
    assert_eq!(vault.as_admin("GET", "/credentials?limit=1&cursor=bot", "").await.json()["count"], 1);
    assert_eq!(vault.call("GET", "/credentials", Some(&bot), "").await.json()["count"], 1);
    vault.call("GET", "/credentials/other", Some(&bot), "").await.is(403, "insufficient_scope");
    vault.as_admin("GET", "/credentials/nobody", "").await.is(404, "not_found");

    let number =
        |der: &[u8]| CertificateRevocationList::from_der(der).unwrap().1.crl_number().unwrap().clone();
    let before = blocks(&vault.call("GET", "/ca/crl", None, "").await.text).remove(0);
    let body = json!({ "serial_number": issued["serial_number"] }).to_string();
    assert_eq!(vault.call("POST", "/credentials/other/revoke", Some(&bot), &body).await.status, 403);
    let revoked = vault.call("POST", "/credentials/bot/revoke", Some(&bot), &body).await;
    assert_eq!(revoked.json()["revoked"], 1, "{revoked:?}");
    vault.call("POST", "/credentials/bot/revoke", Some(&bot), &body).await.is(404, "not_found");
    let lists = blocks(&vault.call("GET", "/ca/crl", None, "").await.text);
    assert_eq!(lists.len(), 2, "the intermediate's and the root's");
    let (_, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
    let serial: String = list
        .iter_revoked_certificates()
        .next()
        .unwrap()
        .raw_serial()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(issued["serial_number"], serial.as_str());
    assert!(number(&lists[0]) > number(&before));
    let der = vault.call("GET", "/ca/crl?format=txt", None, "").await;
    der.is(400, "bad_query");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_keeps_its_names_and_the_former_one_stays_good() {
    let vault = Vault::start().await;
    let bot = vault.token("bot", &["read"]).await;
    let other = vault.token("other", &["read"]).await;
    let renew = |token: &str, body: Value| {
        let (vault, token) = (&vault, token.to_owned());
        async move { vault.call("POST", "/credentials/bot/renew", Some(&token), &body.to_string()).await }
    };
    renew(&bot, json!({})).await.is(404, "not_found");
    let wish = json!({ "dns_names": ["bank.example"], "ip_addresses": ["10.0.0.1", "::1"], "ttl": "7d" });
    let first = vault.as_admin("POST", "/credentials/bot", &wish.to_string()).await.json();
    vault.call("POST", "/credentials/bot", Some(&bot), r#"{"ttl":"1h"}"#).await;
    renew(&other, json!({})).await.is(403, "insufficient_scope");
    vault.call("POST", "/credentials/bot/renew", None, "").await.is(401, "invalid_token");
    renew(&bot, json!({ "ttl": "7d" })).await.is(400, "bad_request");
    renew(&bot, json!({ "dns_names": ["evil.example"] })).await.is(400, "invalid_json");

    let newest = renew(&bot, json!({})).await.json();
    assert!(newest["private_key"].as_str().unwrap().contains("PRIVATE KEY"));
    let key = KeyPair::generate().unwrap();
    let named = json!({ "serial_number": first["serial_number"], "csr": request_for(&key) });
    let second = renew(&bot, named).await;
    assert_eq!(second.status, 200, "{second:?}");
    let second = second.json();
    assert!(second.get("private_key").is_none() && second["serial_number"] != first["serial_number"]);
    let names = |issued: &Value| {
        let leaf = blocks(issued["certificate"].as_str().unwrap()).remove(0);
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        let told = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        told.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names(&second), names(&first));
    assert!(names(&second).iter().any(|name| name.contains("bank.example")));
    assert!(!names(&newest).iter().any(|name| name.contains("bank.example")));

    let listed = vault.as_admin("GET", "/credentials", "").await.json();
    let days = listed["credentials"][0]["days_left"].as_f64().unwrap();
    assert!((0.98..=1.0).contains(&days), "the life that a service gets: {listed}");
    let read = vault.call("GET", "/credentials/bot", Some(&bot), "").await.json();
    assert!(read["renew_at"].as_str().unwrap() < read["expires_at"].as_str().unwrap());
    let crl = vault.call("GET", "/ca/crl", None, "").await.text;
    let (lists, former) = (blocks(&crl), first["serial_number"].as_str().unwrap());
    let (_, list) = CertificateRevocationList::from_der(&lists[0]).unwrap();
    assert_eq!(list.iter_revoked_certificates().count(), 0, "{former} stays good");
    let body = json!({ "serial_number": former }).to_string();
    assert_eq!(vault.call("POST", "/credentials/bot/revoke", Some(&bot), &body).await.status, 200);
    renew(&bot, json!({ "serial_number": former })).await.is(404, "not_found");
}
