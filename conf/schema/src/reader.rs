//! What one check knows and collects: texts, environment, findings, places, origins.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use crate::code::Code;
use crate::kind::{Fault, Kind};
use crate::report::{Diagnostic, Document, FINDINGS_MAX, Place, Report};
use crate::show::{Origin, Setting};
use crate::table::diagnostic;

/// Ends the path under which a value inside a key has its place; no key ends like this.
const INSIDE: char = '=';

/// Reads a file a secret lies in.
pub type ReadFile<'a> = dyn Fn(&Path) -> io::Result<Vec<u8>> + 'a;

/// The state of one check.
pub(crate) struct Reader<'e> {
    documents: &'e [Document],
    /// The folder relative paths of certificates count from.
    base: PathBuf,
    /// Bytes where each line of a document starts.
    lines: Vec<Vec<usize>>,
    /// Variables that were looked at closely enough to be quoted, as documents after the others.
    variables: Vec<Document>,
    pub(crate) environment: &'e BTreeMap<String, String>,
    pub(crate) read_file: &'e ReadFile<'e>,
    pub(crate) mode: Mode,
    /// `SLUICE__SECTION__KEY` by path; taken out when used.
    overrides: BTreeMap<String, String>,
    diagnostics: Vec<Diagnostic>,
    dropped: usize,
    /// Document and line of every syntax error: nothing else is said about such a line.
    broken_lines: HashSet<(usize, usize)>,
    places: HashMap<String, Place>,
    failed: HashSet<String>,
    /// The variable that sets a key, by the key's path.
    set_by: HashMap<String, String>,
    /// Filled in place of reading when the keys are described.
    pub(crate) settings: Option<Vec<Setting>>,
    /// Whether a described key brings its JSON Schema.
    pub(crate) schemas: bool,
    tables: BTreeMap<String, &'static str>,
    required: Vec<String>,
    /// Variables that references to secrets name.
    pub(crate) secret_variables: Vec<String>,
}

/// The keys of a configuration, described.
pub(crate) struct Description {
    pub(crate) settings: Vec<Setting>,
    /// Tables by path, with what they are for.
    pub(crate) tables: BTreeMap<String, &'static str>,
    /// Paths of keys that must be written.
    pub(crate) required: Vec<String>,
}

/// What reading found, beside the configuration.
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// By path with indexes (`service[3].prefix`); none where the mode does not ask for them.
    pub(crate) origins: Vec<(String, Origin)>,
    pub(crate) secret_variables: Vec<String>,
}

/// How strict a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Relaxed start-up rules: weak keys and open worker ports are warnings, the public listener
    /// opens on loopback unless told otherwise.
    pub dev: bool,
    /// Whether a secret that is not there is an error. A role that is handed no secrets says false.
    pub secrets_required: bool,
    /// Seconds since 1970 by which certificates are judged; `None`: their files are not opened.
    pub now_unix_s: Option<i64>,
    /// Whether to tell where each value comes from.
    pub origins: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Self { dev: false, secrets_required: true, now_unix_s: None, origins: true }
    }
}

impl<'e> Reader<'e> {
    pub(crate) fn new(
        documents: &'e [Document],
        environment: &'e BTreeMap<String, String>,
        mode: Mode,
        read_file: &'e ReadFile<'e>,
    ) -> Self {
        Self {
            documents,
            base: base(documents),
            lines: documents.iter().map(|document| line_starts(&document.text)).collect(),
            variables: Vec::new(),
            environment,
            read_file,
            mode,
            overrides: crate::environment::overrides(environment),
            diagnostics: Vec::new(),
            dropped: 0,
            broken_lines: HashSet::new(),
            places: HashMap::new(),
            failed: HashSet::new(),
            set_by: HashMap::new(),
            settings: None,
            schemas: false,
            tables: BTreeMap::new(),
            required: Vec::new(),
            secret_variables: Vec::new(),
        }
    }

    /// A reader that lists keys in place of reading them.
    pub(crate) fn describing(
        environment: &'e BTreeMap<String, String>,
        read_file: &'e ReadFile<'e>,
        schemas: bool,
    ) -> Self {
        let mut reader = Self::new(&[], environment, Mode::default(), read_file);
        reader.settings = Some(Vec::new());
        reader.schemas = schemas;
        reader
    }

    /// Adds a finding, unless its line is no TOML anyway.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        if let Some(place) = &diagnostic.place {
            let line = (place.document, self.line(place));
            if diagnostic.code == Code::Syntax {
                self.broken_lines.insert(line);
            } else if self.broken_lines.contains(&line) {
                return;
            }
        }
        if self.diagnostics.len() < FINDINGS_MAX {
            self.diagnostics.push(diagnostic);
        } else {
            self.dropped += 1;
        }
    }

    /// Everything found, sorted, masked.
    pub(crate) fn into_report(mut self) -> Outcome {
        if self.dropped > 0 {
            let message = format!("{} more findings are not shown", self.dropped);
            self.diagnostics.push(Diagnostic::new(Code::MoreFindings, message));
        }
        let origins = if self.mode.origins { self.origins() } else { Vec::new() };
        let mut documents = self.documents.to_vec();
        documents.append(&mut self.variables);
        Outcome {
            report: Report::new(self.diagnostics, &documents),
            origins,
            secret_variables: self.secret_variables,
        }
    }

    /// Where every value that somebody set comes from: a variable wins over a file.
    fn origins(&self) -> Vec<(String, Origin)> {
        let of_file = |(path, place): (&String, &Place)| {
            let is_key = !path.ends_with(INSIDE) && !self.set_by.contains_key(path);
            let file = self.documents.get(place.document).filter(|_| is_key)?;
            Some((path.clone(), Origin::File { path: file.path.clone(), line: self.line(place) }))
        };
        let of_variable =
            |(path, name): (&String, &String)| (path.clone(), Origin::Env { name: name.clone() });
        self.places.iter().filter_map(of_file).chain(self.set_by.iter().map(of_variable)).collect()
    }

    /// What describing listed.
    pub(crate) fn into_description(self) -> Description {
        Description {
            settings: self.settings.unwrap_or_default(),
            tables: self.tables,
            required: self.required,
        }
    }

    pub(crate) fn describe_required(&mut self, path: String) {
        self.required.push(path);
    }

    pub(crate) fn describe_table(&mut self, path: &str, doc: &'static str) {
        if self.settings.is_some() {
            self.tables.insert(path.to_owned(), doc);
        }
    }

    /// Notes that a file sets this key.
    pub(crate) fn place_key(&mut self, path: &str, place: Place) {
        self.places.insert(path.to_owned(), place);
    }

    pub(crate) fn place(&self, path: &str) -> Option<Place> {
        self.places.get(path).cloned()
    }

    /// The variable that sets this key.
    pub(crate) fn set_by(&self, path: &str) -> Option<&str> {
        self.set_by.get(path).map(String::as_str)
    }

    /// File and line of a place in a file.
    pub(crate) fn locate(&self, place: &Place) -> (PathBuf, usize) {
        (self.documents[place.document].path.clone(), self.line(place))
    }

    /// The folder of the main file, absolute: where relative paths of certificates count from, so that
    /// they mean the same wherever they are shown or handed on.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Notes where a value inside a key stands.
    pub(crate) fn place_value(&mut self, path: &str, place: Place) {
        self.places.insert(format!("{path}{INSIDE}"), place);
    }

    /// Where the first of these values inside a key stands, else the key; a variable has no inside.
    pub(crate) fn place_of_value(&self, key: &str, values: &[&str]) -> Option<Place> {
        let of_variable = self.set_by.contains_key(key);
        let mut inside = values.iter().filter_map(|path| self.place(&format!("{path}{INSIDE}")));
        inside.next().filter(|_| !of_variable).or_else(|| self.place(key))
    }

    /// True while a variable may still set a key.
    pub(crate) fn has_overrides(&self) -> bool {
        !self.overrides.is_empty()
    }

    /// True where a variable sets a key of this table.
    pub(crate) fn overrides_below(&self, table: &str) -> bool {
        let below = |path: &String| path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
        self.overrides.keys().any(below)
    }

    /// The folder of the file a place is in; `None` for a variable.
    pub(crate) fn directory(&self, place: &Place) -> Option<PathBuf> {
        self.documents.get(place.document)?.path.parent().map(Path::to_path_buf)
    }

    /// Notes that a variable sets this key.
    pub(crate) fn set_by_variable(&mut self, path: &str, name: &str) {
        self.set_by.insert(path.to_owned(), name.to_owned());
    }

    pub(crate) fn mark_failed(&mut self, path: String) {
        self.failed.insert(path);
    }

    pub(crate) fn has_failed(&self, path: &str) -> bool {
        self.failed.contains(path)
    }

    /// True where the document has a syntax error, so that what is missing may only be unread.
    pub(crate) fn is_broken(&self, document: usize) -> bool {
        self.broken_lines.iter().any(|(broken, _)| *broken == document)
    }

    /// What `SLUICE__…` says about this key.
    pub(crate) fn override_of<K: Kind>(&mut self, path: &str, kind: &K) -> Option<K::Out> {
        let name = self.overrides.remove(path)?;
        let text = self.environment.get(&name)?.clone();
        self.parse_variable(&name, &text, path, kind)
    }

    /// Overrides no key asked for, by path.
    pub(crate) fn unused_overrides(&mut self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.overrides)
    }

    /// A variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&'e str> {
        self.environment.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Parses what a variable says about a key: as TOML where it is a number, list or table, else as a string.
    pub(crate) fn parse_variable<K: Kind>(
        &mut self,
        name: &str,
        text: &str,
        path: &str,
        kind: &K,
    ) -> Option<K::Out> {
        let literal = DeValue::parse(text).ok().filter(|value| !value.get_ref().is_str());
        let string = Spanned::new(0..text.len(), DeValue::String(text.into()));
        let parsed = match literal {
            Some(literal) => kind.parse(&literal).or_else(|faults| kind.parse(&string).map_err(|_| faults)),
            None => kind.parse(&string),
        };
        let place = self.quote_variable(name);
        match parsed {
            Ok(parsed) => {
                self.set_by_variable(path, name);
                self.places.insert(path.to_owned(), place);
                Some(parsed)
            }
            Err(faults) => {
                self.mark_failed(path.to_owned());
                for fault in faults {
                    self.report_variable(name, fault, &place);
                }
                None
            }
        }
    }

    /// A finding about a variable as a whole.
    pub(crate) fn blame_variable(&mut self, name: &str, diagnostic: Diagnostic) {
        let place = self.quote_variable(name);
        self.report(diagnostic.at(place));
    }

    fn report_variable(&mut self, name: &str, mut fault: Fault, place: &Place) {
        fault.message = format!("{name}: {}", fault.message);
        self.report(diagnostic(fault).at(place.clone()));
    }

    /// `NAME=value` as a document of its own, so that it can be quoted like a line; the place is the value.
    fn quote_variable(&mut self, name: &str) -> Place {
        let text = self.environment.get(name).map_or("", String::as_str);
        let value: String = if crate::environment::is_secret(name) {
            "********".to_owned()
        } else {
            text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect()
        };
        let text = format!("{name}={value}");
        let span: Range<usize> = name.len() + 1..text.len();
        let document = self.documents.len() + self.variables.len();
        self.variables.push(Document::new("environment", text));
        Place { document, span }
    }

    fn line(&self, place: &Place) -> usize {
        self.lines
            .get(place.document)
            .map_or(1, |starts| starts.partition_point(|start| *start <= place.span.start))
    }
}

/// The folder of the main file; as it is written where this process has no folder of its own any more.
fn base(documents: &[Document]) -> PathBuf {
    let folder = documents.first().and_then(|main| main.path.parent()).unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}
