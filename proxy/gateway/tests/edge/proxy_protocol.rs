//! The PROXY protocol of trusted balancers.

use std::io::Write as _;

use crate::harness::{Client, Edge, PATIENCE, Setup, Upstream, ok, service};

const ASK: &str = "GET /api HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n";

fn edge(upstream: &Upstream, trusted: &str, more: &str) -> Edge {
    let main = format!(
        "[edge]\nthreads = 1\nproxy_protocol = true\ntrusted_proxies = [{trusted}]\n[edge.limits]\nheader_timeout = \"700ms\"\n{more}\n"
    );
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    Setup::new(&main).service("api", &text).start_behind(b"PROXY UNKNOWN\r\n")
}

fn block(ip: [u8; 4]) -> Vec<u8> {
    let mut block = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    block.extend([ip, [127, 0, 0, 1]].concat());
    block.extend([0x10, 0, 0x1f, 0x40]);
    block
}

fn ask(edge: &Edge, header: &[u8]) -> Option<u16> {
    let mut client = Client::to(edge.http);
    client.socket.write_all(header).unwrap();
    client.send(ASK);
    client.try_reply().map(|reply| reply.status)
}

#[test]
fn a_trusted_balancer_names_the_client() {
    let upstream = Upstream::start(ok);
    let edge = edge(&upstream, "\"127.0.0.0/8\"", "");
    assert_eq!(ask(&edge, b"PROXY TCP4 203.0.113.7 127.0.0.1 4000 8000\r\n"), Some(200));
    assert_eq!(ask(&edge, &block([203, 0, 113, 8])), Some(200));
    assert_eq!(ask(&edge, b"PROXY UNKNOWN\r\n"), Some(200));
    let named: Vec<String> =
        upstream.seen().iter().map(|seen| seen.fields("x-forwarded-for")[0].to_owned()).collect();
    assert_eq!(named, ["203.0.113.7", "203.0.113.8", "127.0.0.1"]);
}

#[test]
fn a_header_in_pieces_is_read_whole() {
    let upstream = Upstream::start(ok);
    let edge = edge(&upstream, "\"127.0.0.0/8\"", "");
    let mut client = Client::to(edge.http);
    for byte in block([203, 0, 113, 9]).into_iter().chain(ASK.bytes()) {
        client.socket.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.reply().status, 200);
    assert_eq!(upstream.only().fields("x-forwarded-for"), ["203.0.113.9"]);
}

#[test]
fn a_trusted_balancer_without_a_header_is_closed() {
    let upstream = Upstream::start(ok);
    let edge = edge(&upstream, "\"127.0.0.0/8\"", "");
    for header in [&b""[..], b"PROXY TCP4 203.0.113.7 127.0.0.1 4000\r\n", b"PROXY TCP9 a b 1 2\r\n"] {
        assert_eq!(ask(&edge, header), None);
    }
    // Nothing at all: closed when its time is over.
    let mut silent = Client::to(edge.http);
    silent.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(silent.is_closed());
    assert!(upstream.seen().is_empty());
}

#[test]
fn strangers_cannot_name_a_client() {
    let upstream = Upstream::start(ok);
    let main = "[edge]\nthreads = 1\nproxy_protocol = true\ntrusted_proxies = [\"192.0.2.0/24\"]\n";
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let edge = Setup::new(main).service("api", &text).start();
    assert_eq!(ask(&edge, b"PROXY TCP4 203.0.113.7 127.0.0.1 4000 8000\r\n"), Some(400));
    assert_eq!(ask(&edge, b""), Some(200));
    assert_eq!(upstream.only().fields("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn connections_count_for_the_client_that_was_named() {
    let upstream = Upstream::start(ok);
    let edge = edge(&upstream, "\"127.0.0.0/8\"", "connections_per_ip = 2");
    let open = |ip| {
        let mut client = Client::to(edge.http);
        client.socket.write_all(&block(ip)).unwrap();
        client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
        let status = client.try_reply().map(|reply| reply.status);
        (client, status)
    };
    let held: Vec<_> = (0..2).map(|_| open([203, 0, 113, 7])).collect();
    assert!(held.iter().all(|(_, status)| *status == Some(200)));
    assert_eq!(open([203, 0, 113, 7]).1, None, "one too many of this client");
    assert_eq!(open([203, 0, 113, 8]).1, Some(200), "another client");
}

#[test]
fn a_proxy_behind_a_balancer_is_trusted_as_one_before_it() {
    let upstream = Upstream::start(ok);
    let edge = edge(&upstream, "\"127.0.0.0/8\", \"203.0.113.0/24\"", "connections_per_ip = 1");
    let held: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = Client::to(edge.http);
            client.socket.write_all(&block([203, 0, 113, 7])).unwrap();
            assert_eq!(client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n").status, 200);
            client
        })
        .collect();
    assert_eq!(held.len(), 3, "its clients are many");
}
