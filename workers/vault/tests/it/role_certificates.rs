//! Certificates of roles, over the internal door; and how a revocation reaches those who verify.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use sluice_client::feed::{Next, follow};
use sluice_client::{CertificateRequest, ClientError, RoleCertificate, RoleKey};
use sluice_http::TrustCell;
use sluice_identity::certificate::{ClientCertificate, SpiffeId};
use sluice_identity::trust::Applied;
use sluice_schema::Config;
use sluice_wire::role::Role;
use x509_parser::prelude::*;

use crate::harness::{PATIENCE, Vault};

const PATH: &str = "/internal/certificates";

fn der(pem: &str) -> Vec<Vec<u8>> {
    Pem::iter_from_buffer(pem.as_bytes()).map(|block| block.unwrap().contents).collect()
}

fn wish() -> CertificateRequest {
    let csr = RoleKey::generate().unwrap().request().unwrap();
    CertificateRequest { csr, ..CertificateRequest::default() }
}

fn body(request: &CertificateRequest) -> String {
    serde_json::to_string(request).unwrap()
}

async fn granted(vault: &Vault, role: Role) -> RoleCertificate {
    vault.client(role).role_certificate(&wish()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_role_gets_a_certificate_of_its_own() {
    let vault = Vault::start().await;
    for role in Role::ALL {
        let given = granted(&vault, role).await;
        assert_eq!(given.spiffe_id, format!("spiffe://sluice.internal/role/{role}"));
        let leaf = der(&given.certificate);
        let read = ClientCertificate::parse(&leaf[0]).unwrap();
        assert_eq!(read.spiffe.as_ref().and_then(SpiffeId::role), Some(role));
        assert_eq!((leaf.len(), read.serial.as_str()), (1, given.serial_number.as_str()));
        assert_eq!(read.subject, format!("CN={role}"));
        assert_eq!(read.not_after_unix_s, given.expires_at.as_second());
        let life = given.expires_at.duration_since(given.issued_at).as_secs();
        assert!((86_399..=86_400).contains(&life), "{life}");
        let renewed = given.renew_at.duration_since(given.issued_at).as_secs();
        assert!(renewed > life / 2 && renewed <= life * 2 / 3 + 1, "{renewed}");
        let chain = der(&given.ca_chain);
        assert_eq!((chain.len(), &chain[1]), (2, &der(&given.ca_certificate)[0]));
        let (_, leaf) = X509Certificate::from_der(&leaf[0]).unwrap();
        let (_, middle) = X509Certificate::from_der(&chain[0]).unwrap();
        let (_, root) = X509Certificate::from_der(&chain[1]).unwrap();
        leaf.verify_signature(Some(middle.public_key())).unwrap();
        middle.verify_signature(Some(root.public_key())).unwrap();
        let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && purposes.client_auth && !leaf.is_ca());
    }
    let audit = vault.as_admin("GET", "/audit?actor=role/demo", "").await.text;
    assert!(audit.contains("credentials/demo/"), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_a_role_speaking_for_itself_finds_anything() {
    let vault = Vault::start().await;
    let sound = body(&wish());
    let key = vault.proof(Role::Edge).replace("x-internal-self: 1\r\n", "");
    let json = "content-type: application/json\r\n";
    for request in [sound.as_str(), "{", "{\"strange\":1}"] {
        vault.as_admin("POST", PATH, request).await.is(404, "not_found");
        vault.call("POST", PATH, None, request).await.is(404, "not_found");
        vault.internal("POST", PATH, json, request).await.is(401, "invalid_token");
        // What the edge passes on is its client's wish, whoever that is.
        vault.internal("POST", PATH, &format!("{key}{json}"), request).await.is(404, "not_found");
        let client = format!("{key}{json}x-user: bot\r\nx-permissions: admin\r\n");
        vault.internal("POST", PATH, &client, request).await.is(404, "not_found");
        let role = format!("{key}{json}x-user: role/edge\r\nx-permissions: admin\r\n");
        vault.internal("POST", PATH, &role, request).await.is(404, "not_found");
    }
    assert!(vault.certified().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_request_only_the_key_is_believed() {
    let vault = Vault::start().await;
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wanted.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    wanted.subject_alt_names.push(SanType::URI("spiffe://sluice.internal/role/vault".try_into().unwrap()));
    let csr = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let request = CertificateRequest { csr: csr.clone(), ..CertificateRequest::default() };
    let given = vault.client(Role::Demo).role_certificate(&request).await.unwrap();
    let leaf = der(&given.certificate).remove(0);
    assert_eq!(ClientCertificate::parse(&leaf).unwrap().spiffe.unwrap().to_string(), given.spiffe_id);
    let text = String::from_utf8_lossy(&leaf);
    assert!(!text.contains("evil.example") && !text.contains("role/vault"));
    let again = vault.client(Role::Demo).role_certificate(&request).await.unwrap();
    assert_ne!(again.serial_number, given.serial_number, "a role renews with its own key");
    let stolen = vault.client(Role::Calc).role_certificate(&request).await;
    assert!(matches!(stolen, Err(ClientError::Status { status, .. }) if status == 409), "{stolen:?}");
    vault.as_admin("POST", "/credentials/bot", &json!({ "csr": csr }).to_string()).await.is(409, "conflict");
}

/// The request with one byte of its signature changed, in PEM.
fn forged() -> String {
    let csr = wish().csr;
    let mut bytes = der(&csr).remove(0);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    sluice_client::pem("CERTIFICATE REQUEST", &bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_and_names_are_refused() {
    let vault = Vault::start().await;
    let sound = wish().csr;
    let ask = |role: Role, request: Value| {
        let (vault, headers) = (&vault, vault.proof(role) + "content-type: application/json\r\n");
        async move { vault.internal("POST", PATH, &headers, &request.to_string()).await.status }
    };
    for csr in
        ["", "x", &forged(), &sluice_client::pem("CERTIFICATE REQUEST", &[0x30; 64]), &"A".repeat(20_000)]
    {
        assert_eq!(ask(Role::Edge, json!({ "csr": csr })).await, 400, "{csr:.40}");
    }
    let many: Vec<String> = (0..65).map(|number| format!("n{number}.example")).collect();
    let addresses: Vec<String> = (0..65).map(|number| format!("10.0.0.{number}")).collect();
    for (role, request, status) in [
        (Role::Edge, json!({ "csr": sound, "dns_names": many[..64], "ip_addresses": addresses[..64] }), 200),
        (Role::Edge, json!({ "csr": sound, "dns_names": many }), 400),
        (Role::Edge, json!({ "csr": sound, "ip_addresses": addresses }), 400),
        (Role::Edge, json!({ "csr": sound, "dns_names": ["*.bank.example"] }), 200),
        (Role::Edge, json!({ "csr": sound, "dns_names": ["*.example"] }), 400),
        (Role::Edge, json!({ "csr": sound, "dns_names": ["a.*.example"] }), 400),
        (Role::Demo, json!({ "csr": sound, "dns_names": ["*.demo.example"] }), 400),
        (Role::Edge, json!({ "csr": sound, "dns_names": ["a\u{0}b"] }), 400),
        (Role::Edge, json!({ "csr": sound, "dns_names": ["10.0.0.1"] }), 400),
        (Role::Edge, json!({ "csr": sound, "ip_addresses": ["bank.example"] }), 400),
        (Role::Edge, json!({ "csr": sound, "dns_names": ["vault"] }), 403),
        (Role::Edge, json!({ "csr": sound, "role": "vault" }), 400),
        (Role::Edge, json!({}), 400),
        (
            Role::Demo,
            json!({ "csr": wish().csr, "dns_names": ["localhost"], "ip_addresses": ["127.0.0.1", "::1"] }),
            200,
        ),
        (Role::Demo, json!({ "csr": sound, "dns_names": ["bank.example"] }), 403),
        (Role::Demo, json!({ "csr": sound, "ip_addresses": ["10.0.0.1"] }), 403),
    ] {
        let shown = request.to_string();
        assert_eq!(ask(role, request).await, status, "{role} {shown:.120}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_certificates_are_listed_and_only_an_administrator_revokes_them() {
    let vault = Vault::start().await;
    let given = granted(&vault, Role::Edge).await;
    let listed = vault.as_admin("GET", "/credentials/edge", "").await.json();
    assert_eq!(listed["serial_number"], given.serial_number.as_str());
    assert_eq!(listed["spiffe_id"], "spiffe://sluice.internal/role/edge");
    let watched = vault.internal("GET", PATH, &vault.proof(Role::Calc), "").await.json();
    let names: Vec<_> = watched["certificates"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert!(names.contains(&&json!("edge")), "{names:?}");

    let issuer = vault.token("issuer", &["credentials:issue"]).await;
    let bot = vault.token("bot", &["read"]).await;
    assert_eq!(vault.call("GET", "/credentials/edge", Some(&issuer), "").await.status, 200);
    vault.call("GET", "/credentials/edge", Some(&bot), "").await.is(403, "insufficient_scope");
    for token in [&issuer, &bot] {
        let refused = vault.call("POST", "/credentials/edge/revoke", Some(token), "").await;
        refused.is(403, "insufficient_scope");
    }
    let own = vault.internal("POST", "/credentials/edge/revoke", &vault.proof(Role::Edge), "").await;
    own.is(403, "insufficient_scope");
    vault.as_admin("POST", "/credentials/edge", "").await.is(400, "bad_request");
    assert_eq!(vault.as_admin("POST", "/credentials/edge/revoke", "").await.json()["revoked"], 1);
}

/// Waits until a follower believes what it should.
async fn eventually(trust: &TrustCell, wanted: impl Fn(&TrustCell) -> bool) {
    let began = Instant::now();
    while !wanted(trust) {
        assert!(began.elapsed() < PATIENCE, "it never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_serials_reach_whoever_follows() {
    let vault = Vault::start().await;
    let trust = TrustCell::new(&Config::default(), Role::Calc);
    let (cell, client) = (trust.clone(), vault.client(Role::Calc));
    let following = tokio::spawn(follow(client, move |message| match cell.apply(message) {
        Applied::Gap => Next::Resync,
        _ => Next::Continue,
    }));
    eventually(&trust, |trust| trust.load().has_keys()).await;

    let issued = vault.as_admin("POST", "/credentials/bot", "").await.json();
    let service = der(issued["certificate"].as_str().unwrap()).remove(0);
    let role = granted(&vault, Role::Edge).await;
    let serials =
        [service, der(&role.certificate).remove(0)].map(|der| ClientCertificate::parse(&der).unwrap().serial);
    assert!(!serials.iter().any(|serial| trust.load().is_serial_revoked(serial)));
    vault.as_admin("POST", "/credentials/bot/revoke", "").await;
    let body = json!({ "serial_number": serials[1] }).to_string();
    assert_eq!(vault.as_admin("POST", "/credentials/edge/revoke", &body).await.status, 200);
    eventually(&trust, |trust| serials.iter().all(|serial| trust.load().is_serial_revoked(serial))).await;
    following.abort();

    // Whoever comes later learns it from the snapshot, also after the vault was started anew.
    let (dir, _) = vault.stop().await;
    let vault = crate::harness::Setup { dir, ..Default::default() }.start();
    vault.ready().await;
    let late = TrustCell::new(&Config::default(), Role::Edge);
    let cell = Arc::new(late.clone());
    let following = tokio::spawn(follow(vault.client(Role::Edge), move |message| {
        cell.apply(message);
        Next::Continue
    }));
    eventually(&late, |trust| serials.iter().all(|serial| trust.load().is_serial_revoked(serial))).await;
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_that_asks_in_a_loop_is_slowed_and_others_are_not() {
    let vault = Vault::start().await;
    let client = vault.client(Role::Demo);
    let mut first = None;
    let refused = loop {
        match client.role_certificate(&wish()).await {
            Ok(given) => first = first.or(Some(given)),
            Err(error) => break error,
        }
        assert_eq!(vault.certified().await, ["demo"], "one a role is shown");
    };
    assert!(matches!(&refused, ClientError::Status { status, .. } if *status == 429), "{refused}");
    let headers = vault.proof(Role::Demo) + "content-type: application/json\r\n";
    let again = vault.internal("POST", PATH, &headers, &body(&wish())).await;
    assert!(again.head.contains("retry-after: 5"), "{again:?}");
    granted(&vault, Role::Calc).await;
    assert!(first.is_some());
}
