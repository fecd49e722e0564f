//! Stored series, as `examples/series.rs` measures them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sluice_calc::{Compat, Cpu};
use sluice_telemetry::metric::{self, Name};
use tokio::runtime::Runtime;

use crate::body::Incoming;
use crate::data::NanRule;
use crate::feed::bar;
use crate::indicators::{self, Wish};
use crate::negotiate::Format;
use crate::pool::Scratch;
use crate::series::live::{Held, named};
use crate::series::rows::Page;
use crate::series::source::{Means, Source};
use crate::series::space::Space;
use crate::series::{Append, Candle, Counts, Disk, Limits, SeriesKey, Store, incoming};

/// Stored series in a folder, and what a thread of the pool has.
pub struct Stored {
    store: Arc<Store>,
    scratch: Scratch,
    runtime: Runtime,
}

/// Indicators over a series that are carried on.
pub struct Carried {
    held: Held,
    tails: Arc<Space>,
}

fn key(text: &str) -> SeriesKey {
    SeriesKey::parse(text).expect("keys of the example are like BTC/1m")
}

fn candle([time, numbers @ ..]: &[f64; 6]) -> Candle {
    Candle::of(*time as i64, *numbers)
}

fn wishes(names: &str) -> Vec<Wish> {
    named(names, Compat::TaLib).expect("the example asks for indicators that there are")
}

impl Stored {
    /// Opens a folder with the limits of the worker.
    pub fn open(folder: &Path) -> Self {
        let limits = Limits {
            series: 10_000,
            bytes: 1 << 40,
            journal_bytes: crate::bounds::SERIES_JOURNAL_BYTES,
            checkpoint_every: Duration::from_secs(crate::bounds::SERIES_CHECKPOINT_S),
        };
        let registry = metric::registry("calc");
        let counts = Counts {
            series: metric::gauge(&registry, Name::CalcSeries),
            candles: metric::counters(&registry, Name::CalcCandles),
        };
        let store = Store::open(folder, Arc::new(Disk), limits, counts).expect("the folder can be written");
        let cpu = Cpu::proven().expect("the kernels agree on this processor");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self { store: Arc::new(store), scratch: Scratch::new(cpu, Arc::default()), runtime }
    }

    /// Adds candles to a series and waits until they are on the disk.
    pub fn append(&self, series: &str, candles: &[[f64; 6]]) -> usize {
        let candles = candles.iter().map(candle).collect();
        let applied = self.runtime.block_on(self.store.append(&key(series), candles, Append::CLOSED));
        applied.map_or(0, |applied| applied.added)
    }

    /// Adds one candle to each of some series, all at once.
    pub fn append_each(&self, series: &[String], one: &[f64; 6]) -> usize {
        let stored = series.iter().map(|series| {
            let (store, key, candle) = (Arc::clone(&self.store), key(series), candle(one));
            async move { store.append(&key, vec![candle], Append::CLOSED).await }
        });
        let stored = self.runtime.block_on(futures_util::future::join_all(stored));
        stored.iter().flatten().map(|applied| applied.added).sum()
    }

    /// Reads a body of candles and adds them, as a piece of an import; so many were added.
    pub fn import(&self, series: &str, form: &str, body: &Bytes) -> usize {
        let format = match form {
            "csv" => Format::Csv,
            "arrow" => Format::Arrow,
            _ => Format::Json,
        };
        let body = Incoming { format, bytes: body.clone(), query: None };
        let key = key(series);
        let Ok(read) = incoming::read(body, &key, usize::MAX) else { return 0 };
        let applied = self.runtime.block_on(self.store.append(&key, read.candles, Append::CLOSED));
        applied.map_or(0, |applied| applied.added)
    }

    /// Writes the newest rows as JSON; the length of the answer.
    pub fn read(&self, series: &str, rows: usize) -> usize {
        let key = key(series);
        let Some(view) = self.store.get(&key) else { return 0 };
        let first = view.rows().saturating_sub(rows);
        let page = Page { key: &key, view: &view, rows: first..view.rows(), next: None };
        page.write(Format::Json, Vec::with_capacity(page.bytes_about())).map_or(0, |bytes| bytes.len())
    }

    /// The newest values of indicators over all rows, as a request asks for them; the length of the answer.
    pub fn calculate(&mut self, series: &str, names: &[&str]) -> usize {
        let body = json!({"series": series, "indicators": names, "output": "last"}).to_string();
        let incoming = Incoming { format: Format::Json, bytes: body.into(), query: None };
        let means = Means { rows_max: usize::MAX, series: Some(&self.store) };
        let answer = indicators::answer(incoming, None, means, &mut self.scratch);
        answer.map_or(0, |answer| answer.bytes.len())
    }

    /// Copies the rows of a series and checks them, as a request does that brings them along.
    pub fn copy(&self, series: &str) -> usize {
        let Some(view) = self.store.get(&key(series)) else { return 0 };
        let rows = 0..view.rows();
        let mut copied = Source::Given(Source::Stored { view, rows }.into_series());
        copied.check(usize::MAX, NanRule::Reject).map_or(0, |_| copied.len())
    }

    /// Indicators over a series before its first row.
    pub fn carry(names: &str) -> Carried {
        Carried { held: Held::new(wishes(names)), tails: Space::new(64 << 20) }
    }

    /// Takes what came since, and says the newest values of each output; how many there are.
    pub fn follow(&mut self, series: &str, carried: &mut Carried, last: usize) -> usize {
        let Some(view) = self.store.get(&key(series)) else { return 0 };
        carried.held.advance(&view);
        if last == 0 {
            return view.rows();
        }
        let columns = carried.held.columns(&view, last, &carried.tails, &mut self.scratch);
        columns.map_or(0, |columns| columns.iter().map(Vec::len).sum())
    }
}

/// Reads the data of closed candles as the feed does; how many are bars.
pub fn bars(data: &[serde_json::Map<String, serde_json::Value>]) -> usize {
    data.iter().filter(|data| bar::bar(data).is_ok()).count()
}
