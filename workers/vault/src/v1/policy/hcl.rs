//! Reads the part of HCL that policies are written in, into the tree that the JSON form has.
//!
//! `path "a/*" { capabilities = ["read"] }` becomes one block of kind `path`. Comments are `#`, `//` and `/* */`.

use super::rule::PolicyError;

/// LIMIT: nesting of lists and objects.
const DEPTH_MAX: usize = 8;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
    /// A number or `true`, `false`, `null`, as it is written.
    Word(String),
}

/// `kind "label" { … }` or `kind = value`, with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) kind: String,
    pub(super) labels: Vec<String>,
    pub(super) value: Value,
    pub(super) line: usize,
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

/// Reads a whole text.
pub(super) fn items(text: &str) -> Result<Vec<Item>, PolicyError> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut items = Vec::new();
    loop {
        reader.skip()?;
        if reader.rest.is_empty() {
            return Ok(items);
        }
        items.push(reader.item(0)?);
        reader.take(",")?;
    }
}

impl Reader<'_> {
    fn fault(&self, what: &str) -> PolicyError {
        PolicyError { line: self.line, what: what.to_owned() }
    }

    /// Over blanks and comments.
    fn skip(&mut self) -> Result<(), PolicyError> {
        loop {
            let trimmed = self.rest.trim_start();
            self.advance(self.rest.len() - trimmed.len());
            let end = if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.rest.find('\n').unwrap_or(self.rest.len())
            } else if self.rest.starts_with("/*") {
                2 + self.rest[2..].find("*/").ok_or_else(|| self.fault("a comment does not end"))? + 2
            } else {
                return Ok(());
            };
            self.advance(end);
        }
    }

    fn advance(&mut self, bytes: usize) {
        let (over, rest) = self.rest.split_at(bytes);
        self.line += over.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
    }

    /// Takes a sign if it is next.
    fn take(&mut self, sign: &str) -> Result<bool, PolicyError> {
        self.skip()?;
        let found = self.rest.starts_with(sign);
        if found {
            self.advance(sign.len());
        }
        Ok(found)
    }

    fn item(&mut self, depth: usize) -> Result<Item, PolicyError> {
        self.skip()?;
        let line = self.line;
        let kind = self.name()?;
        let mut labels = Vec::new();
        loop {
            self.skip()?;
            if self.rest.starts_with('"') {
                labels.push(self.text()?);
            } else {
                break;
            }
        }
        let assigned = self.take("=")? || self.take(":")?;
        if !assigned && !self.rest.starts_with('{') {
            return Err(self.fault("expected `{` or `=`"));
        }
        let value = self.value(depth)?;
        Ok(Item { kind, labels, value, line })
    }

    /// A bare or quoted name.
    fn name(&mut self) -> Result<String, PolicyError> {
        if self.rest.starts_with('"') {
            return self.text();
        }
        let name: String =
            self.rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).collect();
        if name.is_empty() {
            return Err(self.fault("expected a name"));
        }
        self.advance(name.len());
        Ok(name)
    }

    fn value(&mut self, depth: usize) -> Result<Value, PolicyError> {
        if depth > DEPTH_MAX {
            return Err(self.fault("too deeply nested"));
        }
        self.skip()?;
        match self.rest.chars().next() {
            Some('"') => self.text().map(Value::Text),
            Some('[') => self.list(depth),
            Some('{') => self.object(depth),
            Some(_) => self.name().map(Value::Word),
            None => Err(self.fault("the text ends where a value is expected")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, PolicyError> {
        self.advance(1);
        let mut values = Vec::new();
        loop {
            if self.take("]")? {
                return Ok(Value::List(values));
            }
            values.push(self.value(depth + 1)?);
            if !self.take(",")? && !self.rest.starts_with(']') {
                return Err(self.fault("expected `,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, PolicyError> {
        self.advance(1);
        let mut members: Vec<(String, Value)> = Vec::new();
        loop {
            if self.take("}")? {
                return Ok(Value::Object(members));
            }
            if self.rest.is_empty() {
                return Err(self.fault("a block does not end"));
            }
            let Item { kind, labels, value, .. } = self.item(depth + 1)?;
            if !labels.is_empty() {
                return Err(self.fault("a block inside a rule has no label"));
            }
            if members.iter().any(|(name, _)| *name == kind) {
                return Err(self.fault(&format!("`{kind}` is set twice")));
            }
            members.push((kind, value));
            self.take(",")?;
        }
    }

    fn text(&mut self) -> Result<String, PolicyError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.advance(at + 1);
                    return Ok(text);
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, escaped @ ('"' | '\\' | '/'))) => text.push(escaped),
                    _ => return Err(self.fault("an escape that is not known")),
                },
                char => text.push(char),
            }
        }
        Err(self.fault("a text does not end on its line"))
    }
}
