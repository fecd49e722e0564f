use super::*;

fn parse(body: &str) -> Result<Registration, String> {
    let raw: Raw = serde_json::from_str(body).map_err(|error| error.to_string())?;
    Registration::try_from(raw).map_err(|fault| fault.to_string())
}

fn registration(name: &str, prefix: &str) -> Registration {
    parse(&format!(r#"{{"name":"{name}","prefix":"{prefix}","url":"http://127.0.0.1:9000"}}"#)).unwrap()
}

#[test]
fn both_spellings_mean_the_same() {
    let first = parse(
        r#"{"service_name":"risk","url":"http://127.0.0.1:9000","prefix":"/api/risk/","health_endpoint":"/healthz",
            "rate_limit":200}"#,
    );
    let second = parse(
        r#"{"name":"risk","instances":[{"url":"http://127.0.0.1:9000","weight":1}],"path_prefix":"/api/risk",
            "health_endpoint":"/healthz","rate_limit":200,"auth_required":true}"#,
    );
    assert_eq!(first.as_ref().unwrap().prefix, "/api/risk");
    assert!(first.as_ref().unwrap().auth_required);
    assert_eq!(first, second);
    let listed =
        parse(r#"{"name":"a","prefix":"/a","instances":["http://h:1",{"url":"http://h:2","weight":3}]}"#);
    assert_eq!(listed.unwrap().instances[1].weight, 3);
}

#[test]
fn a_registration_survives_being_written() {
    let body = r#"{"name":"a","prefix":"/a/b","instances":[{"url":"http://[::1]:81","weight":7}],"ttl":60,
                   "auth_required":false,"rate_limit":0,"health_endpoint":"/h"}"#;
    let registration = parse(body).unwrap();
    let written = serde_json::to_string(&registration).unwrap();
    assert_eq!(serde_json::from_str::<Registration>(&written).unwrap(), registration);
    let tampered = written.replace("/a/b", "/a/../b");
    assert!(serde_json::from_str::<Registration>(&tampered).is_err());
}

#[test]
fn bad_bodies_say_what_is_wrong() {
    let with = |fields: &str| parse(&format!(r#"{{"name":"a","prefix":"/a","url":"http://h:1"{fields}}}"#));
    assert!(with("").is_ok());
    for (body, part) in [
        (r#"{"prefix":"/a","url":"http://h:1"}"#, "`name` is missing"),
        (r#"{"name":"a","url":"http://h:1"}"#, "`prefix` is missing"),
        (r#"{"name":"a","prefix":"/a"}"#, "`url` is missing"),
        (r#"{"name":"a","service_name":"b","prefix":"/a","url":"http://h:1"}"#, "both given"),
        (r#"{"name":"a b","prefix":"/a","url":"http://h:1"}"#, "service name"),
        (r#"{"name":"","prefix":"/a","url":"http://h:1"}"#, "service name"),
        (r#"{"name":"a","prefix":"/","url":"http://h:1"}"#, "prefix takes"),
        (r#"{"name":"a","prefix":"/a/../events","url":"http://h:1"}"#, "prefix takes"),
        (r#"{"name":"a","prefix":"/a%2f","url":"http://h:1"}"#, "prefix takes"),
        (r#"{"name":"a","prefix":"a","url":"http://h:1"}"#, "prefix takes"),
        (r#"{"name":"a","prefix":"/a","url":"unix:/run/x"}"#, "instance 0"),
        (r#"{"name":"a","prefix":"/a","url":"https://h"}"#, "instance 0"),
        (r#"{"name":"a","prefix":"/a","url":"http://h:1/x"}"#, "instance 0"),
        (r#"{"name":"a","prefix":"/a","instances":[]}"#, "1 to 64"),
        (r#"{"name":"a","prefix":"/a","instances":["http://h:1","http://h:1"]}"#, "listed twice"),
        (r#"{"name":"a","prefix":"/a","instances":[{"url":"http://h:1","weight":0}]}"#, "`weight`"),
        (r#"{"name":"a","prefix":"/a","url":"http://h:1","instances":["http://h:2"]}"#, "both given"),
        ("[]", "expected a registration, which is an object"),
        (r#"{"name":"a","prefix":"/a","instances":[7]}"#, "an instance is its address, or an object"),
    ] {
        let fault = parse(body).unwrap_err();
        assert!(fault.contains(part), "{body}: {fault}");
    }
    for (fields, part) in [
        (r#","ttl":0"#, "`ttl`"),
        (r#","rate_limit":1000000001"#, "`rate_limit`"),
        (r#","health_endpoint":"health""#, "`health_endpoint`"),
        (r#","health_endpoint":"/a/../b""#, "`health_endpoint`"),
        (r#","health_endpoint":"/a?b""#, "`health_endpoint`"),
        (r#","surprise":1"#, "unknown field"),
    ] {
        let fault = with(fields).unwrap_err();
        assert!(fault.contains(part), "{fields}: {fault}");
    }
}

#[test]
fn nothing_that_routes_already_is_shadowed() {
    let mut config = Config::default();
    config.services =
        vec![config.service("web", "/"), config.service("data", "/api/data"), config.service("off", "/off")];
    config.services[2].enabled = false;
    let old = registration("risk", "/api/risk");
    let admit =
        |new: &Registration| admit(new, &config, [&old]).map_err(|fault| (fault.code().status(), fault));
    assert_eq!(admit(&registration("new", "/api/new")), Ok(Effect::Adds));
    assert_eq!(admit(&registration("off", "/off")), Ok(Effect::Adds));
    assert_eq!(admit(&old.clone()), Ok(Effect::Renews));
    assert_eq!(admit(&registration("risk", "/api/risk2")), Ok(Effect::Replaces));
    for (name, prefix, fault) in [
        ("x", "/events/mine", RegistrationFault::Reserved("/events")),
        ("x", "/api/register", RegistrationFault::Reserved("/api/register")),
        ("x", "/api/data", RegistrationFault::PrefixTaken("data".to_owned())),
        ("x", "/api/data/sub", RegistrationFault::PrefixTaken("data".to_owned())),
        ("x", "/api/risk", RegistrationFault::PrefixTaken("risk".to_owned())),
        ("web", "/web", RegistrationFault::NameTaken),
    ] {
        assert_eq!(admit(&registration(name, prefix)), Err((409, fault)));
    }
}

#[test]
fn a_full_registry_takes_no_new_name() {
    let mut config = Config::default();
    config.registry.max = 2;
    let held = [registration("a", "/a"), registration("b", "/b")];
    assert_eq!(admit(&registration("c", "/c"), &config, &held), Err(RegistrationFault::Full(2)));
    assert_eq!(admit(&registration("a", "/a2"), &config, &held), Ok(Effect::Replaces));
}

#[test]
fn service_takes_the_defaults_for_what_it_leaves_open() {
    let mut config = Config { rate_limit: Some(RateLimit::per_minute(77)), ..Config::default() };
    config.registry.ttl = Some(Duration::from_secs(9));
    let plain = registration("a", "/a");
    let service = plain.service(&config);
    assert_eq!((service.rate_limit.unwrap().requests, service.health.path.as_str()), (77, "/health"));
    assert_eq!((service.source, plain.lease(&config)), (Source::Api, Some(Duration::from_secs(9))));
    let own = Registration {
        rate_limit: Some(5),
        ttl_s: Some(1),
        health_endpoint: Some("/h".to_owned()),
        ..plain.clone()
    };
    assert_eq!(own.service(&config).rate_limit.unwrap().requests, 5);
    assert_eq!(
        (own.service(&config).health.path.as_str(), own.lease(&config)),
        ("/h", Some(Duration::from_secs(1)))
    );
    let open = Registration { rate_limit: Some(0), auth_required: false, ..plain };
    assert_eq!((open.service(&config).rate_limit, open.service(&config).auth_required), (None, false));
}
