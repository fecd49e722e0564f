//! The figures of the groups.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};
use sluice_telemetry::metric::{self, Name};

use super::command::Report;

/// LIMIT: groups told by name; the others are added up as `other`.
const NAMED_MAX: usize = 64;
/// The name of all others.
const OTHER: &str = "other";

/// The figures of the groups.
pub(crate) struct Gauges {
    lag: IntGaugeVec,
    lag_s: GaugeVec,
    pending: IntGaugeVec,
    depth: IntGaugeVec,
    redeliveries: IntCounterVec,
    /// Groups that have figures, and the redeliveries counted for them.
    shown: Mutex<BTreeMap<Box<str>, u64>>,
}

/// The figures of one group, or of several added up.
#[derive(Default)]
struct Figures {
    lag: u64,
    lag_ms: u64,
    pending: usize,
    depth: usize,
    redelivered: u64,
}

impl Gauges {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            lag: metric::gauges(registry, Name::EventsGroupLag),
            lag_s: metric::gauges_f64(registry, Name::EventsGroupLagSeconds),
            pending: metric::gauges(registry, Name::EventsGroupPending),
            depth: metric::gauges(registry, Name::EventsDlqDepth),
            redeliveries: metric::counters(registry, Name::EventsRedeliveries),
            shown: Mutex::new(BTreeMap::new()),
        }
    }

    /// Sets the figures to how the groups are. Groups that are gone take theirs with them.
    pub(crate) fn observe(&self, reports: &[Report]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut figures: BTreeMap<Box<str>, Figures> = BTreeMap::new();
        for report in reports {
            // A name once shown stays, so that its series does not come and go.
            let new = shown.keys().chain(figures.keys()).filter(|name| &***name != OTHER).count();
            let named = shown.contains_key(&report.group) || new < NAMED_MAX;
            let name: Box<str> = if named { report.group.clone() } else { OTHER.into() };
            figures.entry(name).or_default().add(report);
        }
        shown.retain(|name, _| {
            let stays = figures.contains_key(name);
            if !stays {
                self.forget(name);
            }
            stays
        });
        for (name, figures) in figures {
            let labels = &[&*name];
            self.lag.with_label_values(labels).set(figures.lag as i64);
            self.lag_s.with_label_values(labels).set(figures.lag_ms as f64 / 1e3);
            self.pending.with_label_values(labels).set(figures.pending as i64);
            self.depth.with_label_values(labels).set(figures.depth as i64);
            let counted = shown.entry(name.clone()).or_default();
            // A group made anew under the name begins again; the counter goes on.
            let more = figures.redelivered.checked_sub(*counted).unwrap_or(figures.redelivered);
            self.redeliveries.with_label_values(labels).inc_by(more);
            *counted = figures.redelivered;
        }
    }

    fn forget(&self, name: &str) {
        let labels = &[name];
        // What is not there needs no removing.
        drop(self.lag.remove_label_values(labels));
        drop(self.lag_s.remove_label_values(labels));
        drop(self.pending.remove_label_values(labels));
        drop(self.depth.remove_label_values(labels));
        drop(self.redeliveries.remove_label_values(labels));
    }
}

impl Figures {
    fn add(&mut self, report: &Report) {
        self.lag += report.lag_events;
        self.lag_ms = self.lag_ms.max(report.lag_ms);
        self.pending += report.pending;
        self.depth += report.dead;
        self.redelivered += report.totals.redelivered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Settings;
    use crate::group::fact::Totals;

    fn report(group: &str, redelivered: u64) -> Report {
        Report {
            group: group.into(),
            settings: Settings::default(),
            created_ms: 0,
            totals: Totals { redelivered, ..Totals::default() },
            place: 1,
            last: None,
            pending: 2,
            waiting: 0,
            consumers: Vec::new(),
            lag_events: 3,
            lag_ms: 1_500,
            dead: 4,
            dead_bytes: 5,
        }
    }

    fn text(registry: &Registry) -> String {
        String::from_utf8(metric::expose(registry)).unwrap()
    }

    #[test]
    fn figures_come_and_go_with_their_group() {
        let registry = Registry::new();
        let gauges = Gauges::new(&registry);
        gauges.observe(&[report("a", 1)]);
        gauges.observe(&[report("a", 5)]);
        let shown = text(&registry);
        for line in [
            "sluice_events_group_lag_events{group=\"a\"} 3",
            "sluice_events_group_lag_seconds{group=\"a\"} 1.5",
            "sluice_events_group_pending{group=\"a\"} 2",
            "sluice_events_dlq_depth{group=\"a\"} 4",
            "sluice_events_redeliveries_total{group=\"a\"} 5",
        ] {
            assert!(shown.contains(line), "{line} is not in {shown}");
        }
        gauges.observe(&[]);
        assert!(!text(&registry).contains("group=\"a\""));
    }

    #[test]
    fn many_groups_share_one_name() {
        let registry = Registry::new();
        let gauges = Gauges::new(&registry);
        let reports: Vec<Report> = (0..100).map(|n| report(&format!("g{n:03}"), 1)).collect();
        gauges.observe(&reports);
        let shown = text(&registry);
        let lines = shown.lines().filter(|line| line.starts_with("sluice_events_group_pending{")).count();
        assert_eq!(lines, NAMED_MAX + 1);
        assert!(shown.contains("sluice_events_group_pending{group=\"other\"} 72"), "{shown}");
    }
}
