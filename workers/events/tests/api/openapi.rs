//! The document of the calls, held against the worker that answers them.

use crate::world::World;

/// Methods that a path can be asked by.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

#[tokio::test]
async fn the_document_is_served_and_every_call_of_it_is_answered() {
    let world = World::new();
    let admin = world.admin();
    let document = world.user("nobody", "").get("/openapi.json").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document, sluice_events::openapi());
    for (path, calls) in document["paths"].as_object().unwrap() {
        // No group, session, event or schema of this name is there: what is asked for does nothing.
        let target = path.replace("{id}", "0-1").replace(['{', '}'], "");
        for method in METHODS {
            let described = calls.get(method).is_some();
            // A parameter that no call has, and a body that none takes: the call is reached and refuses it.
            let strange = format!("{target}?never=1");
            let asked = if described && method == "get" { &strange } else { &target };
            let headers = "content-type: text/strange\r\n";
            let answer = admin.send(&method.to_uppercase(), asked, headers, b"{").await;
            assert_eq!(answer.status == 405, !described, "{method} {path}: {answer:?}");
            if described {
                assert!(!answer.body.contains("no such path"), "{method} {path}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn every_parameter_that_is_described_is_known() {
    let world = World::new();
    let admin = world.admin();
    let document = sluice_events::openapi();
    let replay = "/events/replay";
    for path in
        ["/events", "/groups", "/state", "/groups/none/dlq", "/schemas/risk_alert", "/events/ws", replay]
    {
        let described = path.replace("none", "{group}").replace("risk_alert", "{event_type}");
        let method = if path == "/events/replay" { "post" } else { "get" };
        let call = &document["paths"][&described][method];
        for parameter in call["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] != "query" {
                continue;
            }
            let value = parameter["schema"]["enum"][0].as_str().unwrap_or("1");
            let answer = admin.send(&method.to_uppercase(), &format!("{path}?{name}={value}"), "", b"").await;
            let unknown = answer.body.contains("unknown parameter") || answer.body.contains("unknown field");
            assert!(!unknown, "{path}?{name}: {answer:?}");
        }
        let answer = admin.send(&method.to_uppercase(), &format!("{path}?never=1"), "", b"").await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_a_call_needs_is_what_it_asks_for() {
    let world = World::new();
    let nobody = world.user("nobody", "");
    let document = sluice_events::openapi();
    for (path, calls) in document["paths"].as_object().unwrap() {
        // Calls with a body may find fault with that first.
        for method in ["get", "delete"].into_iter().filter(|method| calls.get(*method).is_some()) {
            let target = path.replace("{id}", "0-1").replace(['{', '}'], "");
            let answer = nobody.send(&method.to_uppercase(), &target, "", b"").await;
            let needs = calls[method]["description"].as_str().is_some_and(|words| words.contains('`'));
            // Who may not read has no session, and those of others are not there.
            let refused = answer.status == if path == "/events/replay/{id}" { 404 } else { 403 };
            assert_eq!(refused, needs, "{method} {path}: {answer:?}");
        }
    }
}
