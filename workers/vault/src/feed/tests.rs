//! What a revocation costs, and how soon it is known, when many came before it.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use serde_json::json;
use sluice_identity::trust::Applied;
use tempfile::TempDir;

use super::*;
use crate::context::Vault;
use crate::seal::RootKey;
use crate::tests::{act, open};

/// Certificates that were revoked before.
const BEFORE: usize = 10_000;
/// The contract's bound from a revocation to its being obeyed.
const KNOWN_WITHIN: Duration = Duration::from_millis(250);

fn event_of(frame: &Bytes) -> (String, String) {
    let text = String::from_utf8(frame.to_vec()).unwrap();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    (field("event:"), field("data:"))
}

/// Revokes as many, in rows alone, and tells everybody the whole state.
fn revoke_before(vault: &Vault, now: Timestamp) {
    let entry = act("root", "admin", now).entry("test", "revoke", "credentials");
    vault
        .write(entry, move |change| {
            let until = now + SignedDuration::from_hours(24);
            let row = RevokedRow { at: now, until, issuer: Some("00".into()), issued_until: None };
            for number in 0..BEFORE {
                change.save(Table::Revoked, format!("serial/{number:032x}").as_bytes(), &row);
            }
            change.announce_all()
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_more_revocation_is_known_at_once_and_told_by_itself() {
    let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
    let vault = open(&dir, &RootKey::random(), now);
    revoke_before(&vault, now);
    let mut follower = vault.hub.follow(None);
    let (mut parts, mut largest) = (Revoked::default(), 0);
    let mut trust = loop {
        let frame = follower.next().await.unwrap();
        largest = largest.max(frame.len());
        match event_of(&frame) {
            (name, data) if name == "part" => parts.add(serde_json::from_str::<Part>(&data).unwrap().revoked),
            (_, data) => {
                let mut snapshot: Snapshot = serde_json::from_str(&data).unwrap();
                snapshot.revoked.add(parts);
                break Trust::from_snapshot(&snapshot);
            }
        }
    };
    assert!(trust.revoked() == BEFORE && trust.is_serial_revoked(&format!("{:032x}", BEFORE - 1)));
    assert!(largest < 16 << 10, "an event of {largest} bytes");

    let admin = act("root", "admin", now);
    for _ in 0..20 {
        let given = vault.issue(&admin, "bot", serde_json::from_value(json!({})).unwrap()).await.unwrap();
        let serial = serde_json::to_value(&given).unwrap()["serial_number"].as_str().unwrap().to_owned();
        let began = Instant::now();
        vault.revoke_credentials(&admin, "bot", Some(serial.clone())).unwrap();
        let frame = follower.next().await.unwrap();
        assert!(frame.len() < 256, "{} bytes for one serial", frame.len());
        let message = Message::parse("delta", &event_of(&frame).1).unwrap().unwrap();
        assert_eq!(trust.apply(&message), Applied::Changed);
        assert!(trust.is_serial_revoked(&serial) && vault.trust.load().is_serial_revoked(&serial));
        assert!(began.elapsed() < KNOWN_WITHIN, "{:?}", began.elapsed());
    }
    assert_eq!(trust.revoked(), BEFORE + 20);
}

/// What every start of a follower may have to take: as many as tokens and certificates are kept. Fewer here, unless the
/// number is given; what one event holds grows with them and is bounded by the follower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_takes_as_much_as_can_be_revoked() {
    let many = std::env::var("SLUICE_TEST_REVOKED").map_or(30_000, |text| text.parse().unwrap());
    let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
    let vault = open(&dir, &RootKey::random(), now);
    let revoked = Revoked {
        jti: (0..many).map(|n| format!("0192aaaa-0000-7000-8000-{n:012x}")).collect(),
        serial: (0..many / 2).map(|n| format!("{n:032x}")).collect(),
        ..Revoked::default()
    };
    let snapshot = Snapshot { epoch: "e".into(), seq: 1, jwks: vault.hub.jwks(), revoked };
    vault.hub.publish(&[Message::Snapshot(snapshot)]);
    let began = Instant::now();
    let mut follower = vault.hub.follow(None);
    let (mut parts, mut largest, mut total) = (Revoked::default(), 0, 0);
    let trust = loop {
        let frame = follower.next().await.unwrap();
        (largest, total) = (largest.max(frame.len()), total + frame.len());
        match event_of(&frame) {
            (name, data) if name == "part" => parts.add(serde_json::from_str::<Part>(&data).unwrap().revoked),
            (_, data) => {
                let mut snapshot: Snapshot = serde_json::from_str(&data).unwrap();
                snapshot.revoked.add(parts);
                break Trust::from_snapshot(&snapshot);
            }
        }
    };
    eprintln!(
        "{} revoked: {total} bytes, {largest} at most an event, {:?}",
        trust.revoked(),
        began.elapsed()
    );
    assert_eq!(trust.revoked(), many + many / 2);
    assert!(trust.is_serial_revoked(&format!("{:032x}", many / 2 - 1)));
    // A 256th each, and what chance adds: far below the 64 MiB at which a follower gives up (1 MiB for all there can be).
    assert!(largest < 64 * (many + many / 2) / 256 + (8 << 10), "{largest} of {total} bytes in one event");
}
