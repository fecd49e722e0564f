//! Stored series on a disk that is full or broken: what is answered, what is kept, what goes on.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sluice_calc_worker::{Disk, Medium};
use tempfile::TempDir;

use crate::world::{User, World};

const KEPT: &str = "/series/KEPT/1m";
/// Error numbers of Linux: no space, and input or output failed.
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// What the writer asks of a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Write,
    Sync,
    Allocate,
}

/// A disk on which one kind of call fails while it is told so. A write that fails leaves half of its bytes.
#[derive(Default)]
struct Faulty(Mutex<Option<(Call, i32)>>);

impl Faulty {
    fn fail(&self, call: Call, errno: i32) {
        *self.0.lock().unwrap() = Some((call, errno));
    }

    fn mend(&self) {
        *self.0.lock().unwrap() = None;
    }

    fn check(&self, call: Call) -> io::Result<()> {
        let told = *self.0.lock().unwrap();
        match told {
            Some((failing, errno)) if failing == call => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }
}

impl Medium for Faulty {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let outcome = self.check(Call::Write);
        let written = if outcome.is_ok() { bytes.len() } else { bytes.len() / 2 };
        Disk.write_all_at(file, &bytes[..written], offset)?;
        outcome
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.check(Call::Sync)?;
        Disk.sync(file)
    }

    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        self.check(Call::Allocate)?;
        Disk.allocate(file, bytes)
    }
}

fn rows(minutes: std::ops::Range<i64>) -> Value {
    minutes.map(|minute| json!([minute * 60_000, 1.0, 2.0, 0.5, 1.5, minute as f64])).collect()
}

fn body(minutes: std::ops::Range<i64>) -> Value {
    json!({"data": rows(minutes)})
}

/// A worker with ten rows of a series, and its disk.
async fn begun(dir: &Arc<TempDir>) -> (World, Arc<Faulty>) {
    let disk = Arc::new(Faulty::default());
    let medium: Arc<dyn Medium> = Arc::<Faulty>::clone(&disk);
    let world = World::on(medium, Arc::clone(dir));
    world.admin().post(&format!("{KEPT}/candles"), &body(0..10)).await.ok();
    (world, disk)
}

async fn stored(user: User<'_>) -> Value {
    user.get(KEPT).await.ok()["data"].clone()
}

/// What health says of the series.
async fn health(world: &World) -> Value {
    world.admin().get("/health").await.json()["components"]["series"].clone()
}

#[tokio::test]
async fn a_full_disk_refuses_changes_until_there_is_room() {
    for (call, path, minutes) in [
        (Call::Write, format!("{KEPT}/candles"), 10..12),
        (Call::Allocate, "/series/NEW/1m/candles".to_owned(), 0..2),
        // The file has room for 1,024 rows; a larger one cannot be made.
        (Call::Allocate, format!("{KEPT}/candles"), 10..2_000),
    ] {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (world, disk) = begun(&dir).await;
        let user = world.admin();
        disk.fail(call, ENOSPC);
        for _ in 0..2 {
            let refused = user.post(&path, &body(minutes.clone())).await.problem(503);
            assert_eq!(
                (&refused["code"], &refused["outcome"]),
                (&json!("store_unavailable"), &json!("not_sent")),
                "{call:?} {refused}"
            );
        }
        assert_eq!(stored(user).await, rows(0..10), "reading goes on");
        assert_eq!(health(&world).await["status"], "healthy", "it may have room again");
        disk.mend();
        let told = user.post(&path, &body(minutes.clone())).await.ok();
        assert_eq!(told["applied"], minutes.end - minutes.start, "{told}");
        let before = stored(user).await;
        let world = World::start(|_| (), world.stop().await);
        assert_eq!(stored(world.admin()).await, before);
        assert_eq!(health(&world).await["status"], "healthy");
    }
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_writing_and_loses_nothing_acknowledged() {
    for (call, errno, path) in [
        (Call::Sync, EIO, format!("{KEPT}/candles")),
        // After a failed sync nobody knows what is on the disk, also when it says that it is full.
        (Call::Sync, ENOSPC, format!("{KEPT}/candles")),
        (Call::Write, EIO, format!("{KEPT}/candles")),
        (Call::Allocate, EIO, "/series/NEW/1m/candles".to_owned()),
    ] {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let (world, disk) = begun(&dir).await;
        let user = world.admin();
        disk.fail(call, errno);
        let refused = user.post(&path, &body(10..12)).await.problem(503);
        let told = (&refused["code"], &refused["outcome"]);
        assert_eq!(told, (&json!("store_unavailable"), &json!("unknown")), "{call:?} {refused}");
        // A second try could succeed without having written: there is none.
        disk.mend();
        for refused in [
            user.post(&format!("{KEPT}/candles"), &body(12..13)).await,
            user.post("/series/OTHER/1m/candles", &body(0..1)).await,
            user.send("DELETE", KEPT, "", b"").await,
        ] {
            assert_eq!(refused.code(503), "store_unavailable");
        }
        assert_eq!(stored(user).await, rows(0..10), "reading goes on");
        let newest = user.get(&format!("{KEPT}/indicators?names=sma:2")).await.ok();
        assert_eq!(newest["rows"], 10);
        let health = health(&world).await;
        assert_eq!(health["status"], "degraded", "{health}");
        assert!(health["detail"].as_str().is_some_and(|why| why.starts_with("not writable: ")), "{health}");
        // What was acknowledged is there; what was not is there as a whole or not at all.
        let world = World::start(|_| (), world.stop().await);
        let kept = stored(world.admin()).await;
        assert!(kept == rows(0..10) || kept == rows(0..12), "{kept}");
        world.admin().post(&format!("{KEPT}/candles"), &body(0..13)).await.ok();
        assert_eq!(stored(world.admin()).await, rows(0..13));
    }
}

#[tokio::test]
async fn a_replacement_that_cannot_be_written_leaves_the_series_as_it_was() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let (world, disk) = begun(&dir).await;
    let user = world.admin();
    let put = async |minutes| {
        let body = body(minutes).to_string();
        user.send("PUT", KEPT, "content-type: application/json\r\n", body.as_bytes()).await
    };
    for (call, errno, outcome) in [(Call::Allocate, ENOSPC, "not_sent"), (Call::Sync, EIO, "unknown")] {
        disk.fail(call, errno);
        let refused = put(20..25).await.problem(503);
        assert_eq!(refused["outcome"], outcome, "{refused}");
        assert_eq!(stored(user).await, rows(0..10));
    }
    disk.mend();
    put(20..25).await.ok();
    assert_eq!(stored(user).await, rows(20..25));
    let left = std::fs::read_dir(dir.path().join("calc/series")).unwrap().count();
    assert_eq!(left, 1, "no half of a file is left over");
}
