//! The opening handshake: what upstreams see of it, what refuses it, what answers it.

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::time::Instant;

use sluice_wire::role::Role;

use super::{KEY, Raw, TEXT, Ws, asking, echo, edge_at, frame, setup, switched};
use crate::harness::{Reply, Setup, Upstream, edge_for, eventually, ok, service};
use crate::secure::{Authority, https, server};

fn refused(ws: &mut Ws) -> Reply {
    let head = ws.head();
    let status = head[9..12].parse().unwrap();
    Reply { status, head, body: ws.read_all() }
}

#[test]
fn the_upstream_gets_the_wish_and_the_edges_own_fields() {
    let upstream = Raw::echoing();
    let edge = edge_at(&upstream, "response_headers = { set = { x-by = \"edge\" } }");
    let fields = "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
        Cookie: a=b\r\nX-User: root\r\nX-API-Key: x\r\nKeep-Alive: 5\r\nFoo: 1\r\n";
    let raw =
        asking("/ws/a?b=c", fields).replace("Connection: Upgrade", "Connection: foo, keep-alive, Upgrade");
    let mut ws = Ws::send(&edge, &raw);
    let answer = ws.head();
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    let lower = answer.to_lowercase();
    for field in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-accept: ",
        "x-by: edge",
        "x-request-id: ",
    ] {
        assert_eq!(lower.matches(&format!("\r\n{field}")).count(), 1, "{field} in {answer}");
    }
    assert!(!lower.contains("\r\nserver:"), "{answer}");
    let head = upstream.heads()[0].to_lowercase();
    assert!(
        head.starts_with("get /ws/a?b=c http/1.1\r\n") || head.starts_with("get /a?b=c http/1.1\r\n"),
        "{head}"
    );
    for field in [
        format!("sec-websocket-key: {}", KEY.to_lowercase()),
        "sec-websocket-version: 13".into(),
        "sec-websocket-protocol: chat".into(),
        "sec-websocket-extensions: permessage-deflate".into(),
        "upgrade: websocket".into(),
        "connection: upgrade".into(),
        "cookie: a=b".into(),
        format!("host: {}", upstream.address),
        "x-forwarded-for: 127.0.0.1".into(),
        "x-forwarded-host: edge".into(),
    ] {
        assert_eq!(head.matches(&format!("\r\n{field}\r\n")).count(), 1, "{field} in {head}");
    }
    for name in ["x-user", "x-api-key", "keep-alive", "foo"] {
        assert!(!head.contains(&format!("\r\n{name}:")), "{name} in {head}");
    }
    ws.write(&frame(TEXT, b"hi", true));
    assert_eq!(ws.frame(), Some((TEXT, b"hi".to_vec())));
}

#[test]
fn frames_behind_the_101_and_bytes_before_it_arrive_each_in_its_time() {
    let (early, arrived) = mpsc::sync_channel(1);
    let (release, gate) = mpsc::sync_channel::<()>(1);
    let gate = std::sync::Mutex::new(gate);
    let upstream = Raw::start(move |head, socket| {
        gate.lock().unwrap().recv().unwrap();
        // Whatever the client sent before the 101 must not be here yet.
        socket.set_nonblocking(true).unwrap();
        early.send(socket.read(&mut [0; 64]).is_err()).unwrap();
        socket.set_nonblocking(false).unwrap();
        let both = [switched(head).as_bytes(), &frame(TEXT, b"hello", false)].concat();
        socket.write_all(&both).unwrap();
        echo(socket);
    });
    let edge = edge_at(&upstream, "");
    let raw = [asking("/ws", "").into_bytes(), frame(TEXT, b"early", true)].concat();
    let mut ws = Ws::send(&edge, "");
    ws.write(&raw);
    eventually("the upstream is asked", || (upstream.heads().len() == 1).then_some(()));
    ws.write(&frame(TEXT, b"later", true));
    release.send(()).unwrap();
    assert!(arrived.recv().unwrap(), "nothing goes on before the 101");
    assert!(ws.head().starts_with("HTTP/1.1 101 "));
    let texts: Vec<Vec<u8>> = (0..3).map(|_| ws.frame().unwrap().1).collect();
    assert_eq!(texts, [b"hello".to_vec(), b"early".to_vec(), b"later".to_vec()]);
}

#[test]
fn a_wish_that_is_not_well_formed_is_refused_without_an_upstream() {
    let upstream = Raw::echoing();
    let edge = edge_at(&upstream, "");
    let old = refused(&mut Ws::send(&edge, &asking("/ws", "").replace("Version: 13", "Version: 8")));
    assert_eq!((old.status, old.code().as_str()), (426, "upgrade_required"));
    assert_eq!((old.field("sec-websocket-version"), old.field("upgrade")), ("13", "websocket"));
    let short = refused(&mut Ws::send(&edge, &asking("/ws", "").replace(KEY, "c2hvcnQ=")));
    assert_eq!((short.status, short.code().as_str()), (400, "bad_request"));
    let twice = refused(&mut Ws::ask(&edge, "/ws", &format!("Sec-WebSocket-Key: {KEY}\r\n")));
    assert_eq!(twice.status, 400);
    assert_eq!(upstream.heads(), Vec::<String>::new());
}

#[test]
fn refused_callers_never_reach_the_upstream() {
    let upstream = Raw::echoing();
    let more = "permissions = { GET = [\"stream\"] }\n\
        rate_limit = { requests = 2, per = \"60s\", burst = 2, key = \"service\" }";
    let edge = setup(&upstream, more).start();
    let bearer = |scope: &str| format!("Authorization: Bearer {}\r\n", edge.issuer.token(scope));
    let nobody = refused(&mut Ws::ask(&edge, "/ws", ""));
    assert_eq!((nobody.status, nobody.code().as_str()), (401, "invalid_token"));
    let other = refused(&mut Ws::ask(&edge, "/ws", &bearer("read")));
    assert_eq!((other.status, other.code().as_str()), (403, "insufficient_scope"));
    let missing = edge.send(&asking("/nowhere", ""));
    assert_eq!((missing.status, missing.code().as_str()), (404, "no_route"));
    assert_eq!(upstream.heads().len(), 0);
    for _ in 0..2 {
        drop(Ws::open_as(&edge, &bearer("stream")));
    }
    let limited = refused(&mut Ws::ask(&edge, "/ws", &bearer("stream")));
    assert_eq!((limited.status, limited.code().as_str()), (429, "rate_limited"));
    assert!(!limited.field("retry-after").is_empty() && !limited.field("ratelimit").is_empty());
    assert_eq!(upstream.heads().len(), 2);
}

#[test]
fn an_answer_that_is_no_101_is_relayed_and_the_connection_ends() {
    let upstream = Raw::start(|head, socket| {
        let answer = match head.split(' ').nth(1).unwrap_or("") {
            "/ws/length" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello and more",
            "/ws/chunks" => {
                "HTTP/1.1 401 x\r\nTransfer-Encoding: chunked\r\nWWW-Authenticate: Basic\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            }
            "/ws/open" => "HTTP/1.0 426 x\r\nSec-WebSocket-Version: 13\r\n\r\nhello",
            "/ws/none" => "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n",
            "/ws/interim" => {
                "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        };
        socket.write_all(answer.as_bytes()).unwrap();
    });
    let edge = edge_at(&upstream, "strip_prefix = false");
    let ask = |path: &str| refused(&mut Ws::ask(&edge, path, ""));
    let length = ask("/ws/length");
    assert_eq!((length.status, length.text().as_str(), length.field("connection")), (200, "hello", "close"));
    assert_eq!((length.field("server"), length.field("x-content-type-options")), ("", "nosniff"));
    let chunks = ask("/ws/chunks");
    assert_eq!((chunks.status, chunks.text().as_str()), (401, "5\r\nhello\r\n0\r\n\r\n"));
    assert_eq!((chunks.field("transfer-encoding"), chunks.field("www-authenticate")), ("chunked", "Basic"));
    let open = ask("/ws/open");
    assert_eq!((open.status, open.text().as_str()), (426, "5\r\nhello\r\n0\r\n\r\n"));
    assert_eq!(open.field("upgrade"), "websocket");
    assert_eq!((ask("/ws/none").status, ask("/ws/none").text().as_str()), (204, ""));
    assert_eq!(ask("/ws/interim").status, 403);
    let cut = ask("/ws/cut");
    assert_eq!(
        (cut.field("content-length"), cut.text().as_str()),
        ("50", "hello"),
        "it never looks complete"
    );
}

#[test]
fn an_upstream_that_answers_wrongly_is_502() {
    let upstream = Raw::start(|head, socket| {
        let answer = match head.split(' ').nth(1).unwrap_or("") {
            "/ws/accept" => switched(head).replace("Accept: ", "Accept: A"),
            "/ws/other" => switched(head).replace("websocket", "h2c"),
            "/ws/bare" => "HTTP/1.1 101 x\r\n\r\n".to_owned(),
            "/ws/two" => "HTTP/1.1 200 x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
            "/ws/long" => format!("HTTP/1.1 101 x\r\nX: {}\r\n\r\n", "x".repeat(80_000)),
            _ => "SSH-2.0\r\n\r\n".to_owned(),
        };
        // It may stop reading before all is written.
        drop(socket.write_all(answer.as_bytes()));
        drop(socket.read(&mut [0; 64]));
    });
    let more = "strip_prefix = false\nretry = { attempts = 1 }\nbreaker = { failure_threshold = 100, failure_rate = 1.0 }";
    let edge = edge_at(&upstream, more);
    for path in ["accept", "other", "bare", "two", "long", "ssh"] {
        let answer = refused(&mut Ws::ask(&edge, &format!("/ws/{path}"), ""));
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_invalid"), "{path}");
    }
}

#[test]
fn upstreams_that_fail_are_tried_elsewhere_and_told_apart() {
    let silent = Raw::start(|_, socket| drop(socket.read(&mut [0; 64])));
    let edge = edge_at(
        &silent,
        "retry = { attempts = 1 }\ntimeouts = { connect = \"100ms\", first_byte = \"300ms\", total = \"2s\" }",
    );
    let late = refused(&mut Ws::ask(&edge, "/ws", ""));
    assert_eq!((late.status, late.code().as_str()), (504, "upstream_timeout"));
    let broken = Raw::start(|_, _| {});
    let edge = edge_at(&broken, "retry = { attempts = 1 }");
    let broke = refused(&mut Ws::ask(&edge, "/ws", ""));
    assert_eq!((broke.status, broke.code().as_str()), (502, "upstream_refused"));
    let good = Raw::echoing();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = [format!("http://{nobody}"), format!("http://{}", good.address)];
    let text = service("ws", "/ws", &urls, "auth_required = false");
    let edge = Setup::new("").service("ws", &text).start();
    for _ in 0..4 {
        drop(Ws::open(&edge));
    }
}

#[test]
fn a_client_that_leaves_while_the_upstream_thinks_ends_its_work() {
    let upstream = Raw::start(|_, socket| drop(socket.read(&mut [0; 64])));
    let edge = edge_at(&upstream, "");
    for ahead in [&b""[..], b"sent ahead"] {
        let mut ws = Ws::ask(&edge, "/ws", "");
        ws.write(ahead);
        eventually("the upstream works", || (upstream.open() == 1).then_some(()));
        let left = Instant::now();
        drop(ws);
        eventually("the upstream's work ends", || (upstream.open() == 0).then_some(()));
        assert!(left.elapsed().as_millis() < 1000);
    }
}

#[test]
fn pages_ignore_the_wish_and_other_upgrades_are_plain_requests() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    assert_eq!(edge.send(&asking("/livez", "")).status, 200);
    let other = edge.send(
        "GET /api HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    );
    assert_eq!((other.status, other.text().as_str()), (200, "ok"));
    assert!(upstream.only().fields("upgrade").is_empty());
}

#[test]
fn an_instance_over_tls_is_asked_in_http_1_1() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let ca = authority.write(dir.path(), "ours");
    let tls = server(&authority.sign("backend.internal"), None, &[b"h2", b"http/1.1"]);
    let upstream = Upstream::start_tls(tls, |seen, wire| {
        wire.write_all(&[switched(&seen.head).as_bytes(), &frame(TEXT, b"secure", false)].concat()).is_ok()
    });
    let more =
        format!("auth_required = false\ntls = {{ sni = \"backend.internal\", ca = \"{}\" }}", ca.display());
    let edge = Setup::new("").service("ws", &service("ws", "/ws", &[https(&upstream)], &more)).start();
    let mut ws = Ws::open(&edge);
    assert_eq!(ws.frame(), Some((TEXT, b"secure".to_vec())));
    assert!(ws.has_ended());
}

#[test]
fn the_event_workers_socket_is_a_tunnel_and_no_other_call_of_a_worker() {
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), |seen, wire| {
        if !seen.line().starts_with("GET /events/ws ") {
            return ok(seen, wire);
        }
        let key = seen.fields("sec-websocket-key")[0].to_owned();
        wire.write_all(switched(&format!("Sec-WebSocket-Key: {key}\r\n")).as_bytes()).unwrap();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = wire.read(&mut piece) {
            if wire.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        false
    });
    let edge = setup.start();
    assert_eq!(refused(&mut Ws::ask(&edge, "/events/ws", "")).status, 401);
    let token = edge.issuer.token_of("alice", "events:read");
    let fields = format!("Authorization: Bearer {token}\r\n");
    let mut ws = Ws::ask(&edge, "/events/ws", &fields);
    let head = ws.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    ws.write(&frame(TEXT, b"hello", true));
    assert_eq!(ws.frame(), Some((TEXT, b"hello".to_vec())));
    let seen = events.only();
    assert_eq!(seen.fields("x-user"), ["alice"]);
    assert_eq!(seen.fields("x-internal-key"), [edge.internal_key.as_str()]);
    assert!(seen.fields("authorization").is_empty());
    drop(ws);
    // Elsewhere the wish is ignored.
    let fields = format!("Authorization: Bearer {token}\r\nConnection: close\r\n");
    assert_eq!(refused(&mut Ws::ask(&edge, "/events/types", &fields)).status, 200);
}
