//! A real Redis on a free port of this machine. Tests of the gateway include this file too.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test takes what it needs")]

mod papers;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use papers::Papers;

const PATIENCE: Duration = Duration::from_secs(30);

/// A Redis that keeps what it has over its death.
pub struct RedisServer {
    pub port: u16,
    args: Vec<String>,
    dir: tempfile::TempDir,
    child: Child,
}

/// A port that nobody has at this moment.
pub fn free_port() -> u16 {
    // Let go of before the server takes it.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_at(free_port())
    }

    pub fn start_at(port: u16) -> Self {
        Self::start_with(port, &[])
    }

    /// With more arguments, such as `--replicaof`.
    pub fn start_with(port: u16, more: &[&str]) -> Self {
        let save = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
        // A replica is served at once: nobody waits for a second one to come.
        let replicas = ["--repl-diskless-sync-delay", "0"];
        Self::run(
            port,
            [&save, &replicas[..], more].concat().into_iter().map(ToOwned::to_owned).collect(),
            "",
        )
    }

    /// One that also takes TLS, at the port returned; its clients have to show a certificate.
    pub fn start_secure(papers: &Papers) -> (Self, u16) {
        let (port, secure) = (free_port(), free_port());
        let [ca, cert, key] = ["ca.pem", "server.pem", "server.key"].map(|name| papers.path(name));
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let (ca, cert, key, at) = (text(&ca), text(&cert), text(&key), secure.to_string());
        let files = ["--tls-ca-cert-file", &ca, "--tls-cert-file", &cert, "--tls-key-file", &key];
        let tls = ["--tls-port", &at, "--tls-auth-clients", "yes"];
        (Self::start_with(port, &[&files[..], &tls[..]].concat()), secure)
    }

    /// A sentinel that alone decides about the primary `main`, within seconds.
    pub fn sentinel(primary: u16) -> Self {
        let port = free_port();
        let written = format!(
            "sentinel monitor main 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n"
        );
        let sentinel = Self::run(port, vec!["--sentinel".to_owned()], &written);
        // It looks at its servers twice a second, and believes what it saw twice as soon.
        sentinel.ask("SENTINEL DEBUG info-period 500 publish-period 500");
        sentinel
    }

    /// A node of a cluster whose nodes miss each other after a second.
    pub fn cluster_node() -> Self {
        let (port, bus) = (free_port(), free_port());
        let bus = bus.to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
        Self::start_with(port, &cluster)
    }

    /// Starts one that many tests share, each in a database of its own; its port. It ends with this process, whose
    /// end of the pipe is then closed.
    pub fn start_lasting(databases: u32) -> (u16, Child) {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap().keep());
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new("sh");
        let script = r#"dir="$1"; shift; "$@" & read -r _; kill $!; wait $!; rm -rf "$dir""#;
        command.args(["-c", script, "sh"]).arg(&dir).arg(program);
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "yes",
        ]);
        command.args(["--databases", &databases.to_string()]).arg("--dir").arg(&dir);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("sh is there");
        await_answer(port);
        (port, child)
    }

    fn run(port: u16, args: Vec<String>, written: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("redis.conf"), written).unwrap();
        let child = Self::spawn(port, &args, &dir);
        let server = Self { port, args, dir, child };
        server.awaited();
        server
    }

    fn spawn(port: u16, args: &[String], dir: &tempfile::TempDir) -> Child {
        // REDIS_SERVER names another one, such as valkey-server.
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command.arg(dir.path().join("redis.conf"));
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]).args(args);
        command.arg("--dir").arg(dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("redis-server (Debian: redis-server) is installed")
    }

    /// Until it answers.
    fn awaited(&self) {
        await_answer(self.port);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends at once, as by kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again at the same port, with what it kept.
    pub fn again(&mut self) {
        self.child = Self::spawn(self.port, &self.args, &self.dir);
        self.awaited();
    }

    /// Sends a signal, such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The first line of the answer to a command without spaces in its words, and what follows.
    pub fn ask(&self, command: &str) -> String {
        try_ask(self.port, command, PATIENCE).expect("an answer")
    }

    /// The answer to `ROLE`, asked again where the line is cut: sentinels do that to who changes roles.
    pub fn role(&self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(role) = try_ask(self.port, "ROLE", PATIENCE) {
                return role;
            }
            assert!(Instant::now() < until, "an answer");
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn await_answer(port: u16) {
    let until = Instant::now() + PATIENCE;
    // While it loads what it kept, it answers otherwise.
    while !try_ask(port, "PING", Duration::from_millis(300)).is_some_and(|answer| answer.starts_with("+PONG"))
    {
        assert!(Instant::now() < until, "redis-server does not answer");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn try_ask(port: u16, command: &str, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    // The end of the second answer tells the end of the first.
    stream.write_all(format!("{command}\r\nPING the-end\r\n").as_bytes()).ok()?;
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    let end = b"$7\r\nthe-end\r\n";
    while !text.ends_with(end) {
        match stream.read(&mut piece).ok()? {
            0 => return None,
            count => text.extend_from_slice(&piece[..count]),
        }
    }
    text.truncate(text.len() - end.len());
    String::from_utf8(text).ok()
}
