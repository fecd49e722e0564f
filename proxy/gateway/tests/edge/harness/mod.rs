//! A whole edge in this process, upstreams that record what reaches them, and a client that sends bytes.

mod client;
mod issuer;
mod names;
#[path = "../../../../ledger/tests/server/mod.rs"]
mod server;
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
use sluice_http::{Doors, Giver, Handover, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_identity::trust::Trust;
use sluice_schema::Mode;
use sluice_telemetry::{log, metric};
use sluice_wire::role::Role;
use sluice_wire::start::{Order, Said};

use client::call;
use setup::asset;

pub use client::{Client, Reply};
pub use issuer::{Issuer, hs256};
pub use names::Names;
pub use server::{Papers, RedisServer};
pub use setup::{Setup, edge_for, service};
pub use upstream::{Seen, Upstream, Wire, ok, reply};

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `probe` gives a value, else fails with what was waited for.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    // A machine busy with other tests may take its time; what holds is seen at once all the same.
    let until = Instant::now() + 3 * PATIENCE;
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
    /// Whoever starts and ends it.
    giver: Giver,
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
        Self::boot(dir, conf, data, sockets, keys, dev, Issuer::new(), resolver, environment, preamble, None)
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
        predecessor: Option<&mut Giver>,
    ) -> Self {
        let mode = Mode { dev, ..Mode::default() };
        let path = conf.join("sluice.toml");
        let loaded = sluice_schema::load(&path, &environment, mode);
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
        let (handover, mut giver) = Handover::new(predecessor.is_some(), None);
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
            handover,
        };
        let kept = Arc::clone(&resolver);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(sluice_gateway::run_with(start, asset, kept)).unwrap();
        });
        if let Some(old) = predecessor {
            take_over(old, &mut giver);
        }
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
            giver,
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
        Self::boot(
            dir,
            conf,
            data,
            BTreeMap::new(),
            true,
            true,
            issuer,
            resolver,
            environment,
            preamble,
            None,
        )
    }

    /// Hands over to another edge on the same folders, at doors of its own, as a supervisor does.
    pub fn hand_over(&mut self) -> Self {
        let (conf, data) = (self.conf.clone(), self.data.clone());
        let (resolver, environment) = (Arc::clone(&self.resolver), self.environment.clone());
        let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::new());
        let giver = Some(&mut self.giver);
        Self::boot(dir, conf, data, BTreeMap::new(), true, true, issuer, resolver, environment, b"", giver)
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

/// What a supervisor says and hears in a handover.
fn take_over(old: &mut Giver, new: &mut Giver) {
    let hear =
        |giver: &mut Giver, what: &str| giver.said.blocking_recv().unwrap_or_else(|| panic!("no {what}"));
    assert!(matches!(hear(new, "prepared"), Said::Prepared { .. }));
    old.orders.blocking_send(Order::Yield).unwrap();
    let carried = loop {
        if let Said::Yielded { carried, .. } = hear(old, "yielded") {
            break carried;
        }
    };
    new.orders.blocking_send(Order::Go(carried)).unwrap();
    assert!(matches!(hear(new, "ready"), Said::Ready(_)));
    old.orders.blocking_send(Order::Retire { within_ms: 10_000 }).unwrap();
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.end();
    }
}
