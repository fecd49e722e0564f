//! What ends makes room, however much of it there is.

use jiff::SignedDuration;

use super::*;
use crate::quota::Quotas;
use crate::store::{KeyBytes, SWEEP_MAX};

fn small(dir: &TempDir) -> Settings {
    let quota = sluice_schema::Quota { tokens: 2, certificates: 1, ..sluice_schema::Quota::default() };
    Settings { quotas: Quotas(quota), ..settings(dir.path()) }
}

/// `bot`, by its certificate: it may have tokens and certificates of its own.
fn bot(now: Timestamp) -> Act {
    let mut act = act("bot", "read trade", now);
    act.caller.as_mut().unwrap().via = Via::Certificate;
    act
}

/// Tokens with all that belongs to one, in one commit.
fn plant(vault: &Vault, many: usize, end_s: i64) {
    let rows = move |change: &mut crate::store::Change<'_>| {
        for _ in 0..many {
            let jti = uuid::Uuid::now_v7().to_string();
            let row = json!({ "sub": "bot", "issued_s": end_s - 1, "expires_s": end_s, "scope": "read", "audience": [],
                              "by": "bot", "revoked": false });
            change.save(Table::Token, jti.as_bytes(), &row);
            let end: KeyBytes = [b"x".as_slice(), &end_s.to_be_bytes(), jti.as_bytes()].concat();
            change.mark(Table::TokenIndex, &end);
            change.mark(Table::TokenIndex, &[b"sbot\0".as_slice(), jti.as_bytes()].concat());
        }
        Ok(())
    };
    vault.store.write(sluice_audit::Entry::new("test", "plant"), rows).unwrap();
}

#[test]
fn a_sweep_goes_on_until_nothing_that_ended_is_left() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    plant(&vault, 5 * SWEEP_MAX + 1, start.as_second() + 1);
    plant(&vault, 3, start.as_second() + 3_600);
    vault.sweep_crowd(start).unwrap();
    assert_eq!(vault.store.snapshot().unwrap().count(Table::Token).unwrap(), 5 * SWEEP_MAX as u64 + 4);
    vault.maintain(start, start + SignedDuration::from_secs(60)).unwrap();
    assert_eq!(rows(&vault, Table::Token), 3);
    assert_eq!(rows(&vault, Table::TokenIndex), 6);

    // Between two maintenances a full slice is enough, less is not worth a record.
    plant(&vault, SWEEP_MAX, start.as_second() + 1);
    vault.sweep_crowd(start + SignedDuration::from_secs(60)).unwrap();
    assert_eq!(rows(&vault, Table::Token), 3);
    plant(&vault, SWEEP_MAX - 1, start.as_second() + 1);
    vault.sweep_crowd(start + SignedDuration::from_secs(60)).unwrap();
    assert_eq!(rows(&vault, Table::Token), 3 + SWEEP_MAX - 1);
}

#[test]
fn what_has_ended_is_given_back_and_a_store_without_counts_is_no_debt() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open_with(small(&dir), &root, start);
    let wish = |ttl: i64| serde_json::from_value(json!({ "permissions": ["read"], "ttl": ttl })).unwrap();
    assert!(vault.mint(&bot(start), "bot", &wish(1)).is_ok());
    assert!(vault.mint(&bot(start), "bot", &wish(3_600)).is_ok());
    let full = vault.mint(&bot(start), "bot", &wish(1)).err().unwrap().to_string();
    assert!(full.contains("`bot` holds 2 and may hold 2"), "{full}");
    // Rows that nobody counted take nothing with them.
    plant(&vault, 5, start.as_second() + 1);
    let later = start + SignedDuration::from_secs(30);
    vault.maintain(start, later).unwrap();
    assert_eq!(rows(&vault, Table::Token), 1);
    assert!(vault.mint(&bot(later), "bot", &wish(3_600)).is_ok());
}

#[test]
fn roles_get_certificates_whatever_others_hold() {
    let (dir, root, now) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open_with(small(&dir), &root, now);
    let issue = || done(vault.issue(&bot(now), "bot", crate::ca::IssueRequest::default()));
    issue().unwrap();
    assert!(issue().err().unwrap().to_string().contains("certificates"));
    for _ in 0..3 {
        issue_role(&vault, Role::Edge, now);
    }
}
