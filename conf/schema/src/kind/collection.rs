//! Lists and maps of other kinds, bounded.

use std::collections::BTreeMap;

use schemars::{Schema, json_schema};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::DeValue;

use super::{Fault, Kind, Parsed, Text};
use crate::code::Code;

/// A list without repeats.
pub(crate) struct List<K> {
    /// The kind of its items.
    pub(crate) item: K,
    /// Items at least.
    pub(crate) least: usize,
    /// Items at most.
    pub(crate) most: usize,
}

impl<K> List<K> {
    /// LIMIT: up to 256 items: as many as an operator writes by hand.
    pub(crate) const fn of(item: K) -> Self {
        Self { item, least: 0, most: 256 }
    }

    /// At least one item.
    pub(crate) const fn some(item: K) -> Self {
        Self { item, least: 1, most: 256 }
    }
}

impl<K: Kind<Out: PartialEq>> Kind for List<K> {
    type Out = Vec<K::Out>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Self::Out> {
        let Some(items) = value.get_ref().as_array() else {
            let fault = Fault::wrong_type("a list in brackets", value);
            return Err(vec![match value.get_ref() {
                DeValue::String(_) => fault.help("put the value in brackets: [\"…\"]"),
                _ => fault,
            }]);
        };
        if items.len() < self.least || items.len() > self.most {
            let message = format!("the list must have {} to {} items", self.least, self.most);
            return Err(vec![Fault::new(Code::List, message, value.span())]);
        }
        let mut out: Vec<K::Out> = Vec::with_capacity(items.len());
        let mut faults = Vec::new();
        for item in items {
            match self.item.parse(item) {
                Ok(parsed) if out.contains(&parsed) => {
                    faults.push(Fault::new(Code::List, "the list names this twice", item.span()));
                }
                Ok(parsed) => out.push(parsed),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(out) } else { Err(faults) }
    }

    fn show(&self, value: &Self::Out) -> Value {
        value.iter().map(|item| self.item.show(item)).collect()
    }

    fn schema(&self) -> Schema {
        json_schema!({
            "type": "array",
            "items": self.item.schema(),
            "minItems": self.least,
            "maxItems": self.most,
            "uniqueItems": true,
        })
    }
}

/// A table whose keys the operator chooses.
pub(crate) struct Dict<K> {
    /// The form of its keys.
    pub(crate) key: Text<String>,
    /// The kind of its values.
    pub(crate) value: K,
    /// Entries at most.
    pub(crate) most: usize,
}

impl<K: Kind> Kind for Dict<K> {
    type Out = BTreeMap<String, K::Out>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Self::Out> {
        let Some(table) = value.get_ref().as_table() else {
            return Err(vec![Fault::wrong_type("a table", value)]);
        };
        if table.len() > self.most {
            let message = format!("the table may have {} entries at most", self.most);
            return Err(vec![Fault::new(Code::List, message, value.span())]);
        }
        let mut out = BTreeMap::new();
        let mut faults = Vec::new();
        for (key, entry) in table {
            match (self.key.parse_text(key.get_ref(), key.span()), self.value.parse(entry)) {
                (Ok(name), Ok(parsed)) => {
                    if out.insert(name, parsed).is_some() {
                        faults.push(Fault::new(Code::List, "the table names this twice", key.span()));
                    }
                }
                (name, parsed) => {
                    faults.extend(name.err().into_iter().flatten());
                    faults.extend(parsed.err().into_iter().flatten());
                }
            }
        }
        if faults.is_empty() { Ok(out) } else { Err(faults) }
    }

    fn show(&self, value: &Self::Out) -> Value {
        let entries: Map<String, Value> =
            value.iter().map(|(key, value)| (key.clone(), self.value.show(value))).collect();
        Value::Object(entries)
    }

    fn schema(&self) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": self.key.schema(),
            "additionalProperties": self.value.schema(),
            "maxProperties": self.most,
        })
    }
}
