//! Series of services that are gone.

use std::collections::{BTreeSet, HashMap};

use prometheus::core::{Collector as _, MetricVec, MetricVecBuilder};

use super::Meters;

impl Meters {
    /// Removes every series of services that no longer exist. Looks at all series of a few metrics once.
    pub(crate) fn forget(&self, services: &BTreeSet<&str>) {
        if services.is_empty() {
            return;
        }
        for vector in [
            &self.requests,
            &self.retries,
            &self.hedges,
            &self.breaker_transitions,
            &self.breaker_requests,
            &self.mirrored,
            &self.stood_in,
            &self.squeezed,
            &self.idempotency,
        ] {
            forget_series(vector, services);
        }
        for vector in [&self.lane_running, &self.lane_waiting] {
            forget_series(vector, services);
        }
        forget_series(&self.lane_shed, services);
        forget_series(&self.lane_wait, services);
        for service in services {
            for vector in [
                &self.limited,
                &self.retry_budget,
                &self.ejections,
                &self.breaker_failures,
                &self.breaker_rejected,
            ] {
                drop(vector.remove_label_values(&[service]));
            }
            drop(self.breaker_state.remove_label_values(&[service]));
            drop(self.concurrency_limit.remove_label_values(&[service]));
            drop(self.service_health.remove_label_values(&[service]));
            drop(self.duration.remove_label_values(&[service]));
        }
    }
}

/// Removes the series of these services, whatever their other labels say.
fn forget_series<T: MetricVecBuilder>(vector: &MetricVec<T>, services: &BTreeSet<&str>) {
    for family in vector.collect() {
        for series in family.get_metric() {
            let labels = series.get_label();
            if labels.iter().any(|label| label.name() == "service" && services.contains(label.value())) {
                let labels: HashMap<&str, &str> =
                    labels.iter().map(|label| (label.name(), label.value())).collect();
                drop(vector.remove(&labels));
            }
        }
    }
}
