use std::time::Duration;

use bytes::Bytes;
use sluice_telemetry::metric::{self, Name};

use super::*;
use crate::body::Incoming;
use crate::negotiate::Format;
use crate::series::{Append, Candle, Counts, Disk, Limits, SeriesKey, Store};

fn store(dir: &std::path::Path) -> Store {
    let registry = metric::registry("calc");
    let counts = Counts {
        series: metric::gauge(&registry, Name::CalcSeries),
        candles: metric::counters(&registry, Name::CalcCandles),
    };
    let checkpoint_every = Duration::from_secs(3_600);
    let limits = Limits { series: 10, bytes: 64 << 20, journal_bytes: 1 << 20, checkpoint_every };
    Store::open(dir, Arc::new(Disk), limits, counts).unwrap()
}

#[test]
fn stored_series_are_read_from_a_time_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let candle = |minute: i64| Candle::of(minute * 60_000, [5.0, 6.0, 4.0, 5.0 + (minute % 3) as f64, 1.0]);
    let candles: Vec<_> = (0..50).map(candle).collect();
    let key = SeriesKey::parse("BTC/USD/1m").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.append(&key, candles, Append::CLOSED)).unwrap();
    let body = r#"[
        {"symbol": "BTC/USD", "strategyName": "AROON_MFI", "startTime": 600000, "endTime": "1970-01-01T00:20:00Z"},
        {"symbol": "BTC/USD", "strategyName": "SMA_RSI"},
        {"symbol": "BTC/USD", "strategyName": "SMA_RSI", "timeframe": "1h"},
        {"symbol": "ETH/USD", "strategyName": "SMA_RSI"}
    ]"#;
    let incoming = Incoming { format: Format::Json, bytes: Bytes::from_static(body.as_bytes()), query: None };
    let found = plan(incoming, 1_000, "job".to_owned(), &|key| store.get(key)).unwrap();
    let rows: Vec<_> = found.asks.iter().map(|ask| ask.rows.clone()).collect();
    assert_eq!(rows, [10..20, 0..50, 0..0, 0..0]);
    let bars = found.asks[0].bars().unwrap();
    assert_eq!((bars.len(), bars.close()[0]), (10, 6.0));
    assert_eq!((found.strategy(), found.rows(), found.total), ("several", 50, 4 * 50 * 31));
    // One symbol and timeframe is one view.
    assert!(Arc::ptr_eq(&found.asks[0].prices, &found.asks[1].prices));
}

#[test]
fn ids_name_the_job_the_request_and_the_rank() {
    assert_eq!(place("disc-0198-a-b-17-3"), Some(("0198-a-b", 17, 3)));
    for odd in ["", "disc-", "disc-a", "disc-a-1", "a-1-2", "disc-a-1-x", "disc-a--1"] {
        assert_eq!(place(odd), None, "{odd}");
    }
    let result = r#"{"results": [{"topStrategies": []}, {"topStrategies": [{"score": 1}, {"score": 2}]}]}"#;
    assert_eq!(pick(result, 1, 1), Some(json!({"score": 2})));
    assert_eq!(pick(result, 1, 2), None);
    assert_eq!(pick(result, 0, 0), None);
    assert_eq!(pick(result, 2, 0), None);
    assert_eq!(pick("", 0, 0), None);
}
