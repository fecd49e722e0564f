//! Signed checkpoints: a log that somebody else wrote is found, however sound its chain is.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use sluice_audit::{CheckpointKey, Entry, FaultKind, Log, LogReport, Signer, verify, verify_signed};
use tempfile::TempDir;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn key() -> (CheckpointKey, Signer) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let public = CheckpointKey { role: "vault".into(), point: pair.public_key().as_ref().to_vec() };
    (public, Box::new(move |message| pair.sign(&random, message).ok()?.as_ref().try_into().ok()))
}

fn append(log: &Log, count: u64) {
    for n in 0..count {
        log.append(Entry::new("secret", "read").path(format!("services/a/{n}")), now()).unwrap();
    }
}

fn log(dir: &Path) -> Log {
    Log::open(&dir.join("vault.jsonl"), "vault").unwrap()
}

fn report(dir: &Path, key: &CheckpointKey) -> LogReport {
    assert!(verify(dir).unwrap().is_whole(), "the chain is sound");
    verify_signed(dir, key).unwrap().logs.remove(0)
}

#[test]
fn a_log_is_signed_at_once_every_thousand_records_and_at_its_end() {
    let dir = TempDir::new().unwrap();
    let (public, signer) = key();
    let open = log(dir.path());
    append(&open, 3);
    open.sign_with(Some(signer), now()).unwrap();
    assert_eq!(open.head().seq, 4);
    assert_eq!(report(dir.path(), &public).signed_upto, Some(3));
    append(&open, 1_500);
    assert!(report(dir.path(), &public).signed_upto > Some(900));
    drop(open);
    let report = report(dir.path(), &public);
    assert_eq!((report.fault, report.records), (None, 3 + 1_500 + 3));
    assert_eq!(report.signed_upto, Some(report.records - 1));
}

#[test]
fn a_signer_that_goes_signs_what_there_is_and_nothing_after() {
    let dir = TempDir::new().unwrap();
    let (public, signer) = key();
    let open = log(dir.path());
    open.sign_with(Some(signer), now()).unwrap();
    append(&open, 2);
    open.sign_with(None, now()).unwrap();
    open.sign_with(None, now()).unwrap();
    append(&open, 1_200);
    drop(open);
    let report = report(dir.path(), &public);
    assert_eq!((report.fault, report.signed_upto, report.records), (None, Some(3), 4 + 1_200));
}

#[test]
fn a_log_written_anew_is_not_signed_by_the_key() {
    let dir = TempDir::new().unwrap();
    let (public, _) = key();
    append(&log(dir.path()), 5);
    let kind = |report: LogReport| report.fault.map(|fault| (fault.kind, fault.seq));
    assert_eq!(kind(report(dir.path(), &public)), Some((FaultKind::Unsigned, 1)), "no checkpoint at all");
    let (_, other) = key();
    log(dir.path()).sign_with(Some(other), now()).unwrap();
    assert_eq!(kind(report(dir.path(), &public)), Some((FaultKind::Unsigned, 6)), "one by another key");
    let edge = CheckpointKey { role: "edge".into(), ..public };
    assert_eq!(report(dir.path(), &edge).signed_upto, None, "a key counts for its own log");
}
