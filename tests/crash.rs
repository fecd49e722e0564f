//! The vault's own process dies, again and again, without a word: what it acknowledged is there at the next start.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::{Answer, Request, get, post, request};
use crate::harness::{binary, repository, sluice};

/// Writers of secrets.
const WRITERS: usize = 8;
/// Times it is killed under load.
const ROUNDS: usize = 5;
/// Writes of secrets that are acknowledged before each kill.
const WRITES: usize = 200;
/// Versions of a secret: less than are kept.
const VERSIONS: usize = 5;

/// The vault as a process of its own.
struct Worker {
    child: Child,
    api: String,
    dir: PathBuf,
    ready_in: Duration,
}

impl Worker {
    fn start(dir: &Path, seal: &str) -> Self {
        let conf = dir.join("sluice.toml");
        std::fs::write(&conf, format!("[vault]\nlisten = \"127.0.0.1:0\"\nseal = \"{seal}\"\n")).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let began = Instant::now();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(binary())
            .args(["worker", "vault", "--dev", "--conf"])
            .arg(&conf)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .current_dir(repository())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("not ready: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default())
        });
        let api = format!("http://{}", ready["listeners"]["api"].as_str().unwrap());
        Self { child, api, dir: dir.to_owned(), ready_in: began.elapsed() }
    }

    fn admin(&self) -> String {
        std::fs::read_to_string(self.dir.join("data/token")).unwrap()
    }

    /// Ends it as the kernel does when memory is short.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn sys(&self, method: &str, path: &str, body: &Value) -> Value {
        let root = std::fs::read_to_string(self.dir.join("data/vault-token")).unwrap();
        let asked =
            request(method, &self.api, &format!("/v1/sys/{path}")).header("x-vault-token", root.trim());
        let answer = asked.json(body).send();
        assert!(answer.status < 300, "{path}: {answer:?}");
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _dead_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What was acknowledged.
#[derive(Default)]
struct Acked {
    /// Path and version of each secret.
    secrets: Vec<(String, u64)>,
    /// Tokens, and whether they were revoked.
    tokens: Vec<(String, bool)>,
    /// Services of certificates, their serials, and whether these were revoked.
    certificates: Vec<(String, String, bool)>,
}

/// What a version of a secret holds: all of it says which one it is.
fn content(path: &str, version: u64) -> Value {
    json!({ "path": path, "version": version, "text": format!("{path} {version} ").repeat(8) })
}

/// An answer with 200, unless the process has ended meanwhile.
fn ok(request: Request) -> Option<Value> {
    let answer: Answer = request.try_send()?;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).ok()
}

/// Writes until the process has ended; both doors by turns.
fn write(worker: &Worker, name: &str, acked: &Mutex<Acked>, count: &AtomicUsize) {
    let admin = worker.admin();
    for n in 0.. {
        let path = format!("crash/{name}/{}", n / VERSIONS);
        let version = (n % VERSIONS + 1) as u64;
        let body = json!({ "data": content(&path, version) });
        let asked = if n % 2 == 0 {
            request("PUT", &worker.api, &format!("/secrets/{path}"))
        } else {
            post(&worker.api, &format!("/v1/secret/data/{path}"))
        };
        let Some(answer) = ok(asked.token(&admin).json(&body)) else { return };
        let told = if n % 2 == 0 { &answer["version"] } else { &answer["data"]["version"] };
        assert_eq!(told, version, "{answer}");
        acked.lock().unwrap_or_else(PoisonError::into_inner).secrets.push((path, version));
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Makes tokens and certificates and takes every other one back, until the process has ended.
fn make(worker: &Worker, round: usize, acked: &Mutex<Acked>, stop: &AtomicBool) {
    let admin = worker.admin();
    let ask = |path: &str, body: Value| ok(post(&worker.api, path).token(&admin).json(&body));
    for n in 0.. {
        let service = format!("crash{round}-{n}");
        let Some(token) = ask(&format!("/tokens/{service}"), json!({})) else { return };
        let token = token["token"].as_str().unwrap().to_owned();
        let lock = || acked.lock().unwrap_or_else(PoisonError::into_inner);
        lock().tokens.push((token.clone(), false));
        let Some(issued) = ask(&format!("/credentials/{service}"), json!({})) else { return };
        let serial = issued["serial_number"].as_str().unwrap().to_owned();
        lock().certificates.push((service.clone(), serial.clone(), false));
        if n % 2 == 1 {
            // Asked for and not answered: either may be the case.
            lock().tokens.pop();
            let Some(_) = ask("/tokens/revoke", json!({ "token": token })) else { return };
            lock().tokens.push((token, true));
            lock().certificates.pop();
            let revoke = json!({ "serial_number": serial });
            let Some(_) = ask(&format!("/credentials/{service}/revoke"), revoke) else { return };
            lock().certificates.push((service, serial, true));
        }
        if stop.load(Ordering::SeqCst) {
            return;
        }
    }
}

fn read(worker: &Worker, path: &str, version: u64) -> Answer {
    get(&worker.api, &format!("/secrets/{path}?version={version}")).token(&worker.admin()).send()
}

fn at_once<T: Sync>(list: &[T], work: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for chunk in list.chunks(list.len().div_ceil(2 * WRITERS).max(1)) {
            scope.spawn(|| chunk.iter().for_each(&work));
        }
    });
}

/// Everything that was acknowledged, and of what was not nothing in parts.
fn check(worker: &Worker, acked: &Acked) {
    // Side by side: each read waits until its record is on the disk.
    at_once(&acked.secrets, |(path, version)| {
        let answer = read(worker, path, *version).expect(200).json();
        assert_eq!(answer["data"], content(path, *version), "{path}");
    });
    let names: Vec<String> =
        (0..WRITERS).flat_map(|writer| (0..ROUNDS).map(move |round| format!("{round}-{writer}"))).collect();
    at_once(&names, |name| {
        let written =
            acked.secrets.iter().filter(|(path, _)| path.starts_with(&format!("crash/{name}/"))).count();
        let (path, version) =
            (format!("crash/{name}/{}", written / VERSIONS), (written % VERSIONS + 1) as u64);
        let answer = read(worker, &path, version);
        assert!(answer.status == 404 || answer.json()["data"] == content(&path, version), "{answer:?}");
        assert_eq!(read(worker, &path, version + 1).status, 404, "one was under way");
    });
    at_once(&acked.tokens, |(token, revoked)| {
        let told =
            post(&worker.api, "/tokens/validate").json(&json!({ "token": token })).send().expect(200).json();
        assert_eq!((&told["valid"], told["reason"] == "revoked"), (&json!(!revoked), *revoked), "{told}");
    });
    at_once(&acked.certificates, |(service, serial, revoked)| {
        let told = get(&worker.api, &format!("/credentials/{service}"))
            .token(&worker.admin())
            .send()
            .expect(200)
            .json();
        assert_eq!(told["serial_number"], **serial, "{told}");
        assert_eq!(told["revoked_at"].is_string(), *revoked, "{told}");
    });
}

/// As long as a start may take: a second, unless the program is not optimised.
fn start_max() -> Duration {
    let optimised = std::env::var_os("SLUICE_BINARY").is_some() || !cfg!(debug_assertions);
    Duration::from_secs(if optimised { 1 } else { 10 })
}

#[test]
fn what_was_acknowledged_over_http_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let acked = Mutex::new(Acked::default());
    let mut worker = Worker::start(dir.path(), "auto");
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let (count, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (worker, acked, count, stop) = (&worker, &acked, &count, &stop);
            for writer in 0..WRITERS {
                scope.spawn(move || write(worker, &format!("{round}-{writer}"), acked, count));
            }
            scope.spawn(move || make(worker, round, acked, stop));
            let began = Instant::now();
            while count.load(Ordering::SeqCst) < WRITES + 7 * round {
                assert!(began.elapsed() < Duration::from_secs(30), "the writers do not get on");
                std::thread::park_timeout(Duration::from_millis(1));
            }
            crate::harness::signal(worker.child.id(), "KILL");
            stop.store(true, Ordering::SeqCst);
        });
        worker.kill();
        worker = Worker::start(dir.path(), "auto");
        slowest = slowest.max(worker.ready_in);
        assert!(worker.ready_in < start_max(), "{:?}", worker.ready_in);
    }
    let acked = acked.into_inner().unwrap();
    assert!(acked.secrets.len() >= 1_000 && acked.tokens.len() >= 10 && acked.certificates.len() >= 10);
    check(&worker, &acked);
    worker.kill();
    let data = dir.path().join("data");
    let (code, out, _) = sluice(&["audit", "verify", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}");
    eprintln!(
        "{} writes, {} tokens, {} certificates acknowledged; slowest of {ROUNDS} starts {slowest:?}",
        acked.secrets.len(),
        acked.tokens.len(),
        acked.certificates.len()
    );
}

/// Each step of new keys, and the process dies behind it: what opens it is known at every moment, and nothing is lost.
#[test]
fn a_process_that_dies_between_two_steps_of_new_keys_opens_again() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("data/vault/unseal.key");
    let mut worker = Worker::start(dir.path(), "auto");
    for n in 0..40 {
        let body = json!({ "data": content("keys", n) });
        let asked = request("PUT", &worker.api, &format!("/secrets/keys/{n}"));
        asked.token(&worker.admin()).json(&body).send().expect(200);
    }
    let again = |worker: Worker, seal: &str| {
        worker.kill();
        Worker::start(dir.path(), seal)
    };
    let whole = |worker: &Worker| {
        for n in 0..40 {
            let path = format!("/secrets/keys/{n}");
            let read = get(&worker.api, &path).token(&worker.admin()).send().expect(200).json();
            assert_eq!(read["data"], content("keys", n));
        }
    };
    worker.sys("PUT", "rotate", &json!({}));
    worker = again(worker, "auto");
    whole(&worker);
    let present = std::fs::read_to_string(&key).unwrap().trim_end().to_owned();
    let begin = |worker: &Worker, wish: Value| worker.sys("PUT", "rekey/init", &wish)["nonce"].clone();
    let to_file = json!({ "seal": "file", "require_verification": true });
    // Begun, and no more.
    begin(&worker, to_file.clone());
    worker = again(worker, "auto");
    assert_eq!(worker.sys("GET", "rekey/init", &Value::Null)["started"], false);
    // The new key was made and told; it does not count yet.
    let give = |worker: &Worker, nonce: &Value, key: &str| {
        worker.sys("PUT", "rekey/update", &json!({ "nonce": nonce, "key": key }))
    };
    let nonce = begin(&worker, to_file.clone());
    give(&worker, &nonce, &present);
    worker = again(worker, "auto");
    whole(&worker);
    // It came back: now it counts, also where it only lies beside the former one.
    let nonce = begin(&worker, to_file);
    let made = give(&worker, &nonce, &present);
    let next = made["keys"][0].as_str().unwrap().to_owned();
    let beside = key.with_extension("key.new");
    std::fs::write(&beside, &next).unwrap();
    std::fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    worker = again(worker, "auto");
    let nonce = begin(&worker, json!({ "seal": "file", "require_verification": true }));
    let made = give(&worker, &nonce, &present);
    let next = made["keys"][0].as_str().unwrap().to_owned();
    std::fs::write(&beside, &next).unwrap();
    let verify = |worker: &Worker, nonce: &Value, key: &Value| {
        worker.sys("PUT", "rekey/verify", &json!({ "nonce": nonce, "key": key }))
    };
    verify(&worker, &made["verification_nonce"], &json!(next));
    worker = again(worker, "auto");
    whole(&worker);
    std::fs::rename(&beside, &key).unwrap();
    worker = again(worker, "auto");
    whole(&worker);
    // To shares: one of them came back, then the process died; then both did.
    let to_shares = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
    let nonce = begin(&worker, to_shares.clone());
    let made = give(&worker, &nonce, &next);
    verify(&worker, &made["verification_nonce"], &made["keys"][0]);
    worker = again(worker, "auto");
    whole(&worker);
    let nonce = begin(&worker, to_shares);
    let made = give(&worker, &nonce, &next);
    for share in [0, 2] {
        verify(&worker, &made["verification_nonce"], &made["keys"][share]);
    }
    worker = again(worker, "shamir");
    get(&worker.api, "/readyz").send().expect(503);
    for share in [1, 2] {
        let body = json!({ "key": made["keys"][share] });
        request("PUT", &worker.api, "/v1/sys/unseal").json(&body).send().expect(200);
    }
    get(&worker.api, "/readyz").send().expect(200);
    whole(&worker);
}
