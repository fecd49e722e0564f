//! A key file: reading the present one, and putting a new one beside it before it counts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::exit::Failure;

/// LIMIT: bytes of a key file that are read.
const FILE_BYTES: u64 = 256;

/// Where a new key is written.
pub(super) struct NewFile {
    /// Where it lies first: the vault looks there too when the present file does not open it.
    beside: PathBuf,
    /// Where it is to be.
    place: PathBuf,
    /// Whose it is: the vault reads only what is its own.
    owner: (u32, u32),
}

/// The key in a file.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES as usize));
    let opened = File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_string(&mut text));
    opened.map_err(|error| failed(path, &error))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

impl NewFile {
    /// In the place of `present`, or in a file of its own. `like` is a file or folder of the vault's user.
    pub(super) fn new(present: Option<&Path>, own: Option<&Path>, like: &Path) -> Result<Self, Failure> {
        let Some(place) = own.or(present) else {
            return Err(Failure::usage("name the new key file with --new-key-file"));
        };
        let beside =
            if own.is_some_and(|own| present != Some(own)) { place.to_owned() } else { beside(place) };
        if fs::symlink_metadata(&beside).is_ok() {
            let text = "exists already: an earlier rekey may have been broken off. The vault says at its start which \
                        file opened it; remove the other one";
            return Err(Failure::usage(format!("{} {text}", beside.display())));
        }
        let like = fs::metadata(like).map_err(|error| failed(like, &error))?;
        Ok(Self { beside, place: place.to_owned(), owner: (like.uid(), like.gid()) })
    }

    /// Writes it so that it survives whatever comes next.
    pub(super) fn write(&self, digits: &str) -> Result<(), Failure> {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&self.beside)?;
            let written = file.metadata()?;
            if (written.uid(), written.gid()) != self.owner {
                fchown(&file, Some(self.owner.0), Some(self.owner.1))?;
            }
            file.write_all(digits.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            sync_folder(&self.beside)
        };
        write().map_err(|error| failed(&self.beside, &error))
    }

    /// Puts it where it is to be; where that is, for whoever is told.
    pub(super) fn put_in_place(&self) -> Result<&Path, Failure> {
        let moved = || {
            fs::rename(&self.beside, &self.place)?;
            sync_folder(&self.place)
        };
        if self.beside != self.place {
            moved().map_err(|error| failed(&self.place, &error))?;
        }
        Ok(&self.place)
    }

    /// Where it lies until then.
    pub(super) fn beside(&self) -> &Path {
        &self.beside
    }

    /// Removes what does not count.
    pub(super) fn forget(&self) {
        drop(fs::remove_file(&self.beside));
    }
}

/// The file beside a key file.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::from(anyhow::anyhow!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_lies_beside_the_present_one_until_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let present = dir.path().join("root.key");
        fs::write(&present, "old\n").unwrap();
        let new = NewFile::new(Some(&present), None, &present).unwrap();
        new.write("new").unwrap();
        assert_eq!((read(&present).unwrap().as_str(), read(&new.beside).unwrap().as_str()), ("old", "new"));
        assert_eq!(fs::metadata(&new.beside).unwrap().mode() & 0o777, 0o400);
        assert!(
            NewFile::new(Some(&present), None, &present).is_err(),
            "what may be the key is not written over"
        );
        assert!(new.write("other").is_err());
        assert_eq!(new.put_in_place().unwrap(), present);
        assert_eq!(read(&present).unwrap().as_str(), "new");
        let own = dir.path().join("other.key");
        let new = NewFile::new(Some(&present), Some(&own), &present).unwrap();
        new.write("third").unwrap();
        assert_eq!((new.put_in_place().unwrap(), read(&own).unwrap().as_str()), (own.as_path(), "third"));
        assert!(NewFile::new(None, None, &present).is_err());
        let same = NewFile::new(Some(&present), Some(&present), &present).unwrap();
        assert_eq!(same.beside, dir.path().join("root.key.new"));
    }
}
