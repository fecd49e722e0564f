//! Answers that come before the body was read, and clients that leave before the answer came.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::origin::{Origin, echo};
use super::wire::Wire;
use crate::harness::{Edge, Setup, eventually, service};

const EARLY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
const ENOUGH: &str = "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 6\r\n\r\nenough";

fn edge_for(origin: &Origin) -> Edge {
    let more = "auth_required = false\nbody_bytes = \"4MiB\"\nretry = { attempts = 1 }\n";
    let text = service("api", "/api", &[origin.url()], more);
    Setup::new("[edge]\nthreads = 1\n").service("api", &text).start()
}

/// Good requests on new connections, each of which must be answered as asked.
fn ask(edge: &Edge, mark: &str) {
    for number in 0..3 {
        let mut client = Wire::to(edge.http);
        client.send(format!("GET /api/{mark}/{number} HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes());
        assert_eq!(client.answer(false).unwrap().text(), format!("/{mark}/{number} 0"), "{mark}");
    }
}

#[test]
fn early_answers_reach_the_client_and_spoil_nothing() {
    let early = |head: &str| match head.split(' ').nth(1)? {
        "/early/stays" => Some((EARLY, true)),
        "/early/closes" => Some((EARLY, false)),
        "/early/refuses" => Some((ENOUGH, false)),
        _ => None,
    };
    let origin = Origin::start_early(early, echo);
    let edge = edge_for(&origin);
    let half = "b".repeat(100);
    for kind in ["stays", "closes", "refuses"] {
        for chunked in [false, true] {
            for finishes in [false, true] {
                let what = format!("{kind} chunked={chunked} finishes={finishes}");
                let mut client = Wire::to(edge.http);
                let (field, first, second) = if chunked {
                    let chunk = format!("64\r\n{half}\r\n");
                    ("Transfer-Encoding: chunked", chunk.clone(), format!("{chunk}0\r\n\r\n"))
                } else {
                    ("Content-Length: 200", half.clone(), half.clone())
                };
                let head = format!("POST /api/early/{kind} HTTP/1.1\r\nHost: edge\r\n{field}\r\n\r\n");
                client.send(format!("{head}{first}").as_bytes());
                let answer = client.answer(false).unwrap_or_else(|missing| panic!("{what}: {missing:?}"));
                let expected = if kind == "refuses" { (413, "enough") } else { (200, "early") };
                assert_eq!((answer.status, answer.text().as_str()), expected, "{what}");
                if finishes {
                    // What follows is the rest of that body, never a request.
                    client.send(format!("{second}GET /api/behind HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes());
                }
                if !finishes {
                    // Nobody waits for the rest for long.
                    client.ends().unwrap_or_else(|fault| panic!("{what}: {fault}"));
                } else if answer.field("connection") == "close" {
                    client.ends().unwrap_or_else(|fault| panic!("{what}: {fault}"));
                } else if finishes {
                    assert_eq!(client.answer(false).unwrap().text(), "/behind 0", "{what}");
                }
                drop(client);
                ask(&edge, "after");
            }
        }
    }
    for history in origin.connections() {
        assert_eq!(history.wrong, None, "{}", history.bytes.escape_ascii());
    }
    let reused = origin.connections().iter().filter(|history| history.requests.len() > 1).count();
    assert!(reused > 0, "nothing was pooled at all");
}

#[test]
fn a_client_that_leaves_ends_the_upstreams_work() {
    let origin = Origin::start(|arrived, socket| {
        let part = match arrived.request.target.as_str() {
            "/silent" => "",
            "/interim" => "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
            "/part" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
            "/chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            "/events" => {
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"
            }
            _ => return echo(arrived, socket),
        };
        socket.write_all(part.as_bytes()).is_ok()
    });
    let edge = edge_for(&origin);
    let body = "POST /api/silent HTTP/1.1\r\nHost: edge\r\nContent-Length: 5\r\n\r\nhello";
    let get = |path: &str| format!("GET /api/{path} HTTP/1.1\r\nHost: edge\r\n\r\n");
    let stages = [
        ("before the answer", get("silent"), ""),
        ("before the answer, with a body", body.to_owned(), ""),
        ("after an interim answer", get("interim"), "103"),
        ("after the head", get("head"), "200 OK"),
        ("inside the answer", get("part"), "part"),
        ("inside a chunked answer", get("chunk"), "part"),
        ("inside a stream of events", get("events"), "part"),
    ];
    for (stage, raw, seen) in stages {
        let known = origin.mark();
        let mut client = Wire::to(edge.http);
        client.send(raw.as_bytes());
        let arrived = eventually(stage, || origin.since(known).pop());
        client.wait_for(seen.as_bytes());
        let left = Instant::now();
        drop(client);
        eventually(stage, || origin.is_closed(arrived.connection).then_some(()));
        assert!(left.elapsed() < Duration::from_secs(1), "{stage}: {:?}", left.elapsed());
        ask(&edge, "after");
    }
    // Inside its own body.
    for part in ["Content-Length: 5\r\n\r\nhe", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut client = Wire::to(edge.http);
        let mark = format!("inside{}", part.len());
        client.send(format!("POST /api/{mark} HTTP/1.1\r\nHost: edge\r\n{part}").as_bytes());
        let connection = eventually(&mark, || origin.saw(&mark));
        let left = Instant::now();
        drop(client);
        eventually(&mark, || origin.is_closed(connection).then_some(()));
        assert!(left.elapsed() < Duration::from_secs(1), "{mark}: {:?}", left.elapsed());
        ask(&edge, "after");
    }
}

#[test]
fn http_1_0_gets_no_interim_answers() {
    let origin = Origin::start(|_, socket| {
        let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        socket.write_all(format!("{hints}{EARLY}").as_bytes()).is_ok()
    });
    let edge = edge_for(&origin);
    let mut old = Wire::to(edge.http);
    old.send(b"GET /api HTTP/1.0\r\nHost: edge\r\n\r\n");
    assert_eq!(old.answer(false).unwrap().text(), "early");
    old.ends().unwrap();
    let mut new = Wire::to(edge.http);
    new.send(b"GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    let statuses: Vec<u16> = (0..3).map(|_| new.answer(false).unwrap().status).collect();
    assert_eq!(statuses, [100, 103, 200]);
}
