//! One of a few words.

use schemars::{Schema, json_schema};
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::{Fault, Kind, Parsed, did_you_mean, text};
use crate::code::Code;
use crate::report::quote;

/// One of a few words, each with what it means. The first word of a meaning is the one shown.
pub(crate) struct Choice<T: 'static> {
    /// The words this version knows.
    pub(crate) words: &'static [(&'static str, T)],
    /// Words of the contract that it does not implement yet.
    pub(crate) planned: &'static [&'static str],
}

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Out = T;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<T> {
        let written = text(&format!("one of {}", self.list()), value)?;
        if let Some((_, meaning)) = self.words.iter().find(|(word, _)| *word == written) {
            return Ok(*meaning);
        }
        if self.planned.contains(&written) {
            let message = format!("{} is not implemented in this version", quote(written));
            let help = format!("this version knows {}", self.list());
            return Err(vec![Fault::new(Code::PlannedValue, message, value.span()).help(help)]);
        }
        let message = format!("{} is none of {}", quote(written), self.list());
        let mut fault = Fault::new(Code::Word, message, value.span());
        fault.help = did_you_mean(written, self.words.iter().map(|word| word.0));
        Err(vec![fault])
    }

    fn show(&self, value: &T) -> Value {
        self.words
            .iter()
            .find(|(_, meaning)| meaning == value)
            .map_or(Value::Null, |(word, _)| Value::from(*word))
    }

    fn schema(&self) -> Schema {
        let words: Vec<_> = self.words.iter().map(|word| word.0).collect();
        json_schema!({ "type": "string", "enum": words })
    }
}

impl<T: PartialEq> Choice<T> {
    /// The words, each meaning once.
    fn list(&self) -> String {
        let mut shown: Vec<String> = Vec::new();
        for (at, (word, meaning)) in self.words.iter().enumerate() {
            if self.words[..at].iter().all(|(_, earlier)| earlier != meaning) {
                shown.push(quote(word));
            }
        }
        shown.join(", ")
    }
}
