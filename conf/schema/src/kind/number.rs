//! Truth values and numbers.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

use schemars::{Schema, json_schema};
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::{Fault, Kind, Parsed};
use crate::code::Code;

/// `true` or `false`.
pub(crate) struct Flag;

impl Kind for Flag {
    type Out = bool;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<bool> {
        value.get_ref().as_bool().ok_or_else(|| vec![Fault::wrong_type("`true` or `false`", value)])
    }

    fn show(&self, value: &bool) -> Value {
        Value::Bool(*value)
    }

    fn schema(&self) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

/// A whole number in a range.
pub(crate) struct Count<T> {
    range: RangeInclusive<u64>,
    out: PhantomData<T>,
}

/// A whole number in a range that fits `T`.
pub(crate) const fn count<T>(range: RangeInclusive<u64>) -> Count<T> {
    Count { range, out: PhantomData }
}

impl<T: TryFrom<u64> + TryInto<u64> + Copy> Kind for Count<T> {
    type Out = T;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<T> {
        let DeValue::Integer(digits) = value.get_ref() else {
            return Err(vec![Fault::wrong_type("a whole number", value)]);
        };
        u64::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .filter(|number| self.range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| vec![out_of_range(value, self.range.start(), self.range.end())])
    }

    fn show(&self, value: &T) -> Value {
        (*value).try_into().map_or(Value::Null, Value::from)
    }

    fn schema(&self) -> Schema {
        json_schema!({ "type": "integer", "minimum": self.range.start(), "maximum": self.range.end() })
    }
}

/// A number in a range.
pub(crate) struct Number {
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Kind for Number {
    type Out = f64;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<f64> {
        let number: Option<f64> = match value.get_ref() {
            DeValue::Float(digits) => digits.as_str().parse().ok(),
            DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str().parse().ok(),
            _ => return Err(vec![Fault::wrong_type("a number", value)]),
        };
        number
            .filter(|number| (self.least..=self.most).contains(number))
            .ok_or_else(|| vec![out_of_range(value, self.least, self.most)])
    }

    fn show(&self, value: &f64) -> Value {
        Value::from(*value)
    }

    fn schema(&self) -> Schema {
        json_schema!({ "type": "number", "minimum": self.least, "maximum": self.most })
    }
}

fn out_of_range(
    value: &Spanned<DeValue<'_>>,
    least: impl std::fmt::Display,
    most: impl std::fmt::Display,
) -> Fault {
    Fault::new(Code::Range, format!("the number must be from {least} to {most}"), value.span())
        .label("out of range")
}
