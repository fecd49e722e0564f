//! The same over HTTP/2: between the edge and its instances stand relays that break a connection after the nth byte
//! of either direction.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};

use super::ALONE;
use crate::h2_client::{Proper, drain, run};
use crate::harness::{Client, Edge, Setup, service};
use crate::upstream_h2::H2;

/// Which direction breaks, after how many bytes from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Up(usize),
    Down(usize),
}

#[derive(Default)]
struct Line {
    cut: Option<Cut>,
    /// Bytes since the last look, up and down.
    passed: (usize, usize),
}

/// The way to both instances.
#[derive(Clone, Default)]
struct Relay(Arc<Mutex<Line>>);

impl Relay {
    fn to(&self, target: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, relay) = (listener.local_addr().unwrap(), self.clone());
        std::thread::spawn(move || {
            for edge in listener.incoming().flatten() {
                let Ok(instance) = TcpStream::connect(target) else { continue };
                for (up, from, to) in [(true, &edge, &instance), (false, &instance, &edge)] {
                    let (relay, from, to) =
                        (relay.clone(), from.try_clone().unwrap(), to.try_clone().unwrap());
                    to.set_nodelay(true).unwrap();
                    std::thread::spawn(move || relay.carry(from, to, up));
                }
            }
        });
        address
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, up: bool) {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            let (pass, breaks) = self.pass(up, count);
            if to.write_all(&piece[..pass]).is_err() || breaks {
                break;
            }
        }
        // A break is seen as a reset, as something that came was not read or both ends are shut.
        for socket in [&from, &to] {
            drop(socket.shutdown(Shutdown::Both));
        }
    }

    /// How many of these bytes pass, and whether the connection breaks then.
    fn pass(&self, up: bool, count: usize) -> (usize, bool) {
        let mut line = self.0.lock().unwrap();
        let passed = if up { &mut line.passed.0 } else { &mut line.passed.1 };
        *passed += count;
        let left = match &mut line.cut {
            Some(Cut::Up(left)) if up => left,
            Some(Cut::Down(left)) if !up => left,
            _ => return (count, false),
        };
        if *left > count {
            *left -= count;
            return (count, false);
        }
        let pass = *left;
        line.cut = None;
        (pass, true)
    }

    fn arm(&self, cut: Option<Cut>) {
        *self.0.lock().unwrap() = Line { cut, passed: (0, 0) };
    }

    fn passed(&self) -> (usize, usize) {
        self.0.lock().unwrap().passed
    }
}

/// What instances know of each order: how many of them have seen it, and how many have all of it.
type Orders = Arc<Mutex<BTreeMap<String, (usize, usize)>>>;

fn instance(orders: &Orders) -> H2 {
    let orders = Arc::clone(orders);
    H2::start(None, move |_, request, respond| serve(Arc::clone(&orders), request, respond))
}

async fn serve(orders: Orders, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let number = request.headers()["x-number"].to_str().unwrap().to_owned();
    orders.lock().unwrap().entry(number.clone()).or_default().0 += 1;
    let Ok((body, _)) = drain(request.into_body()).await else { return };
    assert!(body == "order" || body.is_empty(), "{body:?}");
    orders.lock().unwrap().entry(number).or_default().1 += 1;
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    let _gone = stream.send_data("done".into(), false);
    let _gone =
        stream.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]));
}

/// What a client was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Whole,
    /// It has a status and a part of the rest.
    Part,
    Failed {
        code: String,
        outcome: String,
    },
}

fn told_of(reply: &crate::harness::Reply) -> Told {
    match reply.status {
        200 if reply.text() == "done" => Told::Whole,
        200 => Told::Part,
        502 => {
            let outcome = reply.json()["outcome"].as_str().unwrap_or_default().to_owned();
            Told::Failed { code: reply.code(), outcome }
        }
        status => panic!("{status} {}", reply.text()),
    }
}

fn plain(edge: &Edge, method: &str, number: usize) -> Told {
    let body = if method == "GET" { "" } else { "order" };
    let mut client = Client::to(edge.http);
    told_of(&client.exchange(&format!(
        "{method} /api/orders HTTP/1.1\r\nHost: edge\r\nX-Number: {number}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )))
}

/// A call of gRPC, on a connection of HTTP/2 of its own.
fn call(edge: &Edge, number: usize) -> Told {
    run(async {
        let mut client = Proper::to(edge).await;
        let request = client.request("POST", "/api/orders").header("content-type", "application/grpc");
        let request = request.header("te", "trailers").header("x-number", number.to_string());
        let answer = client.fetch(request.body(()).unwrap(), Some(Bytes::from_static(b"order"))).await;
        let Ok(answer) = answer else { return Told::Part };
        match (answer.field("grpc-status"), &answer.trailers) {
            ("", Some(trailers)) if trailers["grpc-status"] == "0" => Told::Whole,
            ("14", None) => {
                let code = answer.field("grpc-message").split(':').next().unwrap().to_owned();
                Told::Failed { code, outcome: answer.field("sluice-outcome").to_owned() }
            }
            _ => panic!("{answer:?}"),
        }
    })
}

/// Runs every cut of one kind of request. `ask` sends the one with this number.
fn every_byte(more: &str, safe: bool, ask: impl Fn(&Edge, usize) -> Told) {
    let (orders, relay) = (Orders::default(), Relay::default());
    let instances = [instance(&orders), instance(&orders)];
    let urls = instances.each_ref().map(|instance| format!("h2c://{}", relay.to(instance.address)));
    let text = service("api", "/api", &urls, &format!("{ALONE}{more}"));
    let edge = Setup::new("[edge]\nthreads = 1\n").service("api", &text).start();
    assert_eq!(ask(&edge, 0), Told::Whole);
    let mut told = BTreeMap::new();
    for pooled in [true, false] {
        // How much passes on such a connection; what follows the answer is not waited for.
        let mut number = 100_000 * (1 + usize::from(pooled));
        prepare(&relay, &edge, pooled, &ask, &mut number);
        relay.arm(None);
        assert_eq!(ask(&edge, number), Told::Whole);
        let (up, down) = relay.passed();
        assert!(up > 20 && down > 20, "{up} {down}");
        // Readers wait before each other try, and what they have to lose is time: every seventh byte.
        let step = if safe { 7 } else { 1 };
        for cut in (0..up).map(Cut::Up).chain((0..down).map(Cut::Down)).step_by(step) {
            prepare(&relay, &edge, pooled, &ask, &mut number);
            relay.arm(Some(cut));
            number += 1;
            told.insert(number.to_string(), (ask(&edge, number), cut, pooled));
            relay.arm(None);
            next(&edge, &ask, &mut number, cut);
        }
    }
    // Whatever was still under way has come to its end.
    drop(edge);
    let orders = orders.lock().unwrap();
    for (number, (told, cut, pooled)) in &told {
        let (seen, whole) = orders.get(number).copied().unwrap_or_default();
        judge(safe, told, (seen, whole), &format!("{cut:?} {pooled} {told:?} {seen} {whole}"));
    }
}

/// Whatever broke, the next request is whole. Where the last byte had passed, the one before may have been answered
/// while the connection still stood: then it is this one that meets its end, and the one after it that is whole.
fn next(edge: &Edge, ask: &impl Fn(&Edge, usize) -> Told, number: &mut usize, cut: Cut) {
    *number += 1;
    let told = ask(edge, *number);
    if told != Told::Whole {
        assert!(matches!(&told, Told::Failed { outcome, .. } if outcome == "unknown"), "{cut:?}: {told:?}");
        *number += 1;
        assert_eq!(ask(edge, *number), Told::Whole, "after {cut:?}");
    }
}

/// Leaves the edge with a connection that has served, or with none.
fn prepare(
    relay: &Relay,
    edge: &Edge,
    pooled: bool,
    ask: &impl Fn(&Edge, usize) -> Told,
    number: &mut usize,
) {
    relay.arm((!pooled).then_some(Cut::Up(0)));
    *number += 1;
    ask(edge, *number);
}

fn judge(safe: bool, told: &Told, (seen, whole): (usize, usize), context: &str) {
    if safe {
        assert!(seen <= 2 && !matches!(told, Told::Failed { .. }), "{context}");
        return;
    }
    assert!(seen <= 1 && whole <= 1, "sent twice: {context}");
    match told {
        Told::Whole | Told::Part => assert_eq!((seen, whole), (1, 1), "{context}"),
        Told::Failed { code, outcome } => {
            assert_eq!(code, "upstream_refused", "{context}");
            match outcome.as_str() {
                "unknown" => {}
                "not_sent" => assert_eq!(seen, 0, "{context}"),
                _ => panic!("{context}"),
            }
        }
    }
}

#[test]
fn at_any_byte_of_a_connection_of_http2() {
    every_byte("", false, |edge, number| plain(edge, "POST", number));
}

#[test]
fn a_get_survives_at_any_byte_of_a_connection_of_http2() {
    every_byte("", true, |edge, number| plain(edge, "GET", number));
}

#[test]
fn at_any_byte_of_a_call() {
    every_byte("", false, call);
}
