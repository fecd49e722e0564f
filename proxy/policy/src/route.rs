//! Which service, worker or page a request belongs to.
//!
//! Purpose: one immutable table a configuration generation, looked up once a request.
//!
//! Exact rules: a route matches when its prefix covers the normalised path on segment borders and the
//! request has one of its hosts and methods (empty: any) and all its header fields. Among the matching
//! ones the longest prefix wins; among equal prefixes an exact host beats `*.domain` (the longer domain
//! first) beats any host; then more header fields win, then more exact values among them, then the
//! smaller method set. Routes equal in all of it are an error at build time; among others that could
//! still tie (fields of other names) the order is fixed, whatever the order of the rules. Where a path
//! is known and only the method is not, the lookup says which methods are.
//!
//! Prefixes are made of `A-Za-z0-9-._~` segments, whose one form in [`crate::path`] is themselves: no
//! other spelling of a prefix reaches its upstream past it.
//!
//! Cost: one hash lookup for each depth that some route has and the path reaches, whatever the number
//! of routes; no allocation, no lock. A host table is consulted only where a route names hosts, header
//! fields only where a route of that prefix asks for some.
//!
//! LIMIT: [`SEGMENTS_MAX`] segments in a prefix, [`ROUTES_MAX`] routes, [`PEERS_MAX`] of them with one
//! prefix and host, [`FIELDS_MAX`] header fields a route, [`HOST_BYTES_MAX`] bytes of a host.

mod fault;
mod fields;
mod text;

use std::collections::BTreeSet;
use std::fmt;

use foldhash::fast::FixedState;
use sluice_wire::role::Role;

pub use fault::RouteFault;
pub use fields::{FIELDS_MAX, Fields, HasField};
use text::{borders, depth};
pub use text::{host_name, is_prefix};

use crate::method::{Method, MethodSet};
use crate::reserved::{RESERVED, Reserved, covering};

/// Segments in a prefix at most.
pub const SEGMENTS_MAX: usize = 16;
/// Routes in one table at most.
pub const ROUTES_MAX: usize = 65_536;
/// Routes with one prefix and one host at most: a lookup asks them one by one.
pub const PEERS_MAX: usize = sluice_schema::PREFIX_SHARED_MAX;
/// Bytes of a host name at most (RFC 1035); longer ones match only routes without hosts.
pub const HOST_BYTES_MAX: usize = 255;

/// Who answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The service at this index of the list that the caller built the rules from.
    Service(usize),
    /// A worker, on its internal door.
    Worker(Role),
    /// The edge itself.
    Edge,
    /// Nobody: a worker's path that the edge withholds, 404.
    Withheld,
}

/// What a route is built from.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Name for messages and metric labels.
    pub name: String,
    /// Absolute prefix; a trailing slash is ignored.
    pub prefix: String,
    /// Host names, lower case, without port; `*.example.org` covers every name below; empty: any.
    pub hosts: Vec<String>,
    /// Methods; empty: any.
    pub methods: MethodSet,
    /// Header fields.
    pub headers: Fields,
    /// Whether the prefix is cut off before forwarding.
    pub strip_prefix: bool,
    /// Who answers.
    pub target: Target,
}

/// One entry of the table.
#[derive(Debug)]
pub struct Route {
    /// Name for metric labels: the service's, else the role's, else `edge`.
    pub name: String,
    /// Absolute prefix without trailing slash, or `/`.
    pub prefix: String,
    /// Who answers.
    pub target: Target,
    /// Policy of a reserved prefix; `None` for services.
    pub reserved: Option<&'static Reserved>,
    number: usize,
    strip: usize,
    hosts: Vec<String>,
    methods: MethodSet,
    headers: Fields,
}

/// What is asked of the table.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The method.
    pub method: Method,
    /// The host, any case, without port ([`host_name`]).
    pub host: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// The header fields.
    pub headers: &'a HasField<'a>,
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, host, path, .. } = self;
        write!(f, "Ask {{ {method:?} {host:?} {path:?} }}")
    }
}

/// Answer of a lookup.
#[derive(Debug)]
pub enum Lookup<'t> {
    /// This route.
    Found(&'t Route),
    /// The path is known with these methods only: 405 with `Allow`.
    WrongMethod(MethodSet),
    /// No route: 404.
    Missing,
}

type Map<V> = std::collections::HashMap<Box<str>, V, FixedState>;

/// The routes of one configuration generation.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Route>,
    /// Host name or `.domain` to its group.
    hosts: Map<usize>,
    /// Group 0 is for any host.
    groups: Vec<Group>,
}

/// The routes that share a host condition.
#[derive(Debug, Default)]
struct Group {
    /// Bit n: some prefix has n segments.
    depths: u32,
    /// Prefix to its routes, the most particular first.
    prefixes: Map<Vec<usize>>,
}

impl Rule {
    /// The rule of a checked service; `index` becomes its [`Target::Service`].
    pub fn of_service(index: usize, service: &sluice_schema::Service) -> Self {
        Self {
            name: service.name.clone(),
            prefix: service.prefix.clone(),
            hosts: service.hosts.clone(),
            methods: service.methods.iter().filter_map(|word| Method::parse(word.as_bytes()).ok()).collect(),
            headers: Fields::new(&service.headers),
            strip_prefix: service.strip_prefix,
            target: Target::Service(index),
        }
    }
}

impl Route {
    /// The path to forward: the normalised one, without the prefix where that is cut off.
    pub fn forward_path<'a>(&self, path: &'a str) -> &'a str {
        match path.get(self.strip..) {
            None | Some("") => "/",
            Some(rest) => rest,
        }
    }

    /// Its place in [`Table::routes`].
    pub fn number(&self) -> usize {
        self.number
    }

    /// The methods it takes; empty: any.
    pub fn methods(&self) -> MethodSet {
        self.methods
    }

    /// The header fields it asks for.
    pub fn headers(&self) -> &Fields {
        &self.headers
    }

    /// Where it stands among routes of one prefix and host: the first that takes a request has it.
    fn order(&self) -> impl Ord + '_ {
        let breadth = if self.methods.is_empty() { u32::MAX } else { self.methods.len() };
        (self.headers.rank(), breadth, &self.headers)
    }

    fn takes(&self, method: Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    fn from_rule(rule: Rule) -> Result<Self, RouteFault> {
        let prefix = match rule.prefix.trim_end_matches('/') {
            "" if rule.prefix.starts_with('/') => "/",
            trimmed => trimmed,
        };
        let Rule { name, hosts, methods, headers, strip_prefix, target, .. } = rule;
        let prefix = prefix.to_owned();
        if !is_prefix(&prefix) {
            return Err(RouteFault::Prefix { name, prefix: rule.prefix });
        }
        if depth(&prefix) > SEGMENTS_MAX {
            return Err(RouteFault::Deep { name, prefix });
        }
        if headers.len() > FIELDS_MAX {
            return Err(RouteFault::ManyFields { name });
        }
        let strip = if strip_prefix && prefix != "/" { prefix.len() } else { 0 };
        let mut hosts: Vec<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        Ok(Self { name, prefix, target, reserved: None, number: 0, strip, hosts, methods, headers })
    }
}

impl Table {
    /// The table of the edge: Sluice's own prefixes and these rules.
    ///
    /// # Errors
    /// Every [`RouteFault`] found, in the order of the rules.
    pub fn for_edge(rules: impl IntoIterator<Item = Rule>) -> Result<Self, Vec<RouteFault>> {
        let (mut routes, mut faults) = (reserved_routes(), Vec::new());
        for rule in rules {
            match Route::from_rule(rule) {
                Ok(route) => match covering(&route.prefix) {
                    Some(Reserved { prefix: reserved, .. }) => {
                        let Route { name, prefix, .. } = route;
                        faults.push(RouteFault::Reserved { name, prefix, reserved });
                    }
                    None => routes.push(route),
                },
                Err(fault) => faults.push(fault),
            }
        }
        Self::build(routes, faults)
    }

    /// A table of these rules alone.
    ///
    /// # Errors
    /// Every [`RouteFault`] found, in the order of the rules.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Result<Self, Vec<RouteFault>> {
        let (mut routes, mut faults) = (Vec::new(), Vec::new());
        for rule in rules {
            match Route::from_rule(rule) {
                Ok(route) => routes.push(route),
                Err(fault) => faults.push(fault),
            }
        }
        Self::build(routes, faults)
    }

    /// The route of a request.
    pub fn find(&self, ask: &Ask<'_>) -> Lookup<'_> {
        let (groups, count) = self.groups_of(ask.host);
        let groups = &groups[..count];
        let depths = groups.iter().fold(0, |all, group| all | self.groups[*group].depths);
        let (borders, deepest) = borders(ask.path, depths);
        let mut allowed = MethodSet::EMPTY;
        for depth in (0..=deepest).rev().filter(|depth| depths & (1 << depth) != 0) {
            let prefix = if depth == 0 { "/" } else { &ask.path[..borders[depth]] };
            for group in groups.iter().map(|group| &self.groups[*group]) {
                let peers = group.at(depth, prefix).iter().map(|index| &self.routes[*index]);
                for route in peers.filter(|route| route.headers.hold(ask.headers)) {
                    if route.takes(ask.method) {
                        return Lookup::Found(route);
                    }
                    allowed = allowed.union(route.methods);
                }
            }
        }
        if allowed.is_empty() { Lookup::Missing } else { Lookup::WrongMethod(allowed) }
    }

    /// Every route, Sluice's own first, then in the order of the rules.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn build(routes: Vec<Route>, mut faults: Vec<RouteFault>) -> Result<Self, Vec<RouteFault>> {
        if routes.len() > ROUTES_MAX {
            faults.push(RouteFault::Many { count: routes.len() });
            return Err(faults);
        }
        let mut table = Self { routes, hosts: Map::default(), groups: vec![Group::default()] };
        for index in 0..table.routes.len() {
            table.routes[index].number = index;
            table.insert(index, &mut faults);
        }
        if faults.is_empty() { Ok(table) } else { Err(faults) }
    }

    fn insert(&mut self, index: usize, faults: &mut Vec<RouteFault>) {
        let route = &self.routes[index];
        let depth = depth(&route.prefix);
        let mut groups = BTreeSet::new();
        for host in &route.hosts {
            let name = host.strip_prefix('*').unwrap_or(host);
            let fresh = self.groups.len();
            let group = *self.hosts.entry(name.into()).or_insert(fresh);
            if group == fresh {
                self.groups.push(Group::default());
            }
            groups.insert(group);
        }
        if groups.is_empty() {
            groups.insert(0);
        }
        for group in groups {
            let group = &mut self.groups[group];
            group.depths |= 1 << depth;
            let peers = group.prefixes.entry(route.prefix.as_str().into()).or_default();
            let equal = |peer: &&usize| {
                let peer = &self.routes[**peer];
                peer.methods == route.methods && peer.headers == route.headers
            };
            if let Some(first) = peers.iter().find(equal) {
                let (first, second) = (self.routes[*first].name.clone(), route.name.clone());
                faults.push(RouteFault::Tie { first, second, prefix: route.prefix.clone() });
                return;
            }
            if peers.len() == PEERS_MAX {
                let (name, prefix) = (route.name.clone(), route.prefix.clone());
                faults.push(RouteFault::Crowded { name, prefix });
                return;
            }
            peers.push(index);
            peers.sort_by(|one, other| self.routes[*one].order().cmp(&self.routes[*other].order()));
        }
    }

    /// The groups whose host condition holds, the most particular first. LIMIT: six `*.domain` levels.
    fn groups_of(&self, host: &str) -> ([usize; 8], usize) {
        let mut found = [0; 8];
        let mut lower = [0; HOST_BYTES_MAX];
        if self.hosts.is_empty() || host.len() > HOST_BYTES_MAX {
            return (found, 1);
        }
        let lower = &mut lower[..host.len()];
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        let host = std::str::from_utf8(lower).unwrap_or_default();
        let mut count = 0;
        let domains = host.match_indices('.').map(|(at, _)| &host[at..]).filter(|domain| domain.len() > 1);
        for group in std::iter::once(host).chain(domains).filter_map(|name| self.hosts.get(name)).take(7) {
            found[count] = *group;
            count += 1;
        }
        found[count] = 0;
        (found, count + 1)
    }
}

impl Group {
    fn at(&self, depth: usize, prefix: &str) -> &[usize] {
        if self.depths & (1 << depth) == 0 {
            return &[];
        }
        self.prefixes.get(prefix).map_or(&[], Vec::as_slice)
    }
}

fn reserved_routes() -> Vec<Route> {
    RESERVED
        .iter()
        .map(|reserved| Route {
            name: match reserved.target {
                Target::Worker(role) => role.as_str().to_owned(),
                _ => Role::Edge.as_str().to_owned(),
            },
            prefix: reserved.prefix.to_owned(),
            target: reserved.target,
            reserved: Some(reserved),
            number: 0,
            strip: 0,
            hosts: Vec::new(),
            methods: MethodSet::EMPTY,
            headers: Fields::default(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
