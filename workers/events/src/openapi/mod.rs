//! The document of this worker's calls, OpenAPI 3.1: put together from the tables beside, kept as
//! `conf/openapi/events.json`, served as `/openapi.json`. A test compares it with the router.

mod calls;
mod shapes;

use std::sync::LazyLock;

use axum::response::Response;
use serde_json::Value;
use sluice_http::openapi;

use crate::context::raw_json;

/// `GET /openapi.json`: for everybody, as it says nothing about this worker's events.
pub(crate) async fn served() -> Response {
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| document().to_string().into_bytes());
    raw_json(TEXT.clone())
}

/// The document.
pub fn document() -> Value {
    let about = "Event streams: durable, in one order, read back by filter, replayed, streamed, handed \
        out to consumer groups. At least once: an event id is stored once within the dedup window.";
    openapi::document("Sluice events", about, 8011, calls::CALLS, shapes::all())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::calls::CALLS;
    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let routes = openapi::routes_in(include_str!("../api.rs"), &[]);
        assert!(routes.len() > 30, "{routes:?}");
        let described: BTreeSet<_> =
            CALLS.iter().map(|call| (call.method.to_owned(), call.path.to_owned())).collect();
        assert_eq!(described.len(), CALLS.len(), "a call is described twice");
        assert_eq!(described, routes);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_shape_is_used() {
        let loose = openapi::loose_ends(&document());
        assert!(loose.is_empty(), "{loose:?}");
    }

    #[test]
    fn the_file_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/openapi/events.json");
        let kept = openapi::is_kept(&path, &document()).unwrap();
        assert!(kept, "run this test with SLUICE_WRITE=1 and look at the difference");
    }
}
