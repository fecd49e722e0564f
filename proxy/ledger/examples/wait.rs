//! Prints how long the first request of a rested bucket waits for a real Redis on this machine, one after the other
//! and many at once. `cargo run --release -p sluice-ledger --example wait`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a table on standard output is its purpose")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(unreachable_pub, reason = "the server is the tests' one")]

#[path = "../tests/server/mod.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sluice_ledger::limits::{SharedLimits, Waiting, Watch};
use sluice_ledger::redis::RedisError;
use sluice_policy::limit::Terms;
use sluice_policy::limit::table::{Keyer, Threshold, Who};
use sluice_policy::time::Nanos;
use sluice_schema::{Mode, check};

const BUCKETS: u64 = 2_000;
const AT_ONCE: u64 = 100;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

struct Nobody;

impl Watch for Nobody {
    fn shares(&self, _: Option<&RedisError>) {}
    fn called(&self, _: usize, _: bool) {}
}

fn now() -> Nanos {
    Nanos::from(START.elapsed())
}

/// The first request of a bucket: it waits.
fn first(limits: &SharedLimits, bucket: u64) -> Waiting {
    let key = Keyer::new([1, 2]).key("s", Who::Subject(&bucket.to_string()));
    let terms = Terms::new(5, Duration::from_secs(3600), 5);
    let name = || u128::from(bucket).to_be_bytes();
    let (_, waiting) = limits.take(key, Threshold::Soft, &terms, 5, now(), name).expect("it shares");
    waiting.expect("so low a limit has no credit")
}

fn show(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
    println!("{what:<28} p50 {:>6} µs, p99 {:>6} µs, most {:>6} µs", at(0.5), at(0.99), at(1.0));
}

fn main() {
    let server = server::RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let url = BTreeMap::from([("REDIS_URL".to_owned(), server.url())]);
    let none = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let config = check(&[], &url, Mode::default(), &none).unwrap().config;
    let url = config.redis.as_ref().unwrap();
    let limits = SharedLimits::join(url, runtime.handle(), now, Arc::new(Nobody)).unwrap();
    while !limits.shares() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let wait = async |bucket: u64| {
        let began = Instant::now();
        first(&limits, bucket).told(None).await;
        began.elapsed()
    };
    for (what, pause) in
        [("one after the other", Duration::ZERO), ("with 7 ms between", Duration::from_millis(7))]
    {
        let offset = if pause.is_zero() { 0 } else { BUCKETS };
        let took = runtime.block_on(async {
            let mut took = Vec::new();
            for bucket in 0..BUCKETS / if pause.is_zero() { 1 } else { 4 } {
                tokio::time::sleep(pause).await;
                took.push(wait(offset + bucket).await);
            }
            took
        });
        show(what, took);
    }
    let took = (0..BUCKETS / AT_ONCE).flat_map(|round| {
        let waiting: Vec<Waiting> =
            (0..AT_ONCE).map(|n| first(&limits, 3 * BUCKETS + round * AT_ONCE + n)).collect();
        let began = Instant::now();
        runtime.block_on(async {
            let mut took = Vec::new();
            for mut waiting in waiting {
                waiting.told(None).await;
                took.push(began.elapsed());
            }
            took
        })
    });
    show("100 buckets at once", took.collect());
}
