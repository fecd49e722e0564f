//! An installation of its own in a temporary folder: binary, configuration, data. What lies there can be
//! exchanged under a running system.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::origin::upstream;
use super::secure::Authority;
use super::{Instance, Up, binary, signal, until};

/// A folder with a binary of its own, a configuration and data.
pub(crate) struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Self { dir };
        fs::create_dir(site.path("services.d")).unwrap();
        fs::write(site.path("sluice.toml"), "[drain]\nlame_duck = \"300ms\"\ndeadline = \"10s\"\n").unwrap();
        // An unlimited route, one with a limit of two, and one whose breaker a test forces.
        let url = format!("http://{}", upstream());
        let limit = "rate_limit = { requests = 2, per = \"1h\", burst = 2, key = \"ip\" }\n";
        site.service("load", "rate_limit = 1000000000\n", &url);
        site.service("two", limit, &url);
        site.service("held", "rate_limit = 1000000000\n", &url);
        fs::hard_link(binary(), site.program())
            .or_else(|_| fs::copy(binary(), site.program()).map(drop))
            .unwrap();
        site
    }

    /// One with a TLS door too, whose clients may show a certificate; `/mine` asks for one.
    pub(crate) fn secured() -> (Self, Authority) {
        let (site, authority) = (Self::new(), Authority::new());
        authority.write_root(&site.path("ca.pem"));
        authority.renew(site.dir.path());
        let tls = "[edge.tls]\nlisten = \"127.0.0.1:8443\"\n\
                   certificate = { cert = \"edge.pem\", key = \"edge.key\" }\n\
                   client_auth = \"optional\"\nclient_ca = \"ca.pem\"\n";
        let conf = fs::read_to_string(site.path("sluice.toml")).unwrap();
        site.replace("sluice.toml", &format!("{conf}{tls}"));
        site.service(
            "mine",
            "auth_required = true\nrate_limit = 1000000000\n",
            &format!("http://{}", upstream()),
        );
        (site, authority)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.path("sluice")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn service(&self, name: &str, keys: &str, url: &str) {
        let open = if keys.contains("auth_required") { "" } else { "auth_required = false\n" };
        let text = format!(
            "[[service]]\nname = \"{name}\"\nprefix = \"/{name}\"\n{open}\
             health = {{ interval = \"10m\" }}\n{keys}\n[[service.instance]]\nurl = \"{url}\"\n"
        );
        self.replace(&format!("services.d/{name}.toml"), &text);
    }

    /// Writes a file as a careful operator does: beside it, then over it.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let beside = self.path(&format!("{}.new", name.replace('/', "-")));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    /// Puts another file where the program lies.
    pub(crate) fn install(&self, from: &Path) {
        let beside = self.path("sluice.new");
        fs::copy(from, &beside).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, self.program()).unwrap();
    }

    pub(crate) fn install_script(&self, text: &str) {
        let script = self.path("script");
        fs::write(&script, format!("#!/bin/sh\n{text}\n")).unwrap();
        self.install(&script);
    }

    pub(crate) fn up(&self) -> Instance {
        self.make().start()
    }

    /// One whose ports are those of another one.
    pub(crate) fn up_in_place_of(&self, other: &Instance) -> Instance {
        let port: u16 = other.edge().rsplit(':').next().unwrap().parse().unwrap();
        self.make().arg("--port-offset").arg(&(port - 8000).to_string()).start()
    }

    fn make(&self) -> Up {
        let up = Up::new(&self.data()).program(&self.program()).conf(&self.path("sluice.toml"));
        up.arg("--no-demo")
    }

    /// Starts `sluice upgrade` and returns when it has said so.
    pub(crate) fn upgrade_until(&self, role: Option<&str>, says: &str) -> Child {
        let mut command = self.upgrading(role);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(says) {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "the upgrade ended before it said {says:?}");
        }
        // Whoever stops reading does not end it.
        child.stdout = Some(out.into_inner());
        child
    }

    fn upgrading(&self, role: Option<&str>) -> Command {
        let mut command = Command::new(binary());
        command.arg("upgrade").args(role).arg("--data-dir").arg(self.data());
        command
    }

    /// Runs `sluice upgrade`; exit code, standard output, standard error.
    pub(crate) fn upgrade(&self, role: Option<&str>) -> (i32, String, String) {
        let output = self.upgrading(role).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }

    /// An edge that runs alone, on free ports.
    pub(crate) fn proxy(&self) -> Alone {
        let port = free_port();
        let listen = format!(
            "[edge]\nlisten = \"127.0.0.1:{port}\"\n[control]\nlisten = \"127.0.0.1:{}\"\n\
             [drain]\nlame_duck = \"2s\"\ndeadline = \"10s\"\n[auth]\nenabled = false\n",
            free_port()
        );
        self.replace("sluice.toml", &listen);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(self.program()).arg("proxy").arg("--dev");
        command.arg("--conf").arg(self.path("sluice.toml")).arg("--data-dir").arg(self.data());
        let log = fs::File::create(self.path("proxy.log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let alone = Alone { child, base: format!("http://127.0.0.1:{port}") };
        until("the edge answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()));
        alone
    }
}

/// A `sluice proxy` without a supervisor.
pub(crate) struct Alone {
    pub(crate) child: Child,
    pub(crate) base: String,
}

impl Drop for Alone {
    fn drop(&mut self) {
        signal(self.child.id(), "KILL");
        let _reaped = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
