//! Orders are passed on only while revocations are heard of.

use serde_json::json;
use sluice_wire::feed::Message;

use crate::harness::{Setup, Upstream, eventually, ok, service};

#[test]
fn an_old_feed_refuses_orders_and_nothing_else() {
    let upstream = Upstream::start(ok);
    let one = |name: &str, more: &str| service(name, &format!("/{name}"), &[upstream.url()], more);
    let edge = Setup::new("[auth]\nfeed_max_age = \"1s\"\n")
        .service("orders", &one("orders", "lane = \"order\""))
        .service("cancels", &one("cancels", "lane = \"cancel\""))
        .service("open", &one("open", "lane = \"order\"\nauth_required = false"))
        .start();
    let token = edge.issuer.token("trade");
    let order = || edge.call("POST", "/orders", &token, &json!({}));
    edge.trust.apply(&Message::Heartbeat);
    assert_eq!(order().status, 200);
    let refused =
        eventually("the feed is too old for orders", || Some(order()).filter(|one| one.status == 503));
    assert_eq!((refused.code().as_str(), refused.field("retry-after")), ("auth_stale", "1"));
    assert_eq!(refused.json()["outcome"], "not_sent");
    assert_eq!(edge.call("POST", "/cancels", &token, &json!({})).status, 200);
    assert_eq!(edge.send("POST /open HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n\r\n").status, 200);
    edge.trust.apply(&Message::Heartbeat);
    assert_eq!(order().status, 200);
}
