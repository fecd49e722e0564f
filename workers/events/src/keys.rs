//! Where the keys of the event log come from: a file, or the vault.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sluice_client::{Client, ClientError};
use sluice_http::Start;
use sluice_wire::key::bytes_of;
use sluice_wire::role::Role;
use zeroize::Zeroizing;

use crate::log::{Keyring, KeyringError};

/// LIMIT: a key file: some thousand keys.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Whom to ask for keys.
pub(crate) enum KeySource {
    /// A file of an operator.
    File(PathBuf),
    /// The vault, over its internal door.
    Vault(Client),
    /// Nobody: the worker runs alone and no file is configured.
    Nobody,
}

/// Why there are no keys (yet).
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The vault did not give them.
    #[error("the vault gives no key for the event log")]
    Vault(#[source] ClientError),
    /// What the vault gave is none, or what the file holds makes no keyring.
    #[error("the keys of the event log are not what they must be")]
    Keys(#[source] KeyringError),
    /// A key has another length or other characters.
    #[error("key {0} of the event log is not 64 hexadecimal digits")]
    Digits(u32),
    /// The file cannot be read.
    #[error("cannot read key file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error("key file {} has mode {mode:o}; group and others must not read it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is nobody to ask.
    #[error(
        "the event log is encrypted and this worker runs without the vault: start it with `sluice up`, or give it \
         `events.key_file`, or set `events.encrypt = false` for a new log"
    )]
    Nobody,
}

impl KeySource {
    /// What a start has to offer; a file comes first.
    pub(crate) fn of(start: &Start) -> Self {
        if let Some(path) = &start.config.events.key_file {
            return Self::File(path.clone());
        }
        match start.sockets.get(&Role::Vault) {
            Some(socket) => Self::Vault(Client::internal(socket.clone(), start.keys.own())),
            None => Self::Nobody,
        }
    }

    /// Asks for the keys.
    pub(crate) async fn ask(&self) -> Result<Keyring, KeyError> {
        match self {
            Self::File(path) => {
                let file = path.clone();
                let read = tokio::task::spawn_blocking(move || of_file(&file)).await;
                let broken = |error| KeyError::File { path: path.clone(), source: io::Error::other(error) };
                read.unwrap_or_else(|error| Err(broken(error)))
            }
            Self::Vault(vault) => of_vault(vault).await,
            Self::Nobody => Err(KeyError::Nobody),
        }
    }
}

impl KeyError {
    /// Whether the vault answered that it is sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self, Self::Vault(ClientError::Status { text, .. }) if text.starts_with("sealed"))
    }

    /// Whether asking again can help.
    pub(crate) fn may_pass(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
}

async fn of_vault(vault: &Client) -> Result<Keyring, KeyError> {
    let given = vault.store_keys(Role::Events).await.map_err(KeyError::Vault)?;
    let mut keys = Vec::with_capacity(given.keys.len());
    for key in &given.keys {
        keys.push((key.id, Zeroizing::new(key.bytes().ok_or(KeyError::Digits(key.id))?)));
    }
    keyring(given.current, &keys)
}

/// Keys of a file, one a line; a line's number is its key's, and the last one is in use.
fn of_file(path: &Path) -> Result<Keyring, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let meta: fs::Metadata = file.metadata().map_err(failed)?;
    if meta.mode() & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.to_owned(), mode: meta.mode() & 0o7777 });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let mut keys = Vec::new();
    for (id, line) in (1_u32..).zip(text.lines()) {
        keys.push((id, Zeroizing::new(bytes_of(line.trim().as_bytes()).ok_or(KeyError::Digits(id))?)));
    }
    keyring(keys.len() as u32, &keys)
}

fn keyring(current: u32, keys: &[(u32, Zeroizing<[u8; 32]>)]) -> Result<Keyring, KeyError> {
    Keyring::new(current, keys.iter().map(|(id, key)| (*id, &**key))).map_err(KeyError::Keys)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<Keyring, KeyError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        of_file(&path)
    }

    #[test]
    fn the_last_key_of_a_file_is_in_use() {
        let (one, two) = ("0a".repeat(32), "0b".repeat(32));
        assert_eq!(read(&format!("{one}\n"), 0o600).unwrap().current(), 1);
        assert_eq!(read(&format!("{one}\n{two}"), 0o400).unwrap().current(), 2);
    }

    #[test]
    fn what_is_no_key_file_is_named() {
        assert!(matches!(read("", 0o600), Err(KeyError::Keys(_))));
        assert!(matches!(read("ab", 0o600), Err(KeyError::Digits(1))));
        assert!(matches!(read(&format!("{}\n\n", "0a".repeat(32)), 0o600), Err(KeyError::Digits(2))));
        assert!(matches!(read(&"0a".repeat(32), 0o640), Err(KeyError::Mode { mode: 0o640, .. })));
        assert!(matches!(of_file(Path::new("/nowhere")), Err(KeyError::File { .. })));
    }
}
