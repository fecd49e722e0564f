use super::*;
use proptest::prelude::*;

fn judge(head: &[u8]) -> Result<Head<'_>, FramingFault> {
    check(head, &Limits::default())
}

/// `GET / HTTP/1.1`, a `Host`, these lines.
fn with(lines: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: h\r\n{lines}\r\n").into_bytes()
}

#[test]
fn ordinary_heads_pass() {
    let heads: [(&[u8], BodyFraming); 14] = [
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", BodyFraming::None),
        (b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", BodyFraming::None),
        (b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", BodyFraming::None),
        (b"GET /a/b?x=%20&y[]=1 HTTP/1.1\r\nhost:h:8000\r\n\r\n", BodyFraming::None),
        (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", BodyFraming::None),
        (b"GET http://h:80/a HTTP/1.1\r\nHost: h:80\r\n\r\n", BodyFraming::None),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", BodyFraming::Length(0)),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:  42 \r\n\r\n", BodyFraming::Length(42)),
        (b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n", BodyFraming::Chunked),
        (b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\nX: \r\n\r\n", BodyFraming::None),
        (b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\nX: a\tb\xc3\xa9\r\n\r\n", BodyFraming::None),
        (b"DELETE / HTTP/1.1\r\nHost: data_service.net.\r\nX-A: ,,\r\n\r\n", BodyFraming::None),
        (
            b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n",
            BodyFraming::Length(5),
        ),
        (b"LIST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Lengthy: x\r\n\r\n", BodyFraming::None),
    ];
    for (head, body) in heads {
        assert_eq!(judge(head).map(|head| head.body), Ok(body), "{}", head.escape_ascii());
    }
    let read = judge(b"PATCH /x?y HTTP/1.0\r\nHost: h:1\r\n\r\n").unwrap();
    assert_eq!(
        (read.method, read.target, read.host, read.http_1_0),
        (Method::Patch, &b"/x?y"[..], &b"h:1"[..], true)
    );
}

#[test]
fn contradicting_framing_is_refused() {
    for (lines, status, reason) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400, "length_and_coding"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400, "length_and_coding"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 400, "content_length_twice"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400, "content_length_twice"),
        ("Content-Length: 5, 5\r\n", 400, "content_length"),
        ("Content-Length: +5\r\n", 400, "content_length"),
        ("Content-Length: -1\r\n", 400, "content_length"),
        ("Content-Length: 0x5\r\n", 400, "content_length"),
        ("Content-Length: 5 5\r\n", 400, "content_length"),
        ("Content-Length: 5_0\r\n", 400, "content_length"),
        ("Content-Length: 1e3\r\n", 400, "content_length"),
        ("Content-Length: \r\n", 400, "content_length"),
        ("Content-Length: 18446744073709551616\r\n", 400, "content_length"),
        ("Transfer-Encoding: chunked, chunked\r\n", 400, "transfer_encoding"),
        ("Transfer-Encoding: \r\n", 400, "transfer_encoding"),
        ("Transfer-Encoding: chunked,\r\n", 400, "transfer_encoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400, "transfer_encoding_twice"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400, "transfer_encoding_twice"),
        ("Transfer-Encoding: gzip, chunked\r\n", 501, "transfer_coding_unknown"),
        ("Transfer-Encoding: identity\r\n", 501, "transfer_coding_unknown"),
        ("Transfer-Encoding: xchunked\r\n", 501, "transfer_coding_unknown"),
        ("Transfer-Encoding: \"chunked\"\r\n", 501, "transfer_coding_unknown"),
        ("Transfer-Encoding: chunked;q=1\r\n", 501, "transfer_coding_unknown"),
        ("Transfer-Encoding: \x0bchunked\r\n", 400, "control_in_value"),
        ("Transfer-Encoding : chunked\r\n", 400, "space_before_colon"),
        ("Transfer_Encoding\x00: chunked\r\n", 400, "nul"),
        ("Expect: 200-ok\r\n", 417, "expect"),
    ] {
        let fault = judge(&with(lines)).map(|head| head.body).unwrap_err();
        assert_eq!((fault.status(), fault.reason), (status, reason), "{lines:?}");
    }
    let old = judge(b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err();
    assert_eq!((old.status(), old.reason), (400, "transfer_encoding_in_1_0"));
}

#[test]
fn malformed_lines_are_refused() {
    for (head, reason) in [
        (&b"GET / HTTP/1.1\nHost: h\n\n"[..], "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "bare_lf"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", "bare_cr"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r", "bare_cr"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", "nul"),
        (b"G\x00T / HTTP/1.1\r\nHost: h\r\n\r\n", "nul"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", "folded_line"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", "folded_line"),
        (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", "space_before_first_field"),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", "space_before_colon"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX\t: y\r\n\r\n", "space_before_colon"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", "empty_name"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", "no_colon"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX y\r\n\r\n", "no_colon"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n", "name_character"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX y: z\r\n\r\n", "name_character"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX\xff: z\r\n\r\n", "name_character"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x08b\r\n\r\n", "control_in_value"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x7f\r\n\r\n", "control_in_value"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n", "unfinished_head"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET", "bytes_after_head"),
        (b"", "unfinished_head"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "method"),
        (b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", "method"),
        (b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", "method"),
        (b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n", "method"),
        (b"GET /\r\nHost: h\r\n\r\n", "request_line"),
        (b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", "request_line"),
        (b"GET / http/1.1\r\nHost: h\r\n\r\n", "request_line"),
        (b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", "request_line"),
        (b"GET / HTTP/11\r\nHost: h\r\n\r\n", "request_line"),
    ] {
        let fault = judge(head).unwrap_err();
        assert_eq!((fault.status(), fault.reason), (400, reason), "{}", head.escape_ascii());
    }
}

#[test]
fn hosts_targets_versions_and_methods_are_judged() {
    for (head, status, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], 400, "host_missing"),
        (b"GET / HTTP/1.0\r\n\r\n", 400, "host_missing"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "host_twice"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: 1.2.3.999\r\n\r\n", 400, "host_invalid"),
        (b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", 400, "host_invalid"),
        (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "authority_mismatch"),
        (b"GET http://B/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "authority_mismatch"),
        (b"GET http://u@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "authority_mismatch"),
        (b"GET http:///x HTTP/1.1\r\nHost: b\r\n\r\n", 400, "authority_mismatch"),
        (b"GET ftp://b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_form"),
        (b"GET a HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_form"),
        (b"GET  HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_form"),
        (b"GET * HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_form"),
        (b"OPTIONS *x HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_form"),
        (b"GET /a b HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_space"),
        (b"GET  / HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_space"),
        (b"GET /a\\b HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_backslash"),
        (b"GET /a#b HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_fragment"),
        (b"GET /a\xc3\xa9 HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_eight_bit"),
        (b"GET /a\tb HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target_control"),
        (b"GET / HTTP/2.0\r\nHost: b\r\n\r\n", 505, "version"),
        (b"GET / HTTP/0.9\r\nHost: b\r\n\r\n", 505, "version"),
        (b"GET / HTTP/1.2\r\nHost: b\r\n\r\n", 505, "version"),
        (b"PRI * HTTP/2.0\r\n\r\n", 505, "version"),
        (b"TRACE / HTTP/1.1\r\nHost: b\r\n\r\n", 405, "method_refused"),
        (b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", 405, "method_refused"),
        (b"BREW / HTTP/1.1\r\nHost: b\r\n\r\n", 501, "method_unknown"),
        (b"get / HTTP/1.1\r\nHost: b\r\n\r\n", 501, "method_unknown"),
        (b"BREW / HTTP/1.1\r\n\r\n", 400, "host_missing"),
    ] {
        let fault = judge(head).unwrap_err();
        assert_eq!((fault.status(), fault.reason), (status, reason), "{}", head.escape_ascii());
    }
}

#[test]
fn a_wish_for_a_websocket_is_one_only_where_it_can_be_granted() {
    let asks = |line: &str, fields: &str| {
        let head = format!("{line}\r\nHost: h\r\n{fields}\r\n");
        check(head.as_bytes(), &Limits::default()).unwrap().websocket
    };
    let both = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    assert!(asks("GET / HTTP/1.1", both));
    assert!(asks("GET / HTTP/1.1", "Upgrade: h2c, websocket\r\nConnection: foo\r\nConnection: upgrade\r\n"));
    assert!(asks("GET / HTTP/1.1", &format!("{both}Content-Length: 0\r\n")));
    for (line, fields) in [
        ("GET / HTTP/1.0", both),
        ("POST / HTTP/1.1", both),
        ("GET / HTTP/1.1", "Upgrade: websocket\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket2\r\n"),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n"),
    ] {
        assert!(!asks(line, fields), "{line} {fields}");
    }
}

#[test]
fn sizes_are_exact() {
    let limits = Limits { header_bytes: 200, header_count: 3, uri_bytes: 10, ..Limits::default() };
    let status = |head: &str| check(head.as_bytes(), &limits).map_or_else(FramingFault::status, |_| 200);
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(length - 1));
    assert_eq!((status(&target(10)), status(&target(11))), (200, 414));
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    assert_eq!((status(&fields(3)), status(&fields(4))), (200, 431));
    let frame = "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
    let long =
        |bytes: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "v".repeat(bytes - frame));
    assert_eq!((status(&long(200)), status(&long(201))), (200, 431));
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _verdict = judge(&bytes);
    }

    #[test]
    fn a_head_that_passes_has_one_length_and_one_host(
        lines in proptest::collection::vec((0_usize..7, "[ -~]{0,6}"), 0..6),
    ) {
        const NAMES: [&str; 7] =
            ["Host", "Content-Length", "content-length", "Transfer-Encoding", "X", "transfer-encoding", "HOST"];
        const VALUES: [&str; 5] = ["h", "5", "chunked", "05", "5, 5"];
        let fields: Vec<String> = lines.iter().map(|(name, value)| {
            let value = VALUES.get(value.len()).copied().unwrap_or(value);
            format!("{}: {value}\r\n", NAMES[*name])
        }).collect();
        let head = format!("POST / HTTP/1.1\r\n{}\r\n", fields.concat()).into_bytes();
        let count = |wanted: &str| lines.iter().filter(|(name, _)| NAMES[*name].eq_ignore_ascii_case(wanted)).count();
        if judge(&head).is_ok() {
            prop_assert_eq!(count("host"), 1);
            prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
        }
    }
}
