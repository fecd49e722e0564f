//! From files and environment to a checked configuration, or to everything that is wrong with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::code::Code;
use crate::model::Config;
use crate::reader::{Mode, ReadFile, Reader};
use crate::report::{Diagnostic, Document, Place, Report, quote_path};
use crate::show::{Origin, Origins, named, origin_of};
use crate::table::Table;
use crate::{check as checks, environment, keys};

/// LIMIT: one file in bytes.
const FILE_BYTES: u64 = 1 << 20;
/// LIMIT: all files together in bytes.
const TOTAL_BYTES: usize = 64 << 20;
/// LIMIT: files in `services.d`.
const FILES_MAX: usize = 10_000;

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked values.
    pub config: Config,
    /// Where each value that somebody set comes from; see [`Loaded::origin`].
    pub origins: Origins,
    /// What is odd, but no error.
    pub warnings: Report,
    /// Variables that `env:NAME` references name: a supervisor hands them to the roles that need them.
    pub secret_variables: Vec<String>,
    /// The texts it was read from, the main one first.
    pub documents: Vec<Document>,
}

impl Loaded {
    /// Where one value comes from, by path such as `service.data_service.timeouts.total`.
    pub fn origin(&self, path: &str) -> Origin {
        origin_of(&self.origins, path)
    }
}

/// Loads the main file (`sluice.toml`, or the folder it lies in) and every `services.d/*.toml` beside it.
///
/// # Errors
/// Everything that is wrong, in one report.
pub fn load(path: &Path, environment: &BTreeMap<String, String>, mode: Mode) -> Result<Loaded, Report> {
    let (documents, unreadable) = gather(path);
    let read_file = |path: &Path| read_bounded(path).map_err(io::Error::from);
    let reader = Reader::new(&documents, environment, mode, &read_file);
    let loaded = check_all(reader, &documents, unreadable)?;
    Ok(Loaded { documents, ..loaded })
}

/// Checks texts: the first is the main file, the others are those of `services.d`. No text at all is valid.
/// It reads nothing but what `read_file` gives for secrets, certificates and keys.
///
/// # Errors
/// Everything that is wrong, in one report.
pub fn check(
    documents: &[Document],
    environment: &BTreeMap<String, String>,
    mode: Mode,
    read_file: &ReadFile<'_>,
) -> Result<Loaded, Report> {
    let loaded = check_all(Reader::new(documents, environment, mode, read_file), documents, Vec::new())?;
    Ok(Loaded { documents: documents.to_vec(), ..loaded })
}

fn check_all(
    mut reader: Reader<'_>,
    documents: &[Document],
    unreadable: Vec<Diagnostic>,
) -> Result<Loaded, Report> {
    for diagnostic in unreadable {
        reader.report(diagnostic);
    }
    let config = read(&mut reader, documents);
    let outcome = reader.into_report();
    if outcome.report.errors() > 0 {
        return Err(outcome.report);
    }
    let origins = outcome.origins.into_iter().map(|(path, origin)| (named(&path, &config), origin)).collect();
    Ok(Loaded {
        config,
        origins,
        warnings: outcome.report,
        secret_variables: outcome.secret_variables,
        documents: Vec::new(),
    })
}

fn read(reader: &mut Reader<'_>, documents: &[Document]) -> Config {
    let tables: Vec<_> =
        documents.iter().map(|document| DeTable::parse_recoverable(&document.text)).collect();
    // Syntax first: what is said about a line that is no TOML is said once.
    for (index, (_, errors)) in tables.iter().enumerate() {
        for error in errors {
            let place = Place { document: index, span: error.span().unwrap_or_default() };
            reader.report(Diagnostic::new(Code::Syntax, error.message()).at(place));
        }
    }
    let mut config = Config::default();
    if reader.mode.dev {
        config.edge.listen.set_ip(Ipv4Addr::LOCALHOST.into());
        // Nothing balances over a development instance: ctrl-C need not wait for it to notice.
        config.drain.lame_duck = Duration::ZERO;
    }
    let main = tables.first().map(|(table, _)| table.get_ref());
    let mut root = Table::root(reader, main, 0);
    keys::sections(&mut root, &mut config);
    // The defaults of services are known only now.
    environment::apply(root.reader, &mut config);
    keys::services(&mut root, &mut config);
    root.finish();
    for (index, (table, _)) in tables.iter().enumerate().skip(1) {
        let mut root = Table::fragment(reader, table.get_ref(), index);
        keys::services(&mut root, &mut config);
        root.finish();
    }
    environment::instances(reader, &mut config);
    environment::leftovers(reader);
    checks::config(reader, &config);
    config
}

/// The texts of a path: of a folder the main file and all of `services.d`, else the file itself.
///
/// # Errors
/// What cannot be read.
pub fn texts(path: &Path) -> Result<Vec<Document>, Report> {
    let (documents, wrong) = if path.is_dir() {
        gather(path)
    } else {
        match read_text(path) {
            Ok(text) => (vec![Document::new(path, text)], Vec::new()),
            Err(diagnostic) => (Vec::new(), vec![*diagnostic]),
        }
    };
    if wrong.is_empty() { Ok(documents) } else { Err(Report::new(wrong, &documents)) }
}

/// The texts that [`load`] reads, the main one first; those that cannot be read are left out.
pub fn written(path: &Path) -> Vec<Document> {
    gather(path).0
}

/// The texts, the main one first, and what could not be read.
fn gather(path: &Path) -> (Vec<Document>, Vec<Diagnostic>) {
    let main = if path.is_dir() { path.join("sluice.toml") } else { path.to_path_buf() };
    let mut wrong = Vec::new();
    // A main file that cannot be read stands as an empty one, so that the others are still checked.
    let text = read_text(&main).unwrap_or_else(|diagnostic| {
        wrong.push(*diagnostic);
        String::new()
    });
    let mut total = text.len();
    let folder = main.parent().unwrap_or(Path::new("")).join("services.d");
    let mut documents = vec![Document::new(main, text)];
    let files = match fragments(&folder) {
        Ok(files) => files,
        Err(diagnostic) => {
            wrong.push(*diagnostic);
            Vec::new()
        }
    };
    for file in files {
        match read_text(&file) {
            Ok(text) => {
                total += text.len();
                documents.push(Document::new(file, text));
            }
            Err(diagnostic) => wrong.push(*diagnostic),
        }
        if total > TOTAL_BYTES {
            let message = "the files of the configuration are larger than 64 MiB together";
            wrong.push(Diagnostic::new(Code::TooLarge, message));
            break;
        }
    }
    (documents, wrong)
}

/// The `*.toml` of a folder by name, hidden ones left out; none where the folder is missing.
fn fragments(folder: &Path) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    let unreadable = |error: io::Error| {
        let message = format!("cannot read {}: {error}", quote_path(folder));
        Box::new(Diagnostic::new(Code::Unreadable, message))
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            let message = format!("there are more than {FILES_MAX} files in {}", quote_path(folder));
            return Err(Box::new(Diagnostic::new(Code::TooMany, message)));
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(path: &Path) -> Result<String, Box<Diagnostic>> {
    let shown = quote_path(path);
    let unreadable = |why: String| Box::new(Diagnostic::new(Code::Unreadable, why));
    let bytes = read_bounded(path).map_err(|error| match error {
        ReadError::TooLarge => {
            let large = Diagnostic::new(Code::TooLarge, format!("{shown} is larger than 1 MiB"));
            Box::new(large.help("spread the services over files in services.d"))
        }
        ReadError::Io(error) => unreadable(format!("cannot read {shown}: {error}")),
    })?;
    String::from_utf8(bytes).map_err(|_| unreadable(format!("{shown} is not UTF-8 text")))
}

enum ReadError {
    TooLarge,
    Io(io::Error),
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge => io::ErrorKind::FileTooLarge.into(),
            ReadError::Io(error) => error,
        }
    }
}

/// A regular file of at most 1 MiB. Anything else, a pipe above all, could block for ever.
fn read_bounded(path: &Path) -> Result<Vec<u8>, ReadError> {
    if !fs::metadata(path).map_err(ReadError::Io)?.is_file() {
        return Err(ReadError::Io(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let file = File::open(path).map_err(ReadError::Io)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() as u64 > FILE_BYTES { Err(ReadError::TooLarge) } else { Ok(bytes) }
}
