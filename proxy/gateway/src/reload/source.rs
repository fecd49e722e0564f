//! The configuration's files, loaded as they were at the start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sluice_http::Start;
use sluice_schema::{Config, Document, Mode, Report};

use super::ReloadError;
use crate::kept::{Files, Sources};

/// LIMIT: bytes of a file that kept texts refer to.
const REFERRED_BYTES: u64 = 1 << 20;

/// What is needed to load the configuration again as it was loaded at the start.
pub(super) struct Source {
    /// Main file or folder, as it was given.
    pub(super) path: PathBuf,
    /// Where the files are.
    pub(super) files: Files,
    /// There was no file at the start: none is none now.
    absent: bool,
    /// Variables that lie over the files.
    pub(super) environment: BTreeMap<String, String>,
    /// Added to every port.
    pub(super) port_offset: u16,
    mode: Mode,
}

/// A configuration and the texts it was read from.
pub(super) struct Loaded {
    /// The checked values.
    pub(super) config: Config,
    /// Their texts.
    pub(super) sources: Sources,
    /// Variables that references to secrets name.
    pub(super) secret_variables: Vec<String>,
}

impl Source {
    /// The files and what applies to them, as at the start.
    pub(super) fn new(start: &Start) -> Self {
        Self {
            files: Files::of(&start.config_path),
            absent: !start.config_path.exists(),
            path: start.config_path.clone(),
            environment: start.environment.clone(),
            port_offset: start.port_offset,
            // Secrets are read once, at the start: a reload neither needs nor takes them.
            mode: Mode { dev: start.dev, secrets_required: false, now_unix_s: None, origins: false },
        }
    }

    /// The mode of the start: a restart must not fail for a certificate that has ended since.
    pub(super) fn at_start(&self) -> Mode {
        self.mode
    }

    /// The mode of a reload, which judges certificates too.
    pub(super) fn today(&self) -> Mode {
        Mode { now_unix_s: Some(jiff::Timestamp::now().as_second()), ..self.mode }
    }

    /// Loads the files.
    pub(super) fn load(&self, mode: Mode) -> Result<Loaded, ReloadError> {
        if self.absent && !self.path.exists() {
            return self.check(&[], mode);
        }
        let loaded = sluice_schema::load(&self.path, &self.environment, mode);
        self.finish(loaded)
    }

    /// Judges texts as if they were the files.
    pub(super) fn check(&self, documents: &[Document], mode: Mode) -> Result<Loaded, ReloadError> {
        let read_file = |path: &Path| match std::fs::metadata(path)? {
            file if file.is_file() && file.len() <= REFERRED_BYTES => std::fs::read(path),
            _ => Err(std::io::Error::other("it is no regular file of at most 1 MiB")),
        };
        self.finish(sluice_schema::check(documents, &self.environment, mode, &read_file))
    }

    fn finish(&self, loaded: Result<sluice_schema::Loaded, Report>) -> Result<Loaded, ReloadError> {
        let loaded = loaded.map_err(|report| ReloadError::Invalid(Box::new(report)))?;
        let mut config = loaded.config;
        config.port_offset(self.port_offset)?;
        let sources = Sources::of(&loaded.documents);
        Ok(Loaded { config, sources, secret_variables: loaded.secret_variables })
    }
}
