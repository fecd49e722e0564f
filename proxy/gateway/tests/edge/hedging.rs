//! Reads that are sent to a second instance because the first is silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::h2_client::{Proper, run};
use crate::harness::{Edge, Reply, Seen, Setup, Upstream, Wire, eventually, reply, service};

/// What the instances of a service have in common.
#[derive(Clone, Default)]
struct Pair {
    arrived: Arc<AtomicUsize>,
    /// Stuck ones whose connection the edge has let go.
    let_go: Arc<AtomicUsize>,
}

/// What an instance does with a request, told by how many came before to either.
type Act = fn(&Pair, usize, &mut dyn Wire) -> bool;

impl Pair {
    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    fn await_arrivals(&self, count: usize) {
        eventually("the other try", || (self.arrived() >= count).then_some(()));
    }

    fn await_let_go(&self, count: usize) {
        eventually("the other try is let go", || (self.let_go.load(Ordering::SeqCst) == count).then_some(()));
    }
}

fn answer(wire: &mut dyn Wire, status: &str, text: &str) -> bool {
    wire.write_all(reply(status, text).as_bytes()).is_ok()
}

/// Answers nobody; waits until it is let go.
fn stuck(pair: &Pair, wire: &mut dyn Wire) -> bool {
    let _until_then = wire.read(&mut [0; 16]);
    pair.let_go.fetch_add(1, Ordering::SeqCst);
    false
}

/// Takes longer than any hedge here waits.
fn slow(_: &Pair, _: usize, wire: &mut dyn Wire) -> bool {
    std::thread::sleep(Duration::from_millis(300));
    answer(wire, "200 OK", "slow")
}

fn start_with(main: &str, more: &str, act: Act) -> (Edge, Pair) {
    let pair = Pair::default();
    let instance = || {
        let pair = pair.clone();
        Upstream::start(move |_: &Seen, wire: &mut dyn Wire| {
            let number = pair.arrived.fetch_add(1, Ordering::SeqCst);
            act(&pair, number, wire)
        })
    };
    let urls = [instance().url(), instance().url()];
    let text = service("api", "/api", &urls, &format!("auth_required = false\nrate_limit = 0\n{more}"));
    (Setup::new(main).service("api", &text).start(), pair)
}

fn start(more: &str, act: Act) -> (Edge, Pair) {
    start_with("", more, act)
}

fn ask(edge: &Edge, method: &str, fields: &str, body: &str) -> Reply {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    edge.send(&format!(
        "{method} /api HTTP/1.1\r\nHost: edge\r\n{fields}{length}Connection: close\r\n\r\n{body}"
    ))
}

fn hedges(edge: &Edge, result: &str) -> u64 {
    let name = format!("sluice_edge_hedges_total{{result=\"{result}\",service=\"api\"}} ");
    let metrics = edge.get("/metrics").text();
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

/// Successes and failures that the breaker has counted.
fn counted(edge: &Edge) -> (u64, u64) {
    let shown = edge.admin("GET", "/circuit-breakers/api", None, None).json();
    let count = |name: &str| shown["metrics"][name].as_u64().unwrap();
    (count("total_successes"), count("total_failures"))
}

/// Whether nothing is under way, and nobody is ejected.
fn is_calm(edge: &Edge) -> bool {
    let services = edge.get("/services").json();
    let instances = services["services"][0]["instances"].as_array().unwrap().clone();
    instances.len() == 2 && instances.iter().all(|one| one["in_flight"] == 0 && one["state"] == "healthy")
}

#[test]
fn the_first_answer_wins_and_the_other_try_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let main = format!("[log]\naccess = \"file:{}\"\n", log.display());
    let outlier = "outlier = { consecutive = 1 }";
    let (edge, pair) =
        // Tries are told apart by their arrival here: the first has to arrive while the second waits, also on a machine
        // that is short of time.
        start_with(&main, &format!("retry.hedge = \"150ms\"\n{outlier}"), |pair, number, wire| {
            if number == 0 { stuck(pair, wire) } else { answer(wire, "200 OK", "quick") }
        });
    let begun = Instant::now();
    let answer = edge.get("/api");
    assert_eq!((answer.status, answer.text().as_str()), (200, "quick"));
    assert!(begun.elapsed() < Duration::from_secs(4), "before the first byte is due: {:?}", begun.elapsed());
    assert_eq!(pair.arrived(), 2);
    pair.await_let_go(1);
    assert_eq!(counted(&edge), (1, 0));
    assert!(is_calm(&edge), "{}", edge.get("/services").text());
    eventually("the second try is counted", || (hedges(&edge, "won") == 1).then_some(()));
    assert_eq!(hedges(&edge, "lost"), 0);
    let line = eventually("its line", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["path"] == "/api")
    });
    assert_eq!(
        (&line["attempts"], &line["hedge"], &line["decision"]),
        (&2.into(), &"won".into(), &"forwarded".into())
    );
    // Connections of the pool are clean.
    for _ in 0..4 {
        assert_eq!(edge.get("/api").text(), "quick");
    }
}

#[test]
fn streams_of_http2_are_hedged_alike() {
    let (edge, pair) = start("retry.hedge = \"150ms\"", |pair, number, wire| {
        if number == 0 { stuck(pair, wire) } else { answer(wire, "200 OK", "quick") }
    });
    run(async {
        let mut client = Proper::to(&edge).await;
        let answer = client.get("/api").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "quick"));
        assert_eq!(client.get("/api").await.status, 200, "its connection goes on");
    });
    pair.await_let_go(1);
    eventually("the second try is counted", || (hedges(&edge, "won") == 1).then_some(()));
    assert!(is_calm(&edge), "{}", edge.get("/services").text());
}

#[test]
fn a_first_that_answers_after_all_is_the_answer() {
    let (edge, pair) = start("retry.hedge = \"30ms\"", |pair, number, wire| {
        if number == 0 {
            pair.await_arrivals(2);
            return answer(wire, "200 OK", "first");
        }
        stuck(pair, wire)
    });
    assert_eq!(edge.get("/api").text(), "first");
    pair.await_let_go(1);
    assert_eq!((hedges(&edge, "lost"), pair.arrived(), counted(&edge)), (1, 2, (1, 0)));
}

#[test]
fn a_try_that_fails_wins_nothing_while_the_other_runs() {
    // The second is busy or talks nonsense; the first answers when that is known.
    let cases: [(&str, Act); 3] = [
        ("503", |pair, number, wire| second_fails(pair, number, wire, &reply("503 Service Unavailable", ""))),
        ("500", |pair, number, wire| {
            second_fails(pair, number, wire, &reply("500 Internal Server Error", ""))
        }),
        ("none", |pair, number, wire| second_fails(pair, number, wire, "nonsense\r\n\r\n")),
    ];
    for (status, act) in cases {
        let (edge, pair) = start("retry.hedge = \"30ms\"", act);
        assert_eq!(edge.get("/api").text(), "first", "{status}");
        assert_eq!((hedges(&edge, "failed"), pair.arrived()), (1, 2), "{status}");
        assert_eq!(counted(&edge), (1, 0), "the request was answered: {status}");
    }
    // The first breaks; the second is its retry already.
    let (edge, pair) = start("retry.hedge = \"30ms\"", |pair, number, wire| {
        if number == 0 {
            pair.await_arrivals(2);
            pair.let_go.fetch_add(1, Ordering::SeqCst);
            return false;
        }
        pair.await_let_go(1);
        answer(wire, "200 OK", "second")
    });
    assert_eq!(edge.get("/api").text(), "second");
    assert_eq!((hedges(&edge, "won"), pair.arrived(), counted(&edge)), (1, 2, (1, 0)));
    // Both are busy: the last to say so is passed on, and there is no third try.
    let (edge, pair) = start("retry.hedge = \"30ms\"", |pair, _, wire| {
        pair.await_arrivals(2);
        answer(wire, "503 Service Unavailable", "busy")
    });
    let last = edge.get("/api");
    assert_eq!((last.status, last.text().as_str()), (503, "busy"));
    assert_eq!((hedges(&edge, "failed"), pair.arrived(), counted(&edge)), (1, 2, (0, 1)));
}

/// The second says this, and the first answers once the edge has let it go for it.
fn second_fails(pair: &Pair, number: usize, wire: &mut dyn Wire, says: &str) -> bool {
    if number == 0 {
        pair.await_let_go(1);
        return answer(wire, "200 OK", "first");
    }
    wire.write_all(says.as_bytes()).is_ok() && stuck(pair, wire)
}

#[test]
fn only_plain_reads_are_sent_twice_and_only_within_the_budget() {
    let (edge, pair) = start("retry.hedge = \"20ms\"", slow);
    let stream = "Accept: text/event-stream\r\n";
    for (method, fields, body) in [
        ("POST", "", "hi"),
        ("PUT", "", "hi"),
        ("DELETE", "", ""),
        ("OPTIONS", "", ""),
        ("GET", "", "hi"),
        ("GET", stream, ""),
    ] {
        let before = pair.arrived();
        assert_eq!(ask(&edge, method, fields, body).status, 200, "{method}");
        assert_eq!(pair.arrived(), before + 1, "{method} {fields} {body:?}");
    }
    for rest in [
        "retry = { hedge = \"20ms\", budget = 0.0, min_per_second = 0 }",
        "retry = { hedge = \"20ms\", attempts = 1 }",
        "retry.hedge = \"20ms\"\nbalance = \"sticky\"\nhash_on = \"ip\"",
        "retry.hedge = \"20ms\"\ntimeouts = { connect = \"10ms\", first_byte = \"25ms\" }",
        "retry.hedge = \"off\"",
    ] {
        let (edge, pair) = start(rest, slow);
        let status = edge.get("/api").status;
        assert_eq!(status, if rest.contains("first_byte") { 504 } else { 200 }, "{rest}");
        assert_eq!(pair.arrived(), 1, "{rest}");
    }
    let (edge, pair) = start("retry.hedge = \"20ms\"", slow);
    assert_eq!(ask(&edge, "HEAD", "", "").status, 200);
    assert_eq!(pair.arrived(), 2, "HEAD is a read too");
}

#[test]
fn both_are_given_up_with_their_client_and_at_the_deadline() {
    let (edge, pair) = start("retry.hedge = \"20ms\"", |pair, _, wire| stuck(pair, wire));
    let mut client = edge.connect();
    client.send("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    pair.await_arrivals(2);
    drop(client);
    pair.await_let_go(2);
    eventually("it is accounted for", || (hedges(&edge, "unanswered") == 1).then_some(()));
    assert_eq!((counted(&edge), is_calm(&edge)), ((0, 0), true));

    let times = "timeouts = { connect = \"100ms\", first_byte = \"400ms\" }";
    let (edge, pair) = start(&format!("{times}\nretry.hedge = \"20ms\""), |pair, _, wire| stuck(pair, wire));
    assert_eq!((edge.get("/api").status, pair.arrived()), (504, 2));
    pair.await_let_go(2);
    assert_eq!((hedges(&edge, "unanswered"), counted(&edge), is_calm(&edge)), (1, (0, 1), true));
}

#[test]
fn the_time_is_what_is_usual_for_the_service() {
    // Nothing is usual at first; once it is, one is stuck.
    let (edge, pair) = start("retry = { hedge = \"p95\", min_per_second = 100 }", |pair, number, wire| {
        if number == 0 {
            return slow(pair, number, wire);
        }
        let is_stuck = pair.let_go.compare_exchange(1, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if is_stuck { stuck(pair, wire) } else { answer(wire, "200 OK", "quick") }
    });
    assert_eq!(edge.get("/api").text(), "slow");
    assert_eq!(pair.arrived(), 1);
    for _ in 0..60 {
        assert_eq!(edge.get("/api").text(), "quick");
    }
    pair.let_go.store(1, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(edge.get("/api").text(), "quick");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    pair.await_let_go(1);
    assert!(hedges(&edge, "won") + hedges(&edge, "lost") >= 1);
}
