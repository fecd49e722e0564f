//! HTTP/2 as other people's programs speak it, and by agreement over TLS.

use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::h2_client::{run, whole};
use crate::harness::{Upstream, edge_for, ok};
use crate::tls::{Site, site};

/// What a program says. Those used here are among what the gate installs.
fn tool(name: &str, arguments: &[&str]) -> String {
    match Command::new(name).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => panic!("`{name}` is needed (`./dev test` installs it): {error}"),
    }
}

#[test]
fn curl_speaks_http2_without_asking() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let url = format!("http://{}/api/x", edge.http);
    let arguments = [
        "-s",
        "-m",
        "20",
        "--http2-prior-knowledge",
        "-d",
        "hello",
        "-w",
        " %{http_version} %{http_code}",
        &url,
    ];
    assert_eq!(tool("curl", &arguments), "ok 2 200");
    assert_eq!(upstream.only().body, b"hello");
}

#[test]
fn h2load_gets_all_its_answers() {
    let upstream = Upstream::start(ok);
    // A machine that is short of processor time makes the latencies vary, and an adaptive limit fall below the eighty
    // requests at once; what has then waited for longer than `queue_timeout` is refused. That is another test's matter.
    let edge = edge_for(&upstream, "rate_limit = 0\nconcurrency = { limit = 100 }");
    let url = format!("http://{}/api/x", edge.http);
    let said = tool("h2load", &["-n", "2000", "-c", "4", "-m", "20", "-T", "20", &url]);
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
}

#[test]
fn tls_agrees_on_http2_and_a_host_elsewhere_is_misdirected() {
    let Site { ca, upstream, edge } = site("", "auth_required = false");
    let mut config = rustls::ClientConfig::clone(&ca.client(None));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    run(async {
        let socket = tokio::net::TcpStream::connect(edge.tls.unwrap()).await.unwrap();
        let name = ServerName::try_from("shop.example").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (uri, status) in [
            ("https://shop.example/api", 200),
            ("https://fx.desk.example/api", 421),
            ("http://shop.example/api", 400),
            ("https://shop.example/api", 200),
        ] {
            send = send.ready().await.unwrap();
            let request = http::Request::builder().uri(uri).body(()).unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            let answer = whole(answer).await.unwrap();
            assert_eq!(answer.status, status, "{uri}: {}", answer.text());
            if status == 200 {
                assert!(answer.field("strict-transport-security").starts_with("max-age="));
            }
        }
    });
    let seen = upstream.seen();
    assert_eq!((seen.len(), seen[0].fields("x-forwarded-proto")), (2, vec!["https"]));
}
