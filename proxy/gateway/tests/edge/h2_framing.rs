//! HTTP/2 heads that would mean something else to an upstream of HTTP/1: refused, each alone, and the next
//! request on the connection and over the pool is intact.

use bytes::Bytes;

use crate::h2_client::{
    DATA, END_STREAM, GOAWAY, HEADERS, Proper, RESET, Raw, block, read_outcome, request, run,
};
use crate::harness::{Edge, Upstream, edge_for, ok};

type Fields<'a> = Vec<(&'a str, &'a str)>;

fn with<'a>(fields: &[(&'a str, &'a str)]) -> Fields<'a> {
    [request("POST", "/api/x"), fields.to_vec()].concat()
}

fn path(path: &str) -> Fields<'_> {
    request("GET", path)
}

/// What may become of a refused head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// An answer with this status.
    Status(i64),
    /// A reset of the stream.
    Reset,
    /// The end of the connection: the block cannot even be read.
    End,
}

use Fate::{End, Reset, Status};

/// Sends `fields` and then a good request; says what was otherwise than that the first is refused and the
/// second arrives to the byte.
fn refused(edge: &Edge, upstream: &Upstream, fields: &Fields<'_>, ends: bool, fate: Fate) -> Option<String> {
    let before = upstream.seen().len();
    let mut raw = Raw::to(edge);
    raw.block(1, if ends { END_STREAM } else { 0 }, &block(fields));
    if !ends {
        raw.frame(DATA, END_STREAM, 1, b"GET /api/smuggled HTTP/1.1\r\nHost: edge\r\n\r\n");
    }
    raw.get(3, "/api/next").flush();
    let (mut first, mut next) = (None, None);
    while first.is_none() || next.is_none() {
        match raw.next() {
            Some(got) if matches!(got.kind, HEADERS | RESET) => {
                let slot = if got.stream == 1 { &mut first } else { &mut next };
                slot.get_or_insert(match read_outcome(&got) {
                    -1 => Reset,
                    outcome => Status(outcome),
                });
            }
            Some(got) if got.kind == GOAWAY => {
                first.get_or_insert(End);
                next.get_or_insert(End);
            }
            Some(_) => {}
            None => break,
        }
    }
    let after = if fate == End { End } else { Status(200) };
    let arrived: Vec<String> = upstream.seen()[before..].iter().map(|seen| seen.line().to_owned()).collect();
    let expected: &[&str] = if fate == End { &[] } else { &["GET /next HTTP/1.1"] };
    let right = first == Some(fate) && next == Some(after) && arrived == expected;
    (!right).then(|| format!("{fields:?}: {first:?} for {fate:?}, then {next:?}; upstream: {arrived:?}"))
}

#[test]
fn heads_that_http1_would_read_otherwise_are_refused_alone() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let long = "a".repeat(9_000);
    let long_path = format!("/api/{long}");
    let large = "a".repeat(34_000);
    let cases: Vec<(Fields<'_>, Fate)> = vec![
        // What says where a body ends.
        (with(&[("content-length", "42"), ("content-length", "42")]), Status(400)),
        (with(&[("content-length", "5"), ("content-length", "6")]), Reset),
        (with(&[("content-length", "+5")]), Reset),
        (with(&[("content-length", "-1")]), Reset),
        (with(&[("content-length", "0x5")]), Reset),
        (with(&[("content-length", "5, 5")]), Reset),
        (with(&[("content-length", " 5")]), Reset),
        (with(&[("content-length", "")]), Reset),
        (with(&[("content-length", "99999999999999999999")]), Reset),
        (with(&[("transfer-encoding", "chunked")]), Reset),
        // What belongs to a connection.
        (with(&[("connection", "close")]), Reset),
        (with(&[("keep-alive", "5")]), Reset),
        (with(&[("proxy-connection", "close")]), Reset),
        (with(&[("upgrade", "websocket")]), Reset),
        (with(&[("te", "chunked")]), Reset),
        (with(&[("te", "trailers, deflate")]), Reset),
        // Names and values.
        (with(&[("X-Upper", "a")]), End),
        (with(&[("x y", "a")]), End),
        (with(&[("x:y", "a")]), End),
        (with(&[(":other", "a")]), End),
        (with(&[("x", "a\r\ny: b")]), End),
        (with(&[("x", "a\nb")]), End),
        (with(&[("x", "a\0b")]), End),
        (with(&[("x", " a")]), Status(400)),
        (with(&[("x", "a\t")]), Status(400)),
        (with(&[("expect", "more")]), Status(417)),
        // Who is asked.
        (with(&[("host", "other")]), Status(400)),
        (with(&[("host", "edge"), ("host", "edge")]), Status(400)),
        (with(&[(":path", "/api/twice")]), Reset),
        (with(&[(":authority", "other")]), Reset),
        (vec![(":method", "GET"), (":scheme", "http"), (":path", "/api/x")], Status(400)),
        (vec![(":method", "GET"), (":scheme", "http"), (":path", "/api/x"), ("host", "edge")], Status(400)),
        (vec![(":method", "GET"), (":authority", "edge"), (":path", "/api/x")], Reset),
        (vec![(":scheme", "http"), (":authority", "edge"), (":path", "/api/x")], Reset),
        (vec![(":method", "GET"), (":scheme", "http"), (":authority", "edge")], Reset),
        (
            vec![(":method", "GET"), (":scheme", "https"), (":authority", "edge"), (":path", "/api/x")],
            Status(400),
        ),
        (
            vec![(":method", "GET"), (":scheme", "http"), (":authority", "a@edge"), (":path", "/api/x")],
            Status(400),
        ),
        (
            vec![(":method", "GET"), (":scheme", "http"), ("x", "y"), (":authority", "edge"), (":path", "/")],
            Reset,
        ),
        ([request("GET", "/api/x"), vec![(":status", "200")]].concat(), Reset),
        ([request("CONNECT", "/api/x"), vec![(":protocol", "websocket")]].concat(), Reset),
        (vec![(":method", "CONNECT"), (":authority", "edge:443")], Status(405)),
        (request("TRACE", "/api/x"), Status(405)),
        (request("BREW", "/api/x"), Status(501)),
        (request("LIST", "/api/x"), Status(501)),
        (request("get", "/api/x"), Status(501)),
        // What is asked for.
        (path(""), Reset),
        (path("api/x"), Reset),
        (path("http://edge/api/x"), Reset),
        (path("*"), Status(400)),
        (path("/api/a b"), Reset),
        (path("/api/a\r\nx: y"), Reset),
        (path("/api\\x"), Status(400)),
        (path("/api%2fx"), Status(400)),
        (path("/api/%5cx"), Status(400)),
        (path("/api/%00"), Status(400)),
        (path("/../x"), Status(400)),
        (path("/api/%2e%2e/%2e%2e/x"), Status(400)),
        (path("/api/..;/x"), Status(400)),
        (path("/api/%zz"), Status(400)),
        (path(&long_path), Status(414)),
        (with(&[("x", &large)]), Status(431)),
        (with(&[("x", "y"); 101]), Status(431)),
    ];
    assert!(cases.len() >= 60);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(fields, fate)| {
            let ends = fields.iter().any(|(name, value)| *name == ":method" && *value != "POST");
            refused(&edge, &upstream, fields, ends, *fate)
        })
        .collect();
    let short = |text: &String| text.chars().take(300).collect::<String>();
    assert!(wrong.is_empty(), "{:#?}", wrong.iter().map(short).collect::<Vec<_>>());
}

#[test]
fn refusals_are_problems_and_the_connection_goes_on() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "body_bytes = \"1KiB\"");
    run(async {
        let mut client = Proper::to(&edge).await;
        for (path, status, code) in
            [("/api/%zz", 400, "bad_path"), ("/api%2fx", 400, "bad_path"), ("/nowhere", 404, "no_route")]
        {
            let answer = client.get(path).await;
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
        }
        let post = client.request("POST", "/api/x").body(()).unwrap();
        let answer = client.fetch(post, Some(Bytes::from(vec![b'x'; 1_025]))).await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
        let odd = client.request("GET", "/api/x").header("x", " y").body(()).unwrap();
        assert_eq!(client.fetch(odd, None).await.unwrap().code(), "bad_framing");
        for (sent, forwarded) in [
            ("/api//a///b", "/a/b"),
            ("/x/../api/a", "/a"),
            ("/api/./a/%2e%2e/b?q=%2e%2e", "/b?q=%2e%2e"),
            ("/%61pi/a", "/a"),
            ("/api", "/"),
        ] {
            assert_eq!(client.get(sent).await.status, 200, "{sent}");
            let seen = upstream.seen();
            let last = seen.iter().rfind(|seen| seen.whole).unwrap();
            assert_eq!(last.line(), format!("GET {forwarded} HTTP/1.1"), "{sent}");
        }
    });
    let text = edge.get("/metrics").text();
    assert!(text.contains("sluice_edge_framing_refused_total{reason=\"space_around_value\"} 1"), "{text}");
}
