//! A real Redis on a free port of this machine. Tests of the gateway include this file too.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test takes what it needs")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A Redis that keeps what it has over its death.
pub struct RedisServer {
    pub port: u16,
    dir: tempfile::TempDir,
    child: Child,
}

impl RedisServer {
    pub fn start() -> Self {
        // Let go of before the server takes it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(port)
    }

    pub fn start_at(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Self::spawn(port, &dir);
        let server = Self { port, dir, child };
        server.awaited();
        server
    }

    fn spawn(port: u16, dir: &tempfile::TempDir) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("redis-server (Debian: redis-server) is installed")
    }

    /// Until it answers.
    fn awaited(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.try_ask("PING").is_some_and(|answer| answer.starts_with("+PONG")) {
            assert!(Instant::now() < until, "redis-server does not answer");
            std::thread::yield_now();
        }
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
        self.child = Self::spawn(self.port, &self.dir);
        self.awaited();
    }

    /// Sends a signal, such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The first line of the answer to a command without spaces in its words, and what follows.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).expect("an answer")
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        // The end of the second answer tells the end of the first.
        stream.write_all(format!("{command}\r\nECHO the-end\r\n").as_bytes()).ok()?;
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
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
