//! The configuration from outside: wrong files, right files, the environment, every key.

mod bad;
mod environment;
mod every_key;
mod hostile;
mod layout;
mod observed;
mod reload;
mod shipped;
mod speed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sluice_schema::{Document, Loaded, Mode, Report, check};

/// Texts by path and a temporary folder that is gone at the end.
pub(crate) type Environment = BTreeMap<String, String>;

/// Checks one text, without environment.
pub(crate) fn check_text(text: &str) -> Result<Loaded, Report> {
    check_in(text, &[], Mode::default())
}

/// Checks one text in an environment.
pub(crate) fn check_in(text: &str, environment: &[(&str, &str)], mode: Mode) -> Result<Loaded, Report> {
    let environment: Environment =
        environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let documents = [Document::new("sluice.toml", text)];
    let no_files = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    check(&documents, &environment, mode, &no_files)
}

/// The folder `conf/` of the repository.
pub(crate) fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("schema lies in conf").to_path_buf()
}

/// One service, with more keys.
pub(crate) fn service(keys: &str) -> String {
    format!(
        "[[service]]\nname = \"data\"\nprefix = \"/api/data\"\n{keys}\n[[service.instance]]\nurl = \"http://127.0.0.1:8001\"\n"
    )
}
