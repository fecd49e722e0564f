//! Every listening socket of a Sluice instance, opened by the supervisor.
//!
//! The supervisor keeps them for its whole life and hands duplicates to the roles, so a role that
//! dies or restarts never closes a port: connections wait in the kernel's queue.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use sluice_http::InternalKeys;
use sluice_schema::Config;
use sluice_wire::role::Role;

use super::holder;

/// Longest path of a Unix socket that every kernel takes, less a margin.
const SOCKET_PATH_MAX: usize = 100;
/// Connections that may wait to be accepted; the kernel takes its own bound where that is lower.
const BACKLOG: i32 = 65_535;

/// One socket of one role.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) name: String,
    /// The configured address; port 0 is another one each time.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) listener: Bound,
}

#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// A duplicate descriptor for a child.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(OwnedFd::from),
            Self::Unix(listener) => listener.try_clone().map(OwnedFd::from),
        }
    }
}

/// All sockets by role, and the paths of the internal doors.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) by_role: BTreeMap<Role, Vec<Socket>>,
    pub(crate) internal: BTreeMap<Role, PathBuf>,
}

/// The TCP listeners of a role by name.
pub(crate) fn tcp_of(role: Role, config: &Config) -> Vec<(&'static str, SocketAddr)> {
    match role {
        Role::Edge => {
            let tls = config.edge.tls.as_ref().map(|tls| ("tls", tls.listen));
            let plain = [("http", config.edge.listen), ("control", config.control.listen)];
            plain.into_iter().chain(tls).collect()
        }
        Role::Events => vec![("api", config.events.listen)],
        Role::Vault => vec![("api", config.vault.listen)],
        Role::Calc => vec![("api", config.calc.listen)],
        Role::Demo => vec![
            ("data", config.demo.data_listen),
            ("backtesting", config.demo.backtesting_listen),
            ("trading_bot", config.demo.trading_bot_listen),
        ],
        Role::Supervisor => vec![],
    }
}

/// Opens every socket of the given roles. All busy ports are named at once.
pub(crate) fn open(roles: &[Role], config: &Config, data_dir: &Path) -> anyhow::Result<Sockets> {
    let mut sockets = Sockets::default();
    let mut busy = Vec::new();
    for role in roles {
        let mut opened = Vec::new();
        for (name, address) in tcp_of(*role, config) {
            match listen(address) {
                Ok(listener) => opened.push(tcp(name, address, listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => busy.push((*role, address)),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot listen on {address} for {role}"));
                }
            }
        }
        sockets.by_role.insert(*role, opened);
    }
    if !busy.is_empty() {
        bail!(busy_text(&busy));
    }
    let run = run_dir(data_dir)?;
    for role in [Role::Vault, Role::Events, Role::Calc].into_iter().filter(|role| roles.contains(role)) {
        let path = run.join(format!("{role}.sock"));
        let listener = bind_unix(&path)?;
        sockets.internal.insert(role, path);
        let opened = sockets.by_role.entry(role).or_default();
        opened.push(Socket { name: "internal".into(), address: None, listener: Bound::Unix(listener) });
    }
    Ok(sockets)
}

fn tcp(name: &str, address: SocketAddr, listener: TcpListener) -> Socket {
    Socket { name: name.to_owned(), address: Some(address), listener: Bound::Tcp(listener) }
}

/// Listens with the longest queue that the kernel allows: while no process accepts, connections wait there.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// The sockets of a role at other addresses: those that stay where they were are kept.
pub(crate) fn moved(present: &[Socket], doors: &[(&'static str, SocketAddr)]) -> anyhow::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for (name, address) in doors {
        let same = |socket: &&Socket| socket.name == *name && socket.address == Some(*address);
        let kept = present.iter().find(same).and_then(|socket| match &socket.listener {
            Bound::Tcp(listener) => Some(listener),
            Bound::Unix(_) => None,
        });
        let listener = match kept {
            Some(listener) => listener.try_clone()?,
            None => listen(*address).with_context(|| format!("cannot listen on {address}"))?,
        };
        sockets.push(tcp(name, *address, listener));
    }
    for socket in present {
        if let Bound::Unix(listener) = &socket.listener {
            let listener = Bound::Unix(listener.try_clone()?);
            sockets.push(Socket { name: socket.name.clone(), address: None, listener });
        }
    }
    Ok(sockets)
}

fn busy_text(busy: &[(Role, SocketAddr)]) -> String {
    let mut text = String::new();
    for (role, address) in busy {
        let by = holder::of(*address)
            .map_or_else(String::new, |holder| format!(" by pid {} ({})", holder.pid, holder.name));
        let _never_fails = writeln!(text, "port {} for {role} is in use{by}", address.port());
    }
    text.push_str("help: end that process, or start with `--port-offset N` or `--port-offset auto`");
    text
}

/// Makes a Unix listener that only this user may connect to.
pub(crate) fn bind_unix(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot replace {}", path.display())),
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The folder of the internal doors: under the data directory, or in this user's own runtime folder
/// where paths are short enough. Never in a folder that others may write to.
pub(crate) fn run_dir(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let beside = data_dir.join("run");
    let dir = if beside.join("supervisor.sock").as_os_str().len() <= SOCKET_PATH_MAX {
        beside
    } else {
        let own = || PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(own, PathBuf::from);
        if !base.is_dir() {
            bail!(
                "the path of the data directory is too long for sockets ({} bytes at most); choose a shorter --data-dir",
                SOCKET_PATH_MAX - "/run/supervisor.sock".len()
            );
        }
        let digest = InternalKeys::digest(&data_dir.to_string_lossy());
        let short = digest.get(..16).ok_or_else(|| anyhow!("a digest has 64 digits"))?;
        base.join(format!("sluice-{short}"))
    };
    super::dir::private(&dir)?;
    Ok(dir)
}

/// An offset at which every TCP port is free now. Ports between the ranges of common services and
/// the kernel's ephemeral ones.
pub(crate) fn free_offset(roles: &[Role], config: &Config, chance: u64) -> anyhow::Result<u16> {
    const TRIES: u64 = 200;
    for attempt in 0..TRIES {
        let offset = u16::try_from((chance.wrapping_add(attempt * 7_919)) % 20_000).unwrap_or(0) + 2_000;
        let mut moved = config.clone();
        if moved.port_offset(offset).is_err() {
            continue;
        }
        let mut addresses = roles.iter().flat_map(|role| tcp_of(*role, &moved));
        if addresses.all(|(_, address)| TcpListener::bind(address).is_ok()) {
            return Ok(offset);
        }
    }
    bail!("no free range of ports was found in {TRIES} tries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_whose_address_changed_are_opened_anew() {
        let local = |listener: &Bound| match listener {
            Bound::Tcp(tcp) => tcp.local_addr().unwrap(),
            Bound::Unix(_) => unreachable!("these are TCP"),
        };
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let other: SocketAddr = "127.0.0.2:0".parse().unwrap();
        let present = moved(&[], &[("http", any), ("control", any)]).unwrap();
        let after = moved(&present, &[("http", any), ("control", other)]).unwrap();
        assert_eq!(local(&after[0].listener), local(&present[0].listener));
        assert_eq!(local(&after[1].listener).ip(), other.ip());
        let taken = local(&present[1].listener);
        let error = moved(&present, &[("http", taken)]).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
    }
}
