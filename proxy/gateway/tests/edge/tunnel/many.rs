//! Many tunnels: none is lost, idle ones cost little.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::{Holding, Raw, TEXT, Ws, alone, edge_at, edge_to, frame, memory_kib, metric, switched};
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

#[test]
fn idle_tunnels_cost_little() {
    alone("tunnel::many::a_thousand_idle_tunnels");
}

#[test]
#[ignore = "measures its own process: run by `idle_tunnels_cost_little`"]
fn a_thousand_idle_tunnels() {
    let upstream = Holding::start(switched);
    let edge = edge_to(upstream.address, "auth_required = false\nrate_limit = 1000000");
    let used = |_| {
        let mut ws = Ws::open(&edge);
        ws.write(&frame(TEXT, b"hello", true));
        ws
    };
    let warm: Vec<Ws> = (0..200).map(used).collect();
    let before = memory_kib("VmRSS");
    let idle: Vec<Ws> = (0..1000).map(used).collect();
    let name = "sluice_tunnel_bytes_total{direction=\"in\"} ";
    eventually("all bytes have passed", || (metric(&edge, name) == Some(1200.0 * 11.0)).then_some(()));
    let grown = memory_kib("VmRSS").saturating_sub(before);
    println!("{grown} KiB for a thousand idle tunnels, with their clients and upstreams");
    assert!(grown <= 16 * 1000, "{grown} KiB");
    assert_eq!(warm.len() + idle.len(), 1200);
}
