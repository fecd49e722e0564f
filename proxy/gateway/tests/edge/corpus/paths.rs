//! One form of a path decides everything: which route, which permission, and what is forwarded.

use sluice_wire::role::Role;

use crate::harness::{Setup, Upstream, ok, service};

/// Ways to write the path below a prefix, and its one form.
const FORMS: [(&str, &str); 12] = [
    ("/a", "/a"),
    ("//a", "/a"),
    ("/./a", "/a"),
    ("/x/../a", "/a"),
    ("/x/%2e%2e/a", "/a"),
    ("/x/.%2E//a", "/a"),
    ("/%61", "/a"),
    ("/a/.", "/a/"),
    ("/a%3ab", "/a%3Ab"),
    ("/%252e%252e/a", "/%252e%252e/a"),
    ("/a;v=1", "/a;v=1"),
    ("/a[0]?q=/../%2f", "/a%5B0%5D?q=/../%2f"),
];
const REFUSED: [&str; 8] =
    ["/%2fa", "/a%5cb", "/a%00", "/..;/a", "/../../a", "/%2e%2e/%2e%2e/a", "/%c0%ae%c0%ae/a", "/a%zz"];

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")
}

#[test]
fn services_and_workers_get_the_one_form() {
    let mut setup = Setup::new("");
    let vault = Upstream::start_unix(&setup.door(Role::Vault), ok);
    let (stripped, whole) = (Upstream::start(ok), Upstream::start(ok));
    let open = "auth_required = false";
    let edge = setup
        .service("cut", &service("cut", "/cut", &[stripped.url()], open))
        .service("raw", &service("raw", "/raw", &[whole.url()], &format!("{open}\nstrip_prefix = false")))
        .start();
    for (prefix, upstream, kept) in
        [("/cut", &stripped, ""), ("/raw", &whole, "/raw"), ("/v1", &vault, "/v1")]
    {
        for (sent, form) in FORMS {
            let reply = edge.send(&get(&format!("{prefix}{sent}")));
            assert_eq!(reply.status, 200, "{prefix}{sent}: {}", reply.text());
            let seen = upstream.seen().last().unwrap().line().to_owned();
            assert_eq!(seen, format!("GET {kept}{form} HTTP/1.1"), "{prefix}{sent}");
        }
        for sent in REFUSED {
            let reply = edge.send(&get(&format!("{prefix}{sent}")));
            assert_eq!((reply.status, reply.code().as_str()), (400, "bad_path"), "{prefix}{sent}");
        }
        assert_eq!(upstream.seen().len(), FORMS.len(), "{prefix}");
    }
}

#[test]
fn dots_do_not_carry_a_request_past_a_permission() {
    let (open, closed) = (Upstream::start(ok), Upstream::start(ok));
    let edge = Setup::new("")
        .service("open", &service("open", "/open", &[open.url()], "auth_required = false"))
        .service(
            "closed",
            &service("closed", "/closed", &[closed.url()], "permissions = { GET = [\"read\"] }"),
        )
        .start();
    for path in
        ["/open/../closed/x", "/open/%2e%2e/closed/x", "//closed/x", "/open/./..//closed/x", "/%63losed/x"]
    {
        assert_eq!(edge.send(&get(path)).status, 401, "{path}");
    }
    assert!(open.seen().is_empty() && closed.seen().is_empty());
    for path in ["/closed/../open/x", "/closed/%2e%2e/open/x", "/closed/.//../open/x"] {
        assert_eq!(edge.send(&get(path)).status, 200, "{path}");
    }
    assert!(open.seen().iter().all(|seen| seen.line() == "GET /x HTTP/1.1"));
    assert!(closed.seen().is_empty());
    for path in ["/vault/../v1/sys/unseal", "/v1/x/../sys/unseal", "/v1//sys/%75nseal", "/v1/sys/./unseal"] {
        assert_eq!(edge.send(&get(path)).status, 404, "{path}");
    }
}
