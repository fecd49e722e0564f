use super::*;
use sluice_schema::{Document, check};
use std::path::{Path, PathBuf};

fn verdict(method: &str, target: &str, headers: &[&str]) -> Verdict {
    let text = "[[auth.api_key]]\nname = \"desk\"\npermissions = [\"read\"]\n\
        sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n\
        [[service]]\nname = \"data\"\nprefix = \"/api/data\"\npermissions = { GET = [\"read\"], POST = [\"write\"] }\n\
        timeouts = { total = \"20s\" }\nmethods = [\"GET\", \"POST\", \"OPTIONS\"]\n[[service.instance]]\nurl = \"http://127.0.0.1:8001\"\n\
        [[service]]\nname = \"beta\"\nprefix = \"/api/data\"\nheaders = { x-beta = \"1\" }\nauth_required = false\n\
        [[service.instance]]\nurl = \"http://127.0.0.1:8002\"\n\
        [[service]]\nname = \"fx\"\nprefix = \"/api/fx\"\nmethods = [\"GET\"]\ncors = { origins = [\"https://a.example\"] }\n\
        rewrite = { match = \"^/(?:v(1)|up)\", replace = \"/$1/../v2\" }\nsplit = [{ service = \"fx_v2\", weight = 5 }]\n\
        [[service.instance]]\nurl = \"http://127.0.0.1:8003\"\n\
        [[service]]\nname = \"fx_v2\"\nprefix = \"\"\n[[service.instance]]\nurl = \"http://127.0.0.1:8004\"\n";
    let document = Document::new("sluice.toml", text);
    let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let loaded = check(
        &[document],
        &BTreeMap::new(),
        Mode { dev: true, secrets_required: false, now_unix_s: None, ..Mode::default() },
        &none,
    );
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
    let args = Explain {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.iter().map(|field| (*field).to_owned()).collect(),
        conf: PathBuf::new(),
        dev: true,
        format: Format::Json,
    };
    judge(&loaded.config, &Request::new(&args).unwrap()).unwrap()
}

#[test]
fn a_routed_request_is_told_whole() {
    let Verdict { routed, facts } = verdict("GET", "/api//data/./BTC?limit=5", &[]);
    assert!(routed);
    assert_eq!(facts["route"]["name"], "data");
    assert_eq!(facts["route"]["place"], "sluice.toml:5");
    assert_eq!(facts["route"]["match"]["prefix"], "/api/data");
    assert_eq!((&facts["path"], &facts["rewritten"]), (&json!("/api/data/BTC"), &json!(true)));
    assert_eq!(facts["forwarded"], "/BTC?limit=5");
    assert_eq!(facts["permissions"], json!(["read"]));
    assert_eq!(facts["timeouts"]["total"], "20s");
    assert_eq!(facts["upstream"]["instances"][0]["scheme"], "http");
    assert_eq!((&facts["lane"], &facts["retry"]["hedge"]), (&json!("query"), &json!("off")));
    for name in ["retry", "breaker", "rate_limit", "rate_counted", "body_bytes", "health"] {
        assert!(facts.contains_key(name), "{name} in {facts:?}");
    }
    let text = words(&facts);
    assert!(text.starts_with("verdict                routed\n"), "{text}");
    assert!(
        text.contains("data (service, sluice.toml:5), match methods GET, POST, OPTIONS, prefix /api/data\n"),
        "{text}"
    );
    assert!(text.contains("round_robin over http://127.0.0.1:8001 (weight 1)\n"), "{text}");
    assert!(text.ends_with("forwarded              /BTC?limit=5\n"), "{text}");
}

#[test]
fn header_fields_and_preflights_count() {
    assert_eq!(verdict("GET", "/api/data/x", &["X-Beta: 1"]).facts["route"]["name"], "beta");
    assert_eq!(verdict("GET", "/api/data/x", &["X-Beta: 2"]).facts["route"]["name"], "data");
    let preflight = ["Origin: https://a.example", "Access-Control-Request-Method: POST"];
    let asked = verdict("OPTIONS", "/api/data/x", &preflight);
    assert_eq!(asked.facts["authentication"], "none: a CORS preflight");
}

#[test]
fn a_key_is_told_by_its_name() {
    let caller = |field: &str| verdict("GET", "/api/data/x", &[field]).facts["caller"].clone();
    assert_eq!(caller("X-API-Key: abc"), json!({ "name": "desk", "permissions": ["read"] }));
    assert!(caller("X-API-Key: abd").as_str().unwrap().starts_with("nobody"));
    let facts = verdict("GET", "/api/data/x", &[]).facts;
    assert_eq!((facts.get("caller"), &facts["api_keys"]), (None, &json!(1)));
}

#[test]
fn rewrites_preflights_and_splits_are_told() {
    let facts = verdict("GET", "/api/fx/v1/bars?n=5", &[]).facts;
    assert_eq!(facts["forwarded"], "/v2/bars?n=5");
    assert_eq!(facts["split"], json!([{ "service": "fx_v2", "weight": 5 }]));
    assert_eq!(verdict("GET", "/api/fx/up", &[]).facts["stage"], "rewrite");
    let preflight = ["Origin: https://a.example", "Access-Control-Request-Method: GET"];
    let facts = verdict("OPTIONS", "/api/fx/v1", &preflight).facts;
    assert_eq!(facts["authentication"], "none: the edge answers the preflight");
}

#[test]
fn a_refusal_names_its_reason() {
    let told = |method: &str, target: &str, headers: &[&str]| {
        let Verdict { routed, facts } = verdict(method, target, headers);
        assert!(!routed, "{method} {target}");
        (facts["status"].as_u64().unwrap(), facts["code"].as_str().unwrap().to_owned())
    };
    assert_eq!(told("GET", "/none", &[]), (404, "no_route".into()));
    assert_eq!(told("DELETE", "/api/data", &[]), (405, "method_not_allowed".into()));
    assert_eq!(told("BREW", "/api/data", &[]), (501, "not_implemented".into()));
    assert_eq!(told("GET", "/api/%2e%2e/%2e%2e/x", &[]), (400, "bad_path".into()));
    assert_eq!(told("GET", "/api/data", &["Host: a", "Host: b"]).1, "bad_host");
    assert_eq!(told("POST", "/x", &["Content-Length: 1", "Transfer-Encoding: chunked"]).1, "bad_framing");
    assert_eq!(told("POST", "/v1/sys/seal", &[]), (404, "no_route".into()));
}

#[test]
fn paths_of_our_own_are_told_too() {
    let health = verdict("GET", "/health", &[]);
    assert_eq!((&health.facts["route"]["kind"], health.routed), (&json!("page"), true));
    let secrets = verdict("LIST", "/secrets/a", &[]);
    assert_eq!(secrets.facts["route"]["kind"], "worker");
    assert!(secrets.facts["transport"].as_str().unwrap().contains("TLS"));
    assert_eq!(verdict("OPTIONS", "*", &[]).facts["route"]["name"], "edge");
}
