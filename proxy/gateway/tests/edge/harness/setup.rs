//! What an edge is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sluice_http::Asset;
use sluice_wire::role::Role;

use super::{Edge, Names, Upstream};

/// What an edge is started with.
pub struct Setup {
    /// In place of the system's resolver.
    pub names: Option<Names>,
    /// Variables the process was started with.
    pub environment: BTreeMap<String, String>,
    pub main: String,
    pub services: Vec<(String, String)>,
    pub keys: bool,
    pub dev: bool,
    pub dir: tempfile::TempDir,
    pub workers: Vec<Role>,
    /// What a balancer in front sends first.
    pub preamble: &'static [u8],
}

impl Setup {
    pub fn new(main: &str) -> Self {
        Self {
            names: None,
            environment: BTreeMap::new(),
            main: main.to_owned(),
            services: Vec::new(),
            keys: true,
            dev: true,
            dir: tempfile::tempdir().unwrap(),
            workers: Vec::new(),
            preamble: b"",
        }
    }

    /// A service as a file of its own.
    pub fn service(mut self, name: &str, text: &str) -> Self {
        self.services.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Where a worker's internal door is to be.
    pub fn door(&mut self, role: Role) -> PathBuf {
        self.workers.push(role);
        self.dir.path().join(format!("{role}.sock"))
    }

    pub fn start(self) -> Edge {
        Edge::start(self)
    }

    /// An edge whose clients come through a balancer that sends this first.
    pub fn start_behind(mut self, preamble: &'static [u8]) -> Edge {
        self.preamble = preamble;
        Edge::start(self)
    }
}

/// An open service without health noise.
pub fn service(name: &str, prefix: &str, urls: &[String], more: &str) -> String {
    let mut text = format!("[[service]]\nname = \"{name}\"\nprefix = \"{prefix}\"\n{more}\n");
    for url in urls {
        text.push_str(&format!("[[service.instance]]\nurl = \"{url}\"\n"));
    }
    text
}

/// An edge with one open service at `/api`.
pub fn edge_for(upstream: &Upstream, more: &str) -> Edge {
    let text = service("api", "/api", &[upstream.url()], &format!("auth_required = false\n{more}"));
    Setup::new("").service("api", &text).start()
}

pub(super) fn asset(path: &str) -> Option<Asset> {
    let file = |content_type, bytes| Some(Asset { content_type, bytes, etag: "\"1\"" });
    match path {
        "index.html" => file("text/html; charset=utf-8", b"<!doctype html><title>Sluice</title>"),
        "app.js" => file("text/javascript; charset=utf-8", b"export {};"),
        _ => None,
    }
}
