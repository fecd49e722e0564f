//! A JSON Schema (2020-12), compiled. Pure.
//!
//! Every keyword that is not obeyed is refused by name: a schema never means less than it says. `$ref` points into
//! the same document (`#`, `#/…`); annotations (`title`, `format`, …) say nothing about validity and are passed over.
//! Patterns are those of the `regex` crate: linear in the text, without look-around.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Number, Value};

use super::check::canonical;

/// LIMIT: schemas in one document, references resolved once each.
const NODES_MAX: usize = 4_096;
/// LIMIT: bytes of one compiled pattern.
const PATTERN_BYTES_MAX: usize = 256 * 1024;
/// LIMIT: patterns of one document.
const PATTERNS_MAX: usize = 64;
/// Keywords that say nothing about validity.
const ANNOTATIONS: [&str; 14] = [
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
    "$id",
];
/// Values of `$schema`.
const DIALECTS: [&str; 2] =
    ["https://json-schema.org/draft/2020-12/schema", "https://json-schema.org/draft/2020-12/schema#"];

/// A schema that is none, or asks for more than is obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct ShapeError {
    /// JSON pointer into the schema.
    pub(crate) pointer: String,
    /// What is wrong there.
    pub(crate) what: String,
}

/// Place of a node.
pub(super) type Id = usize;

/// A compiled document. The first node is the whole.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(super) nodes: Vec<Node>,
}

/// One schema.
#[derive(Debug)]
pub(super) enum Node {
    /// `true` or `false`.
    Constant(bool),
    Rules(Box<Rules>),
}

/// What a value must be; a rule that is absent holds.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Names of types; empty: any.
    pub(super) types: Vec<Type>,
    /// Canonical texts of the values of `enum` and `const`, each a list of which one must be it.
    pub(super) values: Vec<Vec<String>>,
    pub(super) least: Option<Number>,
    pub(super) most: Option<Number>,
    pub(super) above: Option<Number>,
    pub(super) below: Option<Number>,
    pub(super) step: Option<Number>,
    /// Characters.
    pub(super) length: Span,
    pub(super) pattern: Option<Regex>,
    pub(super) items_count: Span,
    pub(super) unique: bool,
    pub(super) prefix: Vec<Id>,
    pub(super) items: Option<Id>,
    pub(super) contains: Option<Id>,
    pub(super) contains_count: Span,
    pub(super) members_count: Span,
    pub(super) required: Vec<String>,
    pub(super) dependent: BTreeMap<String, Vec<String>>,
    pub(super) dependent_schemas: BTreeMap<String, Id>,
    pub(super) members: BTreeMap<String, Id>,
    pub(super) matching: Vec<(Regex, Id)>,
    pub(super) other: Option<Id>,
    pub(super) names: Option<Id>,
    pub(super) all: Vec<Id>,
    pub(super) any: Vec<Id>,
    pub(super) one: Vec<Id>,
    pub(super) not: Option<Id>,
    pub(super) condition: Option<Id>,
    pub(super) then: Option<Id>,
    pub(super) otherwise: Option<Id>,
    pub(super) reference: Option<Id>,
}

/// A number of things, at least and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) least: Option<u64>,
    pub(super) most: Option<u64>,
}

/// A type of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Type {
    const ALL: [(&'static str, Self); 7] = [
        ("null", Self::Null),
        ("boolean", Self::Boolean),
        ("integer", Self::Integer),
        ("number", Self::Number),
        ("string", Self::String),
        ("array", Self::Array),
        ("object", Self::Object),
    ];

    fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind)
    }

    pub(super) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl Shape {
    /// Compiles a document.
    pub(crate) fn of(document: &Value) -> Result<Self, ShapeError> {
        let mut builder = Builder {
            document,
            nodes: Vec::new(),
            places: BTreeMap::new(),
            waiting: Vec::new(),
            patterns: 0,
        };
        builder.node(document, &mut String::new())?;
        // References are followed here, not where they stand: a chain of them costs no stack.
        while let Some((id, pointer)) = builder.waiting.pop() {
            let target = document.pointer(&pointer).ok_or_else(|| ShapeError {
                pointer: pointer.clone(),
                what: "a $ref points here, where nothing is".to_owned(),
            })?;
            let node = builder.rules(target, &mut pointer.clone())?;
            builder.nodes[id] = node;
        }
        Ok(Self { nodes: builder.nodes })
    }
}

struct Builder<'a> {
    document: &'a Value,
    nodes: Vec<Node>,
    /// Nodes that references made, by pointer.
    places: BTreeMap<String, Id>,
    waiting: Vec<(Id, String)>,
    patterns: usize,
}

fn fault<T>(pointer: &str, what: impl Into<String>) -> Result<T, ShapeError> {
    Err(ShapeError { pointer: pointer.to_owned(), what: what.into() })
}

/// Goes one step down and back up again.
fn below<T>(
    at: &mut String,
    step: &str,
    work: impl FnOnce(&mut String) -> Result<T, ShapeError>,
) -> Result<T, ShapeError> {
    let len = at.len();
    at.push('/');
    at.push_str(&step.replace('~', "~0").replace('/', "~1"));
    let done = work(at);
    at.truncate(len);
    done
}

impl Builder<'_> {
    fn reserve(&mut self, at: &str) -> Result<Id, ShapeError> {
        if self.nodes.len() >= NODES_MAX {
            return fault(at, format!("the schema has more than {NODES_MAX} schemas in it"));
        }
        self.nodes.push(Node::Constant(true));
        Ok(self.nodes.len() - 1)
    }

    /// Compiles a schema and what is below it; the document's depth is bounded, so the recursion is.
    fn node(&mut self, schema: &Value, at: &mut String) -> Result<Id, ShapeError> {
        let id = self.reserve(at)?;
        let node = self.rules(schema, at)?;
        self.nodes[id] = node;
        Ok(id)
    }

    fn rules(&mut self, schema: &Value, at: &mut String) -> Result<Node, ShapeError> {
        let members = match schema {
            Value::Bool(constant) => return Ok(Node::Constant(*constant)),
            Value::Object(members) => members,
            _ => return fault(at, "a schema is an object, true or false"),
        };
        let mut rules = Rules::default();
        for (keyword, value) in members {
            below(at, keyword, |at| self.keyword(&mut rules, keyword, value, at))?;
        }
        Ok(Node::Rules(Box::new(rules)))
    }

    fn keyword(
        &mut self,
        rules: &mut Rules,
        keyword: &str,
        value: &Value,
        at: &mut String,
    ) -> Result<(), ShapeError> {
        match keyword {
            "type" => rules.types = types(value, at)?,
            "enum" => rules.values.push(list(value, at)?.iter().map(canonical).collect()),
            "const" => rules.values.push(vec![canonical(value)]),
            "minimum" => rules.least = Some(number(value, at)?),
            "maximum" => rules.most = Some(number(value, at)?),
            "exclusiveMinimum" => rules.above = Some(number(value, at)?),
            "exclusiveMaximum" => rules.below = Some(number(value, at)?),
            "multipleOf" => rules.step = Some(positive(value, at)?),
            "minLength" => rules.length.least = Some(count(value, at)?),
            "maxLength" => rules.length.most = Some(count(value, at)?),
            "pattern" => rules.pattern = Some(self.pattern(text(value, at)?, at)?),
            "minItems" => rules.items_count.least = Some(count(value, at)?),
            "maxItems" => rules.items_count.most = Some(count(value, at)?),
            "uniqueItems" => rules.unique = flag(value, at)?,
            "prefixItems" => rules.prefix = self.list(value, at)?,
            "items" => rules.items = Some(self.node(value, at)?),
            "contains" => rules.contains = Some(self.node(value, at)?),
            "minContains" => rules.contains_count.least = Some(count(value, at)?),
            "maxContains" => rules.contains_count.most = Some(count(value, at)?),
            "minProperties" => rules.members_count.least = Some(count(value, at)?),
            "maxProperties" => rules.members_count.most = Some(count(value, at)?),
            "required" => rules.required = texts(value, at)?,
            "dependentRequired" => {
                for (name, names) in map(value, at)? {
                    rules.dependent.insert(name.clone(), texts(names, at)?);
                }
            }
            "dependentSchemas" => rules.dependent_schemas = self.map(value, at)?,
            "properties" => rules.members = self.map(value, at)?,
            "patternProperties" => {
                for (pattern, schema) in map(value, at)? {
                    let id = below(at, pattern, |at| self.node(schema, at))?;
                    rules.matching.push((self.pattern(pattern, at)?, id));
                }
            }
            "additionalProperties" => rules.other = Some(self.node(value, at)?),
            "propertyNames" => rules.names = Some(self.node(value, at)?),
            "allOf" => rules.all = self.list(value, at)?,
            "anyOf" => rules.any = self.list(value, at)?,
            "oneOf" => rules.one = self.list(value, at)?,
            "not" => rules.not = Some(self.node(value, at)?),
            "if" => rules.condition = Some(self.node(value, at)?),
            "then" => rules.then = Some(self.node(value, at)?),
            "else" => rules.otherwise = Some(self.node(value, at)?),
            "$ref" => rules.reference = Some(self.reference(text(value, at)?, at)?),
            "$schema" if DIALECTS.contains(&text(value, at)?) => {}
            "$schema" => return fault(at, "the schema is one of JSON Schema 2020-12"),
            // A base of its own would change what references below mean.
            "$id" if at != "/$id" => return fault(at, "$id stands at the top alone"),
            known if ANNOTATIONS.contains(&known) => {}
            other => {
                let other: String = other.chars().take(64).collect();
                return fault(at, format!("the keyword `{}` is not supported", other.escape_default()));
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &Value, at: &mut String) -> Result<Vec<Id>, ShapeError> {
        let schemas = list(value, at)?;
        schemas
            .iter()
            .enumerate()
            .map(|(index, schema)| below(at, &index.to_string(), |at| self.node(schema, at)))
            .collect()
    }

    fn map(&mut self, value: &Value, at: &mut String) -> Result<BTreeMap<String, Id>, ShapeError> {
        map(value, at)?
            .iter()
            .map(|(name, schema)| Ok((name.clone(), below(at, name, |at| self.node(schema, at))?)))
            .collect()
    }

    fn reference(&mut self, target: &str, at: &str) -> Result<Id, ShapeError> {
        let pointer = match target.strip_prefix('#') {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => pointer,
            _ => return fault(at, "a $ref points into this document: `#` or `#/…`"),
        };
        if pointer.is_empty() {
            return Ok(0);
        }
        if self.document.pointer(pointer).is_none() {
            return fault(at, "the $ref points to nothing");
        }
        if let Some(known) = self.places.get(pointer) {
            return Ok(*known);
        }
        let id = self.reserve(at)?;
        self.places.insert(pointer.to_owned(), id);
        self.waiting.push((id, pointer.to_owned()));
        Ok(id)
    }

    fn pattern(&mut self, pattern: &str, at: &str) -> Result<Regex, ShapeError> {
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            return fault(at, format!("the schema has more than {PATTERNS_MAX} patterns"));
        }
        let built = RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX)
            .build();
        built.or_else(|_| fault(at, "the pattern is not one of the `regex` crate, or too large"))
    }
}

fn types(value: &Value, at: &str) -> Result<Vec<Type>, ShapeError> {
    let words = match value {
        Value::String(word) => vec![word.as_str()],
        _ => list(value, at)?.iter().map(|word| text(word, at)).collect::<Result<_, _>>()?,
    };
    words.into_iter().map(|word| Type::of(word).map_or_else(|| fault(at, "an unknown type"), Ok)).collect()
}

fn list<'a>(value: &'a Value, at: &str) -> Result<&'a [Value], ShapeError> {
    match value {
        Value::Array(items) if !items.is_empty() => Ok(items),
        _ => fault(at, "not a list with something in it"),
    }
}

fn map<'a>(value: &'a Value, at: &str) -> Result<&'a Map<String, Value>, ShapeError> {
    value.as_object().map_or_else(|| fault(at, "not an object"), Ok)
}

fn text<'a>(value: &'a Value, at: &str) -> Result<&'a str, ShapeError> {
    value.as_str().map_or_else(|| fault(at, "not a text"), Ok)
}

fn texts(value: &Value, at: &str) -> Result<Vec<String>, ShapeError> {
    let items = value.as_array().map_or_else(|| fault(at, "not a list of texts"), Ok)?;
    items.iter().map(|item| text(item, at).map(str::to_owned)).collect()
}

fn number(value: &Value, at: &str) -> Result<Number, ShapeError> {
    value.as_number().cloned().map_or_else(|| fault(at, "not a number"), Ok)
}

fn positive(value: &Value, at: &str) -> Result<Number, ShapeError> {
    let number = number(value, at)?;
    if number.as_f64().is_some_and(|float| float > 0.0) { Ok(number) } else { fault(at, "not above zero") }
}

fn count(value: &Value, at: &str) -> Result<u64, ShapeError> {
    value.as_u64().map_or_else(|| fault(at, "not a whole number from 0"), Ok)
}

fn flag(value: &Value, at: &str) -> Result<bool, ShapeError> {
    value.as_bool().map_or_else(|| fault(at, "not true or false"), Ok)
}

#[cfg(test)]
mod tests;
