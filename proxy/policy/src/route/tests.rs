use std::collections::BTreeMap;

use super::*;
use crate::reserved::is_below;
use proptest::prelude::*;

fn rule(prefix: &str, target: usize) -> Rule {
    Rule {
        name: format!("s{target}"),
        prefix: prefix.to_owned(),
        hosts: Vec::new(),
        methods: MethodSet::EMPTY,
        headers: Fields::default(),
        strip_prefix: true,
        target: Target::Service(target),
    }
}

fn on_hosts(hosts: &[&str], rule: Rule) -> Rule {
    Rule { hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), ..rule }
}

fn for_methods(methods: &[Method], rule: Rule) -> Rule {
    Rule { methods: methods.iter().copied().collect(), ..rule }
}

fn with_headers(wanted: &[(&str, &str)], rule: Rule) -> Rule {
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Rule { headers: Fields::new(&wanted), ..rule }
}

fn ask<'a>(method: Method, host: &'a str, path: &'a str) -> Ask<'a> {
    Ask { method, host, path, headers: &|_, _| false }
}

/// Fields of a request.
fn has<'a>(fields: &'a [(&'a str, &'a str)]) -> impl Fn(&str, Option<&str>) -> bool + 'a {
    move |name, wanted| {
        fields.iter().any(|(field, value)| *field == name && wanted.is_none_or(|wanted| wanted == *value))
    }
}

fn found(table: &Table, method: Method, host: &str, path: &str) -> Option<Target> {
    match table.find(&ask(method, host, path)) {
        Lookup::Found(route) => Some(route.target),
        _ => None,
    }
}

fn get(table: &Table, path: &str) -> Option<usize> {
    match found(table, Method::Get, "any", path) {
        Some(Target::Service(index)) => Some(index),
        _ => None,
    }
}

#[test]
fn longest_prefix_wins_on_segment_borders() {
    let table =
        Table::new([rule("/", 0), rule("/api", 1), rule("/api/data", 2), rule("/api/data/x/y/", 3)]).unwrap();
    for (path, index) in [
        ("/", 0),
        ("/apix", 0),
        ("/api", 1),
        ("/api/", 1),
        ("/api/database", 1),
        ("/api/data", 2),
        ("/api/data/", 2),
        ("/api/data/x", 2),
        ("/api/data/x/yz", 2),
        ("/api/data/x/y", 3),
        ("/api/data/x/y/z/a/b/c", 3),
    ] {
        assert_eq!(get(&table, path), Some(index), "{path}");
    }
}

#[test]
fn prefix_is_cut_off_where_asked() {
    let keep = Rule { strip_prefix: false, ..rule("/keep", 1) };
    let table = Table::new([rule("/api/data", 0), keep, rule("/", 2)]).unwrap();
    let forwarded = |path: &'static str| match table.find(&ask(Method::Get, "", path)) {
        Lookup::Found(route) => route.forward_path(path),
        _ => "none",
    };
    assert_eq!(forwarded("/api/data/market/BTC/USDT"), "/market/BTC/USDT");
    assert_eq!(forwarded("/api/data"), "/");
    assert_eq!(forwarded("/api/data/"), "/");
    assert_eq!(forwarded("/keep/x"), "/keep/x");
    assert_eq!(forwarded("/other"), "/other");
}

#[test]
fn hosts_narrow_and_the_exact_one_wins() {
    let table = Table::new([
        rule("/a", 0),
        on_hosts(&["*.example.org"], rule("/a", 1)),
        on_hosts(&["x.example.org", "y.test"], rule("/a", 2)),
        on_hosts(&["x.example.org"], rule("/only", 3)),
    ])
    .unwrap();
    let at = |host: &str, path: &str| found(&table, Method::Get, host, path);
    assert_eq!(at("X.Example.ORG", "/a"), Some(Target::Service(2)));
    assert_eq!(at("y.test", "/a/b"), Some(Target::Service(2)));
    assert_eq!(at("z.example.org", "/a"), Some(Target::Service(1)));
    assert_eq!(at("deep.z.example.org", "/a"), Some(Target::Service(1)));
    assert_eq!(at("example.org", "/a"), Some(Target::Service(0)));
    assert_eq!(at(&"h".repeat(300), "/a"), Some(Target::Service(0)));
    assert_eq!(at("x.example.org", "/only"), Some(Target::Service(3)));
    assert_eq!(at("other", "/only"), None);
}

#[test]
fn a_longer_prefix_beats_a_named_host() {
    let table = Table::for_edge([on_hosts(&["a.test"], rule("/", 0))]).unwrap();
    assert_eq!(found(&table, Method::Get, "a.test", "/events/x"), Some(Target::Worker(Role::Events)));
    assert_eq!(found(&table, Method::Get, "a.test", "/x"), Some(Target::Service(0)));
    assert_eq!(found(&table, Method::Get, "b.test", "/x"), None);
}

#[test]
fn a_known_path_with_another_method_names_its_methods() {
    let table = Table::new([
        for_methods(&[Method::Get], rule("/a", 0)),
        for_methods(&[Method::Post], rule("/a", 1)),
        rule("/b", 2),
    ])
    .unwrap();
    assert_eq!(found(&table, Method::Head, "", "/a"), Some(Target::Service(0)));
    assert_eq!(found(&table, Method::Post, "", "/a"), Some(Target::Service(1)));
    let Lookup::WrongMethod(allowed) = table.find(&ask(Method::Put, "", "/a/x")) else {
        panic!("PUT is not routed");
    };
    assert_eq!(allowed.allow(), "GET, HEAD, POST");
    assert!(matches!(table.find(&ask(Method::Put, "", "/c")), Lookup::Missing));
}

#[test]
fn header_fields_narrow_and_the_more_particular_wins() {
    let table = Table::new([
        rule("/a", 0),
        for_methods(&[Method::Get], rule("/a", 1)),
        with_headers(&[("x-desk", "*")], rule("/a", 2)),
        with_headers(&[("X-Desk", "fx")], rule("/a", 3)),
        with_headers(&[("x-desk", "fx"), ("x-beta", "*")], rule("/a", 4)),
        with_headers(&[("x-desk", "fx")], for_methods(&[Method::Post], rule("/a", 5))),
        with_headers(&[("x-only", "*")], for_methods(&[Method::Post], rule("/only", 6))),
    ])
    .unwrap();
    let at = |method, path, fields: &[(&str, &str)]| match table
        .find(&Ask { headers: &has(fields), ..ask(method, "", path) })
    {
        Lookup::Found(route) => route.name.clone(),
        Lookup::WrongMethod(allowed) => allowed.allow(),
        Lookup::Missing => "missing".to_owned(),
    };
    assert_eq!(at(Method::Get, "/a", &[]), "s1");
    assert_eq!(at(Method::Post, "/a", &[]), "s0");
    assert_eq!(at(Method::Get, "/a", &[("x-desk", "rates")]), "s2");
    assert_eq!(at(Method::Get, "/a", &[("x-desk", "fx")]), "s3");
    assert_eq!(at(Method::Post, "/a", &[("x-desk", "fx")]), "s5");
    assert_eq!(at(Method::Post, "/a", &[("x-desk", "rates"), ("x-desk", "fx"), ("x-beta", "")]), "s4");
    // Who lacks the fields does not learn of the path.
    assert_eq!(at(Method::Get, "/only", &[]), "missing");
    assert_eq!(at(Method::Get, "/only", &[("x-only", "1")]), "POST");
}

#[test]
fn fields_and_routes_of_one_prefix_are_bounded() {
    let names: Vec<String> = (0..=FIELDS_MAX).map(|n| format!("x-{n}")).collect();
    let wanted: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "*")).collect();
    assert_eq!(
        Table::new([with_headers(&wanted, rule("/a", 0))]).unwrap_err(),
        [RouteFault::ManyFields { name: "s0".to_owned() }]
    );
    let peers = |count: usize| {
        (0..count).map(|n| with_headers(&[("x-desk", &n.to_string())], rule("/a", n))).collect::<Vec<_>>()
    };
    assert!(Table::new(peers(PEERS_MAX)).is_ok());
    let crowded = RouteFault::Crowded { name: format!("s{PEERS_MAX}"), prefix: "/a".to_owned() };
    assert_eq!(Table::new(peers(PEERS_MAX + 1)).unwrap_err(), [crowded]);
}

#[test]
fn workers_and_pages_are_routed_and_rooms_of_the_vault_withheld() {
    let table = Table::for_edge([rule("/", 0), rule("/api/data", 1)]).unwrap();
    for (path, target) in [
        ("/health", Target::Edge),
        ("/api/services", Target::Edge),
        ("/events/replay", Target::Worker(Role::Events)),
        ("/calculations/indicators", Target::Worker(Role::Calc)),
        ("/v1/secret/data/x", Target::Worker(Role::Vault)),
        ("/v1/sys/health", Target::Worker(Role::Vault)),
        ("/v1/sys/unseal", Target::Withheld),
        ("/v1/sys/generate-root/attempt", Target::Withheld),
        ("/healthy", Target::Service(0)),
        ("/api/data", Target::Service(1)),
    ] {
        assert_eq!(found(&table, Method::Get, "", path), Some(target), "{path}");
    }
}

#[test]
fn faults_are_all_reported() {
    let faults = Table::for_edge([
        rule("/events/mine", 0),
        rule("/api/x", 1),
        rule("/api/x/", 2),
        rule("api", 3),
        rule("/a b", 4),
        rule("/a/../b", 5),
        rule(&"/d".repeat(SEGMENTS_MAX + 1), 6),
        rule("", 7),
        for_methods(&[Method::Get], rule("/api/x", 8)),
        on_hosts(&["h"], rule("/api/x", 9)),
    ])
    .unwrap_err();
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 7, "{texts:#?}");
    assert!(texts[0].contains("reserved /events"));
    assert_eq!(texts[6], "`s1` and `s2` both take /api/x");
}

#[test]
fn host_name_drops_the_port_only() {
    for (authority, name) in [
        ("h:80", "h"),
        ("h", "h"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("", ""),
        ("10.0.0.1:1", "10.0.0.1"),
    ] {
        assert_eq!(host_name(authority), name);
    }
}

#[test]
fn ten_thousand_routes_are_found() {
    let table = Table::for_edge((0..10_000).map(|n| rule(&format!("/api/s{n}"), n))).unwrap();
    for n in (0..10_000).step_by(97) {
        assert_eq!(get(&table, &format!("/api/s{n}/x/y")), Some(n));
    }
    assert_eq!(get(&table, "/api/s10000"), None);
}

proptest! {
    #[test]
    fn agrees_with_the_naive_longest_prefix(
        prefixes in proptest::collection::btree_set("/|(/[ab]{1,2}){1,4}", 1..12),
        path in "(/[ab]{1,3}){0,6}/?",
    ) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let prefixes: Vec<String> = prefixes.into_iter().collect();
        let table = Table::new(prefixes.iter().enumerate().map(|(index, prefix)| rule(prefix, index))).unwrap();
        let covers = |prefix: &str| prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
        let model = prefixes.iter().enumerate().filter(|(_, p)| covers(p)).max_by_key(|(_, p)| p.len()).map(|(i, _)| i);
        prop_assert_eq!(get(&table, &path), model);
    }

    #[test]
    fn agrees_with_the_naive_order_over_hosts_and_methods(
        rules in proptest::collection::vec(("/|(/[ab]){1,2}", 0_usize..4, 0_usize..3), 1..10),
        host in 0_usize..4, method in 0_usize..2, path in "(/[ab]){1,3}",
    ) {
        const HOSTS: [&[&str]; 4] = [&[], &["a.t"], &["*.t"], &["b.a.t", "a.t"]];
        const METHODS: [&[Method]; 3] = [&[], &[Method::Get], &[Method::Get, Method::Post]];
        let host = ["a.t", "b.a.t", "c.t", "z"][host];
        let method = [Method::Get, Method::Post][method];
        let built: Vec<Rule> = rules.iter().enumerate()
            .map(|(i, (prefix, hosts, methods))| on_hosts(HOSTS[*hosts], for_methods(METHODS[*methods], rule(prefix, i))))
            .collect();
        let rank = |rule: &Rule| -> Option<(usize, usize, u32)> {
            let named = rule.hosts.iter().filter_map(|pattern| match pattern.strip_prefix('*') {
                Some(domain) => host.ends_with(domain).then_some(domain.len()),
                None => (pattern == host).then_some(1_000),
            }).max();
            let host_rank = if rule.hosts.is_empty() { 0 } else { named? };
            let methods = if rule.methods.is_empty() { u32::MAX } else { rule.methods.len() };
            (is_below(&path, &rule.prefix) && (rule.methods.is_empty() || rule.methods.contains(method)))
                .then_some((rule.prefix.len(), host_rank, u32::MAX - methods))
        };
        let model = built.iter().filter_map(|rule| rank(rule).map(|rank| (rank, rule.target))).max_by_key(|(rank, _)| *rank);
        match Table::new(built.clone()) {
            Ok(table) => prop_assert_eq!(found(&table, method, host, &path), model.map(|(_, target)| target)),
            Err(faults) => {
                let only_ties = faults.iter().all(|fault| matches!(fault, RouteFault::Tie { .. }));
                prop_assert!(only_ties);
            }
        }
    }

    #[test]
    fn agrees_with_the_naive_order_over_header_fields(
        rules in proptest::collection::vec((0_usize..2, proptest::collection::btree_map("[ab]", "[12*]", 0..3), 0_usize..3), 1..8),
        fields in proptest::collection::vec(("[abc]", "[12]"), 0..4),
        method in 0_usize..2,
    ) {
        const METHODS: [&[Method]; 3] = [&[], &[Method::Get], &[Method::Get, Method::Post]];
        const PREFIXES: [&str; 2] = ["/", "/p"];
        let method = [Method::Get, Method::Post][method];
        let build = |(index, (prefix, wanted, methods)): (usize, &(usize, BTreeMap<String, String>, usize))| {
            let rule = for_methods(METHODS[*methods], rule(PREFIXES[*prefix], index));
            Rule { headers: Fields::new(wanted), ..rule }
        };
        let built: Vec<Rule> = rules.iter().enumerate().map(build).collect();
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let takes = |(prefix, wanted, methods): &(usize, BTreeMap<String, String>, usize)| {
            let held = wanted.iter().all(|(name, value)| {
                fields.iter().any(|(field, found)| field == name && (value == "*" || value == found))
            });
            let rank = (
                *prefix,
                wanted.len(),
                wanted.values().filter(|value| *value != "*").count(),
                usize::MAX - METHODS[*methods].len().wrapping_sub(1),
            );
            (held && (METHODS[*methods].is_empty() || METHODS[*methods].contains(&method))).then_some(rank)
        };
        let best = rules.iter().filter_map(takes).max();
        let ask = |table: &Table| match table.find(&Ask { headers: &has(&fields), ..ask(method, "", "/p/x") }) {
            Lookup::Found(Route { target: Target::Service(index), .. }) => Some(*index),
            _ => None,
        };
        match Table::new(built.clone()) {
            Ok(table) => {
                let index = ask(&table);
                prop_assert_eq!(index.and_then(|index| takes(&rules[index])), best);
                // Where several are equally particular, the order of the rules decides nothing.
                let again = Table::new(built.into_iter().rev()).expect("the same rules");
                prop_assert_eq!(ask(&again), index);
            }
            Err(faults) => {
                let only_ties = faults.iter().all(|fault| matches!(fault, RouteFault::Tie { .. }));
                prop_assert!(only_ties);
            }
        }
    }
}
