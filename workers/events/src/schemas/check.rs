//! A value against a schema. Pure, and bounded: however a schema refers to itself, a check ends.

use std::collections::HashSet;
use std::fmt;

use serde_json::{Map, Number, Value};

use super::number::{Decimal, compare, is_multiple, is_whole};
use super::shape::{Id, Node, Rules, Shape, Span, Type};

/// LIMIT: rules looked at for one value.
const STEPS_MAX: u64 = 1_000_000;
/// LIMIT: schemas inside each other.
const DEPTH_MAX: usize = 192;

/// Where and why a value does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// JSON pointer into the value.
    pub(crate) pointer: String,
    /// What it is not; without what it is.
    pub(crate) what: String,
}

impl Shape {
    /// Checks a value; the first thing that is wrong.
    pub(crate) fn check(&self, value: &Value) -> Result<(), Violation> {
        let mut check = Check { shape: self, steps: STEPS_MAX, exhausted: false };
        let checked = check.node(0, value, Path::Root, 0);
        if check.exhausted {
            // Whatever it came to: a branch that was cut short proves nothing.
            let what = format!("takes more than {STEPS_MAX} steps or {DEPTH_MAX} levels of its schema");
            return Err(Violation { pointer: String::new(), what });
        }
        checked
    }
}

/// The way to a value, kept on the stack and written only when something is wrong.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Member(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Member(above, name) => write!(f, "{above}/{}", name.replace('~', "~0").replace('/', "~1")),
            Path::Item(above, index) => write!(f, "{above}/{index}"),
        }
    }
}

struct Check<'s> {
    shape: &'s Shape,
    steps: u64,
    exhausted: bool,
}

type Checked = Result<(), Violation>;

fn wrong<T>(path: Path<'_>, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { pointer: path.to_string(), what: what.into() })
}

impl Check<'_> {
    fn node(&mut self, id: Id, value: &Value, path: Path<'_>, depth: usize) -> Checked {
        if self.steps == 0 || depth > DEPTH_MAX {
            self.exhausted = true;
        }
        if self.exhausted {
            return wrong(path, "");
        }
        self.steps -= 1;
        let shape = self.shape;
        match &shape.nodes[id] {
            Node::Constant(true) => Ok(()),
            Node::Constant(false) => wrong(path, "must not be there"),
            Node::Rules(rules) => {
                self.plain(rules, value, path)?;
                match value {
                    Value::Array(items) => self.items(rules, items, path, depth)?,
                    Value::Object(members) => self.members(rules, members, value, path, depth)?,
                    _ => {}
                }
                self.logic(rules, value, path, depth)
            }
        }
    }

    /// What can be told without going down.
    fn plain(&mut self, rules: &Rules, value: &Value, path: Path<'_>) -> Checked {
        if !rules.types.is_empty() && !rules.types.iter().any(|kind| is(value, *kind)) {
            let words: Vec<_> = rules.types.iter().map(|kind| kind.word()).collect();
            return wrong(path, format!("is not of type {}", words.join(" or ")));
        }
        if !rules.values.is_empty() {
            let text = canonical(value);
            self.spend(text.len() / 64);
            if rules.values.iter().any(|allowed| !allowed.contains(&text)) {
                return wrong(path, "is not one of the allowed values");
            }
        }
        match value {
            Value::Number(number) => of_number(rules, number, path),
            Value::String(text) => self.of_text(rules, text, path),
            _ => Ok(()),
        }
    }

    fn of_text(&mut self, rules: &Rules, text: &str, path: Path<'_>) -> Checked {
        if rules.length != Span::default() {
            within(rules.length, text.chars().count(), "characters", path)?;
        }
        if let Some(pattern) = &rules.pattern {
            self.spend(text.len() / 64);
            if !pattern.is_match(text) {
                return wrong(path, "does not match the pattern");
            }
        }
        Ok(())
    }

    fn items(&mut self, rules: &Rules, items: &[Value], path: Path<'_>, depth: usize) -> Checked {
        within(rules.items_count, items.len(), "items", path)?;
        if rules.unique {
            let mut seen = HashSet::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let text = canonical(item);
                self.spend(1 + text.len() / 64);
                if !seen.insert(text) {
                    return wrong(Path::Item(&path, index), "repeats an item");
                }
            }
        }
        for (index, item) in items.iter().enumerate() {
            let Some(id) = rules.prefix.get(index).copied().or(rules.items) else { break };
            self.node(id, item, Path::Item(&path, index), depth + 1)?;
        }
        if let Some(id) = rules.contains {
            let mut found = 0;
            for (index, item) in items.iter().enumerate() {
                found += usize::from(self.node(id, item, Path::Item(&path, index), depth + 1).is_ok());
            }
            let least = rules.contains_count.least.or(Some(1));
            within(Span { least, ..rules.contains_count }, found, "items of the kind asked for", path)?;
        }
        Ok(())
    }

    fn members(
        &mut self,
        rules: &Rules,
        members: &Map<String, Value>,
        whole: &Value,
        path: Path<'_>,
        depth: usize,
    ) -> Checked {
        within(rules.members_count, members.len(), "members", path)?;
        for name in &rules.required {
            if !members.contains_key(name) {
                return wrong(Path::Member(&path, name), "is missing");
            }
        }
        for (name, others) in rules.dependent.iter().filter(|(name, _)| members.contains_key(*name)) {
            if let Some(other) = others.iter().find(|other| !members.contains_key(*other)) {
                return wrong(Path::Member(&path, other), format!("is missing beside `{name}`"));
            }
        }
        for (_, id) in rules.dependent_schemas.iter().filter(|(name, _)| members.contains_key(*name)) {
            self.node(*id, whole, path, depth + 1)?;
        }
        for (name, member) in members {
            self.member(rules, name, member, Path::Member(&path, name), depth)?;
        }
        Ok(())
    }

    fn member(&mut self, rules: &Rules, name: &str, member: &Value, path: Path<'_>, depth: usize) -> Checked {
        let mut known = false;
        if let Some(id) = rules.members.get(name) {
            known = true;
            self.node(*id, member, path, depth + 1)?;
        }
        for (pattern, id) in &rules.matching {
            self.spend(1 + name.len() / 64);
            if pattern.is_match(name) {
                known = true;
                self.node(*id, member, path, depth + 1)?;
            }
        }
        if !known && let Some(id) = rules.other {
            self.node(id, member, path, depth + 1)?;
        }
        if let Some(id) = rules.names {
            self.node(id, &Value::String(name.to_owned()), path, depth + 1)?;
        }
        Ok(())
    }

    fn logic(&mut self, rules: &Rules, value: &Value, path: Path<'_>, depth: usize) -> Checked {
        for id in rules.reference.iter().chain(&rules.all) {
            self.node(*id, value, path, depth + 1)?;
        }
        if !rules.any.is_empty() && !rules.any.iter().any(|id| self.node(*id, value, path, depth + 1).is_ok())
        {
            return wrong(path, format!("is none of the {} forms allowed", rules.any.len()));
        }
        if !rules.one.is_empty() {
            let fits = rules.one.iter().filter(|id| self.node(**id, value, path, depth + 1).is_ok()).count();
            if fits != 1 {
                return wrong(path, format!("is {fits} of the {} forms, not one", rules.one.len()));
            }
        }
        if let Some(id) = rules.not
            && self.node(id, value, path, depth + 1).is_ok()
        {
            return wrong(path, "has a form that is not allowed");
        }
        if let Some(id) = rules.condition {
            let holds = self.node(id, value, path, depth + 1).is_ok();
            if let Some(id) = if holds { rules.then } else { rules.otherwise } {
                self.node(id, value, path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn spend(&mut self, steps: usize) {
        let left = self.steps.checked_sub(steps as u64);
        self.exhausted |= left.is_none();
        self.steps = left.unwrap_or(0);
    }
}

fn is(value: &Value, kind: Type) -> bool {
    match (kind, value) {
        (Type::Null, Value::Null)
        | (Type::Boolean, Value::Bool(_))
        | (Type::Number, Value::Number(_))
        | (Type::String, Value::String(_))
        | (Type::Array, Value::Array(_))
        | (Type::Object, Value::Object(_)) => true,
        (Type::Integer, Value::Number(number)) => is_whole(number),
        _ => false,
    }
}

fn of_number(rules: &Rules, number: &Number, path: Path<'_>) -> Checked {
    if let Some(least) = &rules.least
        && compare(number, least).is_lt()
    {
        return wrong(path, format!("is less than {least}"));
    }
    if let Some(most) = &rules.most
        && compare(number, most).is_gt()
    {
        return wrong(path, format!("is more than {most}"));
    }
    if let Some(above) = &rules.above
        && compare(number, above).is_le()
    {
        return wrong(path, format!("is not above {above}"));
    }
    if let Some(below) = &rules.below
        && compare(number, below).is_ge()
    {
        return wrong(path, format!("is not below {below}"));
    }
    match &rules.step {
        Some(step) if !is_multiple(number, step) => wrong(path, format!("is not a multiple of {step}")),
        _ => Ok(()),
    }
}

fn within(span: Span, count: usize, what: &str, path: Path<'_>) -> Checked {
    let count = count as u64;
    if let Some(least) = span.least.filter(|least| count < *least) {
        return wrong(path, format!("has fewer than {least} {what}"));
    }
    match span.most.filter(|most| count > *most) {
        Some(most) => wrong(path, format!("has more than {most} {what}")),
        None => Ok(()),
    }
}

/// One text for each value: numbers by what they are, members in the order of their names.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => match Decimal::of(number) {
            Some(decimal) => decimal.write(out),
            None => out.push_str(&number.to_string()),
        },
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, member) in sorted {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(member, out);
                out.push(',');
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;
