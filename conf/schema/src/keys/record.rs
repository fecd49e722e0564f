//! One table of a list whose tables have fixed keys.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::code::Code;
use crate::kind::{Fault, Kind, Parsed};
use crate::report::quote;

/// A table while its keys are read.
pub(super) struct Record<'t, 'v> {
    table: &'t DeTable<'v>,
    item: &'t Spanned<DeValue<'v>>,
    /// What it describes, with its article: `an API key`.
    what: &'static str,
    faults: Vec<Fault>,
}

impl<'t, 'v> Record<'t, 'v> {
    /// A table with no other keys than these.
    pub(super) fn of(item: &'t Spanned<DeValue<'v>>, what: &'static str, names: &[&str]) -> Parsed<Self> {
        let list = names.join(", ");
        let Some(table) = item.get_ref().as_table() else {
            return Err(vec![Fault::wrong_type(&format!("`{{ {list} }}`"), item)]);
        };
        let unknown = table.iter().filter(|(name, _)| !names.contains(&name.get_ref().as_ref()));
        let fault = |name: &Spanned<_>, written: &str| {
            let message = format!("unknown key {}", quote(written));
            Fault::new(Code::UnknownKey, message, name.span()).help(format!("the keys here are {list}"))
        };
        let faults = unknown.map(|(name, _)| fault(name, name.get_ref())).collect();
        Ok(Self { table, item, what, faults })
    }

    /// A key that must be there.
    pub(super) fn needed<K: Kind>(&mut self, name: &str, kind: &K) -> Option<K::Out> {
        if !self.table.contains_key(name) {
            let message = format!("{} needs the key {}", self.what, quote(name));
            self.faults.push(Fault::new(Code::MissingKey, message, place(self.item)));
        }
        self.optional(name, kind)
    }

    /// A key that may be there.
    pub(super) fn optional<K: Kind>(&mut self, name: &str, kind: &K) -> Option<K::Out> {
        kind.parse(self.table.get(name)?).map_err(|found| self.faults.extend(found)).ok()
    }

    /// Adds what is wrong with the table as a whole.
    pub(super) fn fault(&mut self, code: Code, message: String) {
        self.faults.push(Fault::new(code, message, place(self.item)));
    }

    /// The value that was read, when nothing is wrong.
    pub(super) fn finish<T>(self, value: Option<T>) -> Parsed<T> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(self.faults),
        }
    }
}

/// Where a table stands: its first key, as a table under a header spans more than its own lines.
pub(super) fn place(item: &Spanned<DeValue<'_>>) -> Range<usize> {
    let named = |name| item.get_ref().as_table().and_then(|table| table.get(name));
    named("name").or_else(|| named("kind")).map_or_else(|| item.span(), Spanned::span)
}
