//! Files of jobs: `<job>.json`, the record on the first line, the result on the second.
//!
//! Written aside, synced and renamed: after a crash a job has its old file or its new one. What cannot be read is left
//! where it is and said in the log.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::record::{Failure, RESTARTED, Record, Status};
use crate::bounds::{JOB_RECORD_BYTES_MAX, JOBS_KEPT_BYTES_MAX};
use crate::error::CalcError;

/// The folder of all jobs.
pub(super) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(super) fn open(dir: PathBuf) -> Result<Self, CalcError> {
        fs::create_dir_all(&dir).map_err(|source| CalcError::Jobs { path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// Every job with the bytes of its file. Jobs that had not ended are failed now.
    pub(super) fn load(&self, now_ms: i64) -> Result<Vec<(Record, u64)>, CalcError> {
        let fail = |source| CalcError::Jobs { path: self.dir.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {}
                Some("new") => {
                    let _a_write_that_did_not_end = fs::remove_file(&path);
                    continue;
                }
                _ => continue,
            }
            match self.revive(&path, now_ms) {
                Ok(revived) => found.push(revived),
                Err(error) => {
                    tracing::warn!(component = "jobs", path = %path.display(), error = %error, "a job's file cannot be read");
                }
            }
        }
        Ok(found)
    }

    fn revive(&self, path: &Path, now_ms: i64) -> io::Result<(Record, u64)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut line = String::new();
        BufReader::new(file.take(JOB_RECORD_BYTES_MAX)).read_line(&mut line)?;
        let mut record: Record = serde_json::from_str(&line)?;
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(&record.job) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the name is not that of the job in it"));
        }
        if record.status.has_ended() {
            return Ok((record, bytes));
        }
        let failure = Failure::new(RESTARTED, "the worker was started again before it had ended".to_owned());
        record.end(Status::Failed, Some(failure));
        record.finished = Some(now_ms);
        let bytes = self.write(&record, None)?;
        Ok((record, bytes))
    }

    /// Writes a job; the bytes of its file.
    pub(super) fn write(&self, record: &Record, result: Option<&str>) -> io::Result<u64> {
        let mut text = serde_json::to_string(record)?;
        text.push('\n');
        text.push_str(result.unwrap_or_default());
        let path = self.path(&record.job);
        let aside = path.with_extension("new");
        let mut file = File::create(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(text.len() as u64)
    }

    /// The result of a job that has one.
    pub(super) fn result(&self, job: &str) -> io::Result<String> {
        let mut reader = BufReader::new(File::open(self.path(job))?.take(JOBS_KEPT_BYTES_MAX));
        reader.skip_until(b'\n')?;
        let mut result = String::new();
        reader.read_to_string(&mut result)?;
        Ok(result)
    }

    /// Removes a job; one that is not there is removed.
    pub(super) fn remove(&self, job: &str) -> io::Result<()> {
        match fs::remove_file(self.path(job)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// INVARIANT: ids are made here, never taken from a client, so they are names of files.
    fn path(&self, job: &str) -> PathBuf {
        self.dir.join(format!("{job}.json"))
    }
}
