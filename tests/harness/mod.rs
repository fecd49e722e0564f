//! Starts the real binary on free ports, one instance shared by the tests that do not break it.

pub(crate) mod fleet;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod origin;
pub(crate) mod secure;
pub(crate) mod site;
pub(crate) mod streams;
pub(crate) mod two;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for a condition.
pub(crate) const WITHIN: Duration = Duration::from_secs(20);

/// A running `sluice up`.
pub(crate) struct Instance {
    pub(crate) banner: Value,
    pub(crate) data_dir: PathBuf,
    pub(crate) pid: u32,
    pub(crate) ready_in: Duration,
    child: Option<Child>,
}

/// How to start one.
pub(crate) struct Up {
    program: PathBuf,
    data_dir: PathBuf,
    conf: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Up {
    /// A development instance with its state in a folder.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            program: binary().to_owned(),
            data_dir: data_dir.to_owned(),
            conf: repository().join("conf/sluice.toml"),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    pub(crate) fn conf(mut self, conf: &Path) -> Self {
        conf.clone_into(&mut self.conf);
        self
    }

    /// Started from another path, so that what lies there can be exchanged.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, not yet started.
    pub(crate) fn command(&self) -> Command {
        // Ends the instance when the thread that started it ends: no test run leaves processes.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--"])
            .arg(&self.program)
            .args(["up", "--dev", "--json"])
            .arg("--conf")
            .arg(&self.conf)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .current_dir(repository())
            .stdin(Stdio::null());
        command
    }

    /// Starts it and waits for its banner.
    pub(crate) fn start(self) -> Instance {
        let log = self.data_dir.with_extension("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = self.command();
        if !self.arguments.iter().any(|argument| argument == "--port-offset") {
            command.args(["--port-offset", "auto"]);
        }
        let began = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let banner: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap_or_default();
            panic!("no banner, but {line:?}; the log says:\n{log}")
        });
        let pid = child.id();
        Instance { banner, data_dir: self.data_dir, pid, ready_in: began.elapsed(), child: Some(child) }
    }
}

impl Instance {
    fn url(&self, name: &str) -> &str {
        self.banner[name].as_str().unwrap()
    }

    pub(crate) fn edge(&self) -> &str {
        self.url("edge")
    }

    pub(crate) fn control(&self) -> &str {
        self.url("control")
    }

    pub(crate) fn events(&self) -> &str {
        self.url("events")
    }

    pub(crate) fn vault(&self) -> &str {
        self.url("vault")
    }

    pub(crate) fn calc(&self) -> &str {
        self.url("calc")
    }

    /// The administrator's token.
    pub(crate) fn admin(&self) -> &str {
        self.url("token")
    }

    /// A token of a service with some permissions.
    pub(crate) fn token(&self, service: &str, permissions: &[&str]) -> String {
        let body = serde_json::json!({"service_name": service, "permissions": permissions});
        let answer =
            http::post(self.edge(), "/security/tokens/generate").token(self.admin()).json(&body).send();
        answer.expect(200).json()["token"].as_str().unwrap().to_owned()
    }

    /// The process that plays a role now: the child of the supervisor with its command words.
    pub(crate) fn role_pid(&self, words: &str) -> Option<u32> {
        children(self.pid).into_iter().rev().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").starts_with(&format!("sluice {words} "))
        })
    }

    /// Sends a signal to the supervisor.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// Waits for the supervisor's end; returns its exit code (`None`: ended by a signal).
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        until("the supervisor ends", || child.try_wait().unwrap()).code()
    }

    /// Ends it as ctrl-C does.
    pub(crate) fn stop(mut self) {
        self.signal("INT");
        self.wait();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(self.pid, "TERM");
            let _ended = child.wait();
        }
    }
}

/// The instance that tests share. They must not break it nor count on being alone.
pub(crate) fn shared() -> &'static Instance {
    static SHARED: OnceLock<Instance> = OnceLock::new();
    SHARED.get_or_init(|| {
        let (give, take) = sync_channel(1);
        // A thread that never ends: the instance lives until this test run does.
        std::thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap().keep();
            give.send(Up::new(&dir.join("data")).start()).unwrap();
            loop {
                std::thread::park();
            }
        });
        take.recv().expect("the shared instance starts")
    })
}

/// Waits until a condition yields a value; the description is printed when it never does.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < WITHIN, "{what}: not within {WITHIN:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let signal = match name {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "KILL" => Signal::KILL,
        "HUP" => Signal::HUP,
        "USR2" => Signal::USR2,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => panic!("unknown signal {other}"),
    };
    let _already_gone = kill_process(Pid::from_raw(pid as i32).unwrap(), signal);
}

/// The processes whose parent is `pid`.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    // A zombie that its parent has not reaped yet is dead.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Runs the binary and returns its exit code, standard output and standard error.
pub(crate) fn sluice(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary()).args(arguments).current_dir(repository()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// The program under test: the one built beside these tests, or the one that `SLUICE_BINARY` names (a release
/// build, whose figures mean something).
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("SLUICE_BINARY") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_sluice")),
    })
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
