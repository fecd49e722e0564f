//! Walks the tables of a configuration, key by key.
//!
//! One walk does all: reading, it parses each key into its field, notes where the value stands and
//! lets the environment replace it; describing, it lists every key with its value, words and schema
//! instead. So a key that is read is also shown, documented and in the JSON Schema, and no list of
//! keys is kept beside the code that reads them. A key nobody asked for is unknown.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::code::Code;
use crate::kind::{Fault, Kind, did_you_mean};
use crate::planned;
use crate::reader::Reader;
use crate::report::{Diagnostic, Place, quote};
use crate::show::Setting;

/// One table while it is walked.
pub(crate) struct Table<'r, 'e> {
    pub(crate) reader: &'r mut Reader<'e>,
    value: Option<&'r DeTable<'r>>,
    /// Dotted path with indexes, such as `service[3].timeouts`; empty for the root.
    path: String,
    document: usize,
    /// Its header, or its key.
    header: Option<Place>,
    known: Vec<&'static str>,
    /// Described for the schema only: another form of the same value is the one to show.
    hidden: bool,
    /// What to say about a key nobody asked for: its table, its name, the keys that are here.
    unknown: fn(&str, &str, &[&str]) -> Diagnostic,
}

impl<'r, 'e> Table<'r, 'e> {
    /// The whole of a document.
    pub(crate) fn root(reader: &'r mut Reader<'e>, value: Option<&'r DeTable<'r>>, document: usize) -> Self {
        Self {
            reader,
            value,
            path: String::new(),
            document,
            header: None,
            known: Vec::new(),
            hidden: false,
            unknown: unknown_key,
        }
    }

    /// The whole of a document in `services.d`.
    pub(crate) fn fragment(reader: &'r mut Reader<'e>, value: &'r DeTable<'r>, document: usize) -> Self {
        Self { unknown: unknown_in_fragment, ..Self::root(reader, Some(value), document) }
    }

    /// Reads one key into its field, which holds the default.
    pub(crate) fn key<K: Kind>(&mut self, name: &'static str, doc: &'static str, kind: K, into: &mut K::Out) {
        self.known.push(name);
        let found = self.entry(name);
        // Most keys of most services are not written: those cost next to nothing.
        if found.is_none() && !self.describing() && !self.reader.has_overrides() {
            return;
        }
        let path = self.join(name);
        let schemas = self.reader.schemas;
        if let Some(settings) = &mut self.reader.settings {
            let (value, schema) = (kind.show(into), schemas.then(|| kind.schema()));
            settings.push(Setting { path, doc, value, schema, shown: !self.hidden });
            return;
        }
        if let Some((key, value)) = found {
            let place = Place { document: self.document, span: key.span() };
            self.reader.place_key(&path, place);
            match kind.parse(value) {
                Ok(parsed) => *into = parsed,
                Err(faults) => self.faults(&path, faults),
            }
        }
        if let Some(parsed) = self.reader.override_of(&path, &kind) {
            *into = parsed;
        }
    }

    /// Notes where the values inside a key stand, such as `certificate[1].cert`.
    pub(crate) fn place_values(&mut self, name: &str) {
        if let Some((_, value)) = self.entry(name) {
            self.place_value(&self.join(name), value);
        }
    }

    fn place_value(&mut self, path: &str, value: &Spanned<DeValue<'_>>) {
        let place = Place { document: self.document, span: value.span() };
        self.reader.place_value(path, place);
        match value.get_ref() {
            DeValue::Table(table) => {
                table
                    .iter()
                    .for_each(|(key, value)| self.place_value(&format!("{path}.{}", key.get_ref()), value));
            }
            DeValue::Array(items) => {
                let named = items.iter().enumerate();
                named.for_each(|(index, item)| self.place_value(&format!("{path}[{index}]"), item));
            }
            _ => {}
        }
    }

    /// Reads a table of fixed keys.
    pub(crate) fn table(
        &mut self,
        name: &'static str,
        doc: &'static str,
        walk: impl FnOnce(&mut Table<'_, 'e>),
    ) {
        self.known.push(name);
        let path = self.join(name);
        let mut inner = None;
        let mut header = None;
        if let Some((key, value)) = self.entry(name) {
            let place = Place { document: self.document, span: key.span() };
            self.reader.place_key(&path, place.clone());
            header = Some(place);
            inner = value.get_ref().as_table();
            if inner.is_none() {
                let mut fault = Fault::wrong_type("a table", value);
                if value.get_ref().is_array() {
                    fault = fault.help(format!("write it once, as `[{}]`", planned::without_indexes(&path)));
                }
                self.faults(&path, vec![fault]);
                return;
            }
        }
        self.reader.describe_table(&path, doc);
        self.child(path, inner, header, walk);
    }

    /// Reads a table of fixed keys that may be absent; one key, from file or variable, makes it.
    pub(crate) fn optional<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        into: &mut Option<T>,
        fresh: impl FnOnce() -> T,
        walk: impl FnOnce(&mut Table<'_, 'e>, &mut T),
    ) {
        let absent = into.is_none();
        let overridden = || self.reader.has_overrides() && self.reader.overrides_below(&self.join(name));
        let wanted = self.entry(name).is_some() || overridden();
        if !self.describing() && !wanted {
            self.known.push(name);
            return;
        }
        let mut value = into.take().unwrap_or_else(fresh);
        let hidden = self.hidden;
        self.hidden |= absent && self.describing();
        self.table(name, doc, |t| walk(t, &mut value));
        self.hidden = hidden;
        *into = (!self.describing() || !absent).then_some(value);
    }

    /// Reads a key that has a short form and a table form.
    pub(crate) fn either<K: Kind>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        short: K,
        into: &mut K::Out,
        walk: impl FnOnce(&mut Table<'_, 'e>, &mut K::Out),
    ) {
        if self.reader.settings.is_some() {
            let shown = !short.show(into).is_null();
            let hidden = self.hidden;
            self.hidden |= !shown;
            self.key(name, doc, short, into);
            self.hidden = hidden || shown;
            self.table(name, doc, |t| walk(t, into));
            self.hidden = hidden;
        } else if self.entry(name).is_some_and(|(_, value)| value.get_ref().is_table()) {
            self.table(name, doc, |t| walk(t, into));
        } else {
            self.key(name, doc, short, into);
        }
    }

    /// Reads tables of fixed keys, `[[name]]`, appending to `into`.
    pub(crate) fn items<T>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        most: usize,
        into: &mut Vec<T>,
        fresh: impl Fn() -> T,
        walk: impl Fn(&mut Table<'_, 'e>, &mut T),
    ) {
        self.known.push(name);
        if self.describing() {
            for (index, item) in into.iter_mut().enumerate() {
                let path = format!("{}[{index}]", self.join(name));
                self.reader.describe_table(&path, doc);
                self.child(path, None, None, |t| walk(t, item));
            }
            return;
        }
        let Some((key, value)) = self.entry(name) else { return };
        let Some(items) = value.get_ref().as_array() else {
            let header = format!("write it as `[[{}]]`", planned::without_indexes(&self.join(name)));
            self.faults(&self.join(name), vec![Fault::wrong_type("a list of tables", value).help(header)]);
            return;
        };
        for item in items {
            if into.len() >= most {
                let message = format!("there are more than {most} {} tables", quote(name));
                let place = Place { document: self.document, span: item.span() };
                self.reader.report(Diagnostic::new(Code::TooMany, message).at(place));
                return;
            }
            let path = format!("{}[{}]", self.join(name), into.len());
            // An array of tables spans all its tables; each item starts at its own header.
            let span = if item.span().is_empty() { key.span() } else { item.span() };
            let header = Place { document: self.document, span };
            self.reader.place_key(&path, header.clone());
            let Some(table) = item.get_ref().as_table() else {
                self.faults(&path, vec![Fault::wrong_type("a table", item)]);
                continue;
            };
            let mut fresh = fresh();
            self.child(path, Some(table), Some(header), |t| walk(t, &mut fresh));
            into.push(fresh);
        }
    }

    /// Says so when a key that must be there is not.
    pub(crate) fn require(&mut self, name: &'static str, what: &str) {
        if self.describing() {
            self.reader.describe_required(self.join(name));
            return;
        }
        if self.entry(name).is_some() || self.reader.is_broken(self.document) {
            return;
        }
        let message = format!("{what} needs the key {}", quote(name));
        let missing = Diagnostic::new(Code::MissingKey, message).at(self.header.clone());
        self.reader.mark_failed(self.join(name));
        self.reader.report(missing.label(format!("{} is missing here", quote(name))));
    }

    /// True while keys are listed, not read.
    pub(crate) fn describing(&self) -> bool {
        self.reader.settings.is_some()
    }

    /// Where a key of this table stands, else the table's header.
    pub(crate) fn place(&self, key: &str) -> Option<Place> {
        self.reader.place(&self.join(key)).or_else(|| self.header.clone())
    }

    /// True where the key was written but is wrong, so that nothing should be concluded from it.
    pub(crate) fn failed(&self, key: &str) -> bool {
        self.reader.has_failed(&self.join(key))
    }

    /// Where the first of these keys that somebody wrote stands, else the header.
    pub(crate) fn written(&self, keys: &[&str]) -> Option<Place> {
        keys.iter().find_map(|key| self.reader.place(&self.join(key))).or_else(|| self.header.clone())
    }

    /// Where a key of this table was written; `None` where nobody wrote it.
    pub(crate) fn written_at(&self, key: &str) -> Option<Place> {
        self.reader.place(&self.join(key))
    }

    /// Where this table's header stands.
    pub(crate) fn header(&self) -> Option<Place> {
        self.header.clone()
    }

    /// Reports every key nobody asked for.
    pub(crate) fn finish(self) {
        let Some(table) = self.value else { return };
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let unknown = (self.unknown)(&self.path, name, &self.known);
                let place = Place { document: self.document, span: key.span() };
                self.reader.report(unknown.at(place));
            }
        }
    }

    fn child(
        &mut self,
        path: String,
        value: Option<&DeTable<'_>>,
        header: Option<Place>,
        walk: impl FnOnce(&mut Table<'_, 'e>),
    ) {
        let (document, hidden) = (self.document, self.hidden);
        let reader = &mut *self.reader;
        let known = Vec::new();
        let unknown = unknown_key;
        let mut child = Table { reader, value, path, document, header, known, hidden, unknown };
        walk(&mut child);
        child.finish();
    }

    fn entry(&self, name: &str) -> Option<(&'r Spanned<toml::de::DeString<'r>>, &'r Spanned<DeValue<'r>>)> {
        self.value?.get_key_value(name)
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { [&self.path, ".", name].concat() }
    }

    fn faults(&mut self, path: &str, faults: Vec<Fault>) {
        self.reader.mark_failed(path.to_owned());
        for fault in faults {
            let place = Place { document: self.document, span: fault.span.clone() };
            self.reader.report(diagnostic(fault).at(place));
        }
    }
}

/// A fault, not yet placed.
pub(crate) fn diagnostic(fault: Fault) -> Diagnostic {
    let mut diagnostic = Diagnostic::new(fault.code, fault.message);
    diagnostic.label = fault.label;
    diagnostic.help = fault.help;
    diagnostic
}

/// What to say about a key that this version does not read.
pub(crate) fn unknown_key(table: &str, name: &str, known: &[&str]) -> Diagnostic {
    let path = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
    if planned::is_planned(&path) {
        let message = format!("{} is a Sluice key that this version does not implement yet", quote(name));
        return Diagnostic::new(Code::PlannedKey, message).help("remove it: it would have no effect");
    }
    let unknown = Diagnostic::new(Code::UnknownKey, format!("unknown key {}", quote(name)));
    let mut here: Vec<&str> = planned::below(table).collect();
    here.extend(known);
    let near = did_you_mean(name, here);
    match near.or_else(|| lives_elsewhere(name)) {
        Some(help) => unknown.help(help),
        None if known.is_empty() || known.len() > 24 => unknown,
        None => unknown.help(format!("the keys here are {}", known.join(", "))),
    }
}

/// A file in `services.d` holds services and nothing else.
fn unknown_in_fragment(table: &str, name: &str, known: &[&str]) -> Diagnostic {
    let is_section = crate::show::key_paths().iter().any(|path| path.split('.').next() == Some(name));
    if !is_section {
        return unknown_key(table, name, known);
    }
    Diagnostic::new(Code::Misplaced, format!("{} belongs in the main file", quote(name)))
        .help("a file in services.d holds `[[service]]` tables and nothing else")
}

/// The table that has a key of this name, when there is one.
fn lives_elsewhere(name: &str) -> Option<String> {
    let paths = crate::show::key_paths();
    let path = paths.iter().find(|path| path.rsplit_once('.').is_some_and(|(_, word)| word == name))?;
    let (table, _) = path.rsplit_once('.')?;
    Some(format!("{} is a key of `[{table}]`", quote(name)))
}
