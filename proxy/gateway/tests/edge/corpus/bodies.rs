//! Cases about chunks, pipelines, smuggling in pairs, and `Expect`.

use super::case::{Case, Step, VICTIM, Writes, bytes};
use super::heads::post;

const FRAMING: &str = "bad_framing";
const LINE: &str = "POST /TAG00 HTTP/1.1";

pub fn cases() -> Vec<Case> {
    [broken_chunks(), good_chunks(), pipelines(), pairs(), expectations()].concat()
}

fn broken_chunks() -> Vec<Case> {
    let long = |text: &str, count: usize| text.repeat(count);
    let mut bad: Vec<(String, String)> = [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "0X5\r\nhello\r\n0\r\n\r\n",
        "x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        "5.\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "\"5\"\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\t5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5 ;x\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "\\x005\r\nhello\r\n0\r\n\r\n",
        "5\\x00\r\nhello\r\n0\r\n\r\n",
        "\\xb2\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5\n\rhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n\r0\r\n\r\n",
        "5\r\nhello\r\\x000\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\n\r\r\n",
        "5\r\nhello\r\n0\r\r\n",
        "10000000000000000\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "8000000000000000\r\nhello",
        "7fffffffffffffff\r\nhello",
        "100000000000000000000000000000005\r\nhello",
        "5;\\x00\r\nhello\r\n0\r\n\r\n",
        "5;a\\x00b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\\x00\"\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\\x7f\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\\x5c\"\r\nhello\r\n0\r\n\r\n",
        "5;\n\r\nhello\r\n0\r\n\r\n",
        "0;a\n\r\n\r\n",
        "0\r\nnocolon\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX\t: y\r\n\r\n",
        "0\r\nX y: z\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: a\\x00b\r\n\r\n",
        "0\r\nX: a\nb\r\n\r\n",
        "0\r\nX: a\rb\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\nX: a\\x7f\r\n\r\n",
        "0\r\nX(y): z\r\n\r\n",
        "0\r\nX\\xe9: y\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\ncontent-length: 0\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\ntransfer-encoding: identity\r\n\r\n",
        "0\r\nHost: other\r\n\r\n",
        "0\r\nX: y\r\nHOST: edge\r\n\r\n",
    ]
    .map(|body| (format!("chunks {body:?}"), body.to_owned()))
    .to_vec();
    bad.extend([
        ("chunk extension of 300 bytes".to_owned(), format!("5;{}\r\nhello\r\n0\r\n\r\n", long("x", 300))),
        ("chunk extension without end".to_owned(), format!("5;{}", long("x", 9000))),
        ("chunk extension without end, short".to_owned(), format!("5;{}", long("x", 500))),
        ("chunk size of 300 zeros".to_owned(), format!("{}5\r\nhello\r\n0\r\n\r\n", long("0", 300))),
        ("trailers of 9000 bytes".to_owned(), format!("0\r\nX: {}\r\n\r\n", long("y", 9000))),
        ("a thousand trailers".to_owned(), format!("0\r\n{}\r\n", long("X: yyyyy\r\n", 1000))),
    ]);
    let head = post("Transfer-Encoding: chunked\r\n", "");
    // What does not come with the head in one read is found later.
    let short = |body: &String| body.len() < 1000;
    let along = bad.iter().filter(|(_, body)| short(body)).map(|(name, body)| {
        Case::refused(format!("{name}, with the head"), 400, FRAMING, &format!("{head}{body}"))
    });
    // The same after a first chunk was forwarded: what arrived never becomes a whole request.
    let later = bad.iter().map(|(name, body)| {
        Case::cut(format!("{name}, later on"), 400, FRAMING, &format!("{head}3\r\nabc\r\n"), body)
    });
    along.chain(later).collect()
}

fn good_chunks() -> Vec<Case> {
    let of = |body: &str, decoded: &str| {
        let raw = post("Transfer-Encoding: chunked\r\n", body);
        Case::passed(format!("chunks {body:?} pass"), &raw, LINE, decoded).has("transfer-encoding", "chunked")
    };
    let all = vec![
        of("5\r\nhello\r\n0\r\n\r\n", "hello"),
        of("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        of("5\r\nhello\r\n0000\r\n\r\n", "hello"),
        of("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        of("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        of("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        of("5;a\r\nhello\r\n0\r\n\r\n", "hello"),
        of("5;a=b;c\r\nhello\r\n0;d\r\n\r\n", "hello"),
        of("5;a=\"b c;d\"\r\nhello\r\n0\r\n\r\n", "hello"),
        of("5;a=\"b\\x5c\"c\"\r\nhello\r\n0\r\n\r\n", "hello"),
        of("5;\r\nhello\r\n0\r\n\r\n", "hello"),
        of("5\r\nhello\r\n0\r\nX: y\r\n\r\n", "hello"),
        of("5\r\nhello\r\n0\r\nX-Sum: 1\r\nY:\r\nX-User: root\r\n\r\n", "hello").lacks("x-user"),
        of("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        of("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        of("3\r\n\\x00\\xff\n\r\n0\r\n\r\n", "\\x00\\xff\n"),
    ];
    let dripped: Vec<Case> = all.iter().map(|case| case.clone().dripped()).collect();
    [all, dripped].concat()
}

fn pipelines() -> Vec<Case> {
    let get = |path: &str| format!("GET /api/TAG00/{path} HTTP/1.1\r\nHost: edge\r\n\r\n");
    let sized = "POST /api/TAG00/p HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /api/TAG00/c HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: x\r\n\r\n";
    let got = |path: &str| (format!("GET /TAG00/{path} HTTP/1.1"), Vec::new());
    let posted = |path: &str| (format!("POST /TAG00/{path} HTTP/1.1"), b"hello".to_vec());
    let (sized_line, chunked_line) = (posted("p"), posted("c"));
    let of = |name: &str, raw: String, seen: Vec<(String, Vec<u8>)>| Case {
        answers: vec![(200, ""); seen.len()],
        seen,
        ..Case::passed(name, &raw, "", "")
    };
    let three = format!("{}{sized}{chunked}{}", get("1"), get("2"));
    let three_seen = vec![got("1"), sized_line.clone(), chunked_line.clone(), got("2")];
    let then = |name: &str, good: String, seen: Vec<(String, Vec<u8>)>, status, code, bad: &str| {
        let mut case = of(name, format!("{good}{bad}{VICTIM}"), seen);
        case.answers.push((status, code));
        case.closing()
    };
    let many: String = (0..30).map(|at| get(&at.to_string())).collect();
    let mut all = vec![
        of("four in one write", three.clone(), three_seen.clone()),
        of(
            "four, with empty lines between",
            format!("{}\r\n{sized}\r\n{chunked}\r\n{}", get("1"), get("2")),
            three_seen.clone(),
        ),
        of("thirty in one write", many, (0..30).map(|at| got(&at.to_string())).collect()),
        of("four", three.clone(), three_seen).dripped(),
        then(
            "good, then length and coding",
            get("1"),
            vec![got("1")],
            400,
            FRAMING,
            "POST /api/TAG00 HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        then(
            "good, then bare LF",
            sized.to_owned(),
            vec![sized_line.clone()],
            400,
            FRAMING,
            "GET /api HTTP/1.1\nHost: edge\n\n",
        ),
        then(
            "chunks, then junk",
            chunked.to_owned(),
            vec![chunked_line.clone()],
            400,
            FRAMING,
            "junk\r\n\r\n",
        ),
        then(
            "a body longer than its length",
            sized.to_owned(),
            vec![sized_line.clone()],
            400,
            FRAMING,
            "X\r\n\r\n",
        ),
        then(
            "good, then a path above the root",
            get("1"),
            vec![got("1")],
            400,
            "bad_path",
            "GET /../x HTTP/1.1\r\nHost: edge\r\n\r\n",
        ),
        then("good, then two empty lines", get("1"), vec![got("1")], 400, FRAMING, "\r\n\r\n"),
        of(
            "close, with another behind it",
            format!("GET /api/TAG00/1 HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n{VICTIM}"),
            vec![got("1")],
        )
        .closing(),
        of(
            "HTTP/1.0, with another behind it",
            format!("GET /api/TAG00/1 HTTP/1.0\r\nHost: edge\r\n\r\n{VICTIM}"),
            vec![got("1")],
        )
        .closing(),
        of(
            "HTTP/1.0 that asks to stay",
            "GET /api/TAG00/1 HTTP/1.0\r\nHost: edge\r\nConnection: keep-alive\r\n\r\n".to_owned(),
            vec![got("1")],
        )
        .closing(),
    ];
    // Cut in two anywhere: where a write ends makes no difference.
    let both = format!("{sized}{chunked}");
    for at in (1..both.len()).step_by(3) {
        let seen = vec![sized_line.clone(), chunked_line.clone()];
        let name = format!("two requests cut at byte {at}");
        all.push(Case { writes: Writes::Two(at), ..of(&name, both.clone(), seen) });
    }
    all
}

/// What one of two parsers would take for a second request.
fn pairs() -> Vec<Case> {
    let smuggled = "GET /api/smuggled/TAG00 HTTP/1.1\r\nHost: edge\r\nX: ";
    let with = |lines: &str, body: &str| post(lines, body);
    let size = smuggled.len();
    vec![
        Case::refused("CL.TE", 400, FRAMING, &with(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", size + 5), &format!("0\r\n\r\n{smuggled}"))),
        Case::refused("TE.CL", 400, FRAMING, &with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &format!("{size:x}\r\n{smuggled}\r\n0\r\n\r\n"))),
        Case::refused("TE.TE by a second unknown one", 400, FRAMING,
            &with("Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\nContent-Length: 4\r\n", &format!("{size:x}\r\n{smuggled}\r\n0\r\n\r\n"))),
        Case::refused("TE.TE by white space", 400, FRAMING,
            &with("Transfer-Encoding : chunked\r\nContent-Length: 4\r\n", &format!("{size:x}\r\n{smuggled}\r\n0\r\n\r\n"))),
        Case::refused("TE.0 by vertical tab", 400, FRAMING, &with("Transfer-Encoding: \\x0bchunked\r\n", &format!("{size:x}\r\n{smuggled}\r\n0\r\n\r\n"))),
        Case::refused("CL.CL", 400, FRAMING, &with(&format!("Content-Length: 0\r\nContent-Length: {size}\r\n"), smuggled)),
        Case::passed("GET whose body looks like a request",
            &format!("GET /api/TAG00 HTTP/1.1\r\nHost: edge\r\nContent-Length: {size}\r\n\r\n{smuggled}"), "GET /TAG00 HTTP/1.1", smuggled),
        Case::passed("chunks that look like a request",
            &with("Transfer-Encoding: chunked\r\n", &format!("{size:x}\r\n{smuggled}\r\n0\r\n\r\n")), LINE, smuggled),
        Case::passed("HEAD whose body looks like a request",
            &format!("HEAD /api/TAG00 HTTP/1.1\r\nHost: edge\r\nContent-Length: {size}\r\n\r\n{smuggled}"), "HEAD /TAG00 HTTP/1.1", smuggled)
            .bodiless(),
        Case::passed("an upgrade nobody serves, with a body",
            &with(&format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: {size}\r\n"), smuggled),
            LINE, smuggled).lacks("upgrade").lacks("http2-settings").lacks("connection"),
        Case::refused("chunk of which the rest is a request", 400, FRAMING,
            &with("Transfer-Encoding: chunked\r\n", "5\r\nhelloGET /api/smuggled HTTP/1.1\r\nHost: edge\r\n\r\n")),
        Case::refused("extension that hides a line", 400, FRAMING,
            &with("Transfer-Encoding: chunked\r\n", "2;\nxx\r\n4c\r\n0\r\n\r\nGET /api/smuggled HTTP/1.1\r\nHost: edge\r\n\r\n0\r\n\r\n")),
    ]
}

fn expectations() -> Vec<Case> {
    let two = |name: &str, head: &str, body: &str| {
        let mut case = Case::passed(name, head, LINE, "hello").lacks("expect");
        case.steps.push(Step::Answer);
        case.steps.push(Step::Send(bytes(body)));
        case.answers.insert(0, (100, ""));
        case
    };
    let none = |name: &str, lines: &str| Case::passed(name, &post(lines, ""), LINE, "").lacks("expect");
    let mut all = vec![
        two("asks first, with a length", &post("Expect: 100-continue\r\nContent-Length: 5\r\n", ""), "hello"),
        two("asks first, in another case", &post("expect: 100-Continue\r\nContent-Length: 5\r\n", ""), "hello"),
        two("asks first, with chunks", &post("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", ""), "5\r\nhello\r\n0\r\n\r\n"),
        none("asks for nothing", "Expect: 100-continue\r\n"),
        none("asks for nothing, length 0", "Expect: 100-continue\r\nContent-Length: 0\r\n"),
        Case::passed("HTTP/1.0 asks", "POST /api/TAG00 HTTP/1.0\r\nHost: edge\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", LINE, "hello")
            .lacks("expect").closing(),
        Case::refused("asks first, body too large", 413, "body_too_large", &post("Expect: 100-continue\r\nContent-Length: 5000\r\n", "")),
        Case::refused("asks first, malformed", 400, FRAMING,
            &post("Expect: 100-continue\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", "")),
    ];
    all.extend(
        [
            "200-ok",
            "100-continue, x",
            "x, 100-continue",
            "100",
            "",
            "100-continue;x",
            "100 continue",
            "\"100-continue\"",
        ]
        .map(|value| {
            Case::refused(
                format!("expects {value:?}"),
                417,
                "expectation_failed",
                &post(&format!("Expect: {value}\r\nContent-Length: 5\r\n"), "hello"),
            )
        }),
    );
    all.push(Case::refused(
        "expects twice, one unknown",
        417,
        "expectation_failed",
        &post("Expect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n", "hello"),
    ));
    all
}
