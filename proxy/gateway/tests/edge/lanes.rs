//! Lanes: what matters most goes first where an upstream is full.

use crate::harness::{Setup, Upstream, ok, service};

#[test]
fn services_show_their_lane() {
    let upstream = Upstream::start(ok);
    let orders = service("orders", "/orders", &[upstream.url()], "auth_required = false\nlane = \"order\"");
    let prices = service("prices", "/prices", &[upstream.url()], "auth_required = false");
    let edge = Setup::new("").service("orders", &orders).service("prices", &prices).start();
    let listed = edge.get("/services").json();
    let lane = |name: &str| {
        let services = listed["services"].as_array().unwrap();
        services.iter().find(|one| one["name"] == name).unwrap()["lane"].clone()
    };
    assert_eq!((lane("orders"), lane("prices")), ("order".into(), "query".into()));
}
