//! A new binary, a new configuration and the end of a process, under load: nobody's request fails.
//!
//! `SLUICE_LONG=1` runs the long form: 20 upgrades and 200 reloads in about a minute, with its figures.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::fleet::{self, Fleet};
use crate::harness::http::{Connection, get, post};
use crate::harness::load::{KeepAlive, Load, Tally};
use crate::harness::origin::upstream;
use crate::harness::secure::Authority;
use crate::harness::site::{Site, free_port};
use crate::harness::{Instance, binary, is_alive, signal, until};

fn clients(count: usize, base: &str) -> Load {
    let base = base.to_owned();
    Load::start(count, move || KeepAlive::new(&base, "/load/x"))
}

#[track_caller]
pub(crate) fn none_failed(tally: &Tally) {
    assert_eq!(tally.failed, 0, "of {}:{}", tally.answered + tally.failed, tally.told());
    assert!(tally.answered > 0);
}

/// The figures of the page of a breaker.
fn breaker(running: &Instance, name: &str) -> Value {
    get(running.control(), &format!("/circuit-breakers/{name}")).send().expect(200).json()["state"].clone()
}

fn force_open(running: &Instance, name: &str) {
    let body = json!({"state": "open", "reason": "a test"});
    let path = format!("/circuit-breakers/{name}/force");
    post(running.control(), &path).token(running.admin()).json(&body).send().expect(200);
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    kib: u64,
    descriptors: usize,
    threads: u64,
}

fn held(pid: u32) -> Held {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Held { kib: number("VmRSS:"), descriptors, threads: number("Threads:") }
}

/// The longest that connections waited in an upgrade's output, milliseconds.
fn waited_ms(output: &str) -> Option<u64> {
    let waited = output.split("connections waited ").skip(1);
    waited.filter_map(|rest| rest.split(' ').next()?.parse().ok()).max()
}

/// Reload number `n`: a route added, a route removed, a file that is refused, a file put right, a limit, a
/// weight, a certificate.
fn reload(site: &Site, authority: &Authority, running: &Instance, n: usize, url: &str) {
    let late = || get(running.edge(), "/late/x").send().status;
    let bad = site.path("services.d/bad.toml");
    match n % 7 {
        0 => site.service("late", "rate_limit = 1000000000\n", url),
        1 => site.replace("services.d/bad.toml", "[[service]]\nname = 7\n"),
        2 => fs::remove_file(bad).unwrap(),
        3 => site.service("load", &format!("rate_limit = {}\n", 1_000_000_000 - n), url),
        4 => authority.renew(&site.path(".")),
        5 => {
            // The instance's table comes last.
            let text = fs::read_to_string(site.path("services.d/load.toml")).unwrap();
            site.replace("services.d/load.toml", &format!("{text}weight = {}\n", n % 5 + 1));
        }
        _ => fs::remove_file(site.path("services.d/late.toml")).unwrap(),
    }
    running.signal("HUP");
    let wanted = if n % 7 == 6 { 404 } else { 200 };
    until("the reload counts, or the old configuration stays", || (late() == wanted).then_some(()));
}

struct Run {
    upgrades: usize,
    reloads: usize,
    /// Over which the reloads are spread.
    over: Duration,
    /// Clients of each kind.
    each: usize,
}

fn pause_until(moment: Instant) {
    std::thread::park_timeout(moment.saturating_duration_since(Instant::now()));
}

fn under_load(run: &Run) {
    let (site, authority) = Site::secured();
    let url = format!("http://{}", upstream());
    let running = site.up();
    let edge = || held(running.role_pid("proxy").unwrap());
    let limited = || get(running.edge(), "/two/x").send().status;
    assert_eq!([limited(), limited(), limited()], [200, 200, 429]);
    force_open(&running, "held");
    let quiet = Fleet::start(&running, &authority, run.each);
    pause_until(Instant::now() + run.over / 4);
    let before = edge();
    let calm = quiet.stop();
    fleet::none_failed(&calm);
    let load = Fleet::start(&running, &authority, run.each);
    let began = Instant::now();
    for n in 0..run.reloads {
        pause_until(began + run.over * n as u32 / run.reloads as u32);
        reload(&site, &authority, &running, n, &url);
        assert_eq!((limited(), breaker(&running, "held")), (429, json!("open")), "state is kept by name");
    }
    let (reloaded, after) = (began.elapsed(), edge());
    let (mut waited, mut memory) = (Vec::new(), Vec::new());
    for n in 0..run.upgrades {
        site.install(binary());
        let before = running.role_pid("proxy").unwrap();
        // The last one is everything; workers restart then, which the routes under load do not need.
        let role = (n + 1 < run.upgrades).then_some("edge");
        let (code, out, errors) = site.upgrade(role);
        assert_eq!(code, 0, "{out}{errors}");
        waited.extend(waited_ms(&out));
        assert_ne!(running.role_pid("proxy").unwrap(), before);
        assert_eq!(breaker(&running, "held"), "open", "an operator's word outlives an upgrade");
        until("the old process ends", || (!is_alive(before)).then_some(()));
        memory.push((held(running.pid).kib, edge().kib));
    }
    let all = load.stop();
    let longest = waited.iter().max().copied().unwrap_or_default();
    eprintln!(
        "calm:{}\n{} reloads in {reloaded:.1?}, {} upgrades:{}\nconnections waited {waited:?} ms; before and \
         after the reloads {before:?} {after:?}; supervisor and edge KiB {memory:?}",
        fleet::told(&calm),
        run.reloads,
        run.upgrades,
        fleet::told(&all)
    );
    fleet::none_failed(&all);
    assert!(longest < 1_000, "connections waited {longest} ms");
    assert!(after.kib < before.kib * 5 / 4 + 4_096, "memory grows: {before:?} {after:?}");
    assert!(after.descriptors < before.descriptors + 64, "descriptors grow: {before:?} {after:?}");
    assert!(after.threads < before.threads + 8, "threads grow: {before:?} {after:?}");
    let flat =
        |kib: &[u64]| kib.last().zip(kib.get(1)).is_none_or(|(last, first)| *last < first * 5 / 4 + 4_096);
    let (supervisor, edge): (Vec<u64>, Vec<u64>) = memory.into_iter().unzip();
    assert!(flat(&supervisor) && flat(&edge), "memory grows: {supervisor:?} {edge:?}");
    running.stop();
}

#[test]
fn upgrades_and_reloads_under_load_fail_no_request() {
    if std::env::var_os("SLUICE_LONG").is_some() {
        under_load(&Run { upgrades: 20, reloads: 200, over: Duration::from_secs(60), each: 2 });
    } else {
        under_load(&Run { upgrades: 2, reloads: 14, over: Duration::from_secs(3), each: 1 });
    }
}

#[test]
fn a_signal_upgrades_everything_in_place() {
    let site = Site::new();
    let running = site.up();
    let before: Vec<_> = ["proxy", "worker vault", "worker events", "worker calc"]
        .map(|words| running.role_pid(words).unwrap())
        .into();
    let load = clients(2, running.edge());
    site.install(binary());
    running.signal("USR2");
    until("every role is a new process", || {
        let words = ["proxy", "worker vault", "worker events", "worker calc"];
        let now: Option<Vec<_>> = words.iter().map(|words| running.role_pid(words)).collect();
        now?.iter().all(|pid| !before.contains(pid)).then_some(())
    });
    until("the old edge ends", || (!is_alive(before[0])).then_some(()));
    none_failed(&load.stop());
    // The keys and secrets came along: workers believe the edge, and the token still counts.
    get(running.edge(), "/events/stats").token(running.admin()).send().expect(200);
    // It is still a supervisor: what dies comes back, what ends ends all.
    let edge = running.role_pid("proxy").unwrap();
    signal(edge, "KILL");
    until("the edge is back", || running.role_pid("proxy").filter(|pid| *pid != edge));
    get(running.edge(), "/load/x").send().expect(200);
    let (code, out, errors) = site.upgrade(Some("calc"));
    assert_eq!(code, 0, "{out}{errors}");
    running.stop();
}

#[test]
fn a_binary_that_crashes_or_a_broken_configuration_leaves_the_old_one_serving() {
    let site = Site::new();
    let running = site.up();
    let load = clients(2, running.edge());
    let edge = running.role_pid("proxy").unwrap();
    let refused = |role: Option<&str>, says: &str| {
        let (code, out, errors) = site.upgrade(role);
        assert_eq!(code, 1, "{out}{errors}");
        assert!(errors.contains(says), "{errors}");
        assert_eq!(running.role_pid("proxy"), Some(edge), "the old edge serves");
        get(running.edge(), "/load/x").send().expect(200);
    };
    site.install_script("exit 7");
    refused(Some("edge"), "exit status 7");
    refused(Some("calc"), "self-test");
    refused(None, "self-test");
    // It says the right words to the probe and dies then, before the old process is told to end.
    let probed = "case \"$*\" in *--self-test*) echo '{\"fit\":1}'; exit;; esac;";
    site.install_script(&format!("{probed} exit 9"));
    let calc = running.role_pid("worker calc").unwrap();
    refused(Some("calc"), "exit status 9 before it");
    assert_eq!(running.role_pid("worker calc"), Some(calc), "the old worker serves");
    get(running.calc(), "/livez").send().expect(200);
    // It dies when it is to serve: the old binary is started again.
    let worker = "{\"event\":\"prepared\",\"role\":\"calc\"}";
    site.install_script(&format!("{probed} echo '{worker}'; read handoff; read go; exit 9"));
    refused(Some("calc"), "exit status 9 before it was ready");
    until("calc is back", || running.role_pid("worker calc").filter(|pid| *pid != calc));
    get(running.calc(), "/livez").send().expect(200);
    // It gets prepared and dies when it is to serve.
    let prepared = "{\"event\":\"prepared\",\"role\":\"edge\"}";
    site.install_script(&format!("echo '{prepared}'; read handoff; read go; exit 5"));
    refused(Some("edge"), "before it was serving");
    site.install(binary());
    site.replace("services.d/bad.toml", "[[service]]\nname = 7\n");
    refused(Some("edge"), "exit status 2");
    refused(None, "self-test");
    fs::remove_file(site.path("services.d/bad.toml")).unwrap();
    let (code, _, errors) = site.upgrade(Some("edge"));
    assert_eq!(code, 0, "{errors}");
    none_failed(&load.stop());
    running.stop();
}

#[test]
fn a_binary_that_hangs_is_given_up() {
    let site = Site::new();
    let running = site.up();
    let load = clients(1, running.edge());
    let edge = running.role_pid("proxy").unwrap();
    site.install_script("exec sleep 600");
    let began = Instant::now();
    let (code, out, errors) = site.upgrade(Some("edge"));
    assert_eq!(code, 1, "{out}{errors}");
    assert!(errors.contains("not prepared within 10s"), "{errors}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(running.role_pid("proxy"), Some(edge));
    // A worker that is fit by its own word and hangs then keeps nobody waiting: the old one serves on.
    site.install_script("case \"$*\" in *--self-test*) echo '{\"fit\":1}'; exit;; esac; exec sleep 600");
    let events = running.role_pid("worker events").unwrap();
    let upgrading = std::thread::scope(|scope| {
        let upgrading = scope.spawn(|| site.upgrade(Some("events")));
        while !upgrading.is_finished() {
            let asked = Instant::now();
            get(running.events(), "/livez").send().expect(200);
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        }
        upgrading.join().unwrap()
    });
    let (code, out, errors) = upgrading;
    assert!(code == 1 && errors.contains("not prepared within 10s"), "{code} {out}{errors}");
    assert_eq!(running.role_pid("worker events"), Some(events));
    none_failed(&load.stop());
    // A role that dies comes back from the binary it ran, not from what lies there now.
    signal(edge, "KILL");
    until("the edge is back", || running.role_pid("proxy").filter(|pid| *pid != edge));
    get(running.edge(), "/load/x").send().expect(200);
    running.stop();
}

#[test]
fn an_upgrade_without_a_supervisor_says_so() {
    let site = Site::new();
    let (code, _, errors) = site.upgrade(None);
    assert_eq!(code, 4);
    assert!(errors.contains("no `sluice up` runs"), "{errors}");
}

#[test]
fn a_reload_restarts_only_the_role_whose_key_needs_it() {
    let site = Site::new();
    let running = site.up();
    let pids = || ["proxy", "worker vault", "worker events"].map(|words| running.role_pid(words).unwrap());
    let (before, calc) = (pids(), running.role_pid("worker calc").unwrap());
    let conf = fs::read_to_string(site.path("sluice.toml")).unwrap();
    site.replace("sluice.toml", &format!("{conf}[calc]\nthreads = 1\nthraeds = 2\n"));
    running.signal("HUP");
    until("the refusal is logged", || {
        let log = fs::read_to_string(site.data().with_extension("log")).unwrap();
        (log.contains("configuration refused") && log.contains("thraeds")).then_some(())
    });
    assert_eq!(running.role_pid("worker calc"), Some(calc), "a bad file changes nothing");
    site.replace("sluice.toml", &format!("{conf}[calc]\nthreads = 1\n"));
    running.signal("HUP");
    until("calc starts anew", || running.role_pid("worker calc").filter(|pid| *pid != calc));
    get(running.calc(), "/livez").send().expect(200);
    assert_eq!(pids(), before);
    // An edge key that is read at the start: handed over, also to other sockets, without a gap.
    let load = clients(2, running.edge());
    let port = free_port();
    let offset = running.edge().rsplit(':').next().unwrap().parse::<u16>().unwrap() - 8000;
    let moved = format!("{conf}[calc]\nthreads = 1\n[control]\nlisten = \"127.0.0.1:{}\"\n", port - offset);
    site.replace("sluice.toml", &moved);
    running.signal("HUP");
    let control = format!("http://127.0.0.1:{port}");
    until("the control port has moved", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
    });
    get(&control, "/circuit-breakers").send().expect(200);
    none_failed(&load.stop());
    running.stop();
}

#[test]
fn an_edge_alone_hands_over_by_signal_and_keeps_its_idle_connections() {
    let site = Site::new();
    let mut alone = site.proxy();
    let first = alone.child.id();
    let load = clients(2, &alone.base);
    let mut idle = Connection::open(&alone.base);
    let ask = |connection: &mut Connection| {
        connection.send(b"GET /load/x HTTP/1.1\r\nhost: x\r\n\r\n");
        connection.answer().expect("an answer")
    };
    let answer = ask(&mut idle);
    assert!(answer.status == 200 && answer.headers["connection"] != "close", "{answer:?}");
    signal(first, "USR2");
    let log = || fs::read_to_string(site.path("proxy.log")).unwrap();
    until("the successor serves", || log().contains("the successor serves, draining").then_some(()));
    // It was idle all the time, is not cut off, and is told now to move.
    let answer = ask(&mut idle);
    assert_eq!(answer.headers.get("connection").map(String::as_str), Some("close"), "{answer:?}");
    let status = until("the first process ends", || alone.child.try_wait().unwrap());
    assert!(status.success(), "{status:?}");
    get(&alone.base, "/load/x").send().expect(200);
    none_failed(&load.stop());
    let successor = log();
    let (_, rest) = successor.rsplit_once("\"pid ").expect("the log names the successor");
    let pid: u32 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(is_alive(pid));
    // A bad binary changes nothing here either, also one generation later.
    site.install_script("exit 3");
    signal(pid, "USR2");
    until("the refusal is logged", || log().contains("exit status 3").then_some(()));
    get(&alone.base, "/load/x").send().expect(200);
    signal(pid, "TERM");
    until("the successor ends", || (!is_alive(pid)).then_some(()));
}

/// Answers, and then no longer connects, while what is in flight is finished; `pid` is told to end.
fn drains(base: &str, pid: u32) {
    let mut kept = Connection::open(base);
    let ask = |connection: &mut Connection, path: &str| {
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    };
    ask(&mut kept, "/load/x");
    assert_eq!(kept.answer().unwrap().status, 200);
    let mut slow = Connection::open(base);
    ask(&mut slow, "/load/slow/4500");
    let began = Instant::now();
    signal(pid, "TERM");
    until("it says that it ends", || {
        let answer = get(base, "/readyz").send();
        (answer.status == 503 && answer.body.contains("draining")).then_some(())
    });
    ask(&mut kept, "/load/x");
    let answer = kept.answer().expect("lame ducks answer");
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    get(base, "/load/x").send().expect(200);
    let refused = || std::net::TcpStream::connect(base.trim_start_matches("http://")).is_err();
    until("the port is closed after the lame duck", || refused().then_some(()));
    assert!(is_alive(pid), "a request is in flight");
    let answer = slow.answer().expect("what is in flight is finished");
    // It began before the end did: only its answer can tell.
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    until("it ends", || (!is_alive(pid)).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
}

#[test]
fn a_stopped_edge_drains() {
    let site = Site::new();
    let mut alone = site.proxy();
    drains(&alone.base.clone(), alone.child.id());
    let status = until("it has ended", || alone.child.try_wait().unwrap());
    assert!(status.success(), "{status:?}");
}

#[test]
fn a_stopped_supervisor_drains_its_edge_and_closes_the_port_with_it() {
    let site = Site::new();
    let mut running = site.up();
    let base = running.edge().to_owned();
    drains(&base, running.pid);
    assert_eq!(running.wait(), Some(0));
}
