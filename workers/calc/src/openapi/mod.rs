//! The document of this worker's calls, OpenAPI 3.1: put together from the tables beside, kept as
//! `conf/openapi/calc.json`, served as `/openapi.json`. Tests compare it with the router and with what is answered.

mod calls;
mod shapes;

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use http::header;
use serde_json::Value;
use sluice_http::openapi;

/// `GET /openapi.json`: for everybody, as it says nothing about anybody's data.
pub(crate) async fn served() -> Response {
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| document().to_string().into_bytes());
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, TEXT.as_slice()).into_response()
}

/// The document.
pub fn document() -> Value {
    let about = "Indicators, signals, risk figures, sizes of positions, searches for strategies, and stored series of \
                 candles. Numbers that are not there are null, with a reason.";
    openapi::document("Sluice calculations", about, 8013, calls::CALLS, shapes::all())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::calls::CALLS;
    use super::*;

    /// Routes whose handlers are methods of a router of their own: what is below `/series/`, and the universe.
    const APART: [(&str, &str); 2] = [("get", "/calculations/universe"), ("put", "/calculations/universe")];

    #[test]
    fn every_route_is_described_and_nothing_else() {
        // `computed` makes a handler of POST.
        let source = include_str!("../api.rs").replace(", computed(", ", post(");
        let mut routes = openapi::routes_in(&source, &[]);
        routes.extend(openapi::routes_in(include_str!("../series/api.rs"), &[]));
        routes.extend(APART.map(|(method, path)| (method.to_owned(), path.to_owned())));
        assert!(routes.len() > 20, "{routes:?}");
        let described: BTreeSet<_> = CALLS
            .iter()
            .filter(|call| !call.path.starts_with("/series/"))
            .map(|call| (call.method.to_owned(), call.path.to_owned()))
            .collect();
        assert_eq!(described, routes);
        let every: BTreeSet<_> = CALLS.iter().map(|call| (call.method, call.path)).collect();
        assert_eq!(every.len(), CALLS.len(), "a call is described twice");
    }

    #[test]
    fn nothing_hangs_loose_and_the_file_is_what_the_code_says() {
        let loose = openapi::loose_ends(&document());
        assert!(loose.is_empty(), "{loose:?}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf/openapi/calc.json");
        let kept = openapi::is_kept(&path, &document()).unwrap();
        assert!(kept, "run this test with SLUICE_WRITE=1 and look at the difference");
    }
}
