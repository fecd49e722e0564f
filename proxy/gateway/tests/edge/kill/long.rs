//! What goes on for long and is stopped: WebSockets, event streams, calls.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{OPEN, on, throw};
use crate::h2_client::{Proper, run};
use crate::harness::{Client, Edge, Seen, Setup, Upstream, Wire, eventually, service};
use crate::tunnel::{Raw, TEXT, Ws, asking, frame};
use crate::upstream_h2::H2;

/// LIMIT of the contract for what is open.
const WITHIN: Duration = Duration::from_secs(1);

fn open(edge: &Edge, path: &str, fields: &str) -> Ws {
    let mut ws = Ws::send(edge, &asking(path, fields));
    let head = ws.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    ws
}

fn lively(ws: &mut Ws) {
    ws.write(&frame(TEXT, b"still here", true));
    assert_eq!(ws.frame().unwrap().1, b"still here");
}

fn killed(mut ws: Ws) {
    let begun = Instant::now();
    assert_eq!(ws.closed(), (1008, "kill switch".to_owned()));
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
}

#[test]
fn order_entry_over_websockets_ends_and_the_cancel_lane_stays() {
    let upstream = Raw::echoing();
    let url = [format!("http://{}", upstream.address)];
    let mut setup = Setup::new("");
    for lane in ["order", "cancel", "query"] {
        let more = format!("{OPEN}\nlane = \"{lane}\"");
        setup = setup.service(lane, &service(lane, &format!("/{lane}"), &url, &more));
    }
    let edge = setup.start();
    let (mut btc, mut eth, unnamed) = (
        open(&edge, "/order", "X-Symbol: BTC/USDT\r\n"),
        open(&edge, "/order", "X-Symbol: ETH/USDT\r\n"),
        open(&edge, "/order", ""),
    );
    let (mut cancels, mut prices) = (open(&edge, "/cancel", ""), open(&edge, "/query", ""));
    for ws in [&mut btc, &mut eth, &mut cancels, &mut prices] {
        lively(ws);
    }
    on(&edge, "symbol", Some("BTC/USDT"));
    killed(btc);
    // Nobody sees what is ordered inside: it may be the stopped symbol.
    killed(unnamed);
    for ws in [&mut eth, &mut cancels, &mut prices] {
        lively(ws);
    }
    let mut refused = Ws::send(&edge, &asking("/order", ""));
    assert!(refused.head().starts_with("HTTP/1.1 400 "));
    on(&edge, "all", None);
    killed(eth);
    killed(prices);
    lively(&mut cancels);
    let mut refused = Ws::send(&edge, &asking("/query", ""));
    assert!(refused.head().starts_with("HTTP/1.1 503 "));
    let all =
        serde_json::json!({"scope": "all", "on": true, "reason": "all of it", "cancel_lane_open": false});
    assert_eq!(throw(&edge, &all).status, 200);
    killed(cancels);
    eventually("upstreams are let go", || (upstream.open() == 0).then_some(()));
    assert!(edge.get("/metrics").text().contains("sluice_kill_switch_ended_total 5"));
}

/// Sends one event, and no more.
fn events(_: &Seen, wire: &mut dyn Wire) -> bool {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    drop(wire.write_all(format!("{head}7\r\ndata:1\n\r\n").as_bytes()));
    while wire.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    false
}

#[test]
fn event_streams_of_a_stopped_account_or_service_end() {
    let upstream = Upstream::start(events);
    let api = service("api", "/api", &[upstream.url()], "permissions = { GET = [\"read\"] }");
    let open = service("open", "/open", &[upstream.url()], OPEN);
    let edge = Setup::new("").service("api", &api).service("open", &open).start();
    let start = |path: &str, name: &str| -> Client {
        let mut client = edge.connect();
        let token = edge.issuer.token_of(name, "read");
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n\r\n"));
        client.read_until("data:1");
        client
    };
    let (mut alice, mut bob) = (start("/api", "alice"), start("/api", "bob"));
    let mut anonymous = edge.connect();
    anonymous.send("GET /open HTTP/1.1\r\nHost: edge\r\n\r\n");
    anonymous.read_until("data:1");
    let ends = |client: &mut Client| {
        let begun = Instant::now();
        client.read_until("0\r\n\r\n");
        assert!(client.is_closed());
        assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    };
    on(&edge, "account", Some("alice"));
    ends(&mut alice);
    bob.socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let read = std::io::Read::read(&mut bob.socket, &mut [0; 16]);
    assert!(read.is_err(), "it waits for the next event: {read:?}");
    bob.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    on(&edge, "service", Some("open"));
    ends(&mut anonymous);
    on(&edge, "all", None);
    ends(&mut bob);
}

#[test]
fn a_call_is_refused_as_one_and_ended_by_a_reset() {
    let upstream = H2::start(None, |_, request, mut respond| async move {
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        drop(stream.send_data(Bytes::from_static(b"\0\0\0\0\0"), false));
        let _request = request;
        drop(std::future::poll_fn(|cx| stream.poll_reset(cx)).await);
    });
    let edge = upstream.edge("");
    run(async {
        let mut client = Proper::to(&edge).await;
        let call = |client: &Proper| {
            let call = client.request("POST", "/api/call").header("content-type", "application/grpc");
            call.header("te", "trailers").body(()).unwrap()
        };
        let (answer, _stream) = client.begin(call(&client)).await;
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap().len(), 5);
        let thrown = Instant::now();
        on(&edge, "all", None);
        let ended = loop {
            match body.data().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(matches!(ended, Some(Err(_))), "{ended:?}");
        assert!(thrown.elapsed() < WITHIN + Duration::from_millis(500), "{:?}", thrown.elapsed());
        let (answer, _stream) = client.begin(call(&client)).await;
        let parts = answer.await.unwrap().into_parts().0;
        assert_eq!((parts.status.as_u16(), &parts.headers["grpc-status"]), (200, &"14".parse().unwrap()));
    });
}
