//! A running worker and its callers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sluice_calc_worker::{CalcError, Disk, Medium};
use sluice_http::{Doors, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_schema::Config;
use sluice_telemetry::{log, metric};
use sluice_wire::role::Role;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A worker with both of its doors.
pub(crate) struct World {
    socket: PathBuf,
    /// The worker's own port.
    pub(crate) address: SocketAddr,
    keys: BTreeMap<Role, String>,
    stopper: Stopper,
    task: JoinHandle<Result<(), CalcError>>,
    pub(crate) dir: Arc<TempDir>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// A worker with another configuration.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start(change, Arc::new(tempfile::tempdir().unwrap()))
    }

    /// A worker in a directory that another one may have used before.
    pub(crate) fn start(change: impl FnOnce(&mut Config), dir: Arc<TempDir>) -> Self {
        Self::beside(BTreeMap::new(), change, dir)
    }

    /// A worker that knows doors of other roles.
    pub(crate) fn beside(
        sockets: BTreeMap<Role, PathBuf>,
        change: impl FnOnce(&mut Config),
        dir: Arc<TempDir>,
    ) -> Self {
        let path = dir.path().to_owned();
        Self::build(sockets, change, &path, dir, Arc::new(Disk))
    }

    /// A worker whose stored series are on a disk that may fail.
    pub(crate) fn on(medium: Arc<dyn Medium>, dir: Arc<TempDir>) -> Self {
        let path = dir.path().to_owned();
        Self::build(BTreeMap::new(), |_| (), &path, dir, medium)
    }

    /// A worker in a folder that is not its own.
    pub(crate) fn inside(folder: &Path, sockets: BTreeMap<Role, PathBuf>) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self::build(sockets, |_| (), folder, dir, Arc::new(Disk))
    }

    fn build(
        sockets: BTreeMap<Role, PathBuf>,
        change: impl FnOnce(&mut Config),
        folder: &Path,
        dir: Arc<TempDir>,
        medium: Arc<dyn Medium>,
    ) -> Self {
        let mut config = Config::default();
        // As many as tests need to see them compete; a thread a core would depend on the machine.
        config.calc.threads = 2;
        change(&mut config);
        let socket = folder.join("calc.sock");
        drop(std::fs::remove_file(&socket));
        let mut doors = Doors::default();
        doors.insert("internal", Listener::Unix(UnixListener::bind(&socket).unwrap()));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        doors.insert("api", Listener::Tcp(tcp));
        let keys: BTreeMap<Role, String> =
            Role::ALL.into_iter().map(|role| (role, InternalKeys::mint())).collect();
        let peers = keys.iter().map(|(role, key)| (*role, InternalKeys::digest(key))).collect();
        let (stopper, stop) = Stopper::new();
        let config = Arc::new(config);
        let start = Start {
            role: Role::Calc,
            trust: TrustCell::new(&config, Role::Calc),
            config,
            config_path: PathBuf::new(),
            data_dir: folder.to_owned(),
            dev: false,
            port_offset: 0,
            environment: BTreeMap::new(),
            keys: Arc::new(InternalKeys::new(InternalKeys::mint(), &peers)),
            sockets,
            doors: Mutex::new(doors),
            stop,
            registry: metric::registry("calc"),
            log: log::LogLevel::fixed(),
            announce: false,
            handover: sluice_http::Handover::none(),
        };
        let task = tokio::spawn(sluice_calc_worker::run_on(start, medium));
        Self { socket, address, keys, stopper, task, dir }
    }

    /// Ends the worker; its directory can be used again.
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        self.stopper.stop();
        tokio::time::timeout(DEADLINE, self.task).await.expect("the worker ends").unwrap().unwrap();
        self.dir
    }

    /// Waits until the worker ends by itself.
    pub(crate) async fn ended(self) -> Result<(), CalcError> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the worker ends").unwrap()
    }

    /// What proves a role.
    pub(crate) fn key(&self, role: Role) -> &str {
        &self.keys[&role]
    }

    /// A client that the edge has verified.
    pub(crate) const fn user<'a>(&'a self, name: &'a str, grants: &'a str) -> User<'a> {
        User { world: self, name, grants }
    }

    /// Somebody who may have things computed.
    pub(crate) const fn reader(&self) -> User<'_> {
        self.user("quant", "read")
    }

    /// Somebody who may do everything that clients can.
    pub(crate) const fn admin(&self) -> User<'_> {
        self.user("root", "admin")
    }

    /// The value of a sample of the metrics, 0 while nothing moved it: `sluice_calc_rows_total` or
    /// `sluice_calc_rejected_total{reason="limit"}`.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let text = self.admin().get("/metrics").await.text();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let wanted: Vec<&str> = labels.trim_end_matches('}').split(',').filter(|l| !l.is_empty()).collect();
        let of_it = |line: &&str| {
            let rest = line.strip_prefix(name).unwrap_or("?");
            rest.starts_with(['{', ' ']) && wanted.iter().all(|label| rest.contains(label))
        };
        let values =
            text.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Waits until a sample of the metrics satisfies a condition.
    pub(crate) async fn until(&self, sample: &str, holds: impl Fn(f64) -> bool) {
        let waiting = async {
            while !holds(self.metric(sample).await) {
                tokio::task::yield_now().await;
            }
        };
        let held = tokio::time::timeout(DEADLINE, waiting).await;
        assert!(held.is_ok(), "{sample} stays {}", self.metric(sample).await);
    }
}

/// An answer to a client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem answered with this status.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{} {}", self.head, self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["status"], status);
        problem
    }

    /// The code of a problem answered with this status.
    pub(crate) fn code(&self, status: u16) -> String {
        self.problem(status)["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{} {}", self.head, self.text());
        self.json()
    }
}

/// A verified client, seen through the edge.
#[derive(Clone, Copy)]
pub(crate) struct User<'a> {
    world: &'a World,
    name: &'a str,
    grants: &'a str,
}

impl User<'_> {
    fn head(&self, method: &str, path: &str, headers: &str, len: usize) -> String {
        // HTTP/1.0: the answer ends with the connection and is not chunked.
        format!(
            "{method} {path} HTTP/1.0\r\nhost: calc\r\nx-internal-key: {}\r\nx-user: {}\r\n\
             x-permissions: {}\r\n{headers}content-length: {len}\r\n\r\n",
            self.world.keys[&Role::Edge],
            self.name,
            self.grants
        )
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = self.begin(method, path, headers, body).await;
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            answer
        };
        let answer = tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{method} {path}: {:?}", String::from_utf8_lossy(&answer)));
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    /// Sends a request and leaves its answer to be read: for streams, and for clients that go away.
    pub(crate) async fn begin(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(&self.world.socket).await.unwrap();
        stream.write_all(self.head(method, path, headers, body.len()).as_bytes()).await.unwrap();
        // A refused body is not read to its end.
        drop(stream.write_all(body).await);
        stream
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "content-type: application/json\r\n", body.to_string().as_bytes()).await
    }
}
