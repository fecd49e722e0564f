//! Which routes share a gate, kept over reloads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_policy::gate::Lane;
use sluice_schema::{Concurrency, ConcurrencyLimit, RateKey, Service};

use super::{Approach, Bounds, Crossing};
use crate::meters::Meters;

/// The addresses of a service's instances, sorted; its name, where it has none.
type Instances = Vec<String>;

/// The gates of all services by what they lead to.
#[derive(Default)]
pub(crate) struct Gates(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_instances: HashMap<Instances, Arc<Crossing>>,
    by_name: HashMap<String, Arc<Crossing>>,
}

impl Gates {
    /// The ways of these services to their gates, in their order. Services with the same instances get the same
    /// gate: that of those instances, else one that any of them had before, else a new one.
    pub(crate) fn assign(&self, services: &[&Service], meters: &Meters) -> Vec<Arc<Approach>> {
        let mut groups: BTreeMap<Instances, Vec<&Service>> = BTreeMap::new();
        let of: Vec<Instances> = services.iter().map(|service| instances(service)).collect();
        for (instances, service) in of.iter().zip(services) {
            groups.entry(instances.clone()).or_default().push(service);
        }
        let asked = asked(services);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_instances: HashMap<Instances, Arc<Crossing>> = groups
            .keys()
            .filter_map(|instances| Some((instances.clone(), Arc::clone(known.by_instances.get(instances)?))))
            .collect();
        let mut taken: HashSet<*const Crossing> = by_instances.values().map(Arc::as_ptr).collect();
        for (instances, group) in &groups {
            let crossing = by_instances.entry(instances.clone()).or_insert_with(|| {
                let mut before = group.iter().filter_map(|service| known.by_name.get(&service.name));
                let free = before.find(|crossing| taken.insert(Arc::as_ptr(crossing)));
                free.cloned().unwrap_or_else(|| Crossing::new(&bounds(group, &asked)))
            });
            crossing.configure(&bounds(group, &asked));
        }
        let approach = |(instances, service): (&Instances, &&Service)| {
            let crossing = Arc::clone(&by_instances[instances]);
            let (lane, fair_key) = (service.lane, service.fair_key.clone());
            let meters = meters.lane(&service.name, lane);
            Approach::new(crossing, lane, &service.concurrency, fair_key, meters)
        };
        let approaches: Vec<Arc<Approach>> = of.iter().zip(services).map(approach).collect();
        let named = services.iter().zip(&approaches);
        known.by_name =
            named.map(|(service, way)| (service.name.clone(), Arc::clone(&way.crossing))).collect();
        known.by_instances = by_instances;
        approaches
    }

    /// The way to a worker, with a gate of its own.
    pub(crate) fn worker(name: &str, lane: Lane, at_once: u32, meters: &Meters) -> Arc<Approach> {
        let mut lanes = [false; 4];
        lanes[lane as usize] = true;
        let crossing = Crossing::new(&Bounds { lanes, fixed: Some(at_once), most: at_once });
        let concurrency = Concurrency::default();
        Approach::new(crossing, lane, &concurrency, RateKey::Client, meters.lane(name, lane))
    }
}

fn instances(service: &Service) -> Instances {
    let mut instances: Instances = service.instances.iter().map(|one| one.url.to_string()).collect();
    if instances.is_empty() {
        // No address looks like this.
        instances.push(format!("service {}", service.name));
    }
    instances.sort_unstable();
    instances
}

/// The lanes in which services are asked through others that are split.
fn asked<'a>(services: &[&'a Service]) -> HashMap<&'a str, [bool; 4]> {
    let mut asked: HashMap<&str, [bool; 4]> = HashMap::new();
    for service in services {
        for arm in &service.split {
            asked.entry(arm.service.as_str()).or_default()[service.lane as usize] = true;
        }
    }
    asked
}

/// What the gate of these services keeps to: the smallest limit of them.
fn bounds(group: &[&Service], asked: &HashMap<&str, [bool; 4]>) -> Bounds {
    let mut lanes = [false; 4];
    for service in group {
        lanes[service.lane as usize] = true;
        for (lane, asked) in lanes.iter_mut().zip(asked.get(service.name.as_str()).into_iter().flatten()) {
            *lane |= asked;
        }
    }
    let fixed = group.iter().filter_map(|service| match service.concurrency.limit {
        ConcurrencyLimit::Fixed(limit) => Some(limit),
        ConcurrencyLimit::Adaptive => None,
    });
    let most = group.iter().map(|service| service.concurrency.max).min().unwrap_or(1);
    Bounds { lanes, fixed: fixed.min(), most }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;
    use sluice_schema::Instance;

    fn service(name: &str, ports: &[u16], lane: Lane, limit: ConcurrencyLimit) -> Service {
        let url = |port: &u16| format!("http://127.0.0.1:{port}").parse().unwrap();
        let instance = |port| Instance { url: url(port), weight: 1, zone: String::new() };
        let concurrency = Concurrency { limit, ..Concurrency::default() };
        let instances = ports.iter().map(instance).collect();
        Service { name: name.into(), instances, lane, concurrency, ..Service::default() }
    }

    #[test]
    fn services_with_the_same_instances_share_a_gate_and_keep_it() {
        let (gates, meters) = (Gates::default(), Meters::new(&Registry::new()));
        let adaptive = ConcurrencyLimit::Adaptive;
        let orders = service("orders", &[1, 2], Lane::Order, adaptive);
        let prices = service("prices", &[2, 1], Lane::Query, ConcurrencyLimit::Fixed(7));
        let apart = service("apart", &[1], Lane::Query, adaptive);
        let gone = [service("none", &[], Lane::Query, adaptive), service("nil", &[], Lane::Query, adaptive)];
        let all = [&orders, &prices, &apart, &gone[0], &gone[1]];
        let first = gates.assign(&all, &meters);
        assert!(Arc::ptr_eq(&first[0].crossing, &first[1].crossing));
        assert_eq!(first[0].crossing.shown().limit, 7, "the smallest");
        assert!(!Arc::ptr_eq(&first[0].crossing, &first[2].crossing));
        assert!(!Arc::ptr_eq(&first[3].crossing, &first[4].crossing), "what has no instance shares none");

        // A third instance: the gate goes with the service that had it; the other two part.
        let orders = service("orders", &[1, 2, 3], Lane::Order, adaptive);
        let again = gates.assign(&[&apart, &orders, &prices], &meters);
        assert!(Arc::ptr_eq(&again[0].crossing, &first[2].crossing));
        assert!(Arc::ptr_eq(&again[2].crossing, &first[1].crossing), "its instances are the same");
        assert!(!Arc::ptr_eq(&again[1].crossing, &first[0].crossing), "that gate is another's now");
        let orders = service("orders", &[4], Lane::Order, adaptive);
        let moved = gates.assign(&[&orders], &meters);
        assert!(Arc::ptr_eq(&moved[0].crossing, &again[1].crossing), "the name keeps it");
    }
}
