//! The root key and the file that keeps it.
//!
//! The file holds 64 hexadecimal digits and at most a line break. Under `--dev` it lies in the data directory
//! and is made on the first start; in production an operator makes it, outside the data directory, mode 0400,
//! so that a copy of the data directory alone opens nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::aead::LessSafeKey;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::OFlags;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::envelope::KEY_BYTES;
use super::locked::Key;
use super::shamir::{Share, Split};

/// The key everything else hangs on. No Debug: it is a secret.
#[derive(Clone)]
pub(crate) struct RootKey(Arc<Key>);

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// It cannot be read or made.
    #[error("cannot use key file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its mode lets others read or change it.
    #[error("key file {path} has mode {mode:o}; it must be {wanted}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they must be.
        wanted: &'static str,
    },
    /// It belongs to another user, or is no plain file.
    #[error("key file {path} is not a plain file of this process's user")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It lies in the data directory.
    #[error("key file {path} lies inside the data directory; a copy of the directory would open the vault")]
    Inside {
        /// The file.
        path: PathBuf,
    },
    /// It does not hold a key.
    #[error("key file {path} does not hold 64 hexadecimal digits")]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The store exists, its key does not.
    #[error("key file {path} is gone but the store is not; put the key back or remove both")]
    Lost {
        /// The file.
        path: PathBuf,
    },
}

impl RootKey {
    /// A new key.
    pub(crate) fn random() -> Self {
        Self(Key::random().into())
    }

    /// The key that these bytes are.
    pub(crate) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(Key::new(bytes).into())
    }

    /// Divides it into shares, each time other ones.
    pub(crate) fn divide(&self, split: Split) -> Vec<Share> {
        split.divide(&Zeroizing::new(*self.0.bytes()), |bytes| {
            SystemRandom::new().fill(bytes).expect("the kernel's random source does not fail once seeded");
        })
    }

    /// Whether both are one key, in constant time.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0.bytes().ct_eq(other.0.bytes()).into()
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.bytes()
    }

    /// The digits that its file holds.
    pub(super) fn to_hex(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        for byte in self.0.bytes() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        text
    }

    pub(super) fn cipher(&self) -> LessSafeKey {
        self.0.cipher()
    }

    /// Reads the development key, or makes it when `store_exists` is false.
    pub(crate) fn dev(path: &Path, store_exists: bool) -> Result<Self, KeyFileError> {
        match path.try_exists() {
            Ok(true) => read(path, |mode| mode.trailing_zeros() >= 6, "600"),
            Ok(false) if store_exists => Err(KeyFileError::Lost { path: path.to_owned() }),
            Ok(false) => create(path),
            Err(source) => Err(KeyFileError::Io { path: path.to_owned(), source }),
        }
    }

    /// Reads an operator's key: mode 0400, outside `data_dir`.
    pub(crate) fn production(path: &Path, data_dir: &Path) -> Result<Self, KeyFileError> {
        let fail = |source| KeyFileError::Io { path: path.to_owned(), source };
        let real = fs::canonicalize(path).map_err(fail)?;
        let inside = fs::canonicalize(data_dir).is_ok_and(|data_dir| real.starts_with(data_dir));
        if inside {
            return Err(KeyFileError::Inside { path: path.to_owned() });
        }
        read(&real, |mode| mode == 0o400, "400")
    }
}

fn read(path: &Path, mode_fits: fn(u32) -> bool, wanted: &'static str) -> Result<RootKey, KeyFileError> {
    let fail = |source| KeyFileError::Io { path: path.to_owned(), source };
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(KeyFileError::Foreign { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    if !mode_fits(mode) {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode, wanted });
    }
    let mut text = Zeroizing::new([0_u8; 2 * KEY_BYTES + 2]);
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]).map_err(fail)? {
            0 => break,
            read => length += read,
        }
    }
    parse(text[..length].trim_ascii_end()).ok_or_else(|| KeyFileError::Content { path: path.to_owned() })
}

/// The key of 64 hexadecimal digits.
pub(super) fn parse(digits: &[u8]) -> Option<RootKey> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = (nibble(pair[0])? * 16 + nibble(pair[1])?) as u8;
    }
    Some(RootKey::new(&key))
}

fn create(path: &Path) -> Result<RootKey, KeyFileError> {
    let fail = |source| KeyFileError::Io { path: path.to_owned(), source };
    let key = RootKey::random();
    let text = key.to_hex();
    // Written aside, synced and renamed: a crash leaves no half a key behind that the next start believes.
    let aside = path.with_extension("key.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside).map_err(fail)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    fs::rename(&aside, path).map_err(fail)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn development_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unseal.key");
        let first = RootKey::dev(&path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(RootKey::dev(&path, true).unwrap().is(&first));
        chmod(&path, 0o644);
        assert!(matches!(RootKey::dev(&path, true), Err(KeyFileError::Mode { mode: 0o644, .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(RootKey::dev(&path, true), Err(KeyFileError::Lost { .. })));
    }

    #[test]
    fn production_key_must_be_outside_and_closed() {
        let data = tempfile::tempdir().unwrap();
        let keys = tempfile::tempdir().unwrap();
        let path = keys.path().join("root.key");
        fs::write(&path, format!("{}\n", "ab".repeat(32))).unwrap();
        chmod(&path, 0o600);
        assert!(matches!(RootKey::production(&path, data.path()), Err(KeyFileError::Mode { .. })));
        chmod(&path, 0o400);
        assert!(RootKey::production(&path, data.path()).unwrap().is(&RootKey::new(&[0xab; 32])));
        assert!(matches!(RootKey::production(&path, keys.path()), Err(KeyFileError::Inside { .. })));
        let link = data.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(RootKey::production(&link, keys.path()).is_err(), "a link does not hide where the key is");
        assert!(RootKey::production(&keys.path().join("none"), data.path()).is_err());
    }

    #[test]
    fn anything_but_sixty_four_digits_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unseal.key");
        for bad in ["", "ab", &"zz".repeat(32), &"ab".repeat(33), &format!("{}\nmore", "ab".repeat(32))] {
            fs::write(&path, bad).unwrap();
            chmod(&path, 0o600);
            assert!(matches!(RootKey::dev(&path, true), Err(KeyFileError::Content { .. })), "{bad}");
        }
    }
}
