//! Orders in the running system: what becomes of them when the edge is killed.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::http::{Answer, Connection, post};
use crate::harness::{Instance, Up, is_alive, signal, until};

/// An exchange that executes what it gets: how many orders it got, and whether it keeps its answers back.
#[derive(Clone, Default)]
struct Exchange {
    orders: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Exchange {
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (url, exchange) = (format!("http://{}", listener.local_addr().unwrap()), self.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let exchange = exchange.clone();
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while stream.read(&mut bytes).is_ok_and(|read| read > 0) {
                        if bytes.starts_with(b"POST ") {
                            exchange.orders.fetch_add(1, Ordering::SeqCst);
                        }
                        if !exchange.silent.load(Ordering::SeqCst) {
                            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfilled"));
                        }
                    }
                });
            }
        });
        url
    }

    fn orders(&self) -> usize {
        self.orders.load(Ordering::SeqCst)
    }
}

fn order(running: &Instance, key: &str) -> Answer {
    post(running.edge(), "/orders").header("idempotency-key", key).send()
}

#[test]
fn an_order_under_way_at_a_kill_9_is_unknown_and_never_sent_again() {
    let exchange = Exchange::default();
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sluice.toml");
    let service = format!(
        "[[service]]\nname = \"orders\"\nprefix = \"/orders\"\nauth_required = false\nlane = \"order\"\n\
         idempotency = \"required\"\nhealth = {{ interval = \"10m\" }}\n\n[[service.instance]]\nurl = \"{}\"\n",
        exchange.start()
    );
    std::fs::write(&conf, service).unwrap();
    let running = Up::new(&dir.path().join("data")).conf(&conf).arg("--no-demo").start();
    assert_eq!(order(&running, "first").expect(200).body, "filled");
    exchange.silent.store(true, Ordering::SeqCst);
    let mut under_way = Connection::open(running.edge());
    under_way
        .send(b"POST /orders HTTP/1.1\r\nHost: edge\r\nIdempotency-Key: second\r\nContent-Length: 0\r\n\r\n");
    until("the exchange has it", || (exchange.orders() == 2).then_some(()));
    let edge = running.role_pid("proxy").unwrap();
    signal(edge, "KILL");
    assert!(under_way.answer().is_none(), "nobody knows what became of it");
    exchange.silent.store(false, Ordering::SeqCst);
    until("the edge is gone", || (!is_alive(edge)).then_some(()));
    // The first that is answered is judged by what the dead one left.
    for _ in 0..3 {
        order(&running, "second").problem(409, "outcome_unknown");
    }
    let again = order(&running, "first").expect(200);
    assert_eq!(
        (again.body.as_str(), again.headers.get("idempotency-replayed").map(String::as_str)),
        ("filled", Some("true"))
    );
    assert_eq!(exchange.orders(), 2, "neither was sent again");
    order(&running, "third").expect(200);
    assert_eq!(exchange.orders(), 3);
    running.stop();
}
