//! Clients of every kind at once.

use std::time::Duration;

use super::Instance;
use super::load::{Fault, KeepAlive, Load, Tally, Target};
use super::secure::Authority;
use super::streams::{Echo, Events};
use super::two::Two;

/// Pieces of a slow upload: more than half a second of it.
const PIECES: usize = 10;

/// What one kind of client counted.
pub(crate) struct Counted {
    pub(crate) kind: &'static str,
    pub(crate) tally: Tally,
}

/// Clients of every kind, under way.
pub(crate) struct Fleet(Vec<(&'static str, Load)>);

impl Fleet {
    /// Starts `each` clients of every kind.
    pub(crate) fn start(running: &Instance, authority: &Authority, each: usize) -> Self {
        let plain = Target::plain(running.edge());
        let port = plain.address.port() + (8443 - 8000);
        let at = |service, protocol| Target {
            address: ([127, 0, 0, 1], port).into(),
            tls: Some(authority.clients(service, protocol)),
        };
        let (tls, mutual) = (at(None, "http/1.1"), at(Some("pricer"), "http/1.1"));
        let (two, mutual_two) = (at(None, "h2"), at(Some("pricer"), "h2"));
        let get = |target: &Target, path: &'static str| {
            let target = target.clone();
            Load::start(each, move || KeepAlive::at(target.clone(), path))
        };
        let write = |target: &Target| {
            let target = target.clone();
            Load::start(each, move || KeepAlive::writes(target.clone(), "/load"))
        };
        let upload = |target: &Target| {
            let target = target.clone();
            Load::start(each, move || KeepAlive::uploads(target.clone(), "/load", PIECES))
        };
        let side_by_side = |target: &Target, path: &'static str| {
            let target = target.clone();
            Load::start(each, move || Two::new(target.clone(), path))
        };
        let (echo, events) = (plain.clone(), plain.clone());
        Self(vec![
            ("h1", get(&plain, "/load/x")),
            ("h1 writes", write(&plain)),
            ("h1 uploads", upload(&plain)),
            ("h1 tls", get(&tls, "/load/x")),
            ("h1 tls uploads", upload(&tls)),
            ("h1 mtls", get(&mutual, "/mine/x")),
            ("h2 tls", side_by_side(&two, "/load")),
            ("h2 mtls", side_by_side(&mutual_two, "/mine")),
            ("h2c", side_by_side(&plain, "/load")),
            ("websocket", Load::start(each, move || Echo::new(echo.clone(), "/load/echo"))),
            ("events", Load::start(each, move || Events::new(events.clone(), "/load/events"))),
        ])
    }

    /// Ends them all.
    pub(crate) fn stop(self) -> Vec<Counted> {
        let stopped = self.0.into_iter().map(|(kind, load)| Counted { kind, tally: load.stop() });
        stopped.collect()
    }
}

impl Counted {
    /// Faults to connect.
    pub(crate) fn refused(&self) -> usize {
        self.tally.faults.iter().filter(|fault| matches!(fault, Fault::Connect(_))).count()
    }
}

/// A line a kind.
pub(crate) fn told(all: &[Counted]) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    let line = |Counted { kind, tally }: &Counted| {
        format!(
            "\n{kind:>15}: {:7} answered, {} failed, p50 {:.2} ms, p99 {:.1} ms, max {:.0} ms{}",
            tally.answered,
            tally.failed,
            ms(tally.within(0.5)),
            ms(tally.within(0.99)),
            ms(tally.slowest),
            tally.told()
        )
    };
    all.iter().map(line).collect()
}

/// Nobody lost anything, and everybody was served.
#[track_caller]
pub(crate) fn none_failed(all: &[Counted]) {
    let well = all.iter().all(|Counted { tally, .. }| tally.failed == 0 && tally.answered > 0);
    assert!(well, "{}", told(all));
}
