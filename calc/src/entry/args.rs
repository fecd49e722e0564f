//! Parameters by name: what is allowed, what was given, what that makes.

use crate::compat::Compat;
use crate::params::{Ddof, Deviations, FirstRange, PERIOD_MAX, RangeError, Seed, Smoothing, Window, within};
use std::fmt;

/// A parameter's value as a caller writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number; parameters that count must be given whole ones.
    Number(f64),
    /// A word out of a fixed choice.
    Word(&'a str),
}

/// The values a parameter may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// A whole number within these bounds, both included.
    Whole {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// A number within these bounds, both included.
    Real {
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// One of these words.
    Words(&'static [&'static str]),
}

/// A parameter of an indicator or strategy.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Name on the wire.
    pub name: &'static str,
    /// Allowed values.
    pub range: Range,
    default: fn(Compat) -> Value<'static>,
}

impl Param {
    /// The value taken when the parameter is left out.
    #[must_use]
    pub fn default_under(&self, compat: Compat) -> Value<'static> {
        (self.default)(compat)
    }

    pub(crate) const fn whole(
        name: &'static str,
        min: u32,
        max: u32,
        default: fn(Compat) -> Value<'static>,
    ) -> Self {
        Self { name, range: Range::Whole { min, max }, default }
    }

    /// A window of at least `min` bars.
    pub(crate) const fn bars(name: &'static str, min: u32, default: fn(Compat) -> Value<'static>) -> Self {
        Self::whole(name, min, PERIOD_MAX, default)
    }

    pub(crate) const fn real(
        name: &'static str,
        min: f64,
        max: f64,
        default: fn(Compat) -> Value<'static>,
    ) -> Self {
        Self { name, range: Range::Real { min, max }, default }
    }

    pub(crate) const fn words(
        name: &'static str,
        words: &'static [&'static str],
        default: fn(Compat) -> Value<'static>,
    ) -> Self {
        Self { name, range: Range::Words(words), default }
    }

    pub(crate) const SEED: Self = Self {
        name: "seed",
        range: Range::Words(&["sma", "first"]),
        default: |compat| {
            Value::Word(match compat.seed() {
                Seed::Sma => "sma",
                Seed::First => "first",
            })
        },
    };

    pub(crate) const SMOOTHING: Self = Self {
        name: "smoothing",
        range: Range::Words(&["wilder", "sma"]),
        default: |compat| {
            Value::Word(match compat.smoothing() {
                Smoothing::Wilder => "wilder",
                Smoothing::Sma => "sma",
            })
        },
    };

    pub(crate) const FIRST_RANGE: Self = Self {
        name: "first_range",
        range: Range::Words(&["skip", "high_low"]),
        default: |compat| {
            Value::Word(match compat.first_range() {
                FirstRange::Skip => "skip",
                FirstRange::HighLow => "high_low",
            })
        },
    };

    pub(crate) const DDOF: Self = Self::whole("ddof", 0, 1, |compat| {
        Value::Number(match compat.ddof() {
            Ddof::Population => 0.0,
            Ddof::Sample => 1.0,
        })
    });
}

/// A name or parameter the catalogue does not accept.
#[derive(Clone, Debug, PartialEq)]
pub enum CatalogError {
    /// No entry of that name.
    UnknownName {
        /// The name given.
        name: String,
    },
    /// The entry has no such parameter.
    UnknownParam {
        /// Name of the entry.
        owner: &'static str,
        /// The parameter given.
        param: String,
    },
    /// A parameter is given more than once.
    RepeatedParam {
        /// Name of the entry.
        owner: &'static str,
        /// The parameter.
        param: &'static str,
    },
    /// A number is outside the allowed range.
    OutOfRange {
        /// Name of the entry.
        owner: &'static str,
        /// The parameter.
        param: &'static str,
        /// The number and the range.
        source: RangeError,
    },
    /// A parameter that counts is given a fraction.
    NotWhole {
        /// Name of the entry.
        owner: &'static str,
        /// The parameter.
        param: &'static str,
        /// The number given.
        given: f64,
    },
    /// A word where a number belongs.
    NotANumber {
        /// Name of the entry.
        owner: &'static str,
        /// The parameter.
        param: &'static str,
    },
    /// Something other than one of the allowed words.
    NotAChoice {
        /// Name of the entry.
        owner: &'static str,
        /// The parameter.
        param: &'static str,
        /// The allowed words.
        words: &'static [&'static str],
    },
    /// The parameters contradict each other.
    Contradiction {
        /// Name of the entry.
        owner: &'static str,
        /// What must hold.
        rule: &'static str,
    },
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownName { name } => write!(f, "there is no {name:?} in the catalogue"),
            Self::UnknownParam { owner, param } => write!(f, "{owner} has no parameter {param:?}"),
            Self::RepeatedParam { owner, param } => write!(f, "{owner}.{param} is given twice"),
            Self::OutOfRange { owner, param, source } => write!(f, "{owner}.{param} {source}"),
            Self::NotWhole { owner, param, given } => {
                write!(f, "{owner}.{param} must be a whole number, not {given}")
            }
            Self::NotANumber { owner, param } => write!(f, "{owner}.{param} must be a number"),
            Self::NotAChoice { owner, param, words } => {
                write!(f, "{owner}.{param} must be one of {}", words.join(", "))
            }
            Self::Contradiction { owner, rule } => write!(f, "{owner}: {rule}"),
        }
    }
}

// The range is part of the message, where the parameter's name belongs with it; giving it as the
// source as well would print it twice.
impl std::error::Error for CatalogError {}

/// The parameters given to one entry, names checked, values not yet.
pub(crate) struct Args<'a> {
    pub(crate) owner: &'static str,
    params: &'static [Param],
    compat: Compat,
    given: &'a [(&'a str, Value<'a>)],
}

impl<'a> Args<'a> {
    pub(crate) fn new(
        owner: &'static str,
        params: &'static [Param],
        compat: Compat,
        given: &'a [(&'a str, Value<'a>)],
    ) -> Result<Self, CatalogError> {
        for (at, (name, _)) in given.iter().enumerate() {
            let Some(param) = params.iter().find(|param| param.name == *name) else {
                return Err(CatalogError::UnknownParam { owner, param: (*name).to_owned() });
            };
            if given[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(CatalogError::RepeatedParam { owner, param: param.name });
            }
        }
        Ok(Self { owner, params, compat, given })
    }

    /// The value of a parameter in the table, given or default.
    fn value(&self, param: &Param) -> Value<'a> {
        let given = self.given.iter().find(|(name, _)| *name == param.name);
        given.map_or_else(|| param.default_under(self.compat), |(_, value)| *value)
    }

    fn param(&self, name: &'static str) -> &'static Param {
        let param = self.params.iter().find(|param| param.name == name);
        param.expect("an entry asks only for parameters of its own table")
    }

    /// A number within the range of the table.
    pub(crate) fn number(&self, name: &'static str) -> Result<f64, CatalogError> {
        let param = self.param(name);
        let owner = self.owner;
        let Value::Number(number) = self.value(param) else {
            return Err(CatalogError::NotANumber { owner, param: name });
        };
        let (min, max) = match param.range {
            Range::Real { min, max } => (min, max),
            Range::Whole { min, max } => (f64::from(min), f64::from(max)),
            Range::Words(_) => return Err(CatalogError::NotANumber { owner, param: name }),
        };
        let number = within(number, min, max).map_err(|source| CatalogError::OutOfRange {
            owner,
            param: name,
            source,
        })?;
        if matches!(param.range, Range::Whole { .. }) && number.fract() != 0.0 {
            return Err(CatalogError::NotWhole { owner, param: name, given: number });
        }
        Ok(number)
    }

    /// A window; the table may be stricter than the type, never looser.
    pub(crate) fn window<const MIN: u32>(&self, name: &'static str) -> Result<Window<MIN>, CatalogError> {
        let bars = self.number(name)? as u32;
        Window::new(bars).map_err(|source| CatalogError::OutOfRange {
            owner: self.owner,
            param: name,
            source,
        })
    }

    pub(crate) fn deviations(&self, name: &'static str) -> Result<Deviations, CatalogError> {
        let width = self.number(name)?;
        Deviations::new(width).map_err(|source| CatalogError::OutOfRange {
            owner: self.owner,
            param: name,
            source,
        })
    }

    pub(crate) fn ddof(&self) -> Result<Ddof, CatalogError> {
        Ok(if self.number("ddof")? == 0.0 { Ddof::Population } else { Ddof::Sample })
    }

    pub(crate) fn seed(&self) -> Result<Seed, CatalogError> {
        Ok(if self.word("seed")? == "sma" { Seed::Sma } else { Seed::First })
    }

    pub(crate) fn smoothing(&self) -> Result<Smoothing, CatalogError> {
        Ok(if self.word("smoothing")? == "sma" { Smoothing::Sma } else { Smoothing::Wilder })
    }

    pub(crate) fn first_range(&self) -> Result<FirstRange, CatalogError> {
        Ok(if self.word("first_range")? == "skip" { FirstRange::Skip } else { FirstRange::HighLow })
    }

    /// A word out of the choice of the table.
    pub(crate) fn word(&self, name: &'static str) -> Result<&'static str, CatalogError> {
        let param = self.param(name);
        let Range::Words(words) = param.range else { return Ok("") };
        let given = match self.value(param) {
            Value::Word(word) => words.iter().find(|choice| **choice == word),
            Value::Number(_) => None,
        };
        given.copied().ok_or(CatalogError::NotAChoice { owner: self.owner, param: name, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Indicator;

    fn refused(name: &str, given: &[(&str, Value<'_>)]) -> String {
        Indicator::parse(name, Compat::TaLib, given).unwrap_err().to_string()
    }

    #[test]
    fn refusals_name_the_parameter_and_the_range() {
        let n = Value::Number;
        assert_eq!(refused("rsx", &[]), "there is no \"rsx\" in the catalogue");
        assert_eq!(refused("rsi", &[("length", n(3.0))]), "rsi has no parameter \"length\"");
        assert_eq!(refused("rsi", &[("period", n(-3.0))]), "rsi.period must be between 2 and 100000, not -3");
        assert_eq!(refused("rsi", &[("period", n(2.5))]), "rsi.period must be a whole number, not 2.5");
        assert_eq!(refused("rsi", &[("period", Value::Word("x"))]), "rsi.period must be a number");
        assert_eq!(refused("rsi", &[("period", n(2.0)), ("period", n(3.0))]), "rsi.period is given twice");
        assert_eq!(
            refused("rsi", &[("period", n(f64::NAN))]),
            "rsi.period must be between 2 and 100000, not NaN"
        );
        assert_eq!(refused("ema", &[("seed", Value::Word("ema"))]), "ema.seed must be one of sma, first");
        assert_eq!(refused("ema", &[("seed", n(1.0))]), "ema.seed must be one of sma, first");
        assert_eq!(refused("bbands", &[("up", n(-1.0))]), "bbands.up must be between 0 and 1000, not -1");
        assert_eq!(refused("bbands", &[("ddof", n(2.0))]), "bbands.ddof must be between 0 and 1, not 2");
    }
}
