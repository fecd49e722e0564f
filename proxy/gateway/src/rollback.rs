//! Putting an earlier good configuration back in force.
//!
//! The kept files are written over the configured ones, so that a later reload and a restart see the same
//! as the edge does now; there is no second source of truth. Order: the earlier texts are checked against
//! today's environment; every file is written beside its place, which proves that the folders can be
//! written; the present files are saved; the earlier configuration comes into force; the files take their
//! places. Whatever fails before the last step leaves everything as it was; a rename that fails puts the
//! saved files and the present configuration back. A crash between two renames leaves whole files of both
//! versions, the present ones among the saved.
//!
//! Refused: files that are symbolic links (another tool owns them) and folders that cannot be written.
//! LIMIT: the saved files of the last rollback only, in `<data-dir>/edge/replaced/`.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::kept::{Files, Sources};

/// End of the name of a file that waits for its place.
const BESIDE: &str = ".sluice-new";

/// Files cannot be put back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// A file is a symbolic link.
    #[error(
        "{0} is a symbolic link: the files belong to another tool; restore them there, then `sluice reload`"
    )]
    Linked(PathBuf),
    /// A folder or file cannot be written.
    #[error("{path} cannot be written; restore the files by hand, then `sluice reload`")]
    NotWritable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The present files cannot be saved.
    #[error("the present files cannot be saved to {path}; nothing was changed")]
    NotSaved {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Files that lie beside their places.
pub(crate) struct Staged {
    files: Files,
    /// Written beside, and the place.
    waiting: Vec<(PathBuf, PathBuf)>,
    /// Files of `services.d` that the earlier configuration did not have.
    surplus: Vec<PathBuf>,
    saved: PathBuf,
}

impl Staged {
    /// Writes the texts beside their places and saves the present files.
    pub(crate) fn new(files: &Files, sources: &Sources, data_dir: &Path) -> Result<Self, RestoreError> {
        let saved = data_dir.join("edge").join("replaced");
        let present = present(files).map_err(|source| unwritable(&files.folder, source))?;
        let linked = |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if let Some(path) = present.iter().find(linked) {
            return Err(RestoreError::Linked(path.clone()));
        }
        let texts: Vec<(PathBuf, &str)> = std::iter::once((files.main.clone(), sources.main.as_str()))
            .chain(sources.services.iter().map(|(name, text)| (files.service(name), text.as_str())))
            .collect();
        let places: BTreeSet<&PathBuf> = texts.iter().map(|(path, _)| path).collect();
        let surplus = present.iter().filter(|path| !places.contains(path)).cloned().collect();
        let mut staged = Self { files: files.clone(), waiting: Vec::new(), surplus, saved };
        if !sources.services.is_empty() {
            fs::create_dir_all(&files.folder).map_err(|source| unwritable(&files.folder, source))?;
        }
        for (place, text) in texts {
            let beside = beside(&place);
            staged.waiting.push((beside.clone(), place.clone()));
            write(&beside, &place, text).map_err(|source| unwritable(&place, source))?;
        }
        save(&staged.saved, files, &present)
            .map_err(|source| RestoreError::NotSaved { path: staged.saved.clone(), source })?;
        Ok(staged)
    }

    /// Where the present files were saved.
    pub(crate) fn saved(&self) -> &Path {
        &self.saved
    }

    /// Puts every file in its place. After an error the saved files are in theirs again.
    pub(crate) fn commit(mut self) -> Result<(), RestoreError> {
        let done = self.put();
        if done.is_err() {
            self.put_back();
        }
        done
    }

    fn put(&mut self) -> Result<(), RestoreError> {
        for (beside, place) in &self.waiting {
            fs::rename(beside, place).map_err(|source| unwritable(place, source))?;
        }
        self.waiting.clear();
        for path in &self.surplus {
            fs::remove_file(path).map_err(|source| unwritable(path, source))?;
        }
        let folders = [self.files.main.parent(), Some(self.files.folder.as_path())];
        for folder in folders.into_iter().flatten().filter(|folder| folder.is_dir()) {
            // What is not yet on disk is there after the next crash or not: both are whole files.
            drop(File::open(folder).and_then(|folder| folder.sync_all()));
        }
        Ok(())
    }

    fn put_back(&self) {
        for place in
            self.waiting.iter().map(|(_, place)| place).filter(|place| !self.saved_as(place).exists())
        {
            // It was not there before; one that cannot be removed did not get there.
            drop(fs::remove_file(place));
        }
        let main = (self.saved.join("sluice.toml"), self.files.main.clone());
        let services = fs::read_dir(self.saved.join("services.d")).into_iter().flatten().flatten();
        let services = services.map(|entry| (entry.path(), self.files.folder.join(entry.file_name())));
        for (saved, place) in std::iter::once(main).chain(services).filter(|(saved, _)| saved.exists()) {
            if let Err(error) = fs::copy(&saved, &place) {
                tracing::error!(
                    component = "reload",
                    error = &error as &dyn std::error::Error,
                    file = %place.display(),
                    saved = %saved.display(),
                    "a configuration file could not be put back"
                );
            }
        }
    }
}

impl Staged {
    /// Where the file of a place was saved.
    fn saved_as(&self, place: &Path) -> PathBuf {
        saved_as(&self.saved, &self.files, place)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for (beside, _) in &self.waiting {
            drop(fs::remove_file(beside));
        }
    }
}

fn saved_as(saved: &Path, files: &Files, place: &Path) -> PathBuf {
    match place.file_name() {
        Some(name) if *place != files.main => saved.join("services.d").join(name),
        _ => saved.join("sluice.toml"),
    }
}

fn unwritable(path: &Path, source: io::Error) -> RestoreError {
    RestoreError::NotWritable { path: path.to_owned(), source }
}

/// The files a configuration is read from now.
fn present(files: &Files) -> io::Result<Vec<PathBuf>> {
    let mut present = Vec::new();
    if fs::symlink_metadata(&files.main).is_ok() {
        present.push(files.main.clone());
    }
    let entries = match fs::read_dir(&files.folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(present),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            present.push(path);
        }
    }
    Ok(present)
}

fn beside(place: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(place.file_name().unwrap_or_default());
    name.push(BESIDE);
    place.with_file_name(name)
}

/// A new file keeps the mode of the one it replaces.
fn write(beside: &Path, place: &Path, text: &str) -> io::Result<()> {
    let mode = fs::metadata(place).map_or(0o644, |found| found.permissions().mode() & 0o777);
    drop(fs::remove_file(beside));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn save(saved: &Path, files: &Files, present: &[PathBuf]) -> io::Result<()> {
    if saved.exists() {
        fs::remove_dir_all(saved)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(saved.join("services.d"))?;
    fs::set_permissions(saved, fs::Permissions::from_mode(0o700))?;
    for path in present {
        let to = saved_as(saved, files, path);
        fs::copy(path, &to)?;
        File::open(&to)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Folder {
        dir: tempfile::TempDir,
        files: Files,
    }

    fn folder() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(&dir.path().join("sluice.toml"));
        fs::create_dir(&files.folder).unwrap();
        fs::write(&files.main, "now").unwrap();
        fs::write(files.service("a.toml"), "a now").unwrap();
        fs::write(files.service("b.toml"), "b now").unwrap();
        Folder { dir, files }
    }

    fn earlier() -> Sources {
        let services =
            BTreeMap::from([("a.toml".into(), "a then".into()), ("c.toml".into(), "c then".into())]);
        Sources { main: "then".into(), services }
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn files_take_their_places_and_the_present_ones_are_saved() {
        let Folder { dir, files } = folder();
        fs::set_permissions(&files.main, fs::Permissions::from_mode(0o600)).unwrap();
        let staged = Staged::new(&files, &earlier(), dir.path()).unwrap();
        assert_eq!(read(&files.main), "now", "nothing yet");
        let saved = staged.saved().to_owned();
        staged.commit().unwrap();
        assert_eq!((read(&files.main), read(&files.service("a.toml"))), ("then".into(), "a then".into()));
        assert_eq!(read(&files.service("c.toml")), "c then");
        assert!(!files.service("b.toml").exists());
        assert_eq!(fs::metadata(&files.main).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            (read(&saved.join("sluice.toml")), read(&saved.join("services.d/b.toml"))),
            ("now".into(), "b now".into())
        );
        assert_eq!(fs::read_dir(&files.folder).unwrap().count(), 2, "nothing is left beside");
    }

    #[test]
    fn what_is_not_committed_leaves_no_trace() {
        let Folder { dir, files } = folder();
        drop(Staged::new(&files, &earlier(), dir.path()).unwrap());
        assert_eq!(read(&files.main), "now");
        assert_eq!(fs::read_dir(&files.folder).unwrap().count(), 2);
        assert!(!beside(&files.main).exists());
    }

    #[test]
    fn a_rename_that_fails_puts_everything_back() {
        let Folder { dir, files } = folder();
        let staged = Staged::new(&files, &earlier(), dir.path()).unwrap();
        fs::create_dir_all(files.service("c.toml").join("full")).unwrap();
        assert!(matches!(staged.commit(), Err(RestoreError::NotWritable { .. })));
        assert_eq!((read(&files.main), read(&files.service("a.toml"))), ("now".into(), "a now".into()));
        assert_eq!(read(&files.service("b.toml")), "b now");
    }

    #[test]
    fn links_and_closed_folders_are_refused() {
        let Folder { dir, files } = folder();
        fs::rename(files.service("b.toml"), dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), files.service("b.toml")).unwrap();
        assert!(matches!(Staged::new(&files, &earlier(), dir.path()), Err(RestoreError::Linked(_))));
        fs::remove_file(files.service("b.toml")).unwrap();
        fs::create_dir_all(beside(&files.main).join("full")).unwrap();
        let refused = Staged::new(&files, &earlier(), dir.path());
        assert!(matches!(refused, Err(RestoreError::NotWritable { .. })));
        assert_eq!(read(&files.main), "now");
    }
}
