//! A breaker in the running system: what opens it, and that it heals by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::http::get;
use crate::harness::{Up, until};

/// An upstream that takes requests and answers them only once it is told that it is well.
fn silent_upstream() -> (String, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (well, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_well, count) = (Arc::clone(&well), Arc::clone(&asked));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (is_well, count) = (Arc::clone(&is_well), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                while stream.read(&mut head).is_ok_and(|bytes| bytes > 0) {
                    count.fetch_add(1, Ordering::SeqCst);
                    if is_well.load(Ordering::SeqCst) {
                        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
                    }
                }
            });
        }
    });
    (url, well, asked)
}

#[test]
fn a_silent_upstream_opens_its_breaker_which_heals_by_itself() {
    let (url, well, asked) = silent_upstream();
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sluice.toml");
    let service = format!(
        "[[service]]\nname = \"hang\"\nprefix = \"/hang\"\nauth_required = false\n\
         timeouts = {{ connect = \"50ms\", first_byte = \"100ms\", total = \"400ms\" }}\n\
         breaker = {{ failure_threshold = 3, recovery_timeout = \"1s\", success_threshold = 1 }}\n\
         health = {{ interval = \"10m\" }}\n\n[[service.instance]]\nurl = \"{url}\"\n"
    );
    std::fs::write(&conf, service).unwrap();
    let running = Up::new(&dir.path().join("data")).conf(&conf).arg("--no-demo").start();
    let state =
        || get(running.control(), "/circuit-breakers/hang").send().expect(200).json()["state"].clone();
    for _ in 0..3 {
        get(running.edge(), "/hang").send().problem(504, "upstream_timeout");
    }
    assert_eq!(state(), "open");
    let before = asked.load(Ordering::SeqCst);
    let refused = get(running.edge(), "/hang").send();
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    refused.problem(503, "breaker_open");
    assert_eq!(asked.load(Ordering::SeqCst), before, "an open breaker does not touch the upstream");
    well.store(true, Ordering::SeqCst);
    until("the breaker heals", || (get(running.edge(), "/hang").send().status == 200).then_some(()));
    until("it closes", || (state() == "closed").then_some(()));
    running.stop();
    let log = std::fs::read_to_string(dir.path().join("data.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.filter(|line| line["component"] == "breaker" && line["service_name"] == "hang");
    let moves: Vec<[Value; 3]> =
        told.map(|line| ["level", "from", "to"].map(|name| line[name].clone())).collect();
    let expected =
        [["WARN", "closed", "open"], ["INFO", "open", "half_open"], ["INFO", "half_open", "closed"]];
    assert_eq!(
        moves,
        expected.map(|line| line.map(Value::from)),
        "each change of state is a line of the log"
    );
}
