//! Stored series over real processes: fed by the event worker, and imported by the command.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use serde_json::{Value, json};

use crate::harness::http::{get, post};
use crate::harness::{Instance, Up, shared, signal, sluice, until};
use crate::server::RedisServer;

/// 2026-01-01.
const DAY_MS: i64 = 1_767_225_600_000;
const SYMBOLS: [&str; 3] = ["BTC/USDT", "ETH/USDT", "AAPL"];

/// One trade of a minute.
fn trade(symbol: usize, minute: i64) -> Value {
    let n = minute * 10 + symbol as i64;
    json!({"event_type": "market_data_update", "event_id": format!("00000000-0000-4000-8000-{n:012}"), "data": {
        "symbol": SYMBOLS[symbol], "price": 100 + (n * 37) % 11, "volume": 1, "trade_id": n,
        "timestamp": DAY_MS + minute * 60_000,
    }})
}

/// Publishes the trades of some minutes until they are stored; their ids make a repeat harmless.
fn publish(running: &Instance, minutes: std::ops::Range<i64>) {
    let trades: Vec<Value> =
        minutes.flat_map(|minute| (0..SYMBOLS.len()).map(move |symbol| trade(symbol, minute))).collect();
    let body = json!({ "events": trades });
    until("the trades are stored", || {
        let answer = post(running.edge(), "/events/batch").token(running.admin()).json(&body).send();
        (answer.status == 200).then(|| assert_eq!(answer.json()["failed"], 0))
    });
}

/// Rows of all series of a minute; `None` while the worker is not there.
fn rows(running: &Instance) -> Option<u64> {
    let answer = get(running.edge(), "/series").token(running.admin()).send();
    let list = (answer.status == 200).then(|| answer.json())?;
    Some(list["series"].as_array().unwrap().iter().filter_map(|series| series["rows"].as_u64()).sum())
}

/// Kills a role, and waits for the next one of its kind.
fn kill(running: &Instance, role: &str) {
    let pid = until(role, || running.role_pid(role));
    signal(pid, "KILL");
    until(role, || running.role_pid(role).filter(|now| *now != pid));
}

/// Publishes the trades of so many minutes before each kill; in the end each candle is a row once.
fn fed_once(running: &Instance, minutes: i64, kills: &[&str]) {
    for (round, role) in kills.iter().enumerate() {
        let from = round as i64 * minutes;
        publish(running, from..from + minutes);
        // In the middle of them: some are stored, some leased, some not yet closed.
        until("rows come", || rows(running).filter(|rows| *rows > from as u64 * SYMBOLS.len() as u64));
        kill(running, role);
    }
    let minutes = kills.len() as i64 * minutes;
    let whole = minutes as u64 * SYMBOLS.len() as u64;
    until("every candle is a row", || rows(running).filter(|rows| *rows == whole));
    let stats = get(running.edge(), "/events/stats").token(running.admin()).send().expect(200).json();
    assert_eq!(stats["types"]["candle_closed"], whole, "{stats}");
    for symbol in SYMBOLS {
        let page = get(running.edge(), &format!("/series/{symbol}/1m?limit=1000"));
        let page = page.token(running.admin()).send().expect(200).json();
        let begins: Vec<i64> =
            page["data"].as_array().unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect();
        let wanted: Vec<i64> = (0..minutes).map(|minute| DAY_MS + minute * 60_000).collect();
        assert_eq!(begins, wanted, "{symbol}");
    }
}

const CANDLES: &str = "[events.candles]\ntimeframes = [\"1m\"]\nlateness = \"1s\"\n";

#[test]
fn every_closed_candle_is_a_row_once_whoever_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sluice.toml");
    std::fs::write(&conf, CANDLES).unwrap();
    let running = Up::new(&dir.path().join("data")).conf(&conf).arg("--no-demo").start();
    fed_once(&running, 40, &["worker calc", "worker events", "worker calc"]);
    running.stop();
}

#[test]
fn a_thousand_candles_over_redis_are_rows_once_though_their_worker_is_killed_three_times() {
    let (dir, redis) = (tempfile::tempdir().unwrap(), RedisServer::start());
    let conf = dir.path().join("sluice.toml");
    std::fs::write(&conf, format!("{CANDLES}[redis]\nurl = \"{}\"\n", redis.url())).unwrap();
    let running = Up::new(&dir.path().join("data")).conf(&conf).arg("--no-demo").start();
    fed_once(&running, 112, &["worker calc"; 3]);
    running.stop();
}

/// Runs the command with what finds the worker: the address that it noted below its data directory.
fn series(running: &Instance, arguments: &[&str]) -> (i32, String, String) {
    sluice(&[&["series"], arguments, &["--data-dir", running.data_dir.to_str().unwrap()]].concat())
}

fn import(running: &Instance, file: &Path, symbol: &str, more: &[&str]) -> (i32, String, String) {
    let named =
        ["import", file.to_str().unwrap(), "--symbol", symbol, "--timeframe", "1m", "--format", "json"];
    series(running, &[&named[..], more].concat())
}

/// Candles of some minutes, a line each.
fn lines(minutes: std::ops::Range<i64>) -> String {
    minutes.map(|minute| format!("{},1,2,0.5,1.5,{minute}\n", DAY_MS + minute * 60_000)).collect()
}

#[test]
fn files_are_imported_and_what_is_there_may_come_again() {
    let (running, dir) = (shared(), tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let head = "timestamp,open,high,low,close,volume\n";
    let whole = file("whole.csv", &(head.to_owned() + &lines(0..60_000)));
    let (code, out, errors) = import(running, &whole, "IMPORT/CLI", &[]);
    let done: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{errors}"));
    assert_eq!(
        (code, &done["applied"], &done["rows"]),
        (0, &json!(60_000), &json!(60_000)),
        "{done}{errors}"
    );
    // The same again, and a little more with a gap; then one that differs from what is there.
    let more = file("more.csv", &(head.to_owned() + &lines(59_000..60_000) + &lines(60_005..60_007)));
    let (code, out, errors) = import(running, &more, "IMPORT/CLI", &[]);
    let done: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{errors}"));
    let told = ["applied", "repeated", "refused", "gaps", "rows"].map(|name| done[name].as_u64().unwrap());
    assert_eq!((code, told), (0, [2, 1_000, 0, 1, 60_002]), "{done}");
    let other = file("other.csv", &format!("{head}{DAY_MS},1,2,0.5,1.5,7\n"));
    let (code, _, errors) = import(running, &other, "IMPORT/CLI", &[]);
    assert!(
        code == 3 && errors.contains("2026-01-01T00:00:00Z: there is a row with other numbers"),
        "{errors}"
    );
    let (code, out, errors) = import(running, &other, "IMPORT/CLI", &["--replace"]);
    let done: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{errors}"));
    assert_eq!((code, &done["rows"]), (0, &json!(1)), "{done}");
    let (code, out, _) = series(running, &["list"]);
    assert!(code == 0 && out.lines().any(|line| line.starts_with("IMPORT/CLI     1m")), "{out}");
}

#[test]
fn arrow_files_and_streams_are_imported() {
    let (running, dir) = (shared(), tempfile::tempdir().unwrap());
    let closes: Vec<f64> = (0..500).map(|row| 100.0 + f64::from(row).sin()).collect();
    let numbers = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let times = Int64Array::from_iter_values((0..500).map(|row| DAY_MS + row * 60_000));
    let batch = RecordBatch::try_from_iter([
        ("timestamp", Arc::new(times) as ArrayRef),
        ("open", numbers(closes.clone())),
        ("high", numbers(closes.iter().map(|close| close + 1.0).collect())),
        ("low", numbers(closes.iter().map(|close| close - 1.0).collect())),
        ("close", numbers(closes.clone())),
    ])
    .unwrap();
    let (file, stream) = (dir.path().join("a.arrow"), dir.path().join("b.arrow"));
    let mut writer = FileWriter::try_new(std::fs::File::create(&file).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let mut writer = StreamWriter::try_new(std::fs::File::create(&stream).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    for (path, told) in [(file, [500, 0]), (stream, [0, 500])] {
        let (code, out, errors) = import(running, &path, "IMPORT/ARROW", &[]);
        let done: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out}{errors}"));
        let counts = ["applied", "repeated"].map(|name| done[name].as_u64().unwrap());
        assert_eq!((code, counts, &done["rows"]), (0, told, &json!(500)), "{done}");
    }
    let page = get(running.edge(), "/series/IMPORT/ARROW/1m?limit=1000").token(running.admin());
    let page = page.send().expect(200).json();
    let stored: Vec<f64> =
        page["data"].as_array().unwrap().iter().map(|row| row[4].as_f64().unwrap()).collect();
    assert!(stored.iter().zip(&closes).all(|(stored, close)| (stored - close).abs() < 1e-12), "{page}");
}

#[test]
fn what_cannot_be_imported_is_named_by_file_and_line() {
    let (running, dir) = (shared(), tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let head = "timestamp,open,high,low,close,volume\n";
    let wrong = format!("{head}\n{}{},1,0.5,2,1.5,1\n", lines(0..3), DAY_MS + 3 * 60_000);
    let (code, _, errors) = import(running, &file("wrong.csv", &wrong), "IMPORT/WRONG", &[]);
    assert!(
        code == 2 && errors.contains("wrong.csv: line 6: ") && errors.contains("bad_series"),
        "{code} {errors}"
    );
    for (name, text, said) in [
        ("x.parquet", "PAR1", "not a Parquet file that can be read here"),
        ("x.txt", "1", "ends with .csv, .arrow or .parquet"),
        ("x.csv", "", "the file is empty"),
        ("y.csv", head, "there are no candles"),
        ("x.arrow", "no", "not an Arrow file or stream"),
    ] {
        let (code, _, errors) = import(running, &file(name, text), "IMPORT/WRONG", &[]);
        assert!(code == 2 && errors.contains(said), "{name}: {code} {errors}");
    }
    let good = file("z.csv", &(head.to_owned() + &lines(0..1)));
    let (code, _, errors) = import(running, &good, "1m", &[]);
    assert!(code == 2 && errors.contains("a symbol is"), "{errors}");
    assert_eq!(import(running, &good, "IMPORT/WRONG", &["--url", "http://127.0.0.1:1"]).0, 4);
}
