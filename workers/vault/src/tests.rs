//! The open vault over time: what rotates, what ends, what stays.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;
use serde_json::json;
use sluice_audit::{AuditError, Log};
use sluice_client::{CertificateRequest, RoleCertificate, RoleKey};
use sluice_http::{HealthSource as _, TrustCell};
use sluice_identity::caller::{Caller, Via};
use sluice_identity::token::{self, TokenError};
use sluice_schema::Config;
use sluice_wire::event::NewEvent;
use sluice_wire::role::Role;
use tempfile::TempDir;

use crate::barrier::Barrier;
use crate::ca::Pace;
use crate::config::{Opening, Settings};
use crate::context::{Figures, Health, Vault};
use crate::error::VaultError;
use crate::quota::Quotas;
use crate::request::Act;
use crate::seal::{RootKey, Shape};
use crate::store::{Range, Table, View as _};
use crate::token::{is_caller_void, void_until};

mod bounds;
mod rotation;

const DAY: SignedDuration = SignedDuration::from_hours(24);

pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        dev: true,
        opening: Opening::Sealed,
        issuer: "https://sluice.internal".into(),
        audience: vec!["sluice".into()],
        trust_domain: "sluice.internal".into(),
        names: vec!["vault.bank.example".into()],
        addresses: vec![std::net::Ipv4Addr::new(10, 0, 0, 9).into()],
        token_ttl: DAY,
        leaf_ttl: DAY,
        roles: BTreeMap::from([("bot".to_owned(), ["read", "trade"].into_iter().collect())]),
        falco: crate::config::Falco {
            secret: None,
            window_ms: 60_000,
            rate: 100,
            responses: Vec::new(),
            kill_key: None,
        },
        audit: sluice_audit::Limits::default(),
        quotas: Quotas::default(),
        acme: sluice_schema::Acme::default(),
        trusted: Vec::new(),
        leeway_s: 5,
        external: None,
    }
}

/// Waits for an operation that holds no thread while it waits.
pub(crate) fn done<T>(operation: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(operation)
}

pub(crate) fn open(dir: &TempDir, root: &RootKey, now: Timestamp) -> Vault {
    open_with(settings(dir.path()), root, now)
}

pub(crate) fn open_with(settings: Settings, root: &RootKey, now: Timestamp) -> Vault {
    let trust = TrustCell::new(&Config::default(), Role::Vault);
    let audit = Arc::new(Log::open(&settings.data_dir.join("audit/vault.jsonl"), "vault").unwrap());
    let figures = Figures::new(&Registry::new());
    Vault::open(settings, root, Shape::File, audit, trust, figures, now).unwrap()
}

pub(crate) fn barrier(settings: Settings) -> Barrier {
    let trust = TrustCell::new(&Config::default(), Role::Vault);
    Barrier::new(settings, trust, Figures::new(&Registry::new()), Timestamp::now()).unwrap()
}

pub(crate) fn act(subject: &str, grants: &str, now: Timestamp) -> Act {
    let caller = Caller {
        subject: subject.into(),
        account: subject.into(),
        grants: grants.parse().unwrap(),
        via: Via::Token,
        jti: None,
        serial: None,
        issued_at_s: Some(now.as_second()),
        expires_at_s: None,
    };
    Act { caller: Some(caller), api_token: None, request_id: String::new(), remote: String::new(), now }
}

fn rows(vault: &Vault, table: Table) -> usize {
    vault.store.snapshot().unwrap().keys(table, &Range::prefix(b"", 1_000)).unwrap().len()
}

fn mint(vault: &Vault, now: Timestamp) -> String {
    let request = serde_json::from_value(json!({ "permissions": ["read"] })).unwrap();
    vault.mint(&act("root", "admin", now), "bot", &request).unwrap().token
}

fn verify(vault: &Vault, token: &str, now: Timestamp) -> Result<(), TokenError> {
    token::verify(token, &vault.trust.load(), vault.trust.rules(), now.as_second()).map(|_| ())
}

#[test]
fn keys_and_intermediates_rotate_and_what_they_signed_stays_good() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    let first = vault.authority.load().issuing().serial.clone();
    let root_serial = vault.authority.load().root.serial.clone();
    let published = vault.hub.jwks();
    let kid = vault.signers.load().kid().to_owned();

    let later = start + DAY * 31;
    let old = mint(&vault, later - SignedDuration::from_hours(1));
    vault.maintain(start, later).unwrap();
    assert_ne!(vault.signers.load().kid(), kid, "the published key took over");
    assert!(published.iter().any(|jwk| jwk.kid == vault.signers.load().kid()));
    assert_eq!(vault.hub.jwks().len(), 3, "retired, active, next");
    assert_eq!(verify(&vault, &old, later), Ok(()));
    assert_eq!(verify(&vault, &mint(&vault, later), later), Ok(()));
    assert_eq!(vault.authority.load().issuing().serial, first);

    let half = start + DAY * 46;
    vault.maintain(later, half).unwrap();
    let authority = vault.authority.load_full();
    assert_eq!((authority.intermediates.len(), &authority.root.serial), (2, &root_serial));
    assert_ne!(authority.issuing().serial, first);
    assert_eq!(vault.revocation_lists(half).unwrap().matches("BEGIN X509 CRL").count(), 3);

    vault.maintain(half, start + DAY * 95).unwrap();
    let serials: Vec<_> =
        vault.authority.load().intermediates.iter().map(|issuing| issuing.serial.clone()).collect();
    assert!(!serials.contains(&first), "an ended intermediate goes");
    assert_eq!(rows(&vault, Table::Authority), 1 + serials.len());
}

#[test]
fn ended_tokens_certificates_and_revocations_are_swept() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    let admin = act("root", "admin", start);
    let token = mint(&vault, start);
    mint(&vault, start);
    vault.revoke_tokens(&admin, serde_json::from_value(json!({ "token": token })).unwrap()).unwrap();
    vault.revoke_tokens(&admin, serde_json::from_value(json!({ "service": "bot" })).unwrap()).unwrap();
    done(vault.issue(&admin, "bot", serde_json::from_value(json!({})).unwrap())).unwrap();
    vault.revoke_credentials(&admin, "bot", None).unwrap();
    assert_eq!((rows(&vault, Table::Token), rows(&vault, Table::Revoked)), (2, 3));

    let before = vault.store.snapshot().unwrap().count(Table::Token).unwrap();
    vault.maintain(start, start + SignedDuration::from_hours(23)).unwrap();
    assert_eq!(rows(&vault, Table::Token) as u64, before, "nothing has ended yet");
    vault.maintain(start, start + SignedDuration::from_hours(25)).unwrap();
    let tables = [Table::Token, Table::Credential, Table::Serial, Table::CredentialExpiry];
    for table in tables.into_iter().chain([Table::LeafKey]) {
        assert_eq!(rows(&vault, table), 0, "{}", table.name());
    }
    let left = [Table::Revoked, Table::TokenIndex].map(|table| rows(&vault, table));
    assert_eq!(left, [1, 1], "the subject's revocation outlives every token it may meet; its end is noted");
    mint(&vault, start + DAY * 30);
    vault.maintain(start, start + DAY * 32).unwrap();
    assert_eq!([Table::Revoked, Table::TokenIndex].map(|table| rows(&vault, table)), [0, 0]);
}

#[test]
fn nothing_is_read_and_nobody_is_ready_while_the_log_lacks_a_commit() {
    let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
    let opening = Opening::Dev(dir.path().join("vault/unseal.key"));
    let barrier = Arc::new(barrier(Settings { opening, ..settings(dir.path()) }));
    let vault = barrier.vault().unwrap();
    let admin = act("root", "admin", now);
    let health = Health(barrier);
    let list = || vault.list_tokens(&admin, None, None, 10).map(|_| ());
    assert!(health.ready() && list().is_ok());
    vault.store.feign_arrears(Some(AuditError::Failed("on purpose")));
    assert!(!health.ready());
    assert!(matches!(list(), Err(VaultError::Audit(_))));
    vault.store.feign_arrears(None);
    assert!(health.ready() && list().is_ok());
}

#[test]
fn caller_revoked_since_its_request_began_gets_no_token() {
    let (dir, root, now) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, now);
    let revoke = |what| {
        let request = serde_json::from_value(what).unwrap();
        vault.revoke_tokens(&act("root", "admin", now), request).unwrap()
    };
    let own = |act: &Act| vault.mint(act, "bot", &serde_json::from_value(json!({})).unwrap()).map(|_| ());
    // Its own token ends, its subject stays.
    let request = serde_json::from_value(json!({ "permissions": ["read"] })).unwrap();
    let jti = vault.mint(&act("root", "admin", now), "bot", &request).unwrap().jti;
    let other = vault.mint(&act("root", "admin", now), "bot", &request).unwrap().jti;
    let mut bot = act("bot", "read", now);
    bot.caller.as_mut().unwrap().jti = Some(jti.clone());
    assert!(own(&bot).is_ok() && vault.refresh(&bot, None).is_ok());
    revoke(json!({ "jti": jti }));
    assert!(matches!(own(&bot), Err(VaultError::Anonymous)));
    assert!(matches!(vault.refresh(&bot, None), Err(VaultError::Anonymous)));
    // Its subject ends; what the edge vouches for is judged by what has changed meanwhile.
    let mut bot = act("bot", "read", now);
    bot.caller.as_mut().unwrap().jti = Some(other);
    let forwarded = Caller::forwarded("bot".into(), None, "read".parse().unwrap(), false);
    let before = token_void_until(&vault);
    let is_void = |before| is_caller_void(&vault.store.snapshot().unwrap(), &forwarded, before).unwrap();
    assert!(!is_void(before));
    revoke(json!({ "service": "bot" }));
    assert!(is_void(before) && !is_void(token_void_until(&vault)));
    assert!(matches!(own(&bot), Err(VaultError::Anonymous)));
    assert!(matches!(vault.refresh(&bot, None), Err(VaultError::Anonymous)));
    // Somebody else may still give it a new one at once, and that one refreshes.
    let given = vault.mint(&act("root", "admin", now), "bot", &request).unwrap();
    let mut bot = act("bot", "read", now);
    let caller = bot.caller.as_mut().unwrap();
    (caller.jti, caller.issued_at_s) = (Some(given.jti), Some(now.as_second() + 1));
    assert!(vault.refresh(&bot, None).is_ok());
}

#[test]
fn what_is_made_by_a_caller_who_was_revoked_meanwhile_is_not_made() {
    let (dir, root, now) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, now);
    let request = serde_json::from_value(json!({ "permissions": ["read", "trade"] })).unwrap();
    let jti = vault.mint(&act("root", "admin", now), "bot", &request).unwrap().jti;
    let mut bot = act("bot", "read trade", now);
    bot.caller.as_mut().unwrap().jti = Some(jti.clone());
    let issue = |act: &Act| done(vault.issue(act, "bot", serde_json::from_value(json!({})).unwrap()));
    let serial = serde_json::to_value(issue(&bot).unwrap()).unwrap()["serial_number"].clone();
    let serial = serial.as_str().unwrap().to_owned();
    let ended =
        |done: Result<(), VaultError>| assert!(matches!(done, Err(VaultError::Anonymous)), "{done:?}");
    let write = |act: &Act| vault.write_as(act, act.entry("test", "write", "x"), |_| Ok(()));
    // A certificate, as the doors and the edge tell of it.
    let mut certified = act("spiffe://sluice.internal/service/bot", "read trade", now);
    let caller = certified.caller.as_mut().unwrap();
    (caller.via, caller.account, caller.serial) = (Via::Certificate, "bot".into(), Some(serial.clone()));
    assert!(write(&certified).is_ok() && write(&bot).is_ok());
    vault.revoke_credentials(&act("root", "admin", now), "bot", Some(serial)).unwrap();
    ended(write(&certified));
    ended(issue(&certified).map(|_| ()));
    let by_id = serde_json::from_value(json!({ "jti": jti })).unwrap();
    vault.revoke_tokens(&act("root", "admin", now), by_id).unwrap();
    ended(write(&bot));
    ended(issue(&bot).map(|_| ()));
}

#[test]
fn a_client_that_was_removed_meanwhile_gets_no_token() {
    let (dir, root, now) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, now);
    let bot = act("bot", "read", now);
    let issued = |client: Option<&str>| {
        let plan = crate::token::Plan {
            subject: "bot".into(),
            service: None,
            grants: "read".parse().unwrap(),
            audience: vec!["sluice".into()],
            ttl: SignedDuration::from_secs(60),
            client: client.map(str::to_owned),
            parent: None,
            user: None,
            bound: None,
        };
        vault.issue_token(&bot, bot.entry("oauth", "grant", "tokens/bot"), Ok(plan))
    };
    assert!(issued(None).is_ok() && matches!(issued(Some("bot")), Err(VaultError::Anonymous)));
}

fn token_void_until(vault: &Vault) -> Option<i64> {
    void_until(&vault.store.snapshot().unwrap(), "bot").unwrap()
}

#[test]
fn configured_roles_widen_what_a_minter_gives() {
    let (dir, root, now) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, now);
    let minted =
        vault.mint(&act("ci", "tokens:mint", now), "bot", &serde_json::from_value(json!({})).unwrap());
    assert_eq!(verify(&vault, &minted.unwrap().token, now), Ok(()));
    let wanted = serde_json::from_value(json!({ "permissions": ["admin"] })).unwrap();
    assert!(vault.mint(&act("ci", "tokens:mint", now), "bot", &wanted).is_err());
}

#[test]
fn clock_that_steps_back_does_not_repeat_a_list_number() {
    let (dir, root, now) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, now);
    let first = vault.revocation_lists(now).unwrap();
    vault.maintain(now - DAY, now).unwrap();
    drop(vault);
    let vault = open(&dir, &root, now - DAY);
    let number = |pem: &str| {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, list) = x509_parser::parse_x509_crl(&block.contents).unwrap();
        list.crl_number().unwrap().clone()
    };
    assert!(number(&vault.revocation_lists(now - DAY).unwrap()) > number(&first));
}

/// A certificate for a role at a time, whatever its pace.
fn issue_role(vault: &Vault, role: Role, now: Timestamp) -> RoleCertificate {
    *vault.role_pace.lock().unwrap() = Pace::default();
    let act = Act {
        caller: Some(Caller::role(role)),
        api_token: None,
        request_id: String::new(),
        remote: String::new(),
        now,
    };
    let csr = RoleKey::generate().unwrap().request().unwrap();
    let request = CertificateRequest { csr, ..CertificateRequest::default() };
    vault.issue_role(&act, role, &request).unwrap()
}

#[test]
fn of_too_many_certificates_of_a_role_the_oldest_is_revoked_and_ended_ones_go() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    let at = |number: i64| start + SignedDuration::from_millis(number);
    let given: Vec<_> =
        (0..131).map(|number| issue_role(&vault, Role::Demo, at(number)).serial_number).collect();
    let other = issue_role(&vault, Role::Calc, at(131)).serial_number;
    let trust = vault.trust.load();
    let revoked =
        |serials: &[String]| serials.iter().filter(|serial| trust.is_serial_revoked(serial)).count();
    assert_eq!((revoked(&given[..3]), revoked(&given[3..]), revoked(&[other])), (3, 0, 0));
    assert_eq!((rows(&vault, Table::Credential), rows(&vault, Table::Revoked)), (132, 3));

    let admin = act("root", "admin", at(200));
    assert_eq!(vault.revoke_credentials(&admin, "demo", Some(given[130].clone())).unwrap(), 1);
    assert_eq!(vault.revoke_credentials(&admin, "demo", None).unwrap(), 127, "the rest that was in force");
    vault.maintain(start, start + DAY + SignedDuration::from_secs(2)).unwrap();
    let left =
        [Table::Credential, Table::Serial, Table::LeafKey, Table::Revoked].map(|table| rows(&vault, table));
    assert_eq!(left, [0; 4]);
}

/// Names and kinds of what the event stream is told of certificates that end soon.
fn expiring(vault: &Vault) -> Vec<(String, String)> {
    let view = vault.store.snapshot().unwrap();
    let keys = view.keys(Table::Outbox, &Range::prefix(b"", 1_000)).unwrap();
    let events = keys.iter().map(|key| view.require::<NewEvent>(Table::Outbox, key).unwrap());
    let text = |event: &NewEvent, name: &str| event.data[name].as_str().unwrap().to_owned();
    events
        .filter(|event| event.data["kind"] == "certificate_expiring")
        .map(|event| (text(&event, "name"), text(&event, "certificate")))
        .collect()
}

#[test]
fn a_certificate_that_nobody_renews_is_told_once() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    let hours = |hours| start + SignedDuration::from_hours(hours);
    for service in ["lost", "renewed", "revoked"] {
        let wish = serde_json::from_value(json!({})).unwrap();
        done(vault.issue(&act("root", "admin", start), service, wish)).unwrap();
    }
    vault.revoke_credentials(&act("root", "admin", hours(1)), "revoked", None).unwrap();
    vault.maintain(start, hours(19)).unwrap();
    assert_eq!(expiring(&vault), []);
    let again = serde_json::from_value(json!({})).unwrap();
    done(vault.issue(&act("root", "admin", hours(19)), "renewed", again)).unwrap();
    for later in [20, 21, 22] {
        vault.maintain(start, hours(later)).unwrap();
    }
    assert_eq!(expiring(&vault), [("lost".to_owned(), "leaf".to_owned())]);
    // Intermediates are renewed by the vault itself, the root is not.
    vault.maintain(start, start + DAY * 3_630).unwrap();
    let names: Vec<String> = expiring(&vault).into_iter().skip(1).map(|(_, kind)| kind).collect();
    assert_eq!(names, ["root"]);
}

#[test]
fn certificates_that_an_older_version_listed_are_found_by_serial() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    let serial = issue_role(&vault, Role::Demo, start).serial_number;
    let key =
        vault.store.snapshot().unwrap().bytes(Table::Serial, serial.as_bytes()).unwrap().unwrap().to_vec();
    let older = serial.clone();
    let entry = crate::context::own_entry("test");
    let save = move |change: &mut crate::store::Change<'_>| {
        change.save(Table::Serial, older.as_bytes(), &key);
        Ok(())
    };
    vault.store.write(entry, save).unwrap();
    assert!(vault.known_certificate(&serial).unwrap().is_some());
    assert_eq!(vault.revoke_credentials(&act("root", "admin", start), "demo", Some(serial)).unwrap(), 1);
    vault.maintain(start, start + DAY + SignedDuration::from_secs(2)).unwrap();
    assert_eq!([Table::Credential, Table::Serial].map(|table| rows(&vault, table)), [0; 2]);
}
