//! A log's surroundings under control: a clock that is set, a disk that fails on demand.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sluice_events::log::{
    AtRest, Clock, Disk, Draft, Filter, Fsync, Ground, Keyring, Labels, Log, Medium, Options, Reader, Record,
    Retention,
};

/// A clock that shows what it is told.
#[derive(Debug, Default)]
pub(crate) struct SetClock(pub(crate) AtomicU64);

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The disk, with a bound on its bytes and a sync that can be made to fail; syncs are not waited for otherwise.
#[derive(Debug)]
pub(crate) struct FaultyDisk {
    /// Writes and reservations beyond this offset of a file fail with ENOSPC.
    pub(crate) room: AtomicU64,
    /// Half of a failing write still reaches the file.
    pub(crate) fail_sync: AtomicBool,
    /// Writes fail with EIO.
    pub(crate) fail_write: AtomicBool,
    /// Names can be made.
    pub(crate) fail_create: AtomicBool,
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self {
            room: AtomicU64::new(u64::MAX),
            fail_sync: AtomicBool::new(false),
            fail_write: AtomicBool::new(false),
            fail_create: AtomicBool::new(false),
        }
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl Medium for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        if self.fail_create.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Disk.create(path)
    }

    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.fail_write.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if offset + bytes.len() as u64 > self.room.load(Ordering::SeqCst) {
            Disk.write_all_at(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Disk.write_all_at(file, bytes, offset)
    }

    fn sync(&self, _file: &File) -> io::Result<()> {
        if self.fail_sync.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    fn allocate(&self, file: &File, from: u64, to: u64) -> io::Result<bool> {
        if to > self.room.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        Disk.allocate(file, from, to)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// The usual options of these tests: small segments.
pub(crate) fn options(segment_bytes: u64) -> Options {
    let retention = Retention::default();
    Options { fsync: Fsync::Always, retention, dedup_window_ms: 10_000, segment_bytes, partitions: None }
}

/// A clock, a disk, and the ground they make.
pub(crate) fn ground() -> (Arc<SetClock>, Arc<FaultyDisk>, Ground) {
    let clock = Arc::new(SetClock(AtomicU64::new(1_000)));
    let disk = Arc::new(FaultyDisk::default());
    let ground = Ground {
        medium: Arc::clone(&disk) as Arc<dyn Medium>,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        observer: Arc::new(()),
        at_rest: encrypted(),
    };
    (clock, disk, ground)
}

/// Everything on: encryption under key 1, and compression.
pub(crate) fn encrypted() -> AtRest {
    AtRest { keys: Some(keys(1)), encrypt: true, compress: true, archive: None }
}

/// Keys 1 to `current`; the last one is written with.
pub(crate) fn keys(current: u32) -> Arc<Keyring> {
    let keys: Vec<(u32, [u8; 32])> = (1..=current).map(|id| (id, [id as u8; 32])).collect();
    Arc::new(Keyring::new(current, keys.iter().map(|(id, key)| (*id, key))).unwrap())
}

/// The files of a folder with an extension, in order.
pub(crate) fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|other| other == extension));
    found.sort();
    found
}

/// An event with this id; its content follows from id and fingerprint.
pub(crate) fn draft(event_id: u128, fingerprint: u64, pad: usize) -> Draft {
    let kind = ["trading_signal", "market_data_update", "order_executed"][(event_id % 3) as usize];
    let symbol = ["BTC/USDT", "ETH/USDT"][(event_id % 2) as usize];
    let labels = Labels { kind, symbol, source: "test" };
    let json = format!(r#"{{"id":{event_id},"print":{fingerprint},"pad":"{}"}}"#, "p".repeat(pad));
    Draft::new(labels, event_id as i64, event_id, fingerprint, json.as_bytes()).unwrap()
}

/// Everything in the log, oldest first.
pub(crate) fn all(reader: &Reader) -> Vec<Record> {
    let mut scan = reader.forward(0, Filter::default());
    let mut found = Vec::new();
    while let Some(record) = scan.next().unwrap() {
        found.push(record);
    }
    found
}

/// Opens a log or fails the test.
pub(crate) fn open(dir: &Path, options: &Options, ground: &Ground) -> Log {
    Log::open(dir, options, ground.clone()).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}
