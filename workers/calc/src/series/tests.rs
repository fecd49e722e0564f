//! The store on a real disk: what was acknowledged is there, whatever happens in between.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sluice_telemetry::metric::{self, Name};
use tempfile::TempDir;

use super::file::head;
use super::mapping::{COLUMNS, offset_of};
use super::*;

const LIMITS: Limits = Limits {
    series: 100,
    bytes: 64 << 20,
    journal_bytes: 1 << 20,
    checkpoint_every: Duration::from_secs(3_600),
};

fn open_with(dir: &Path, limits: Limits) -> Result<Store, OpenError> {
    let registry = metric::registry("calc");
    let counts = Counts {
        series: metric::gauge(&registry, Name::CalcSeries),
        candles: metric::counters(&registry, Name::CalcCandles),
    };
    Store::open(dir, Arc::new(Disk), limits, counts)
}

fn open(dir: &Path) -> Store {
    open_with(dir, LIMITS).unwrap()
}

fn key(text: &str) -> SeriesKey {
    SeriesKey::parse(text).unwrap()
}

fn candle(minute: i64, close: f64) -> Candle {
    Candle::of(minute * 60_000, [close, close + 1.0, close - 1.0, close, 10.0])
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn append(store: &Store, key: &SeriesKey, candles: &[Candle], how: Append) -> Applied {
    wait(store.append(key, candles.to_vec(), how)).unwrap()
}

/// What a series holds.
type State = (Vec<Candle>, Option<Candle>);

fn state(store: &Store, key: &SeriesKey) -> Option<State> {
    let view = store.get(key)?;
    Some(((0..view.rows()).map(|row| view.candle(row).unwrap()).collect(), view.open()))
}

#[test]
fn rows_open_bar_and_answers_survive_a_restart() {
    let dir = TempDir::new().unwrap();
    let (btc, day) = (key("BTC/USDT/1m"), key("../1d"));
    let store = open(dir.path());
    let applied = append(&store, &btc, &[candle(1, 5.0), candle(2, 6.0), candle(3, 7.0)], Append::LAST_OPEN);
    assert_eq!((applied.added, applied.updated_open, applied.rows), (2, 1, 2));
    append(&store, &day, &[candle(1, 1.0)], Append::CLOSED);
    assert!(dir.path().join("series/..@1d.series").is_file(), "a symbol is never a folder");
    let before = (state(&store, &btc), state(&store, &day));
    store.close();
    assert_eq!(wait(store.append(&btc, vec![candle(9, 1.0)], Append::CLOSED)), Err(Fault::Closed));
    drop(store);
    assert_eq!(fs::metadata(dir.path().join("series.journal")).unwrap().len(), 0);
    let store = open(dir.path());
    assert_eq!((state(&store, &btc), state(&store, &day)), before);
    // The same again changes nothing, and says so.
    let again = append(&store, &btc, &[candle(1, 5.0), candle(2, 6.0), candle(3, 7.0)], Append::LAST_OPEN);
    assert_eq!((again.added, again.repeated, again.updated_open, again.rows), (0, 3, 0, 2));
}

#[test]
fn one_process_writes() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    assert!(matches!(open_with(dir.path(), LIMITS), Err(OpenError::Locked(_))));
    drop(store);
    open(dir.path());
}

#[test]
fn a_file_without_room_is_written_anew_and_old_readers_keep_theirs() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let btc = key("BTC/1m");
    let candles: Vec<Candle> = (0..5_000).map(|at| candle(at, at as f64)).collect();
    append(&store, &btc, &candles[..1_000], Append::CLOSED);
    let early = store.get(&btc).unwrap();
    let mut changes = store.watch(&btc).unwrap();
    for piece in candles[1_000..].chunks(700) {
        append(&store, &btc, piece, Append::CLOSED);
    }
    assert_eq!(state(&store, &btc).unwrap().0, candles);
    assert_eq!((early.rows(), early.candle(999), early.capacity()), (1_000, Some(candles[999]), 1_024));
    assert!(changes.has_changed().unwrap());
    let now = changes.borrow_and_update().clone();
    assert_eq!((now.rows(), now.capacity()), (5_000, 8_192));
    assert_eq!(now.between(Some(60_000), Some(180_000)), 1..3);
    assert_eq!(now.between(Some(59_999), None), 1..5_000);
    assert_eq!(now.between(Some(i64::MAX), Some(0)), 0..0);
    assert_eq!(now.at(120_000), Some(candles[2]));
    assert_eq!(now.bars(4_998..5_000).close(), [4_998.0, 4_999.0]);
    assert_eq!(wait(store.delete(&btc)), Ok(Some(5_000)));
    assert!(changes.has_changed().is_err() && store.get(&btc).is_none());
    assert_eq!(now.candle(4_999), Some(candles[4_999]), "a reader reads on what is deleted");
    assert_eq!(wait(store.delete(&btc)), Ok(None));
}

#[test]
fn limits_are_met_before_anything_is_written() {
    let dir = TempDir::new().unwrap();
    let store = open_with(dir.path(), Limits { series: 2, bytes: 160 << 10, ..LIMITS }).unwrap();
    let limit = |outcome: Result<Applied, Fault>| matches!(outcome, Err(Fault::Limit(_)));
    // Two files of 52 KiB fit, and a third one of that size while one of them is written anew.
    append(&store, &key("A/1m"), &[candle(1, 1.0)], Append::CLOSED);
    append(&store, &key("B/1m"), &[candle(1, 1.0)], Append::CLOSED);
    assert!(limit(wait(store.append(&key("C/1m"), vec![candle(1, 1.0)], Append::CLOSED))), "series");
    assert!(matches!(wait(store.replace(&key("C/1m"), vec![candle(1, 1.0)], None)), Err(Fault::Limit(_))));
    let many: Vec<Candle> = (2..2_000).map(|at| candle(at, 1.0)).collect();
    assert!(limit(wait(store.append(&key("A/1m"), many, Append::CLOSED))), "bytes");
    assert_eq!(store.get(&key("A/1m")).unwrap().rows(), 1);
    assert_eq!(wait(store.replace(&key("A/1m"), vec![candle(7, 1.0)], None)), Ok(true));
    assert_eq!(wait(store.delete(&key("B/1m"))), Ok(Some(1)));
    append(&store, &key("C/1m"), &[candle(1, 1.0)], Append::CLOSED);
    let names: Vec<String> = store.page(None, 9).iter().map(|(key, _)| key.text()).collect();
    assert_eq!(names, ["A/1m", "C/1m"]);
    assert_eq!(store.page(Some(&key("A/1m")), 9).len(), 1);
    assert_eq!(fs::read_dir(dir.path().join("series")).unwrap().count(), 2, "nothing is left over");
}

#[test]
fn a_file_that_cannot_be_read_lies_aside_and_its_series_can_begin_anew() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    append(&store, &key("A/1m"), &[candle(1, 1.0)], Append::CLOSED);
    append(&store, &key("B/1m"), &[candle(1, 1.0)], Append::CLOSED);
    drop(store);
    let path = dir.path().join("series/A@1m.series");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..5_000]).unwrap();
    let store = open(dir.path());
    assert_eq!((store.damaged(), store.get(&key("A/1m")).is_none()), (1, true));
    assert!(dir.path().join("series/A@1m.series.damaged").is_file());
    assert_eq!(append(&store, &key("A/1m"), &[candle(2, 1.0)], Append::CLOSED).rows, 1);
    assert_eq!(store.get(&key("B/1m")).unwrap().rows(), 1);
}

#[test]
fn a_file_whose_newest_head_is_lost_lies_aside_too() {
    let dir = TempDir::new().unwrap();
    let store = open_with(dir.path(), Limits { journal_bytes: 1, ..LIMITS }).unwrap();
    let (old, other) = (key("A/1m"), key("B/1m"));
    append(&store, &old, &[candle(1, 1.0)], Append::CLOSED);
    append(&store, &old, &[candle(2, 1.0)], Append::CLOSED);
    append(&store, &other, &[candle(1, 1.0)], Append::CLOSED);
    drop(store);
    let store = open(dir.path());
    append(&store, &old, &[candle(3, 1.0)], Append::CLOSED);
    append(&store, &other, &[candle(2, 1.0)], Append::CLOSED);
    let copy = TempDir::new().unwrap();
    fs::create_dir(copy.path().join("series")).unwrap();
    for name in ["series.journal", "series/A@1m.series", "series/B@1m.series"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let file = fs::OpenOptions::new().read(true).write(true).open(copy.path().join("series/A@1m.series"));
    let file = file.unwrap();
    let newest = head(&file, &old).unwrap();
    file.write_all_at(&[0xff], newest.offset() + 40).unwrap();
    assert_ne!(head(&file, &old).unwrap().rows, newest.rows);
    let store = open(copy.path());
    assert_eq!((store.damaged(), store.get(&old).is_none()), (1, true));
    assert_eq!(store.get(&other).unwrap().rows(), 2);
}

/// Run on a disk of 400 KiB: `mount -t tmpfs -o size=400k tmpfs DIR`, `SLUICE_SMALL_DISK=DIR`.
#[test]
#[ignore = "needs a small disk"]
fn a_full_disk_is_told_and_nothing_is_acknowledged_that_is_not_there() {
    let dir = std::env::var_os("SLUICE_SMALL_DISK").expect("SLUICE_SMALL_DISK names a folder");
    let dir = Path::new(&dir);
    let store = open_with(dir, Limits { series: 1_000, bytes: 1 << 40, ..LIMITS }).unwrap();
    let (mut kept, mut refused) = (BTreeMap::new(), 0);
    for at in 0..3_000 {
        let key = key(&format!("S{}/1m", at % 12));
        let rows = kept.get(&key).map_or(0, |rows: &i64| *rows);
        match wait(store.append(&key, (rows..rows + 7).map(|at| candle(at, 1.0)).collect(), Append::CLOSED)) {
            Ok(applied) => {
                assert_eq!(applied.rows as i64, rows + 7);
                kept.insert(key, rows + 7);
            }
            Err(fault) => {
                assert_eq!(fault, Fault::DiskFull);
                refused += 1;
            }
        }
    }
    assert!(refused > 0 && store.failure().is_none(), "{refused}");
    drop(store);
    let store = open(dir);
    for (key, rows) in &kept {
        assert_eq!(store.get(key).unwrap().rows() as i64, *rows, "{key:?}");
    }
    let first = kept.keys().next().unwrap();
    assert!(wait(store.delete(first)).unwrap().is_some());
    append(&store, first, &[candle(1, 1.0)], Append::CLOSED);
}

#[test]
fn a_checkpoint_comes_after_so_much_journal() {
    let dir = TempDir::new().unwrap();
    let store = open_with(dir.path(), Limits { journal_bytes: 4_096, ..LIMITS }).unwrap();
    let btc = key("BTC/1m");
    for at in 0..1_000 {
        append(&store, &btc, &[candle(at, 1.0)], Append::CLOSED);
        let journal = fs::metadata(dir.path().join("series.journal")).unwrap().len();
        assert!(journal < 4_096 + 200, "{journal}");
    }
    let copy = crashed(dir.path(), u64::MAX);
    assert_eq!(state(&open(copy.path()), &btc), state(&store, &btc));
}

/// A copy of the folder as it may be after a loss of power: nothing that was not synced is there, and of the journal
/// only so many bytes.
fn crashed(dir: &Path, journal_bytes: u64) -> TempDir {
    let copy = TempDir::new().unwrap();
    fs::create_dir(copy.path().join("series")).unwrap();
    let journal = copy.path().join("series.journal");
    fs::copy(dir.join("series.journal"), &journal).unwrap();
    let journal = fs::OpenOptions::new().write(true).open(journal).unwrap();
    journal.set_len(journal.metadata().unwrap().len().min(journal_bytes)).unwrap();
    for entry in fs::read_dir(dir.join("series")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = copy.path().join("series").join(&name);
        fs::copy(dir.join("series").join(&name), &path).unwrap();
        let Some(key) = SeriesKey::of_file_name(&name) else { continue };
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let head = head(&file, &key).unwrap();
        for column in 0..COLUMNS {
            for row in head.rows..head.capacity.min(head.rows + 64) {
                file.write_all_at(&[0xa5; 8], offset_of(head.capacity, column, row)).unwrap();
            }
        }
    }
    copy
}

/// What is done to one of three series.
#[derive(Clone, Debug)]
enum Step {
    Append { closes: Vec<u8>, from: i64, is_open: bool, closes_open: bool },
    Replace { rows: u8 },
    Delete,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop::collection::vec(0u8..3, 1..5), 0i64..30, any::<bool>(), any::<bool>())
            .prop_map(|(closes, from, is_open, closes_open)| Step::Append { closes, from, is_open, closes_open }),
        1 => (1u8..4).prop_map(|rows| Step::Replace { rows }),
        1 => Just(Step::Delete),
        1 => Just(Step::Reopen),
    ]
}

/// The rules once more, by a map of minutes: what a series is after candles came.
fn naive(state: &mut State, candles: &[Candle], how: Append) {
    let (rows, open) = state;
    for (at, candle) in candles.iter().enumerate() {
        let newest = rows.last().map_or(i64::MIN, |row| row.time_ms);
        let is_open = how.last_is_open && at + 1 == candles.len();
        if candle.time_ms <= newest || (is_open && open.is_some_and(|open| open.time_ms > candle.time_ms)) {
            continue;
        }
        if let Some(left) = open.take_if(|open| open.time_ms <= candle.time_ms)
            && how.closes_open
            && left.time_ms < candle.time_ms
        {
            rows.push(left);
        }
        if is_open {
            *open = Some(*candle);
        } else {
            rows.push(*candle);
        }
    }
}

/// The states that a series was in since its file began, each with the length of the journal that has it.
type History = Vec<(u64, Option<State>)>;

fn perform(
    store: &mut Store,
    dir: &Path,
    key: &SeriesKey,
    step: &Step,
    history: &mut History,
) -> Option<State> {
    let mut now = history.last().and_then(|(_, state)| state.clone());
    match step {
        Step::Append { closes, from, is_open, closes_open } => {
            let how = Append { last_is_open: *is_open, closes_open: *closes_open };
            let candles: Vec<Candle> =
                closes.iter().zip(*from..).map(|(close, at)| candle(at, f64::from(*close))).collect();
            let applied = append(store, key, &candles, how);
            let told = applied.repeated + applied.conflicts.len() + applied.late.len();
            // Every candle is told once; rows of an open bar that was closed come on top.
            assert!(applied.added + applied.updated_open + told >= candles.len(), "{applied:?}");
            if now.is_none() {
                history.clear();
                history.push((0, Some(State::default())));
            }
            let state = now.get_or_insert_default();
            naive(state, &candles, how);
            assert_eq!(applied.rows, state.0.len());
        }
        Step::Replace { rows } => {
            let rows: Vec<Candle> = (0..i64::from(*rows)).map(|at| candle(at, 7.0)).collect();
            assert_eq!(wait(store.replace(key, rows.clone(), None)), Ok(now.is_some()));
            history.clear();
            now = Some((rows, None));
        }
        Step::Delete => {
            let rows = now.take().map(|(rows, _)| rows.len());
            assert_eq!(wait(store.delete(key)), Ok(rows));
            history.clear();
        }
        Step::Reopen => {
            store.close();
            *store = open(dir);
        }
    }
    let journal = fs::metadata(dir.join("series.journal")).unwrap().len();
    let at = if history.is_empty() { 0 } else { journal };
    history.push((at, now.clone()));
    now
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn after_any_crash_a_series_is_as_some_acknowledged_change_left_it(
        steps in prop::collection::vec((0usize..3, step()), 1..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 4),
    ) {
        let dir = TempDir::new().unwrap();
        let mut store = open(dir.path());
        let keys = [key("A/1m"), key("B/C/1m"), key("B/5m")];
        let mut histories: BTreeMap<usize, History> = BTreeMap::new();
        for (which, step) in &steps {
            let history = histories.entry(*which).or_default();
            let now = perform(&mut store, dir.path(), &keys[*which], step, history);
            prop_assert_eq!(state(&store, &keys[*which]), now);
            if matches!(step, Step::Reopen) {
                // Everything is in the files now.
                for history in histories.values_mut() {
                    let last = history.pop().map(|(_, state)| state);
                    *history = last.into_iter().map(|state| (0, state)).collect();
                }
            }
        }
        let journal = fs::metadata(dir.path().join("series.journal")).unwrap().len();
        let cuts = cuts.iter().map(|cut| cut.index(journal as usize + 1) as u64).chain([journal]);
        for cut in cuts {
            let copy = crashed(dir.path(), cut);
            let store = open(copy.path());
            for (which, history) in &histories {
                let kept = history.iter().rev().find(|(bytes, _)| *bytes <= cut).and_then(|(_, state)| state.clone());
                prop_assert_eq!(state(&store, &keys[*which]), kept, "cut at {} of {}", cut, journal);
            }
        }
    }
}

#[test]
fn many_who_write_at_once_share_the_disk_and_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let store = Arc::new(open(dir.path()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|task: i64| {
            let store = Arc::clone(&store);
            runtime.spawn(async move {
                let key = key(["A/1m", "B/1m", "C/1m", "D/1m"][task as usize % 4]);
                for at in 0..10 {
                    store.append(&key, vec![candle(at, 1.0)], Append::CLOSED).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    for (_, view) in store.page(None, 9) {
        assert_eq!(view.rows(), 10);
    }
}
