//! Cases about `Host` and the authority of a target.

use super::case::Case;

const FRAMING: &str = "bad_framing";

pub fn cases() -> Vec<Case> {
    let bad = [
        "",
        " ",
        "a b",
        "a\tb",
        "a,b",
        "edge, edge",
        "user@edge",
        "user:pw@edge",
        "edge/",
        "edge/path",
        "edge?x",
        "edge#x",
        "http://edge",
        "edge:",
        "edge:0",
        "edge:65536",
        "edge:99999",
        "edge:123456",
        "edge:+80",
        "edge:-1",
        "edge:80:80",
        "edge:8o",
        "edge: 80",
        ":80",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]x",
        "[::1]:",
        "[::1]:0",
        "[:::1]",
        "[::1%25lo]",
        "[1.2.3.4]",
        "[v1.a]",
        "1.2.3.999",
        "1.2.3",
        "1",
        "0x7f.0.0.1",
        "a..b",
        ".a",
        "-",
        "a%2eb",
        "edge\\x00",
        "\\xe9dge",
        "edge\\x5c",
        "<edge>",
        "edge;x",
        "*",
        "%65dge",
        "edge..",
    ];
    // `-` is odd and harmless: names of that shape resolve nowhere. `0x7f.0.0.1` is a name, not a number.
    let harmless = ["-", "0x7f.0.0.1"];
    let mut all: Vec<Case> = bad
        .into_iter()
        .filter(|host| !harmless.contains(host))
        .map(|host| {
            let control = host.contains("\\x00");
            let code = if control { FRAMING } else { "bad_host" };
            Case::refused(
                format!("host {host:?}"),
                400,
                code,
                &format!("GET /api/TAG00 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            )
        })
        .collect();
    let raw = [
        ("no host", "GET /api/TAG00 HTTP/1.1\r\nX: y\r\n\r\n"),
        ("no host in 1.0", "GET /api/TAG00 HTTP/1.0\r\n\r\n"),
        ("host twice, same", "GET /api/TAG00 HTTP/1.1\r\nHost: edge\r\nHost: edge\r\n\r\n"),
        ("host twice, different", "GET /api/TAG00 HTTP/1.1\r\nHost: edge\r\nX: y\r\nhOST: other\r\n\r\n"),
        ("host of the target differs", "GET http://other/api/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n"),
        ("port of the target differs", "GET http://edge:81/api/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n"),
        ("port of the host differs", "GET http://edge/api/TAG00 HTTP/1.1\r\nHost: edge:80\r\n\r\n"),
        ("target with user", "GET http://u@edge/api/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n"),
        ("host of the target in another case", "GET http://EDGE/api/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n"),
        ("target without host", "GET http:///api/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n"),
        ("absolute target, no host", "GET http://edge/api/TAG00 HTTP/1.1\r\nX: y\r\n\r\n"),
        (
            "absolute target, host twice",
            "GET http://edge/api/TAG00 HTTP/1.1\r\nHost: edge\r\nHost: edge\r\n\r\n",
        ),
    ];
    all.extend(raw.map(|(name, raw)| Case::refused(name, 400, "bad_host", raw)));
    all.push(Case::refused("host folded", 400, FRAMING, "GET /api/TAG00 HTTP/1.1\r\nHost:\r\n edge\r\n\r\n"));
    all.push(Case::refused(
        "host with space before colon",
        400,
        FRAMING,
        "GET /api/TAG00 HTTP/1.1\r\nHost : edge\r\n\r\n",
    ));
    let good = [
        "edge",
        "EDGE",
        "edge:8000",
        "edge.",
        "data_service",
        "10.0.0.1",
        "10.0.0.1:80",
        "[::1]",
        "[::1]:8000",
        "[2001:db8::1]",
        "xn--bcher-kva.example",
        "a-b.c",
        "-",
        "0x7f.0.0.1",
    ];
    all.extend(good.map(|host| {
        let raw = format!("GET /api/TAG00 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Case::passed(format!("host {host:?} passes"), &raw, "GET /TAG00 HTTP/1.1", "")
            .has("x-forwarded-host", host)
    }));
    all
}
