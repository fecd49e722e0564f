//! Keys and intermediates change while others go on asking: nobody is refused, and what was given stays good.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::*;

/// Callers that ask at the same time.
const CALLERS: usize = 3;
/// What each of them has had before the change, and after it.
const EACH: usize = 3;

/// What a caller got.
struct Given {
    /// The leaf and its intermediate, PEM, as a TLS client shows them.
    chain: String,
    serial: String,
    token: String,
}

fn given(vault: &Vault, now: Timestamp) -> Given {
    let bot = act("bot", "read trade credentials:issue", now);
    let wish = serde_json::from_value(json!({})).unwrap();
    let issued = serde_json::to_value(done(vault.issue(&bot, "bot", wish)).unwrap()).unwrap();
    let text = |name: &str| issued[name].as_str().unwrap().to_owned();
    Given { chain: text("certificate"), serial: text("serial_number"), token: mint(vault, now) }
}

/// Lets callers ask without a pause at `now`, and the vault do what is due then meanwhile; what they got.
fn asked_while_it_changes(vault: &Vault, last: Timestamp, now: Timestamp) -> Vec<Given> {
    let (rounds, ended) = ([const { AtomicUsize::new(0) }; CALLERS], AtomicBool::new(false));
    let least = || rounds.iter().map(|rounds| rounds.load(Ordering::SeqCst)).min().unwrap();
    let all_have = |count: usize| {
        while least() < count {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = rounds
            .iter()
            .map(|rounds| {
                let ask = || {
                    let mut all = Vec::new();
                    while !ended.load(Ordering::SeqCst) {
                        all.push(given(vault, now));
                        assert_eq!(verify(vault, &all[all.len() - 1].token, now), Ok(()));
                        rounds.fetch_add(1, Ordering::SeqCst);
                    }
                    all
                };
                scope.spawn(ask)
            })
            .collect();
        all_have(EACH);
        vault.maintain(last, now).unwrap();
        all_have(least() + 1 + EACH);
        ended.store(true, Ordering::SeqCst);
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    })
}

/// Whether a server that has the root and the lists of now would let a client with this chain in.
fn is_let_in(vault: &Vault, chain: &str, now: Timestamp) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(vault.authority.load().root.der.clone())).unwrap();
    let lists = vault.revocation_lists(now).unwrap();
    let lists = CertificateRevocationListDer::pem_slice_iter(lists.as_bytes()).map(Result::unwrap);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
    let certificates: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second() as u64));
    verifier.build().unwrap().verify_client_cert(&certificates[0], &certificates[1..], at).map(|_| ())
}

#[test]
fn an_intermediate_takes_over_while_certificates_are_issued_and_shown() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    let half = start + DAY * 46;
    let first = vault.authority.load().issuing().pem().to_owned();
    let all = asked_while_it_changes(&vault, start, half);
    let second = vault.authority.load().issuing().pem().to_owned();
    let chain = vault.authority.load().chain_pem();
    assert!(first != second && chain.contains(&first) && chain.contains(&second), "the chain shows both");
    assert_eq!(vault.revocation_lists(half).unwrap().matches("BEGIN X509 CRL").count(), 3);

    let (old, new): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.chain.ends_with(&first));
    assert!(old.len() >= CALLERS && new.len() >= CALLERS, "{} and {}", old.len(), new.len());
    let end = half + DAY - SignedDuration::from_secs(1);
    for one in [old[0], new[0], old[old.len() - 1], new[new.len() - 1]] {
        assert!(new[0].chain.ends_with(&second));
        for at in [half, end] {
            assert_eq!(is_let_in(&vault, &one.chain, at), Ok(()));
        }
        assert!(is_let_in(&vault, &one.chain, end + SignedDuration::from_secs(2)).is_err(), "it has ended");
    }
    // Each is on the list of the one that signed it.
    for one in [old[0], new[0]] {
        vault.revoke_credentials(&act("root", "admin", half), "bot", Some(one.serial.clone())).unwrap();
        let refused = is_let_in(&vault, &one.chain, half).unwrap_err();
        assert!(format!("{refused:?}").contains("Revoked"), "{refused:?}");
    }
    for one in [old[1], new[1]] {
        assert_eq!(is_let_in(&vault, &one.chain, half), Ok(()));
    }
}

#[test]
fn a_signing_key_takes_over_while_tokens_are_made_and_leaves_when_they_have_ended() {
    let (dir, root, start) = (TempDir::new().unwrap(), RootKey::random(), Timestamp::now());
    let vault = open(&dir, &root, start);
    let (kid, published) = (vault.signers.load().kid().to_owned(), vault.hub.jwks());
    let later = start + DAY * 31;
    let all = asked_while_it_changes(&vault, start, later);
    let next = vault.signers.load().kid().to_owned();
    assert!(next != kid && published.iter().any(|jwk| jwk.kid == next), "it was published before it signed");
    let of = |kid: &str| {
        let part = format!("\"kid\":\"{kid}\"");
        let header = |token: &str| {
            use base64::Engine as _;
            let part = token.split('.').next().unwrap();
            String::from_utf8(base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        all.iter().filter(|one| header(&one.token).contains(&part)).collect::<Vec<_>>()
    };
    let (old, new) = (of(&kid), of(&next));
    assert!(old.len() >= CALLERS && new.len() >= CALLERS && old.len() + new.len() == all.len());
    for one in &all {
        assert_eq!(verify(&vault, &one.token, later), Ok(()), "tokens of both keys are good");
    }
    // The longest token that the former key can have signed has ended.
    vault.maintain(later, later + DAY * 30 + SignedDuration::from_hours(2)).unwrap();
    assert!(vault.hub.jwks().iter().all(|jwk| jwk.kid != kid));
    assert_eq!(verify(&vault, &old[0].token, later), Err(TokenError::UnknownKey));
    assert_eq!(verify(&vault, &new[0].token, later), Ok(()));
}
