//! How one value is written: parsed from TOML, shown again, described as JSON Schema.
//!
//! A kind is the only place that knows the form of a value; what it returns needs no second check.

mod collection;
mod number;
mod quantity;
mod text;
mod word;

use std::ops::Range;

use schemars::Schema;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

pub(crate) use collection::{Dict, List};
pub(crate) use number::{Count, Flag, Number, count};
pub(crate) use quantity::{Duration, Size, parse_duration, show_duration};
pub(crate) use text::{Text, Wrong};
pub(crate) use word::Choice;

use crate::code::Code;
use crate::report::quote;

/// One thing wrong with one value.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) label: Option<String>,
    pub(crate) help: Option<String>,
    pub(crate) span: Range<usize>,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl Into<String>, span: Range<usize>) -> Self {
        Self { code, message: message.into(), label: None, help: None, span }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The value is of another TOML type than `wanted`.
    pub(crate) fn wrong_type(wanted: &str, value: &Spanned<DeValue<'_>>) -> Self {
        let found = article(value.get_ref().type_str());
        Self::new(Code::WrongType, format!("expected {wanted}, found {found}"), value.span())
            .label(format!("this is {found}"))
    }
}

/// A checked value, or everything wrong with it.
pub(crate) type Parsed<T> = Result<T, Vec<Fault>>;

/// The form of a value.
pub(crate) trait Kind {
    /// What it becomes.
    type Out;

    /// The checked value.
    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Self::Out>;

    /// The value as it would be written; `Null` where it would be left out.
    fn show(&self, value: &Self::Out) -> Value;

    /// Its JSON Schema.
    fn schema(&self) -> Schema;
}

/// A kind whose value may be absent from the checked configuration.
pub(crate) struct Maybe<K>(pub(crate) K);

impl<K: Kind> Kind for Maybe<K> {
    type Out = Option<K::Out>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Self::Out> {
        self.0.parse(value).map(Some)
    }

    fn show(&self, value: &Self::Out) -> Value {
        value.as_ref().map_or(Value::Null, |value| self.0.show(value))
    }

    fn schema(&self) -> Schema {
        self.0.schema()
    }
}

/// The string in a value.
fn text<'a>(wanted: &str, value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Vec<Fault>> {
    value.get_ref().as_str().ok_or_else(|| vec![Fault::wrong_type(wanted, value)])
}

/// `a` or `an` before a type's name.
fn article(word: &str) -> String {
    let an = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if an { "an" } else { "a" })
}

/// The word of `known` nearest to `word`, when it is near enough to be a slip.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // LIMIT: the distance is quadratic; nobody misspells a word of 64 letters.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= known.len().max(lower.len()).max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// "did you mean `x`?" for the nearest of `known`.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|known| format!("did you mean {}?", quote(known)))
}
