//! Values written as strings of a certain form.

use std::ops::Range;

use schemars::{Schema, json_schema};
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::{Fault, Kind, Parsed, text};
use crate::code::Code;

/// A string of a certain form.
pub(crate) struct Text<T: 'static> {
    /// What it is called where another type was found, such as `a method`.
    pub(crate) what: &'static str,
    /// The code of a string that has not the form.
    pub(crate) code: Code,
    /// The checked value, or why there is none.
    pub(crate) parse: fn(&str) -> Result<T, Wrong>,
    /// The value as it would be written.
    pub(crate) show: fn(&T) -> String,
    /// The form as a regular expression, for the JSON Schema.
    pub(crate) pattern: &'static str,
}

/// Why a string has not the form.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// A code other than the kind's own.
    pub(crate) code: Option<Code>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, code: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }
}

impl<T> Text<T> {
    /// Checks a string that is not a TOML value of its own, such as the key of a table.
    pub(crate) fn parse_text(&self, written: &str, span: Range<usize>) -> Parsed<T> {
        (self.parse)(written).map_err(|wrong| {
            let mut fault = Fault::new(wrong.code.unwrap_or(self.code), wrong.message, span);
            fault.help = wrong.help;
            vec![fault]
        })
    }
}

impl<T> Kind for Text<T> {
    type Out = T;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<T> {
        self.parse_text(text(self.what, value)?, value.span())
    }

    fn show(&self, value: &T) -> Value {
        Value::from((self.show)(value))
    }

    fn schema(&self) -> Schema {
        json_schema!({ "type": "string", "pattern": self.pattern })
    }
}
