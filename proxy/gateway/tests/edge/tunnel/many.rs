//! Many tunnels: none is lost, idle ones cost little.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{Raw, TEXT, Ws, edge_at, frame, metric};
use crate::harness::eventually;

/// Upgrades of the soak test.
fn upgrades() -> usize {
    if std::env::var_os("SLUICE_LONG").is_some() { 10_000 } else { 3_000 }
}

#[test]
fn no_upgrade_is_lost_against_an_upstream_that_switches_at_once() {
    let upstream = Raw::echoing();
    let edge = edge_at(&upstream, "rate_limit = 1000000");
    let (done, begun) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                for number in 0..upgrades() / 50 {
                    let mut ws = Ws::open(&edge);
                    let payload = number.to_be_bytes();
                    ws.write(&frame(TEXT, &payload, true));
                    assert_eq!(ws.frame(), Some((TEXT, payload.to_vec())));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} upgrades in {:?}", upgrades(), begun.elapsed());
    assert_eq!(done.load(Ordering::Relaxed), upgrades());
    eventually("all have ended", || (metric(&edge, "sluice_tunnels ") == Some(0.0)).then_some(()));
    assert_eq!(upstream.heads().len(), upgrades());
    let breaker = edge.get("/services").json()["services"][0]["breaker"].clone();
    assert!(breaker == "closed" || breaker["state"] == "closed", "{breaker}");
}
