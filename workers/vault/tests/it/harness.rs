//! A running vault and plain HTTP/1.1 calls to it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_client::Client;
use sluice_http::{Doors, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_schema::Config;
use sluice_telemetry::{log, metric};
use sluice_vault::RunError;
use sluice_wire::role::Role;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running vault.
pub(crate) struct Vault {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    keys: BTreeMap<Role, String>,
    stopper: Stopper,
    task: JoinHandle<Result<(), RunError>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) whole_head: String,
    pub(crate) text: String,
}

/// How to start one.
pub(crate) struct Setup {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) config: Config,
    pub(crate) dev: bool,
    pub(crate) events: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { dir: Arc::new(TempDir::new().unwrap()), config: Config::default(), dev: true, events: None }
    }
}

impl Setup {
    /// A start without doors in this setup, and what stops it.
    pub(crate) fn prepare(&self, role: Role, keys: InternalKeys) -> (Start, Stopper) {
        let (stopper, stop) = Stopper::new();
        let config = Arc::new(self.config.clone());
        let start = Start {
            role,
            trust: TrustCell::new(&config, role),
            config,
            config_path: PathBuf::new(),
            data_dir: self.dir.path().to_owned(),
            dev: self.dev,
            port_offset: 0,
            environment: BTreeMap::new(),
            keys: Arc::new(keys),
            sockets: self.events.clone().map(|socket| (Role::Events, socket)).into_iter().collect(),
            doors: Mutex::new(Doors::default()),
            stop,
            registry: metric::registry(role.as_str()),
            log: log::LogLevel::fixed(),
            announce: false,
            handover: sluice_http::Handover::none(),
        };
        (start, stopper)
    }

    pub(crate) fn start(self) -> Vault {
        let socket = self.dir.path().join("vault.sock");
        drop(std::fs::remove_file(&socket));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let keys: BTreeMap<Role, String> = Role::ALL.map(|role| (role, InternalKeys::mint())).into();
        let own = InternalKeys::new(keys[&Role::Vault].clone(), &digests(&keys));
        let (start, stopper) = self.prepare(Role::Vault, own);
        start.doors().insert("api", Listener::Tcp(tcp));
        start.doors().insert("internal", Listener::Unix(UnixListener::bind(&socket).unwrap()));
        let task = tokio::spawn(async {
            // A test that does not get on says why.
            sluice_vault::run(start).await.inspect_err(|error| eprintln!("the vault ended: {error:?}"))
        });
        Vault { dir: self.dir, address, socket, keys, stopper, task }
    }
}

fn digests(keys: &BTreeMap<Role, String>) -> BTreeMap<Role, String> {
    keys.iter().map(|(role, key)| (*role, InternalKeys::digest(key))).collect()
}

impl Vault {
    /// A development vault in a new folder.
    pub(crate) async fn start() -> Self {
        let vault = Setup::default().start();
        vault.ready().await;
        vault
    }

    /// Waits until it answers that it can serve.
    pub(crate) async fn ready(&self) {
        assert!(!self.task.is_finished(), "it ended");
        let reply = self.call("GET", "/readyz", None, "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// The services in the inventory, without the vault's own, which its port has asked for by itself.
    pub(crate) async fn certified(&self) -> Vec<String> {
        let listed = self.as_admin("GET", "/credentials", "").await.json();
        let names = listed["credentials"].as_array().unwrap().iter().map(|one| &one["service_name"]);
        names.map(|name| name.as_str().unwrap().to_owned()).filter(|name| name != "vault").collect()
    }

    /// The development administrator's token.
    pub(crate) fn admin(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("token")).unwrap()
    }

    /// A call on the API port.
    pub(crate) async fn call(&self, method: &str, target: &str, token: Option<&str>, body: &str) -> Reply {
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        self.raw(method, target, &token, body).await
    }

    /// A call on the API port with header lines as they are to be sent.
    pub(crate) async fn raw(&self, method: &str, target: &str, headers: &str, body: &str) -> Reply {
        exchange(TcpStream::connect(self.address).await.unwrap(), method, target, headers, body).await
    }

    /// A call of the administrator.
    pub(crate) async fn as_admin(&self, method: &str, target: &str, body: &str) -> Reply {
        self.call(method, target, Some(&self.admin()), body).await
    }

    /// A role's own client of the internal door.
    pub(crate) fn client(&self, role: Role) -> Client {
        Client::internal(self.socket.clone(), self.keys[&role].clone())
    }

    /// The header line by which a role proves itself at the internal door, speaking for itself.
    pub(crate) fn proof(&self, role: Role) -> String {
        format!("x-internal-key: {}\r\nx-internal-self: 1\r\n", self.keys[&role])
    }

    /// A call at the internal door.
    pub(crate) async fn internal(&self, method: &str, target: &str, headers: &str, body: &str) -> Reply {
        exchange(UnixStream::connect(&self.socket).await.unwrap(), method, target, headers, body).await
    }

    /// The keys by which another role knows this vault.
    pub(crate) fn peer_keys(&self) -> InternalKeys {
        InternalKeys::new(InternalKeys::mint(), &digests(&self.keys))
    }

    /// A call of the edge for a client it has verified.
    pub(crate) async fn via_edge(&self, user: &str, permissions: &str, method: &str, target: &str) -> Reply {
        let key = &self.keys[&Role::Edge];
        let headers = format!("x-internal-key: {key}\r\nx-user: {user}\r\nx-permissions: {permissions}\r\n");
        self.internal(method, target, &headers, "").await
    }

    /// A call of the edge for a client, with what it says of it: header lines.
    pub(crate) async fn vouched(&self, told: &str, method: &str, target: &str, body: &str) -> Reply {
        let headers = format!("x-internal-key: {}\r\n{told}", self.keys[&Role::Edge]);
        self.internal(method, target, &headers, body).await
    }

    /// A token for a service, given by the administrator.
    pub(crate) async fn token(&self, service: &str, permissions: &[&str]) -> String {
        let body = serde_json::json!({ "service_name": service, "permissions": permissions }).to_string();
        let reply = self.as_admin("POST", "/security/tokens/generate", &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    /// Ends it as a signal would and waits until it has ended; its folder stays.
    pub(crate) async fn stop(self) -> (Arc<TempDir>, Result<(), RunError>) {
        self.stopper.stop();
        (self.dir, tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap())
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> Result<(), RunError> {
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap()
    }

    /// Opens the feed and reads it as it comes.
    pub(crate) async fn follow(&self, headers: &str) -> Lines {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let request = format!("GET /internal/feed HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Lines { stream, text: String::new() }
    }
}

/// An answer that keeps coming.
pub(crate) struct Lines {
    stream: UnixStream,
    text: String,
}

impl Lines {
    /// Reads until an event of this name has come; its data.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        let wanted = format!("event: {name}\ndata: ");
        let began = Instant::now();
        loop {
            let found = self.text.find(&wanted).and_then(|at| {
                let data = at + wanted.len();
                Some((data, data + self.text[data..].find("\n\n")?))
            });
            if let Some((data, end)) = found {
                let value = serde_json::from_str(&self.text[data..end]).unwrap();
                self.text.drain(..end);
                return value;
            }
            assert!(began.elapsed() < PATIENCE, "no `{name}` in {}", self.text);
            let mut bytes = vec![0; 16 * 1024];
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(read > 0, "the feed ended: {}", self.text);
            self.text.push_str(&unchunk(&String::from_utf8_lossy(&bytes[..read])));
        }
    }
}

/// Drops the lines between chunks; events never look like one.
fn unchunk(text: &str) -> String {
    let is_frame =
        |line: &str| !line.is_empty() && line.len() < 8 && line.bytes().all(|b| b.is_ascii_hexdigit());
    let kept: Vec<&str> = text.split("\r\n").filter(|line| !is_frame(line)).collect();
    kept.concat()
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The machine word of a problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts a status and the code of its problem.
    pub(crate) fn is(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{self:?}");
        assert!(self.head.contains("application/problem+json"), "{self:?}");
    }
}

pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> Reply {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    let talk = async {
        // A server may answer and close before it has read everything.
        let sent: io::Result<()> = async {
            stream.write_all(request.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await
        }
        .await;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        assert!(!bytes.is_empty(), "no answer: sent {sent:?}, read {read:?}");
        bytes
    };
    let bytes = tokio::time::timeout(PATIENCE, talk).await.unwrap();
    let whole = String::from_utf8(bytes).unwrap();
    let (head, text) = whole.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_ascii_lowercase(), whole_head: head.to_owned(), text: text.to_owned() }
}

/// Every byte of every file below a folder.
pub(crate) fn bytes_below(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(bytes_below(&path));
        } else if path.is_file() {
            files.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    files
}
