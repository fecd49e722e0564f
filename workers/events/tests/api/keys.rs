//! Keys of the log: each is changed and the log does otherwise.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{DEADLINE, Place, Setup, World, key_file, publish};

/// Publishes events of about a thousand bytes each.
async fn fill(world: &World, count: usize) {
    let event = json!({"event_type": "risk_alert", "data": {"pad": "x".repeat(1_000)}});
    let events = vec![event; count];
    let body = json!({ "events": events });
    let answer: Value =
        world.role(Role::Demo).json(http::Method::POST, "/events/batch", &body).await.unwrap();
    assert_eq!(answer["failed"], 0);
}

/// Publishes until the first event is gone, in vain until `DEADLINE` where retention keeps it.
async fn is_trimmed(change: impl FnOnce(&mut Setup)) -> bool {
    let world = World::with(change);
    let first = publish(&world, &json!({"event_type": "risk_alert", "data": {}})).await;
    let begun = Instant::now();
    while world.admin().get(&format!("/events/{first}")).await.status == 200 {
        fill(&world, 100).await;
        if begun.elapsed() > DEADLINE {
            return false;
        }
    }
    true
}

fn segments(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).fold(0, |count, path| {
        // The log of the groups has segments of its own size.
        if path.to_string_lossy().ends_with(".groups.log") {
            return count;
        }
        let own = path.extension().is_some_and(|extension| extension == "seg");
        count + usize::from(own) + if path.is_dir() { segments(&path) } else { 0 }
    })
}

#[tokio::test]
async fn retention_by_bytes_is_as_configured() {
    assert!(is_trimmed(|setup| setup.config.events.retention.bytes = Some(200_000)).await);
}

#[tokio::test]
async fn retention_by_age_is_as_configured() {
    assert!(is_trimmed(|setup| setup.config.events.retention.age = Some(Duration::from_millis(500))).await);
}

#[tokio::test]
async fn segments_have_the_configured_size() {
    let world = World::with(|setup| setup.config.events.segment_bytes = 64 << 10);
    for _ in 0..10 {
        fill(&world, 50).await;
    }
    let many = segments(world.dir.path());
    let world = World::new();
    for _ in 0..10 {
        fill(&world, 50).await;
    }
    assert_eq!(segments(world.dir.path()), 1);
    assert!(many > 4, "{many}");
}

/// Every byte of the worker's files.
fn stored(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for path in std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            bytes.extend(stored(&path));
        } else if path.is_file() {
            match std::fs::read(&path) {
                // Renamed while this looks.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                read => bytes.extend(read.unwrap()),
            }
        }
    }
    bytes
}

fn shows(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

/// Waits for what another thread does.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn files_are_encrypted_and_compressed_as_configured() {
    let mut sizes = Vec::new();
    for (encrypt, compress) in [(true, true), (true, false), (false, true), (false, false)] {
        let world = World::with(|setup| {
            setup.config.events.segment_bytes = 64 << 10;
            (setup.config.events.encrypt, setup.config.events.compress) = (encrypt, compress);
        });
        for _ in 0..4 {
            fill(&world, 50).await;
        }
        let dir = world.dir.path().join("events");
        // Compressed, four segments take little more than the one being written.
        let small = || stored(&dir).len() < 100_000;
        if compress {
            eventually("full segments are compressed", small).await;
        }
        let events = world.admin().get("/events?limit=1000").await.ok();
        assert_eq!(events["count"], 200);
        let dir = world.stop().await;
        let bytes = stored(&dir.path().join("events"));
        assert_eq!(shows(&bytes, "risk_alert"), !encrypt, "encrypt = {encrypt}");
        sizes.push(bytes.len());
    }
    assert!(sizes[0] * 2 < sizes[1] && sizes[2] * 2 < sizes[3], "{sizes:?}");
}

#[tokio::test]
async fn a_key_file_is_where_it_is_configured() {
    let keys = tempfile::tempdir().unwrap();
    let path = key_file(keys.path(), 1);
    let world = World::with(|setup| setup.config.events.key_file = Some(path.clone()));
    let id = publish(&world, &json!({"event_type": "risk_alert", "data": {}})).await;
    let dir = world.stop().await;
    // A second key is written with from the next start on; the first one still opens what it wrote.
    key_file(keys.path(), 2);
    let setup = || {
        let mut setup = Setup::default();
        setup.config.events.key_file = Some(path.clone());
        setup
    };
    let world = World::start(setup(), Arc::clone(&dir));
    let second = publish(&world, &json!({"event_type": "risk_alert", "data": {}})).await;
    for id in [&id, &second] {
        assert_eq!(world.admin().get(&format!("/events/{id}")).await.status, 200);
    }
    assert_eq!(segments(dir.path()), 2);
    world.stop().await;
    // Without its key the worker stays up, says why, and opens once it has it.
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    let world = World::start(setup(), Arc::clone(&dir));
    let refused = world.admin().get("/events").await;
    assert_eq!(refused.code(503), "worker_unavailable");
    assert_eq!(refused.json()["outcome"], "not_sent");
    assert_eq!(world.admin().get("/readyz").await.status, 503);
    assert_eq!(world.admin().get("/livez").await.status, 200);
    std::fs::rename(path.with_extension("away"), &path).unwrap();
    opened(&world).await;
    assert_eq!(world.admin().get(&format!("/events/{id}")).await.status, 200);
}

/// Waits until the worker serves. A connection that comes in just as it begins to may be closed unanswered.
async fn opened(world: &World) {
    let begun = Instant::now();
    loop {
        let client = world.role(Role::Demo);
        let answer = client.call(http::Method::GET, "/readyz", http::HeaderMap::new(), "").await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "the log does not open");
    }
}

/// A vault's door that answers every request with what it is told to.
fn fake_vault(dir: &Path, answer: &Arc<Mutex<(u16, String)>>) -> PathBuf {
    let path = dir.join("vault.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let answer = Arc::clone(answer);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4_096];
            let read = stream.read(&mut asked).await.unwrap_or(0);
            assert!(asked[..read].starts_with(b"GET /internal/keys/events HTTP/1.1\r\n"));
            let (status, body) = answer.lock().unwrap().clone();
            let len = body.len();
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n");
            drop(stream.write_all((head + &body).as_bytes()).await);
        }
    });
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_waits_for_the_vault_and_for_the_right_key() {
    let keys =
        |byte: &str| (200, json!({"current": 1, "keys": [{"id": 1, "key": byte.repeat(32)}]}).to_string());
    let sealed = (503, json!({"code": "sealed", "detail": "the vault is sealed"}).to_string());
    let home = tempfile::tempdir().unwrap();
    let answer = Arc::new(Mutex::new(sealed));
    let socket = fake_vault(home.path(), &answer);
    let dir = Arc::new(Place::new());
    let setup = || Setup { vault: Some(socket.clone()), ..Setup::default() };
    let world = World::start(setup(), Arc::clone(&dir));
    assert_eq!(world.admin().post("/events", r#"{"event_type":"risk_alert"}"#).await.code(503), "sealed");
    *answer.lock().unwrap() = keys("0a");
    opened(&world).await;
    let id = publish(&world, &json!({"event_type": "risk_alert", "data": {}})).await;
    world.stop().await;
    // Another vault: its key is another one, the log is not touched, and nobody has to start the worker again.
    *answer.lock().unwrap() = keys("0b");
    let world = World::start(setup(), Arc::clone(&dir));
    assert_eq!(world.admin().get("/events").await.code(503), "worker_unavailable");
    *answer.lock().unwrap() = keys("0a");
    opened(&world).await;
    assert_eq!(world.admin().get(&format!("/events/{id}")).await.status, 200);
}

#[tokio::test]
async fn without_vault_and_file_an_encrypted_log_is_refused_with_help() {
    let refused = World::with(|setup| setup.keyless = true).ended().await.unwrap_err();
    let text = format!("{refused}: {}", std::error::Error::source(&refused).unwrap());
    assert!(text.contains("events.key_file") && text.contains("sluice up"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_segments_are_archived_where_it_is_configured() {
    let world = World::new();
    assert_eq!(world.admin().post("/admin/archive", "").await.code(404), "not_found");
    let archive = tempfile::tempdir().unwrap();
    let world = World::with(|setup| {
        setup.config.events.segment_bytes = 64 << 10;
        setup.config.events.archive_dir = Some(archive.path().to_owned());
    });
    fill(&world, 200).await;
    assert_eq!(
        world.user("alice", "read write").post("/admin/archive", "").await.code(403),
        "insufficient_scope"
    );
    let first = world.user("op", "events:admin").post("/admin/archive", "").await.ok();
    assert_eq!((&first["events"], &first["left"], &first["held"]), (&json!(200), &json!(0), &json!(0)));
    assert!(first["segments"].as_u64().unwrap() >= 1);
    assert_eq!(segments(archive.path()) as u64, first["segments"].as_u64().unwrap());
    assert!(!shows(&stored(archive.path()), "risk_alert"), "copies are encrypted too");
    let again = world.admin().post("/admin/archive", "").await.ok();
    assert_eq!((&again["segments"], &again["held"]), (&json!(0), &first["segments"]));
}
