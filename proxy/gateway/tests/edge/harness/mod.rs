//! A whole edge in this process, upstreams that record what reaches them, and a client that sends bytes.

mod client;
mod issuer;
mod names;
mod setup;
mod upstream;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_gateway::{Resolve, SystemResolver};
use sluice_http::{Doors, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_identity::trust::Trust;
use sluice_schema::Mode;
use sluice_telemetry::{log, metric};
use sluice_wire::role::Role;

use client::call;
use setup::asset;

pub use client::{Client, Reply};
pub use issuer::{Issuer, hs256};
pub use names::Names;
pub use setup::{Setup, edge_for, service};
pub use upstream::{Seen, Upstream, Wire, ok, reply};

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `probe` gives a value, else fails with what was waited for.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A running edge.
pub struct Edge {
    pub http: SocketAddr,
    pub control: SocketAddr,
    /// Where it speaks TLS, when it does.
    pub tls: Option<SocketAddr>,
    pub issuer: Issuer,
    pub trust: TrustCell,
    pub conf: PathBuf,
    pub data: PathBuf,
    pub internal_key: String,
    resolver: Arc<dyn Resolve>,
    environment: BTreeMap<String, String>,
    preamble: &'static [u8],
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
    dir: Option<tempfile::TempDir>,
}

impl Edge {
    pub fn start(setup: Setup) -> Self {
        let Setup { names, environment, main, services, keys, dev, dir, workers, preamble } = setup;
        let conf = dir.path().join("conf");
        std::fs::create_dir_all(conf.join("services.d")).unwrap();
        let quiet = if main.contains("[log]") { "" } else { "\n[log]\naccess = \"off\"\n" };
        let threads = if main.contains("[edge]") { "" } else { "[edge]\nthreads = 2\n" };
        std::fs::write(conf.join("sluice.toml"), format!("{threads}{main}{quiet}")).unwrap();
        for (name, text) in services {
            std::fs::write(conf.join("services.d").join(format!("{name}.toml")), text).unwrap();
        }
        let data = dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let sockets = workers.iter().map(|role| (*role, dir.path().join(format!("{role}.sock")))).collect();
        let resolver: Arc<dyn Resolve> = match names {
            Some(names) => Arc::new(names),
            None => Arc::new(SystemResolver::default()),
        };
        Self::boot(dir, conf, data, sockets, keys, dev, Issuer::new(), resolver, environment, preamble)
    }

    #[expect(clippy::too_many_arguments, reason = "what two kinds of start have in common")]
    fn boot(
        dir: tempfile::TempDir,
        conf: PathBuf,
        data: PathBuf,
        sockets: BTreeMap<Role, PathBuf>,
        keys: bool,
        dev: bool,
        issuer: Issuer,
        resolver: Arc<dyn Resolve>,
        environment: BTreeMap<String, String>,
        preamble: &'static [u8],
    ) -> Self {
        let mode = Mode { dev, ..Mode::default() };
        let path = conf.join("sluice.toml");
        // The store's address is not for this version's loader; the gateway has to know it all the same.
        let variables = environment.iter().filter(|(name, _)| *name != "REDIS_URL");
        let variables = variables.map(|(name, value)| (name.clone(), value.clone())).collect();
        let loaded = sluice_schema::load(&path, &variables, mode);
        let config = Arc::new(loaded.unwrap_or_else(|report| panic!("{}", report.render(false))).config);
        let trust = TrustCell::new(&config, Role::Edge);
        if keys {
            trust.restore(Trust::from_snapshot(&issuer.snapshot));
        }
        let mut doors = Doors::default();
        let mut open = |door: &str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            doors.insert(door, Listener::Tcp(listener));
            address
        };
        let (http, control) = (open("http"), open("control"));
        let tls = config.edge.tls.is_some().then(|| open("tls"));
        let (stopper, stop) = Stopper::new();
        let internal_key = InternalKeys::mint();
        let start = Start {
            role: Role::Edge,
            config,
            config_path: path,
            data_dir: data.clone(),
            dev,
            port_offset: 0,
            environment: environment.clone(),
            keys: Arc::new(InternalKeys::new(internal_key.clone(), &BTreeMap::new())),
            sockets,
            doors: Mutex::new(doors),
            stop,
            trust: trust.clone(),
            registry: metric::registry("edge"),
            log: log::LogLevel::fixed(),
            announce: false,
            handover: sluice_http::Handover::none(),
        };
        let kept = Arc::clone(&resolver);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(sluice_gateway::run_with(start, asset, kept)).unwrap();
        });
        let edge = Self {
            http,
            control,
            tls,
            issuer,
            trust,
            conf,
            data,
            internal_key,
            resolver,
            environment,
            preamble,
            stopper,
            thread: Some(thread),
            dir: Some(dir),
        };
        eventually("the edge answers", || edge.try_get("/livez").filter(|answer| answer.status == 200));
        edge
    }

    /// Ends this edge and starts another on the same folders.
    pub fn restart(mut self) -> Self {
        self.end();
        let issuer = std::mem::replace(&mut self.issuer, Issuer::new());
        let dir = self.dir.take().unwrap();
        let (conf, data) = (self.conf.clone(), self.data.clone());
        let (resolver, environment) = (Arc::clone(&self.resolver), self.environment.clone());
        let preamble = self.preamble;
        Self::boot(dir, conf, data, BTreeMap::new(), true, true, issuer, resolver, environment, preamble)
    }

    fn end(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the edge panicked");
        }
    }

    /// Begins the drain without waiting for its end.
    pub fn begin_drain(&self) {
        self.stopper.stop();
    }

    pub fn connect(&self) -> Client {
        Client::to(self.http)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"))
    }

    pub fn get_as(&self, path: &str, token: &str) -> Reply {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        ))
    }

    pub fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Reply {
        call(self.http, method, path, Some(token), Some(body))
    }

    /// A call of the control port.
    pub fn admin(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Reply {
        call(self.control, method, path, token, body)
    }

    /// Sends raw bytes on a connection of its own and reads one answer.
    pub fn send(&self, raw: &str) -> Reply {
        self.connect().exchange(raw)
    }

    fn try_get(&self, path: &str) -> Option<Reply> {
        let mut client = Client::try_to(self.http)?;
        drop(client.socket.write_all(self.preamble));
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"));
        client.try_reply()
    }

    /// What the last probe of a service's first instance said, as the dashboard shows it.
    pub fn probe(&self, service: &str) -> Option<String> {
        let mut viewer = Client::to(self.control);
        viewer.send("GET /dashboard/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let picture: Value = loop {
            let frame = viewer.read_until("\n\n");
            if let Some(data) = frame.split("data: ").nth(1) {
                break serde_json::from_str(data.lines().next()?).ok()?;
            }
        };
        let routes = picture["routes"].as_array().unwrap();
        let route = routes.iter().find(|route| route["name"] == service)?;
        route["instances"][0]["last_probe"]["detail"].as_str().map(str::to_owned)
    }

    /// Waits for the end of a drain that has begun.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok(), "the edge panicked");
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.end();
    }
}
