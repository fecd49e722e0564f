//! Keys of other roles' stores: to the role that has one, and to nobody else.

use sluice_client::ClientError;
use sluice_wire::role::Role;

use crate::harness::{Setup, Vault, bytes_below};

const PATH: &str = "/internal/keys/events";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_worker_gets_its_keys_and_the_same_ones_after_a_restart() {
    let vault = Vault::start().await;
    let first = vault.client(Role::Events).store_keys(Role::Events).await.unwrap();
    assert_eq!((first.current, first.keys.len(), first.keys[0].id), (1, 1, 1));
    let key = first.keys[0].bytes().unwrap();
    assert_ne!(key, [0; 32]);
    let again = vault.client(Role::Events).store_keys(Role::Events).await.unwrap();
    assert!(first == again);
    let (dir, ended) = vault.stop().await;
    ended.unwrap();
    for (path, bytes) in bytes_below(dir.path()) {
        let hex = first.keys[0].key.as_bytes();
        let lies = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!lies(&key) && !lies(hex), "the key lies in {}", path.display());
    }
    let vault = Setup { dir, ..Setup::default() }.start();
    vault.ready().await;
    let later = vault.client(Role::Events).store_keys(Role::Events).await.unwrap();
    assert!(first == later);
    let audit = vault.as_admin("GET", "/audit?path=keys/events", "").await.text;
    assert!(audit.contains("\"create\"") && audit.contains("\"read\""), "{audit}");
    assert!(!audit.contains(&first.keys[0].key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_gets_them_or_learns_that_they_are_there() {
    let vault = Vault::start().await;
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Events) {
        for of in [Role::Events, role] {
            let refused = vault.client(role).store_keys(of).await;
            let refused = refused.err().unwrap_or_else(|| panic!("{role} got keys of {of}"));
            assert!(matches!(refused, ClientError::Status { status, .. } if status == 404), "{refused}");
        }
    }
    let wrong = vault.client(Role::Events).store_keys(Role::Edge).await;
    assert!(wrong.is_err(), "keys of another role");
    vault.as_admin("GET", PATH, "").await.is(404, "not_found");
    vault.call("GET", PATH, None, "").await.is(404, "not_found");
    vault.via_edge("root", "admin", "GET", PATH).await.is(404, "not_found");
    vault.internal("GET", PATH, "", "").await.is(401, "invalid_token");
    vault
        .internal("GET", PATH, "x-internal-key: nonsense\r\nx-internal-self: 1\r\n", "")
        .await
        .is(401, "invalid_token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_vault_says_so() {
    let vault = Setup { dev: false, ..Setup::default() }.start();
    vault.internal("GET", PATH, &vault.proof(Role::Events), "").await.is(503, "sealed");
}
