//! The document of the calls, held against the vault that answers them.

use crate::harness::Vault;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_served_and_every_call_of_it_is_answered() {
    let vault = Vault::start().await;
    let reply = vault.call("GET", "/openapi.json", None, "").await;
    assert!(reply.status == 200 && reply.head.contains("content-type: application/json"), "{}", reply.head);
    let document = reply.json();
    assert_eq!((&document["openapi"], &document), (&"3.1.0".into(), &sluice_vault::openapi()));
    for (path, calls) in document["paths"].as_object().unwrap() {
        // Nothing of these names is there, and no body is any that a call takes: what is asked for does nothing.
        let target = path.replace(['{', '}'], "");
        for method in METHODS {
            let reply = vault.as_admin(&method.to_uppercase(), &target, "{").await;
            let described = calls.get(method).is_some();
            // The root of the tree and a path of Vault's API say themselves what they do not take.
            if described || !["/secrets", "/secrets/{path}", "/v1/{path}"].contains(&path.as_str()) {
                assert_eq!(reply.status == 405, !described, "{method} {path}: {reply:?}");
            }
            assert!(reply.status < 500, "{method} {path}: {reply:?}");
        }
    }
    let strange = vault.as_admin("GET", "/nothing/of/the/kind", "").await;
    assert_eq!(strange.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_credential_is_what_asks_for_one() {
    let vault = Vault::start().await;
    let document = sluice_vault::openapi();
    for (path, calls) in document["paths"].as_object().unwrap() {
        let target = path.replace(['{', '}'], "");
        // Calls with a body may find fault with that first; Vault's API says 403 where there is no token.
        for method in ["get", "delete"].into_iter().filter(|method| calls.get(*method).is_some()) {
            let target = match path.as_str() {
                "/secrets" => "/secrets?list=true",
                "/security/secrets/retrieve" => "/security/secrets/retrieve?path=services/x",
                _ => &target,
            };
            let reply = vault.call(&method.to_uppercase(), target, None, "").await;
            let open = calls[method]["security"].as_array().is_some_and(Vec::is_empty);
            let refused = matches!(reply.status, 401 | 403);
            assert_eq!(refused, !open, "{method} {path}: {reply:?}");
        }
    }
}
