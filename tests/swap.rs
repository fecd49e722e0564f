//! Somebody dies, stops or changes his mind in the middle of an exchange: somebody serves all the same.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::fleet::{self, Fleet};
use crate::harness::http::{Connection, get, post};
use crate::harness::load::{KeepAlive, Load};
use crate::harness::origin::upstream;
use crate::harness::site::{Site, free_port};
use crate::harness::{Instance, binary, is_alive, signal, until};

/// The other process that plays the edge.
fn another_edge(running: &Instance, before: u32) -> u32 {
    until("another edge runs", || running.role_pid("proxy").filter(|pid| *pid != before))
}

#[test]
fn a_killed_edge_never_refuses_a_connection() {
    let (times, each) = if std::env::var_os("SLUICE_LONG").is_some() { (20, 2) } else { (5, 1) };
    let (site, authority) = Site::secured();
    let running = site.up();
    let load = Fleet::start(&running, &authority, each);
    let mut served_again = Vec::new();
    for _ in 0..times {
        let before = until("the edge runs", || running.role_pid("proxy"));
        get(running.edge(), "/load/x").send().expect(200);
        signal(before, "KILL");
        let killed = Instant::now();
        // A signal is delivered when it is: the dying process may take one more connection with it.
        until("it serves again", || get(running.edge(), "/load/x").try_send()).expect(200);
        served_again.push(killed.elapsed().as_millis());
        another_edge(&running, before);
    }
    let all = load.stop();
    eprintln!("{times} kills, served again after {served_again:?} ms:{}", fleet::told(&all));
    // Requests in flight are lost with the process, a stream and its reopening; connecting never fails.
    for counted in &all {
        assert_eq!(counted.refused(), 0, "{}", fleet::told(&all));
        assert!(counted.tally.failed <= 2 * times * each as u64, "{}", fleet::told(&all));
    }
    running.stop();
}

#[test]
fn a_wish_to_end_in_the_middle_of_an_upgrade_is_heard() {
    let site = Site::new();
    let mut running = site.up();
    let edge = running.role_pid("proxy").unwrap();
    let mut asking = site.upgrade_until(None, "becomes the new binary");
    running.signal("TERM");
    assert_eq!(running.wait(), Some(0));
    assert!(!is_alive(edge));
    drop(asking.wait());
}

/// Asks a supervisor to reload, and hears its first word.
fn asked_to_reload(site: &Site) -> (BufReader<UnixStream>, String) {
    let mut stream = UnixStream::connect(site.data().join("run/supervisor.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"{\"do\":\"reload\"}\n").unwrap();
    let mut asked = BufReader::new(stream);
    let line = next_line(&mut asked);
    (asked, line)
}

fn next_line(asked: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    asked.read_line(&mut line).unwrap();
    line
}

#[test]
fn reloads_in_the_middle_of_an_upgrade_are_bounded_and_the_new_binary_does_them() {
    let site = Site::new();
    let running = site.up();
    // Its check takes until it is let go.
    let (go, real) = (site.path("go"), binary().display().to_string());
    let waits = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    site.install_script(&format!("case \"$*\" in *--self-test*) {waits};; esac\nexec {real} \"$@\""));
    let mut upgrading = site.upgrade_until(None, "checking");
    // A key that starts the edge anew, which others renew just now.
    let conf = fs::read_to_string(site.path("sluice.toml")).unwrap();
    let offset = running.edge().rsplit(':').next().unwrap().parse::<u16>().unwrap() - 8000;
    let port = free_port();
    site.replace("sluice.toml", &format!("{conf}[control]\nlisten = \"127.0.0.1:{}\"\n", port - offset));
    let mut waiting: Vec<_> = (0..8).map(|_| asked_to_reload(&site)).collect();
    for (_, said) in &waiting {
        assert!(said.contains("\"say\"") && said.contains("the reload follows it"), "{said}");
    }
    let (_, refused) = asked_to_reload(&site);
    assert!(refused.contains("\"failed\"") && refused.contains("reload again when it is done"), "{refused}");
    fs::write(go, "").unwrap();
    for (asked, _) in &mut waiting {
        let told = next_line(asked);
        assert!(told.contains("\"done\"") && told.contains("the new binary reloads"), "{told}");
    }
    assert!(upgrading.wait().unwrap().success());
    until("the control port has moved", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
    });
    get(&format!("http://127.0.0.1:{port}"), "/circuit-breakers").send().expect(200);
    running.stop();
}

#[test]
fn an_edge_that_dies_while_its_successor_hangs_is_back_at_once() {
    let site = Site::new();
    let running = site.up();
    let edge = running.role_pid("proxy").unwrap();
    site.install_script("exec sleep 600");
    let asking = site.upgrade_until(Some("edge"), "gets prepared");
    signal(edge, "KILL");
    let killed = Instant::now();
    get(running.edge(), "/load/x").send().expect(200);
    assert!(killed.elapsed() < Duration::from_secs(6), "{:?}", killed.elapsed());
    let output = asking.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("the old process ended"), "{errors}");
    running.stop();
}

#[test]
fn an_edge_whose_books_cannot_be_opened_any_more_serves_on() {
    let site = Site::new();
    let running = site.up();
    let (edge, load) = (running.role_pid("proxy").unwrap(), load(&running, "/load/x"));
    let (ledger, aside) = (site.data().join("edge/ledger.redb"), site.path("aside.redb"));
    fs::rename(&ledger, &aside).unwrap();
    fs::create_dir(&ledger).unwrap();
    let (code, out, errors) = site.upgrade(Some("edge"));
    assert_eq!(code, 1, "{out}{errors}");
    assert_eq!(running.role_pid("proxy"), Some(edge), "{errors}");
    let register = || {
        let body = json!({"name": "late", "url": "http://127.0.0.1:9", "prefix": "/api/late"});
        post(running.edge(), "/api/register").token(running.admin()).json(&body).send().status
    };
    assert_eq!(register(), 503);
    fs::remove_dir(&ledger).unwrap();
    fs::rename(&aside, &ledger).unwrap();
    until("the books are open again", || (register() == 201).then_some(()));
    assert_eq!(running.role_pid("proxy"), Some(edge));
    crate::upgrade::none_failed(&load.stop());
    running.stop();
}

#[test]
fn a_successor_does_not_go_back_to_an_older_configuration() {
    let site = Site::new();
    let url = format!("http://{}", upstream());
    let running = site.up();
    let edge = running.role_pid("proxy").unwrap();
    // Without a word of the vault a successor takes its time to get prepared.
    let vault = running.role_pid("worker vault").unwrap();
    signal(vault, "STOP");
    let mut asking = site.upgrade_until(Some("edge"), "gets prepared");
    std::thread::park_timeout(Duration::from_millis(1_500));
    let late = || get(running.edge(), "/late/x").send().status;
    let (mut load, mut number) = (None, 0);
    // Files that never rest until the successor serves: only the old edge is told of them.
    while asking.try_wait().unwrap().is_none() {
        number += 1;
        site.service("late", &format!("rate_limit = {}\n", 1_000_000_000 - number), &url);
        signal(edge, "HUP");
        if load.is_none() {
            until("the new route is there", || (late() == 200).then_some(()));
            load = Some(self::load(&running, "/late/x"));
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let output = asking.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(running.role_pid("proxy"), Some(edge));
    until("the old edge ends", || (!is_alive(edge)).then_some(()));
    crate::upgrade::none_failed(&load.expect("the route was there before").stop());
    signal(vault, "CONT");
    running.stop();
}

#[test]
fn what_an_edge_has_learnt_outlives_an_upgrade() {
    let site = Site::new();
    site.service("dead", "rate_limit = 1000000000\n", "http://127.0.0.1:9");
    let running = site.up();
    let status = |path: &str| get(running.edge(), path).send().status;
    let held = || {
        let page = get(running.control(), "/circuit-breakers/dead").send().expect(200).json();
        get(running.edge(), "/dead/x").send().problem(503, "breaker_open");
        assert_eq!((page["state"].as_str(), status("/two/x")), (Some("open"), 429), "{page}");
    };
    until("the breaker opens", || (status("/dead/x") == 503).then_some(()));
    assert_eq!([status("/two/x"), status("/two/x")], [200, 200]);
    held();
    for role in [Some("edge"), None] {
        let (code, out, errors) = site.upgrade(role);
        assert_eq!(code, 0, "{out}{errors}");
        held();
        let metrics = get(running.edge(), "/metrics").send().expect(200).body;
        assert!(metrics.contains("circuit_breaker_state{service=\"dead\"} 1"), "{metrics}");
    }
    assert!(!site.data().join("edge/handover.state").exists());
    running.stop();
}

#[test]
fn a_start_after_a_killed_supervisor_waits_for_its_roles() {
    let site = Site::new();
    let mut first = site.up();
    // A request in flight holds the old edge for a while.
    let mut slow = Connection::open(first.edge());
    slow.send(b"GET /load/slow/3000 HTTP/1.1\r\nhost: x\r\n\r\n");
    get(first.edge(), "/load/x").send().expect(200);
    first.signal("KILL");
    assert_eq!(first.wait(), None);
    let second = site.up_in_place_of(&first);
    assert_eq!(slow.answer().expect("what is in flight is finished").status, 200);
    get(second.edge(), "/load/x").send().expect(200);
    second.stop();
}

fn load(running: &Instance, path: &str) -> Load {
    let (base, path) = (running.edge().to_owned(), path.to_owned());
    Load::start(2, move || KeepAlive::new(&base, &path))
}
