//! A running worker and its callers.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;
use sluice_client::Client;
use sluice_events::RunError;
use sluice_http::{Doors, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_schema::{Config, PartitionBy};
use sluice_telemetry::{log, metric};
use sluice_wire::role::Role;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::server::RedisServer;

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How to start a worker.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) dev: bool,
    /// Door of a vault that gives the log's keys; without one they are in a file.
    pub(crate) vault: Option<PathBuf>,
    /// There is no key file either.
    pub(crate) keyless: bool,
    /// A calculation worker runs beside it.
    pub(crate) calc: bool,
}

/// A key file with keys 1 to `count`.
pub(crate) fn key_file(dir: &Path, count: u8) -> PathBuf {
    let path = dir.join("events.key");
    let lines: String = (1..=count).map(|id| format!("{}\n", format!("{id:02x}").repeat(32))).collect();
    drop(std::fs::remove_file(&path));
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// A worker with an internal door.
pub(crate) struct World {
    socket: PathBuf,
    /// The worker's own port.
    pub(crate) address: std::net::SocketAddr,
    pub(crate) trust: TrustCell,
    keys: BTreeMap<Role, String>,
    stopper: Stopper,
    task: JoinHandle<Result<(), RunError>>,
    pub(crate) dir: Arc<Place>,
}

/// What a worker leaves behind: its directory, and its Redis.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) redis: Option<Arc<Mutex<RedisServer>>>,
    /// Port and number of a database in the Redis that tests share.
    database: Option<(u16, u32)>,
}

/// Databases of the Redis that tests share: more than there are tests.
const DATABASES: u32 = 1_000;
/// Tests that do something to their server.
const ROUGH: [&str; 8] = [
    "on_redis::desks",
    "on_redis::faults",
    "on_redis::partitions_shared",
    "on_redis::secure",
    "on_redis::several",
    "on_redis::shared",
    "on_redis::slowed",
    "on_redis::spool",
];

/// A database of its own in the Redis that tests share.
fn database() -> (u16, u32) {
    static SERVER: OnceLock<(u16, std::process::Child)> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (port, _) = SERVER.get_or_init(|| RedisServer::start_lasting(DATABASES));
    (*port, NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Place {
    pub(crate) fn new() -> Self {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        if on_redis() && !ROUGH.iter().any(|rough| name.starts_with(rough)) {
            return Self { database: Some(database()), ..Self::beside(None) };
        }
        let redis = on_redis().then(|| {
            let server = RedisServer::start();
            // Many servers that wait for one disk would make the tests slow.
            server.ask("CONFIG SET appendfsync everysec");
            Arc::new(Mutex::new(server))
        });
        Self::beside(redis)
    }

    /// A place for another worker on the same Redis.
    pub(crate) fn beside(redis: Option<Arc<Mutex<RedisServer>>>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), redis, database: None }
    }

    /// The same, whatever its Redis is.
    pub(crate) fn next_to(other: &Self) -> Self {
        Self { database: other.database, ..Self::beside(other.redis.clone()) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The files of a worker's directory as they are now: what a killed worker leaves behind. Copied anew where segments
/// came or went meanwhile: a log without its middle is no worker's.
pub(crate) fn copy(from: &Path, to: &Path) {
    loop {
        let before = names(from);
        copy_files(from, to);
        if names(from) == before {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

/// Every file below a directory.
fn names(dir: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => names(&entry.path()),
            _ => BTreeSet::from([entry.path()]),
        })
        .collect()
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_files(&path, &target);
        } else if kind.is_file() {
            match std::fs::copy(&path, &target) {
                // Renamed or trimmed while this looks.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// Whether this test is one of those on Redis.
pub(crate) fn on_redis() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("on_redis::"))
}

/// Whether this test is one of those on a stream that is divided into partitions.
pub(crate) fn divided() -> bool {
    std::thread::current().name().is_some_and(|name| name.contains("divided::"))
}

/// The word for what the store under test promises.
pub(crate) fn durability() -> &'static str {
    if on_redis() { "aof_everysec" } else { "fsync" }
}

/// The address of a Redis as the configuration has it.
pub(crate) fn redis_url(port: u16) -> Option<sluice_schema::RedisUrl> {
    redis_address(&format!("redis://127.0.0.1:{port}"))
}

/// The same of several servers.
pub(crate) fn redis_address(url: &str) -> Option<sluice_schema::RedisUrl> {
    let environment = BTreeMap::from([("REDIS_URL".to_owned(), url.to_owned())]);
    let read = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let loaded = sluice_schema::check(&[], &environment, sluice_schema::Mode::default(), &read);
    loaded.unwrap_or_else(|report| panic!("{report}")).config.redis
}

/// An answer to a client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a problem answer with this status.
    pub(crate) fn code(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], status);
        body["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::start(Setup::default(), Arc::new(Place::new()))
    }

    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        Self::start(setup, Arc::new(Place::new()))
    }

    pub(crate) fn start(mut setup: Setup, dir: Arc<Place>) -> Self {
        if let Some(redis) = &dir.redis {
            setup.config.redis = redis_url(redis.lock().unwrap().port);
        }
        if let Some((port, number)) = dir.database {
            setup.config.redis = redis_address(&format!("redis://127.0.0.1:{port}/{number}"));
        }
        if setup.vault.is_none() && !setup.keyless {
            setup.config.events.key_file.get_or_insert_with(|| key_file(dir.path(), 1));
        }
        if divided() {
            let partitions = &mut setup.config.events.partitions;
            (partitions.by, partitions.count) = (PartitionBy::Symbol, 4);
        }
        let socket = dir.path().join("events.sock");
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
        let config = Arc::new(setup.config);
        let trust = TrustCell::new(&config, Role::Events);
        let start = Start {
            role: Role::Events,
            trust: trust.clone(),
            config,
            config_path: PathBuf::new(),
            data_dir: dir.path().to_owned(),
            dev: setup.dev,
            port_offset: 0,
            environment: BTreeMap::new(),
            keys: Arc::new(InternalKeys::new(InternalKeys::mint(), &peers)),
            sockets: {
                let vault = setup.vault.map(|socket| (Role::Vault, socket));
                let calc = setup.calc.then(|| (Role::Calc, dir.path().join("calc.sock")));
                vault.into_iter().chain(calc).collect()
            },
            doors: Mutex::new(doors),
            stop,
            registry: metric::registry("events"),
            log: log::LogLevel::fixed(),
            announce: false,
            handover: sluice_http::Handover::none(),
        };
        let task = tokio::spawn(sluice_events::run(start));
        Self { socket, address, trust, keys, stopper, task, dir }
    }

    /// Ends the worker; its directory can be used again.
    pub(crate) async fn stop(self) -> Arc<Place> {
        self.stopper.stop();
        tokio::time::timeout(DEADLINE, self.task).await.expect("the worker ends").unwrap().unwrap();
        self.dir
    }

    /// The Redis behind it.
    pub(crate) fn redis(&self) -> std::sync::MutexGuard<'_, RedisServer> {
        self.dir.redis.as_ref().expect("a test on Redis").lock().unwrap()
    }

    /// Waits until the worker ends by itself.
    pub(crate) async fn ended(self) -> Result<(), RunError> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the worker ends").unwrap()
    }

    /// Asks the worker to end, and does not wait.
    pub(crate) fn drain(&self) {
        self.stopper.stop();
    }

    /// A role that speaks for itself.
    pub(crate) fn role(&self, role: Role) -> Client {
        Client::internal(self.socket.clone(), self.keys[&role].clone())
    }

    /// A client that the edge has verified.
    pub(crate) fn user<'a>(&'a self, name: &'a str, grants: &'a str) -> User<'a> {
        User { world: self, name, grants }
    }

    /// Somebody who may do everything that clients can.
    pub(crate) fn admin(&self) -> User<'_> {
        self.user("root", "admin")
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn edge_key(&self) -> &str {
        &self.keys[&Role::Edge]
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
            "{method} {path} HTTP/1.0\r\nhost: events\r\nx-internal-key: {}\r\nx-user: {}\r\n\
             x-permissions: {}\r\n{headers}content-length: {len}\r\n\r\n",
            self.world.edge_key(),
            self.name,
            self.grants
        )
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = self.connect().await;
            stream.write_all(self.head(method, path, headers, body.len()).as_bytes()).await.unwrap();
            // A refused body is not read to its end.
            drop(stream.write_all(body).await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            String::from_utf8(answer).unwrap()
        };
        let answer = tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time");
        let (head, body) =
            answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, "content-type: application/json\r\n", body.as_bytes()).await
    }

    /// Opens a stream of server-sent events.
    pub(crate) async fn stream(&self, method: &str, path: &str, headers: &str) -> Events {
        let mut stream = self.connect().await;
        let headers = format!("accept: text/event-stream\r\n{headers}");
        stream.write_all(self.head(method, path, &headers, 0).as_bytes()).await.unwrap();
        Events::begin(Box::new(stream)).await
    }

    /// A connection and the head of a request for a WebSocket.
    pub(crate) async fn socket(&self, path: &str, headers: &str) -> (UnixStream, String) {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: events\r\nx-internal-key: {}\r\nx-user: {}\r\n\
             x-permissions: {}\r\n{headers}\r\n",
            self.world.edge_key(),
            self.name,
            self.grants
        );
        (self.connect().await, head)
    }

    async fn connect(&self) -> UnixStream {
        // The worker may still be opening its log.
        UnixStream::connect(self.world.socket()).await.unwrap()
    }
}

/// An open stream.
pub(crate) struct Events {
    lines: BufReader<Box<dyn AsyncRead + Unpin + Send>>,
    pub(crate) head: String,
}

/// What came over a stream between two empty lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) data: String,
    pub(crate) retry: String,
}

impl Block {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Events {
    /// A stream whose request was sent.
    pub(crate) async fn begin(stream: Box<dyn AsyncRead + Unpin + Send>) -> Self {
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).await.unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        Self { lines, head }
    }

    /// A stream at the worker's own port, with a token.
    pub(crate) async fn with_token(world: &World, path: &str, token: &str) -> Self {
        let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.0\r\nhost: events\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self::begin(Box::new(stream)).await
    }

    /// The next block that is not a comment; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        tokio::time::timeout(DEADLINE, self.block()).await.expect("an event in time")
    }

    async fn block(&mut self) -> Option<Block> {
        let mut block = Block::default();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end_matches('\n');
            if line.is_empty() {
                if block != Block::default() {
                    return Some(block);
                }
                continue;
            }
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "id" => value.clone_into(&mut block.id),
                "event" => value.clone_into(&mut block.event),
                "data" => value.clone_into(&mut block.data),
                "retry" => value.clone_into(&mut block.retry),
                _ => {}
            }
        }
    }
}

/// Publishes as the demo does, which may name any source; the message id.
pub(crate) async fn publish(world: &World, body: &Value) -> String {
    let published: Value = world.role(Role::Demo).json(http::Method::POST, "/events", body).await.unwrap();
    published["message_id"].as_str().unwrap().to_owned()
}
