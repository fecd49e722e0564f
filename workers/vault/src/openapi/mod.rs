//! The document of this worker's calls, OpenAPI 3.1: put together from the tables beside, kept as
//! `conf/openapi/vault.json`, served as `/openapi.json`. A test compares it with the routers. What other roles ask at the
//! internal door is not in it, and `/v1/…` is in it as one path: its shapes are those of HashiCorp Vault.

mod calls;
mod shapes;

use std::sync::LazyLock;

use axum::response::Response;
use serde_json::Value;
use sluice_http::openapi;

use crate::api::public;

/// `GET /openapi.json`: for everybody, also while the vault is sealed, as it says nothing about what is in it.
pub(crate) async fn served() -> Response {
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| document().to_string().into_bytes());
    public("application/json", TEXT.clone(), "public, max-age=300")
}

/// The document.
pub fn document() -> Value {
    let about = "Certificates, tokens and secrets: one authority, short credentials, every access recorded before it is \
                 answered.";
    openapi::document("Sluice vault", about, 8009, calls::CALLS, shapes::all())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::calls::{CALLS, EVERY};
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let sources = [
            include_str!("../api.rs"),
            include_str!("../oauth/api.rs"),
            include_str!("../falco/api.rs"),
            include_str!("../acme/api.rs"),
            include_str!("../user/api.rs"),
        ];
        let mut routes: BTreeSet<_> =
            sources.iter().flat_map(|source| openapi::routes_in(source, EVERY)).collect();
        // At the internal door alone; and the folder with a slash at its end is the folder.
        routes.retain(|(_, path)| !path.starts_with("/internal/") && path != "/secrets/");
        // The root of the tree is listed, nothing else.
        routes.retain(|(method, path)| path != "/secrets" || method == "get");
        assert!(routes.len() > 60, "{routes:?}");
        let described: BTreeSet<_> =
            CALLS.iter().map(|call| (call.method.to_owned(), call.path.to_owned())).collect();
        assert_eq!(described.len(), CALLS.len(), "a call is described twice");
        assert_eq!(described, routes);
    }

    #[test]
    fn nothing_hangs_loose_and_the_file_is_what_the_code_says() {
        let loose = openapi::loose_ends(&document());
        assert!(loose.is_empty(), "{loose:?}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/openapi/vault.json");
        let kept = openapi::is_kept(&path, &document()).unwrap();
        assert!(kept, "run this test with SLUICE_WRITE=1 and look at the difference");
    }
}
