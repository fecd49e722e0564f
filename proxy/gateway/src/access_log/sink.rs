//! Where the lines of the access log end up: an output that may fail, and a file that may be moved away.
//!
//! A file is opened again when somebody asks for it (SIGHUP), and when its path no longer names it, which is
//! looked at every [`LOOK`] while lines come: both ways in which logs are rotated. Lines that cannot be
//! written are counted; what was written of a line before the disk was full is ended by a newline of its own,
//! so that it spoils no other. Each beginning and end of such a time is told in the process log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// Between two looks at what a file's path names.
const LOOK: Duration = Duration::from_secs(1);

/// An output and what is known about it.
pub(super) struct Sink {
    out: Box<dyn Write + Send>,
    file: Option<Followed>,
    /// The last bytes written were no whole line.
    torn: bool,
    failing: bool,
}

/// A file by its path.
struct Followed {
    path: PathBuf,
    /// Device and inode of what is open.
    open: (u64, u64),
    looked: Instant,
}

impl Sink {
    /// An output that is what it is.
    pub(super) fn plain(out: Box<dyn Write + Send>) -> Self {
        Self { out, file: None, torn: false, failing: false }
    }

    /// A file that is appended to, made where it is missing. A pipe that nobody reads is an error, not a wait.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let (out, open) = append(path)?;
        let file = Followed { path: path.to_owned(), open, looked: Instant::now() };
        Ok(Self { file: Some(file), ..Self::plain(Box::new(out)) })
    }

    /// Opens a file again where its path names another one, or none; looked for at once where `asked`.
    pub(super) fn follow(&mut self, asked: bool) {
        let Some(file) = &mut self.file else { return };
        if !asked && file.looked.elapsed() < LOOK {
            return;
        }
        file.looked = Instant::now();
        let named = std::fs::metadata(&file.path).ok().map(|found| (found.dev(), found.ino()));
        if named == Some(file.open) {
            return;
        }
        match append(&file.path) {
            Ok((out, open)) => {
                file.open = open;
                self.out = Box::new(out);
                self.torn = false;
            }
            // The lines go on into the file that is open.
            Err(error) => tracing::warn!(
                component = "access",
                error = &error as &dyn std::error::Error,
                path = %file.path.display(),
                "the access log cannot be opened again"
            ),
        }
    }

    /// Writes whole lines; the number of them that were lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        match self.try_write(lines) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(component = "access", "the access log can be written again");
                }
                0
            }
            Err((written, error)) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(
                        component = "access",
                        error = &error as &dyn std::error::Error,
                        "the access log cannot be written; its lines are dropped and counted"
                    );
                }
                let rest = lines.get(written..).unwrap_or_default();
                rest.split_inclusive(|byte| *byte == b'\n').count() as u64
            }
        }
    }

    /// On an error with the bytes of `lines` that were written.
    fn try_write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.out.write_all(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut written = 0;
        while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.torn = lines.get(written - 1).is_some_and(|byte| *byte != b'\n');
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        self.out.flush().map_err(|error| (written, error))
    }
}

fn append(path: &Path) -> io::Result<(File, (u64, u64))> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o640).custom_flags(nonblocking).open(path)?;
    let open = file.metadata()?;
    Ok((file, (open.dev(), open.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Takes `room` bytes, then no more.
    struct Full(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            let count = bytes.len().min(state.0);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.0 -= count;
            state.1.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_counted_lines_and_spoils_no_other() {
        let disk = Arc::new(Mutex::new((9, Vec::new())));
        let mut sink = Sink::plain(Box::new(Full(Arc::clone(&disk))));
        assert_eq!(sink.write(b"one\ntwo\nthree\nfour\n"), 2, "three breaks off, four never begins");
        assert_eq!(sink.write(b"five\n"), 1);
        disk.lock().unwrap().0 = 100;
        assert_eq!(sink.write(b"six\nseven\n"), 0);
        assert_eq!(String::from_utf8_lossy(&disk.lock().unwrap().1), "one\ntwo\nt\nsix\nseven\n");
    }

    #[test]
    fn a_moved_file_is_left_and_its_path_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let mut sink = Sink::file(&path).unwrap();
        sink.write(b"one\n");
        std::fs::rename(&path, &old).unwrap();
        sink.follow(false);
        sink.write(b"two\n");
        assert_eq!(std::fs::read(&old).unwrap(), b"one\ntwo\n", "not looked at yet");
        sink.follow(true);
        sink.write(b"three\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        std::fs::remove_file(&path).unwrap();
        sink.file.as_mut().unwrap().looked = Instant::now().checked_sub(LOOK).unwrap();
        sink.follow(false);
        sink.write(b"four\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"four\n");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        sink.follow(true);
        assert_eq!(sink.write(b"five\n"), 0, "what cannot be opened leaves the open one");
    }

    #[test]
    fn a_pipe_without_a_reader_is_no_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(Sink::file(&path).is_err());
    }
}
