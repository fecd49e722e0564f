//! Numbers of JSON, compared and divided as the decimals they are written as.

use std::cmp::Ordering;

use serde_json::Number;

/// A decimal: `mantissa × 10^exponent`, the mantissa without trailing zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    mantissa: u128,
    exponent: i32,
}

impl Decimal {
    /// The number as written; `None` beyond 38 digits, which no number of JSON has here.
    pub(super) fn of(number: &Number) -> Option<Self> {
        let text = number.to_string();
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (text.as_str(), 0),
        };
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let mut decimal = Self {
            negative,
            mantissa: format!("{whole}{part}").parse().ok()?,
            exponent: exponent - i32::try_from(part.len()).ok()?,
        };
        if decimal.mantissa == 0 {
            return Some(Self { negative: false, mantissa: 0, exponent: 0 });
        }
        while decimal.mantissa.is_multiple_of(10) {
            decimal.mantissa /= 10;
            decimal.exponent += 1;
        }
        Some(decimal)
    }

    /// Whether it has no part behind the point.
    pub(super) const fn is_whole(self) -> bool {
        self.exponent >= 0
    }

    /// One text for each number.
    pub(super) fn write(self, out: &mut String) {
        let sign = if self.negative { "-" } else { "" };
        out.push_str(&format!("{sign}{}e{}", self.mantissa, self.exponent));
    }

    /// Whether it is a whole number of times `other`, which is above zero.
    fn is_multiple_of(self, other: Self) -> bool {
        let Ok(up) = u32::try_from(other.exponent - self.exponent) else {
            // This one has zeros behind it: they are taken into account one by one.
            let zeros = self.exponent - other.exponent;
            let rest = (0..zeros).fold(self.mantissa % other.mantissa, |rest, _| rest * 10 % other.mantissa);
            return rest == 0;
        };
        // A step beyond every mantissa divides nothing but zero.
        let step = 10_u128.checked_pow(up).and_then(|factor| factor.checked_mul(other.mantissa));
        self.mantissa == 0 || step.is_some_and(|step| self.mantissa.is_multiple_of(step))
    }
}

/// Whether a number is a whole number.
pub(super) fn is_whole(number: &Number) -> bool {
    Decimal::of(number).is_some_and(Decimal::is_whole)
}

/// Which of two numbers is larger.
pub(super) fn compare(a: &Number, b: &Number) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_i128(), b.as_i128()) {
        return a.cmp(&b);
    }
    let float = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
    float(a).partial_cmp(&float(b)).unwrap_or(Ordering::Equal)
}

/// Whether `number` is a whole number of times `step`, which is above zero.
pub(super) fn is_multiple(number: &Number, step: &Number) -> bool {
    // A number of JSON has at most 20 digits here, so both are decimals.
    Decimal::of(number).zip(Decimal::of(step)).is_some_and(|(number, step)| number.is_multiple_of(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn decimals_are_exact() {
        for (number_text, step, expected) in [
            ("4.02", "0.01", true),
            ("0.3", "0.1", true),
            ("19.99", "0.01", true),
            ("19.995", "0.01", false),
            ("1e300", "3", false),
            ("3e300", "3", true),
            ("1", "1e300", false),
            ("-7.5", "2.5", true),
            ("0", "0.1", true),
            ("10", "4", false),
        ] {
            assert_eq!(is_multiple(&number(number_text), &number(step)), expected, "{number_text} by {step}");
        }
    }

    #[test]
    fn numbers_are_one_value_however_written() {
        let text = |written: &str| {
            let mut out = String::new();
            Decimal::of(&number(written)).unwrap().write(&mut out);
            out
        };
        assert_eq!(text("1"), text("1.0"));
        assert_eq!(text("100"), text("1e2"));
        assert_eq!(text("-0.0"), text("0"));
        assert_ne!(text("1"), text("-1"));
        assert!(is_whole(&number("1.0")) && !is_whole(&number("1.5")) && is_whole(&number("1e3")));
        assert_eq!(compare(&number("9007199254740993"), &number("9007199254740992")), Ordering::Greater);
        assert_eq!(compare(&number("1"), &number("1.5")), Ordering::Less);
    }
}
