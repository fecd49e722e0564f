//! `sluice explain`: what the edge would do with a request, told from the configuration alone.
//!
//! The request is written as bytes and judged by the same code as at the edge: framing, path, route,
//! permissions. What only a running edge knows (breaker, health, registered services) is not told.

#[cfg(test)]
mod tests;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sluice_policy::authorize::{Access, Need, is_preflight};
use sluice_policy::framing::{self, Head};
use sluice_policy::method::Method;
use sluice_policy::path::{normalise, origin_form, target};
use sluice_policy::reserved::{Credential, Reserved};
use sluice_policy::rewrite::Rewrite;
use sluice_policy::route::{Ask, Lookup, Route, Rule, Table, Target, host_name};
use sluice_schema::{Config, Effective, Mode, RateStore, Service, Source};
use sluice_wire::code::Code;
use sluice_wire::header::X_API_KEY;

use crate::args::{Explain, Format};
use crate::exit::{self, Failure};
use crate::{load, say};
use words::words;

/// Runs `sluice explain`: 0 where something takes the request, 3 where nothing does, 2 for a configuration or
/// arguments with errors.
pub(crate) fn run(args: &Explain) -> Result<exit::Code, Failure> {
    let mode = Mode { dev: args.dev, secrets_required: false, now_unix_s: None, ..Mode::default() };
    let loaded = load::read(&args.conf, &load::environment(), mode).map_err(|report| {
        load::print(&report);
        Failure::usage(format!("{} error(s) in the configuration", report.errors()))
    })?;
    let request = Request::new(args)?;
    let verdict = judge(&loaded.config, &request)?;
    let text = match args.format {
        Format::Json => format!("{}\n", Value::Object(verdict.facts)),
        Format::Text => words(&verdict.facts),
    };
    say::result(&text)?;
    Ok(if verdict.routed { exit::OK } else { exit::CHECK })
}

/// The request as it would come.
struct Request {
    head: Vec<u8>,
    /// Fields by lower-case name.
    fields: Vec<(String, String)>,
}

/// What becomes of it.
struct Verdict {
    routed: bool,
    facts: Map<String, Value>,
}

impl Request {
    fn new(args: &Explain) -> Result<Self, Failure> {
        let mut fields = Vec::new();
        for field in &args.headers {
            let Some((name, value)) = field.split_once(':') else {
                return Err(Failure::usage(format!("`{field}` is no header field; write `Name: value`")));
            };
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            fields.insert(0, ("Host".to_owned(), "localhost".to_owned()));
        }
        let mut head = format!("{} {} HTTP/1.1\r\n", args.method, args.target).into_bytes();
        for (name, value) in &fields {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        let fields = fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        Ok(Self { head, fields })
    }

    fn has(&self, name: &str, value: Option<&str>) -> bool {
        self.fields.iter().any(|(known, given)| known == name && value.is_none_or(|value| value == given))
    }
}

impl Verdict {
    fn refused(code: Code, reason: &str) -> Self {
        let mut facts = Map::new();
        facts.insert("verdict".into(), "refused".into());
        facts.insert("status".into(), code.status().into());
        facts.insert("code".into(), code.word().into());
        facts.insert("reason".into(), reason.into());
        Self { routed: false, facts }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.into(), value.into());
        self
    }
}

fn judge(config: &Config, request: &Request) -> Result<Verdict, Failure> {
    let limits = &config.edge.limits;
    let head = match framing::check(&request.head, limits) {
        Ok(head) => head,
        Err(fault) => return Ok(Verdict::refused(fault.code, fault.reason).with("stage", "framing")),
    };
    let sent = origin_form(head.target).unwrap_or(head.target);
    if sent == b"*" {
        let mut facts = Map::new();
        facts.insert("verdict".into(), "answered by the edge".into());
        facts.insert("route".into(), json!({ "name": "edge", "kind": "page", "match": "OPTIONS *" }));
        return Ok(Verdict { routed: true, facts });
    }
    let normalised = match normalise(sent) {
        Ok(normalised) => normalised,
        Err(fault) => return Ok(Verdict::refused(Code::BadPath, fault.reason()).with("stage", "path")),
    };
    if http::uri::PathAndQuery::try_from(sent).is_err() {
        return Ok(Verdict::refused(Code::BadPath, "target_character").with("stage", "path"));
    }
    let services: Vec<&Service> = config.enabled_services().collect();
    let routed = services.iter().enumerate().filter(|(_, service)| !service.prefix.is_empty());
    let rules = routed.map(|(index, service)| Rule::of_service(index, service));
    let table = Table::for_edge(rules).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Failure::usage(format!("routes do not fit together: {}", faults.join("; ")))
    })?;
    let (path, query) = normalised.into_parts();
    let verdict = find(config, &services, &table, request, &head, (&path, query.as_deref()));
    let verdict = verdict.with("method", head.method.as_str()).with("path", path.as_str());
    Ok(verdict.with("rewritten", path.as_bytes() != sent.split(|byte| *byte == b'?').next().unwrap_or(sent)))
}

/// Looks the route up and tells about it.
fn find(
    config: &Config,
    services: &[&Service],
    table: &Table,
    request: &Request,
    head: &Head<'_>,
    (path, query): (&str, Option<&str>),
) -> Verdict {
    if !head.method.is_known_on(path) {
        return Verdict::refused(Code::NotImplemented, "method_unknown").with("stage", "route");
    }
    let host = String::from_utf8_lossy(head.host).into_owned();
    let has = |name: &str, value: Option<&str>| request.has(name, value);
    let look_up = |method| table.find(&Ask { method, host: host_name(&host), path, headers: &has });
    match asked_by_preflight(services, request, head, look_up).unwrap_or_else(|| look_up(head.method)) {
        Lookup::Missing => {
            Verdict::refused(Code::NoRoute, "no service takes this path").with("stage", "route")
        }
        Lookup::WrongMethod(allowed) => {
            let verdict = Verdict::refused(Code::MethodNotAllowed, "the path takes other methods");
            verdict.with("stage", "route").with("allowed_methods", allowed.allow())
        }
        Lookup::Found(route) => found(config, services, route, request, head, (path, query)),
    }
}

/// The route that a preflight asks for, where its service answers preflights.
fn asked_by_preflight<'t>(
    services: &[&Service],
    request: &Request,
    head: &Head<'_>,
    look_up: impl Fn(Method) -> Lookup<'t>,
) -> Option<Lookup<'t>> {
    let asked = request.fields.iter().find(|(name, _)| name == "access-control-request-method")?;
    let method = Method::parse(asked.1.as_bytes()).ok()?;
    if !is_preflight(head.method, request.has("origin", None), true) {
        return None;
    }
    let answers = |index: usize| services.get(index).is_some_and(|service| !service.cors.origins.is_empty());
    match look_up(method) {
        Lookup::Found(route) if matches!(route.target, Target::Service(index) if answers(index)) => {
            Some(Lookup::Found(route))
        }
        _ => None,
    }
}

fn found(
    config: &Config,
    services: &[&Service],
    route: &Route,
    request: &Request,
    head: &Head<'_>,
    (path, query): (&str, Option<&str>),
) -> Verdict {
    let withheld = route.target == Target::Withheld
        || route.reserved.is_some_and(|reserved| reserved.prefix == "/falco");
    if withheld {
        return Verdict::refused(Code::NoRoute, "a path the edge keeps to the machine")
            .with("stage", "route");
    }
    let facts = Map::from_iter([("verdict".to_owned(), Value::from("routed"))]);
    let verdict = Verdict { routed: true, facts };
    let service = match route.target {
        Target::Service(index) => services.get(index).copied(),
        _ => None,
    };
    match (service, route.reserved) {
        (Some(service), _) => of_service(config, service, route, request, head, (path, query), verdict),
        (None, Some(reserved)) => of_own(config, route, reserved, (path, query), verdict),
        (None, None) => verdict,
    }
}

/// A path of the edge itself or of a worker.
fn of_own(
    config: &Config,
    route: &Route,
    reserved: &Reserved,
    (path, query): (&str, Option<&str>),
    verdict: Verdict,
) -> Verdict {
    let kind = if route.target == Target::Edge { "page" } else { "worker" };
    let credential = match reserved.credential {
        Credential::Edge => "checked by the edge, the worker checks the scope",
        Credential::EdgeIfPresent => "checked by the edge where one is sent, the worker decides",
        Credential::Worker | Credential::WorkerTells => "passed to the worker, which decides",
        Credential::Open => "none, or by a rule of the page",
    };
    let verdict = verdict
        .with("route", json!({ "name": route.name, "kind": kind, "match": { "prefix": route.prefix } }))
        .with("authentication", credential)
        .with("body_bytes", reserved.body_bytes_max)
        .with("forwarded", target(route.forward_path(path), query));
    let verdict = match reserved.lane {
        Some(lane) => verdict.with("lane", lane.as_str()),
        None => verdict,
    };
    let verdict = match reserved.per_ip_minute {
        Some(count) => verdict
            .with("rate_limit", json!({ "requests": count, "per": "1m", "key": "ip" }))
            .with("rate_counted", rate_counted(config)),
        None => verdict,
    };
    if reserved.tls_required {
        verdict.with("transport", "over TLS, or in clear text on this machine alone")
    } else {
        verdict
    }
}

fn of_service(
    config: &Config,
    service: &Service,
    route: &Route,
    request: &Request,
    head: &Head<'_>,
    (path, query): (&str, Option<&str>),
    verdict: Verdict,
) -> Verdict {
    let values = Effective::of(&Config { services: vec![service.clone()], ..config.clone() });
    let values = values.services.get(&service.name).cloned().unwrap_or_default();
    let place = match &service.source {
        Source::File { path, line } => format!("{}:{line}", path.display()),
        Source::Api => "registered".to_owned(),
    };
    let matched = ["prefix", "hosts", "methods", "headers"];
    let matched = matched.iter().filter_map(|name| Some(((*name).to_owned(), values.get(*name)?.clone())));
    // What is not named is not asked for.
    let matched: Map<String, Value> = matched.filter(|(_, value)| !is_empty(value)).collect();
    let preflight = is_preflight(
        head.method,
        request.has("origin", None),
        request.has("access-control-request-method", None),
    );
    let access = Access::of_service(service, config.auth.enabled);
    let (authentication, permissions) = match access.need(head.method, preflight) {
        Need::Nothing if preflight => ("none: a CORS preflight", Vec::new()),
        Need::Nothing => ("none", Vec::new()),
        Need::Identity => ("a valid identity", Vec::new()),
        Need::All(words) => ("a valid identity with every permission named", words.to_vec()),
    };
    let pages = !service.cors.origins.is_empty();
    let authentication =
        if preflight && pages { "none: the edge answers the preflight" } else { authentication };
    let path = route.forward_path(path);
    let forwarded =
        match Rewrite::new(&service.rewrite).map(|rewrite| rewrite.apply(path).map(Cow::into_owned)) {
            _ if preflight && pages => "nothing: the edge answers the preflight".to_owned(),
            None => target(path, query),
            Some(Ok(path)) => target(&path, query),
            Some(Err(unfit)) => {
                return Verdict::refused(Code::BadPath, &unfit.to_string()).with("stage", "rewrite");
            }
        };
    let verdict = verdict
        .with("route", json!({ "name": service.name, "kind": "service", "place": place, "match": matched }))
        .with("authentication", authentication)
        .with("permissions", permissions)
        .with("upstream", upstream(service))
        .with("forwarded", forwarded);
    let verdict = of_key(config, request, verdict);
    let verdict = match service.rate_limit {
        Some(_) => verdict.with("rate_counted", rate_counted(config)),
        None => verdict,
    };
    let told = [
        "name",
        "prefix",
        "hosts",
        "methods",
        "headers",
        "auth_required",
        "permissions",
        "balance",
        "hash_on",
        "enabled",
    ];
    settings(&values, &told).into_iter().fold(verdict, |verdict, (name, value)| verdict.with(&name, value))
}

/// Who a key in `X-API-Key` stands for, where the configuration knows any.
fn of_key(config: &Config, request: &Request, verdict: Verdict) -> Verdict {
    let keys = &config.auth.api_keys;
    if keys.is_empty() || !config.auth.enabled {
        return verdict;
    }
    let verdict = verdict.with("api_keys", keys.len());
    let Some((_, shown)) = request.fields.iter().find(|(name, _)| name == X_API_KEY) else { return verdict };
    let digest = ring::digest::digest(&ring::digest::SHA256, shown.as_bytes());
    match keys.iter().find(|key| key.sha256 == digest.as_ref()) {
        Some(key) => verdict.with("caller", json!({ "name": key.name, "permissions": key.permissions })),
        None => verdict.with("caller", "nobody: the key is not in the configuration (401)"),
    }
}

/// Who counts what callers have used.
fn rate_counted(config: &Config) -> &'static str {
    match config.rate_store {
        RateStore::Local => "by each edge",
        RateStore::Redis => "by all edges together, in Redis",
    }
}

/// Where it goes, and how an instance is picked.
fn upstream(service: &Service) -> Value {
    let instance = |one: &sluice_schema::Instance| {
        let mut told =
            json!({ "url": one.url.to_string(), "scheme": one.url.scheme.as_str(), "weight": one.weight });
        if !one.zone.is_empty() {
            told["zone"] = one.zone.as_str().into();
        }
        told
    };
    let instances: Vec<Value> = service.instances.iter().map(instance).collect();
    let mut told = json!({ "instances": instances, "balance": service.balance.as_str() });
    if service.balance.is_keyed() {
        told["hash_on"] = service.hash_on.word().into();
    }
    told
}

/// The other settings of a service, those of one table together.
fn settings(values: &BTreeMap<String, Value>, told: &[&str]) -> Map<String, Value> {
    let mut grouped = Map::new();
    for (path, value) in values {
        let own = told.contains(&path.as_str());
        if own || path.starts_with("instance[") || path.starts_with("permissions.") || is_empty(value) {
            continue;
        }
        match path.split_once('.') {
            Some((table, key)) => {
                let group = grouped.entry(table.to_owned()).or_insert_with(|| Value::Object(Map::new()));
                if let Some(group) = group.as_object_mut() {
                    group.insert(key.to_owned(), value.clone());
                }
            }
            None => {
                grouped.insert(path.clone(), value.clone());
            }
        }
    }
    grouped
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
