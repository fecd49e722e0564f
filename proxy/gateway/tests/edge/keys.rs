//! Keys that no other test is about: each is changed and what the edge does changes with it.

use crate::harness::{Setup, Upstream, ok, service};

/// A request with more header fields.
fn with(fields: &str) -> String {
    format!("GET /api/x HTTP/1.1\r\nHost: edge\r\n{fields}Connection: close\r\n\r\n")
}

#[test]
fn service_headers_tell_services_apart() {
    let [plain, desk, fx] = [(); 3].map(|()| Upstream::start(ok));
    let one = |name, upstream: &Upstream, headers| {
        service(name, "/api", &[upstream.url()], &format!("auth_required = false\nheaders = {headers}"))
    };
    let edge = Setup::new("")
        .service("plain", &one("plain", &plain, "{}"))
        .service("desk", &one("desk", &desk, "{ x-desk = \"*\" }"))
        .service("fx", &one("fx", &fx, "{ X-Desk = \"fx\" }"))
        .start();
    for (fields, counts) in [
        ("", [1, 0, 0]),
        ("X-Desk: rates\r\n", [1, 1, 0]),
        ("x-desk: fx\r\n", [1, 1, 1]),
        ("x-desk: rates\r\nx-desk: fx\r\n", [1, 1, 2]),
        ("x-desk: FX\r\n", [1, 2, 2]),
    ] {
        assert_eq!(edge.send(&with(fields)).status, 200, "{fields}");
        assert_eq!([&plain, &desk, &fx].map(|upstream| upstream.seen().len()), counts, "{fields}");
    }
}
