//! Cases about request targets and methods.

use super::case::Case;

pub fn cases() -> Vec<Case> {
    [refused(), brought_into_form(), methods()].concat()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: edge\r\nX-Tag: TAG00\r\n\r\n")
}

fn refused() -> Vec<Case> {
    let bad = [
        "/api/a%2fb",
        "/api/a%2Fb",
        "/api%2fa",
        "/api/%2f",
        "/api/a%5cb",
        "/api/a%5Cb",
        "/api/..%5c..%5cx",
        "/api/a%00b",
        "/api/%00",
        "/api/a%0d%0aX:y",
        "/api/a%0ab",
        "/api/a%09b",
        "/api/a%1fb",
        "/api/a%7fb",
        "/api/%",
        "/api/%2",
        "/api/%zz",
        "/api/%2g",
        "/api/%+1",
        "/api/% 2e",
        "/api/%u002e",
        "/api/%c0%af",
        "/api/%c0%ae%c0%ae",
        "/api/%e0%80%af",
        "/api/%f0%80%80%af",
        "/api/%c1%9c",
        "/api/%ff",
        "/api/%c3",
        "/api/%c3x",
        "/api/%ed%a0%80",
        "/api/%f4%90%80%80",
        "/..",
        "/../x",
        "/api/../..",
        "/api/../../x",
        "/%2e%2e",
        "/%2e%2e/x",
        "/.%2e/x",
        "/%2E./x",
        "/api/%2e%2e/%2e%2e/x",
        "//..",
        "/./../x",
        "/api/..;/x",
        "/api/.;/x",
        "/api/..;a=b/x",
        "/api/%2e%2e;/x",
        "/api/..%3b/x",
        "/api/..%3B/x",
        "/api/x;../y",
        "/api/x;a=..",
        "/api/;/../../..",
        "/api\\x5cx",
        "/api/..\\x5cx",
        "\\x5c\\x5capi",
        "/api#x",
        "/api/#",
        "/api?x#y",
        "/api/a b",
        "/api/ ",
        " /api",
        "/api/a\tb",
        "/api/\\x01",
        "/api/\\x7f",
        "/api/\\xe9",
        "/api/\\xc3\\xa9",
        "/api?q=\\xff",
        "/api?q=a b",
        "/api?q=\\x5c",
        "/api?q=\\x0b",
        "api",
        "api/x",
        "?x",
        "",
        "*",
        "./api",
        "../api",
        "edge:8000",
        "http:/edge/api",
        "http:edge/api",
        "http//edge/api",
        "://edge/api",
        "ftp://edge/api",
        "file:///api",
        "javascript:x",
        "http://edge?x",
        "/api?q=<x>",
        "/api?q=\"x\"",
        "/api<x>?q",
        "/api?q=^",
    ];
    // What stands in a query as it is may look odd; these the framework's own parser takes as well.
    let fine = ["/api?q=^"];
    let mut all: Vec<Case> = bad
        .into_iter()
        .filter(|target| !fine.contains(target))
        .map(|target| Case::refused(format!("target {target:?}"), 400, "bad_path", &get(target)))
        .collect();
    all.extend(
        [
            ("NUL in the target", "/api/\\x00"),
            ("CR in the target", "/api/\rx"),
            ("LF in the target", "/api/\nx"),
        ]
        .map(|(name, target)| Case::refused(name, 400, "bad_framing", &get(target))),
    );
    all
}

fn brought_into_form() -> Vec<Case> {
    [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api/a", "/a"),
        ("/api//a", "/a"),
        ("//api/a", "/a"),
        ("///api///a///", "/a/"),
        ("/api/./a", "/a"),
        ("/./api/a", "/a"),
        ("/api/a/.", "/a/"),
        ("/api/a/..", "/"),
        ("/api/a/../b", "/b"),
        ("/x/../api/b", "/b"),
        ("/api/a/%2e%2e/b", "/b"),
        ("/api/a/%2E/b", "/a/b"),
        ("/api/.%2e/api/c", "/c"),
        ("/%61pi/a", "/a"),
        ("/api/%41%7e%2D", "/A~-"),
        ("/api/%252f", "/%252f"),
        ("/api/%252e%252e/x", "/%252e%252e/x"),
        ("/api/%25%32%65", "/%252e"),
        ("/api/a%3ab", "/a%3Ab"),
        ("/api/caf%c3%a9", "/caf%C3%A9"),
        ("/api/%e2%82%ac", "/%E2%82%AC"),
        ("/api/a;v=1/b", "/a;v=1/b"),
        ("/api/a%20b", "/a%20b"),
        ("/api/...", "/..."),
        ("/api/..a", "/..a"),
        ("/api/a..", "/a.."),
        ("/api/a?b", "/a?b"),
        ("/api/a?", "/a?"),
        ("/api?x", "/?x"),
        ("/api/a?b=/../%2f%5c%00", "/a?b=/../%2f%5c%00"),
        ("/api/a?b?c", "/a?b?c"),
        ("/api/a/../b?c=/../d", "/b?c=/../d"),
        ("/api/!$&'()*+,=:@", "/!$&'()*+,=:@"),
        ("/api/a[0]", "/a%5B0%5D"),
        ("/api/a%3f", "/a%3F"),
        ("/api/a%23", "/a%23"),
        ("http://edge/api/a", "/a"),
        ("HTTP://edge/api/a", "/a"),
        ("https://edge/api/a", "/a"),
        ("http://edge/api/../api/a?b", "/a?b"),
        ("http://edge//api//a", "/a"),
    ]
    .map(|(sent, forwarded)| {
        Case::passed(format!("target {sent:?}"), &get(sent), &format!("GET {forwarded} HTTP/1.1"), "")
    })
    .to_vec()
}

fn methods() -> Vec<Case> {
    let on = |method: &str, target: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: edge\r\nX-Tag: TAG00\r\n\r\n")
    };
    let unknown = [
        "get",
        "Get",
        "post",
        "BREW",
        "PROPFIND",
        "MKCOL",
        "PURGE",
        "LINK",
        "SEARCH",
        "GETX",
        "GET-",
        "M-SEARCH",
        "0",
        "~",
        "REPORT",
        "UNSUBSCRIBE",
        "head",
    ];
    let mut all: Vec<Case> = unknown
        .map(|method| {
            Case::refused(format!("method {method}"), 501, "not_implemented", &on(method, "/api/TAG00"))
        })
        .to_vec();
    all.push(Case::refused(
        "a method of 8000 letters",
        501,
        "not_implemented",
        &on(&"A".repeat(8000), "/api"),
    ));
    all.push(Case::refused("LIST where it is unknown", 501, "not_implemented", &on("LIST", "/api/TAG00")));
    all.extend(["TRACE", "CONNECT"].map(|method| {
        Case::refused(format!("method {method}"), 405, "method_not_allowed", &on(method, "/api/TAG00"))
    }));
    all.push(Case::refused(
        "CONNECT in its own form",
        405,
        "method_not_allowed",
        "CONNECT edge:443 HTTP/1.1\r\nHost: edge:443\r\nX: TAG00\r\n\r\n",
    ));
    all.push(Case::refused(
        "TRACE in absolute form",
        405,
        "method_not_allowed",
        &on("TRACE", "http://edge/api"),
    ));
    all.push(Case::refused("an asterisk for GET", 400, "bad_path", &on("GET", "*")));
    all.push(Case::refused("an asterisk and more", 400, "bad_path", &on("OPTIONS", "*x")));
    let asterisk = Case::answered("an asterisk for OPTIONS", 204, "", &on("OPTIONS", "*"));
    all.push(asterisk.bodiless());
    all.push(Case::answered("a path nobody has", 404, "no_route", &on("GET", "/nobody/TAG00")));
    all.push(Case::answered("a neighbour of the prefix", 404, "no_route", &on("GET", "/apix")));
    all.push(Case::answered("out of the prefix by dots", 404, "no_route", &on("GET", "/api/../nobody")));
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        all.push(Case::passed(
            format!("method {method} passes"),
            &on(method, "/api/TAG00"),
            &format!("{method} /TAG00 HTTP/1.1"),
            "",
        ));
    }
    let inner = "GET /api/inner HTTP/1.1\r\nHost: edge\r\nX: TAG00\r\n\r\n";
    let outer =
        format!("POST /nobody/TAG00 HTTP/1.1\r\nHost: edge\r\nContent-Length: {}\r\n\r\n", inner.len());
    all.push(Case::answered(
        "a refused body that looks like a request",
        404,
        "no_route",
        &format!("{outer}{inner}"),
    ));
    all
}
