//! Cases about sizes, each at its limit and one past it, and about fields that may not pass.

use super::case::Case;
use super::heads::post;

/// What the edge under test is configured with.
pub const BODY_BYTES: usize = 4096;
const HEADER_BYTES: usize = 32 << 10;
const URI_BYTES: usize = 8 << 10;
const HEADER_COUNT: usize = 100;

pub fn cases() -> Vec<Case> {
    [heads(), bodies(), fields(), leaving()].concat()
}

fn heads() -> Vec<Case> {
    let line = "POST /TAG00 HTTP/1.1";
    let head = |bytes: usize| {
        let frame = post("X: \r\n", "").len();
        post(&format!("X: {}\r\n", "v".repeat(bytes - frame)), "")
    };
    let several = |bytes: usize| {
        let field = format!("X: {}\r\n", "v".repeat(1000));
        let (count, frame) = ((bytes - 100) / field.len(), post("Y: \r\n", "").len());
        let rest = bytes - frame - count * field.len();
        post(&format!("{}Y: {}\r\n", field.repeat(count), "w".repeat(rest)), "")
    };
    let count = |count: usize| post(&"X: y\r\n".repeat(count - 1), "");
    let target = |bytes: usize| {
        let path = format!("/api/TAG00{}", "a".repeat(bytes - 10));
        (format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n"), format!("GET {} HTTP/1.1", &path[4..]))
    };
    let query =
        |bytes: usize| format!("GET /api/TAG00?{} HTTP/1.1\r\nHost: edge\r\n\r\n", "a".repeat(bytes - 11));
    let (longest, longest_line) = target(URI_BYTES);
    let large = |name: &str, raw: &str| Case::refused(name, 431, "header_too_large", raw);
    let long = |name: &str, raw: &str| Case::refused(name, 414, "uri_too_long", raw);
    vec![
        Case::passed("head at its limit", &head(HEADER_BYTES), line, ""),
        large("head one past its limit", &head(HEADER_BYTES + 1)),
        large("head two past its limit", &head(HEADER_BYTES + 2)),
        large("head far past its limit", &head(1 << 20)),
        Case::passed("head of several fields at its limit", &several(HEADER_BYTES), line, ""),
        large("head of several fields one past its limit", &several(HEADER_BYTES + 1)),
        Case::passed(
            "head at its limit, an empty line before",
            &format!("\r\n{}", head(HEADER_BYTES)),
            line,
            "",
        ),
        large("head one past its limit, an empty line before", &format!("\r\n{}", head(HEADER_BYTES + 1))),
        Case::passed("fields at their limit", &count(HEADER_COUNT), line, ""),
        large("fields one past their limit", &count(HEADER_COUNT + 1)),
        large("a thousand fields", &count(1000)),
        large(
            "a head without end",
            &format!("GET /api HTTP/1.1\r\nHost: edge\r\n{}", "X: yyyyyyyy\r\n".repeat(4000)),
        ),
        large("a name without end", &format!("GET /api HTTP/1.1\r\nHost: edge\r\n{}", "x".repeat(40_000))),
        Case::passed("target at its limit", &longest, &longest_line, ""),
        long("target one past its limit", &target(URI_BYTES + 1).0),
        long("target far past its limit", &target(70_000).0),
        Case::passed(
            "query at its limit",
            &query(URI_BYTES),
            &format!("GET /TAG00?{} HTTP/1.1", "a".repeat(URI_BYTES - 11)),
            "",
        ),
        long("query one past its limit", &query(URI_BYTES + 1)),
        long("a target without end", &format!("GET /api/{}", "a".repeat(40_000))),
        long("a method without end", &"A".repeat(40_000)),
    ]
}

fn bodies() -> Vec<Case> {
    let line = "POST /TAG00 HTTP/1.1";
    let body = |bytes: usize| "b".repeat(bytes);
    let sized = |bytes: usize| post(&format!("Content-Length: {bytes}\r\n"), &body(bytes));
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", body(bytes));
    let chunked = |sizes: &[usize]| {
        let chunks: String = sizes.iter().map(|bytes| chunk(*bytes)).collect();
        post("Transfer-Encoding: chunked\r\n", &format!("{chunks}0\r\n\r\n"))
    };
    let head = post("Transfer-Encoding: chunked\r\n", "");
    let too_large = "body_too_large";
    vec![
        Case::passed("body at its limit", &sized(BODY_BYTES), line, &body(BODY_BYTES)),
        Case::refused("body one past its limit", 413, too_large, &sized(BODY_BYTES + 1)),
        Case::refused("body far past its limit", 413, too_large, &sized(200_000)),
        Case::refused(
            "body announced far past its limit",
            413,
            too_large,
            &post("Content-Length: 999999999999\r\n", ""),
        ),
        Case::refused(
            "the longest body there is",
            413,
            too_large,
            &post("Content-Length: 9999999999999999999\r\n", ""),
        ),
        Case::passed("chunks at the limit", &chunked(&[BODY_BYTES]), line, &body(BODY_BYTES)),
        Case::passed("small chunks at the limit", &chunked(&[16; BODY_BYTES / 16]), line, &body(BODY_BYTES)),
        Case::cut(
            "chunks one past the limit",
            413,
            too_large,
            &format!("{head}{}", chunk(BODY_BYTES)),
            "1\r\nb\r\n0\r\n\r\n",
        ),
        Case::cut(
            "chunks far past the limit",
            413,
            too_large,
            &format!("{head}{}", chunk(16)),
            &chunk(60_000),
        ),
        Case::cut(
            "a chunk announced far past the limit",
            413,
            too_large,
            &format!("{head}{}", chunk(16)),
            &format!("fffffff\r\n{}", body(9000)),
        ),
    ]
}

fn fields() -> Vec<Case> {
    let line = "POST /TAG00 HTTP/1.1";
    let of = |name: &str, lines: &str| Case::passed(name, &post(lines, ""), line, "");
    let mut all = vec![
        of("names with underscore", "x_user: root\r\nX_Forwarded_For: 1.2.3.4\r\na_b: c\r\nA-B: d\r\n")
            .lacks("x_user").lacks("x_forwarded_for").lacks("a_b").has("a-b", "d"),
        of("forwarding fields", "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n")
            .lacks("forwarded").lacks("x-real-ip").lacks("x-forwarded-port").has("x-forwarded-for", "127.0.0.1").has("x-forwarded-proto", "http"),
        of("forwarding fields nominated", "Connection: x-forwarded-for, x-forwarded-proto, host\r\n")
            .has("x-forwarded-for", "127.0.0.1").has("x-forwarded-proto", "http").lacks("connection"),
        of("fields nominated", "Connection: foo, Bar\r\nFoo: 1\r\nbar: 2\r\nBaz: 3\r\n").lacks("foo").lacks("bar").has("baz", "3"),
        of("guarded fields nominated", "Connection: content-type, idempotency-key, cookie\r\nContent-Type: text/plain\r\nIdempotency-Key: k\r\nCookie: a=b\r\n")
            .has("content-type", "text/plain").has("idempotency-key", "k").has("cookie", "a=b"),
        of("fields of the connection", "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: X\r\nUpgrade: websocket\r\nProxy-Authorization: Basic eA==\r\n")
            .lacks("keep-alive").lacks("proxy-connection").lacks("te").lacks("trailer").lacks("upgrade").lacks("proxy-authorization"),
        of("fields that replace the request", "X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nProxy: evil\r\n")
            .lacks("x-http-method-override").lacks("x-original-url").lacks("x-rewrite-url").lacks("proxy"),
        of("an odd request id", "X-Request-Id: a b\r\nTraceparent: junk\r\n"),
        of("empty and odd values", "X-A:\r\nX-B: \t \r\nX-C: a\tb\r\nX-D: \\xff\\xe9\r\n").has("x-a", "").has("x-b", "").has("x-c", "a\tb"),
        of("a field thrice", "X-A: 1\r\nX-B: 2\r\nx-a: 3\r\n").has("x-b", "2"),
    ];
    for name in [
        "X-User",
        "x-user-id",
        "X-USERNAME",
        "X-Roles",
        "X-Permissions",
        "X-Account",
        "X-Tenant",
        "X-Auth-Method",
        "X-Client-Cert",
        "X-Client-Cert-San",
        "X-Internal-Key",
        "X-Internal-Self",
    ] {
        let lower: &'static str = name.to_ascii_lowercase().leak();
        all.push(of(&format!("claims {name}"), &format!("{name}: root\r\n{name}: admin\r\n")).lacks(lower));
    }
    all.push(of("an unknown credential", "X-API-Key: k\r\n").lacks("x-api-key"));
    all.push(Case::answered(
        "a credential that is none",
        401,
        "invalid_token",
        &post("X-Vault-Token: s.x\r\n", ""),
    ));
    all.push(Case::answered(
        "two credentials",
        401,
        "invalid_token",
        &post("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", ""),
    ));
    all
}

fn leaving() -> Vec<Case> {
    let head = "GET /api/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n";
    let sized = post("Content-Length: 5\r\n", "he");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let mut all: Vec<Case> = [1, 3, 12, 25, head.len() - 3, head.len() - 2, head.len() - 1]
        .map(|at| Case::left(format!("leaves at byte {at} of a head"), &head[..at]))
        .into();
    all.extend([
        Case::left("says nothing", ""),
        Case::left("sends an empty line and leaves", "\r\n"),
        Case::left_inside("leaves inside a body", &sized),
        Case::left_inside("leaves inside a chunk", &chunked("5\r\nhe")),
        Case::left_inside("leaves after a chunk", &chunked("5\r\nhello\r\n")),
        Case::left_inside("leaves in the last chunk", &chunked("5\r\nhello\r\n0\r\n")),
        Case::left_inside("leaves in the trailers", &chunked("5\r\nhello\r\n0\r\nX: y\r\n")),
    ]);
    all
}
