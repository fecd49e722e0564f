//! Tokens that are bound to a client certificate: good on connections that show it, and on no other.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio_rustls::TlsConnector;

use crate::h2_client::{run, whole};
use crate::harness::Edge;
use crate::tls::{Leaf, Secure, Site, connect, site};

const HOST: &str = "shop.example";
const MORE: &str = "client_auth = \"optional\"\nclient_ca = \"ca.pem\"";

/// A token for whoever shows this certificate.
fn bound(edge: &Edge, leaf: &Leaf) -> String {
    let now = jiff::Timestamp::now().as_second();
    let certificate = URL_SAFE_NO_PAD.encode(digest(&SHA256, &leaf.chain[0]));
    edge.issuer.sign(&json!({
        "iss": "https://sluice.internal", "sub": "pricer", "aud": ["sluice"], "jti": "bound", "iat": now - 1,
        "exp": now + 600, "scope": "read", "cnf": { "x5t#S256": certificate },
    }))
}

fn get(client: &mut Secure, token: &str) -> u16 {
    client
        .exchange(&format!("GET /api HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n"))
        .status
}

#[test]
fn a_bound_token_is_good_where_its_certificate_is_shown() {
    let Site { ca, edge, .. } = site(MORE, "permissions = { GET = [\"read\"] }");
    let id = Some("spiffe://desk.example/service/pricer");
    let (own, other) = (ca.issue(&["pricer"], id, 3), ca.issue(&["pricer"], id, 4));
    let (token, free) = (bound(&edge, &own), edge.issuer.token("read"));

    let config = ca.client(Some(&own));
    let mut holder = connect(&edge, &config, HOST);
    assert_eq!([get(&mut holder, &token), get(&mut holder, &token)], [200, 200], "kept alive");
    // The edge has the token in its memory now; the certificate is looked at all the same.
    let mut thief = connect(&edge, &ca.client(Some(&other)), HOST);
    let mut nobody = connect(&edge, &ca.client(None), HOST);
    for client in [&mut thief, &mut nobody] {
        let request = format!("GET /api HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n");
        let refused = client.exchange(&request);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_token"));
        assert!(refused.field("www-authenticate").starts_with("Bearer"), "{refused:?}");
        assert_eq!(get(client, &free), 200, "a token that is not bound is good anywhere");
        assert_eq!(get(client, &token), 401);
    }
    let plain = edge.get_as("/api", &token);
    assert_eq!(plain.status, 401, "{plain:?}");
    drop(holder);

    let mut resumed = connect(&edge, &config, HOST);
    assert_eq!(get(&mut resumed, &token), 200);
    assert_eq!(resumed.socket.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(get(&mut resumed, &free), 200);
    assert_eq!(get(&mut resumed, &token), 200);
    let figures = edge.admin("GET", "/metrics", Some(&edge.issuer.token("metrics:read")), None).text();
    assert!(figures.contains("other_certificate"), "{figures}");
}

#[test]
fn a_bound_token_is_bound_over_http2_too() {
    let Site { ca, edge, .. } = site(MORE, "permissions = { GET = [\"read\"] }");
    let id = Some("spiffe://desk.example/service/pricer");
    let (own, other) = (ca.issue(&["pricer"], id, 3), ca.issue(&["pricer"], id, 4));
    let token = bound(&edge, &own);
    run(async {
        for (leaf, status) in [(Some(&own), 200), (Some(&other), 401), (None, 401)] {
            let mut config = rustls::ClientConfig::clone(&ca.client(leaf));
            config.alpn_protocols = vec![b"h2".to_vec()];
            let socket = tokio::net::TcpStream::connect(edge.tls.unwrap()).await.unwrap();
            let name = ServerName::try_from(HOST).unwrap();
            let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
            let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            // Two streams of one connection.
            for _ in 0..2 {
                let request = http::Request::get(format!("https://{HOST}/api"))
                    .header("authorization", format!("Bearer {token}"));
                send = send.ready().await.unwrap();
                let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
                assert_eq!(whole(answer).await.unwrap().status, status);
            }
        }
    });
}
