//! Parameters with many values: every set of them is computed.
//!
//! A value `{"range":[from,to,step]}` stands for `from`, `from + step`, … up to `to`, a list for its elements. Where several
//! parameters have many, the sets are their product, the last one running fastest.

use serde_json::{Map, Value as Json};

use crate::bounds::SWEEP_SETS_MAX;
use crate::error::Refusal;

/// The sets of parameters that the fields of an indicator stand for; `None` where every parameter has one value. Each
/// comes with the swept parameters alone, which name the set.
pub(crate) fn sets(fields: &Map<String, Json>) -> Result<Option<Vec<Set>>, Refusal> {
    let swept: Vec<(&str, Vec<Json>)> = fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "name" | "id"))
        .filter_map(|(name, value)| {
            values(name, value).map(|values| values.map(|values| (name.as_str(), values))).transpose()
        })
        .collect::<Result<_, _>>()?;
    if swept.is_empty() {
        return Ok(None);
    }
    let count = swept.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()));
    let count = count.filter(|count| *count <= SWEEP_SETS_MAX).ok_or_else(too_many)?;
    let set = |at: usize| {
        let (mut all, mut own, mut rest) = (fields.clone(), Map::new(), at);
        for (name, values) in swept.iter().rev() {
            let value = &values[rest % values.len()];
            rest /= values.len();
            all.insert((*name).to_owned(), value.clone());
            own.insert((*name).to_owned(), value.clone());
        }
        Set { all, own }
    };
    Ok(Some((0..count).map(set).collect()))
}

/// One set of parameters.
#[derive(Debug)]
pub(crate) struct Set {
    /// All fields of the indicator.
    pub(crate) all: Map<String, Json>,
    /// The swept parameters.
    pub(crate) own: Map<String, Json>,
}

fn too_many() -> Refusal {
    Refusal::TooMuch(format!("a sweep has at most {SWEEP_SETS_MAX} sets of parameters"))
}

/// The values of a swept parameter; `None` where it is not swept.
fn values(name: &str, value: &Json) -> Result<Option<Vec<Json>>, Refusal> {
    let fault = |text: &str| Refusal::Parameter(format!("parameter `{}`: {text}", name.escape_default()));
    match value {
        Json::Array(values) if values.is_empty() => Err(fault("a list has one value at least")),
        Json::Array(values) if values.len() > SWEEP_SETS_MAX => Err(too_many()),
        Json::Array(values) => Ok(Some(values.clone())),
        Json::Object(object) => {
            let bounds = object.get("range").and_then(Json::as_array).filter(|_| object.len() == 1);
            let numbers: Option<Vec<f64>> =
                bounds.and_then(|bounds| bounds.iter().map(Json::as_f64).collect());
            match numbers.as_deref() {
                Some(&[from, to, step]) if step > 0.0 && from <= to => range(from, to, step).map(Some),
                _ => {
                    Err(fault("a sweep is a list, or {\"range\":[from,to,step]} with from ≤ to and step > 0"))
                }
            }
        }
        _ => Ok(None),
    }
}

fn range(from: f64, to: f64, step: f64) -> Result<Vec<Json>, Refusal> {
    // A hair more than the quotient, so that 0 to 0.3 by 0.1 has its last value.
    let steps = ((to - from) / step * (1.0 + 4.0 * f64::EPSILON)).floor();
    if steps >= SWEEP_SETS_MAX as f64 {
        return Err(too_many());
    }
    Ok((0..=steps as usize).map(|at| Json::from((from + step * at as f64).min(to))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn own(fields: &Json) -> Result<Option<Vec<Json>>, Refusal> {
        let sets = sets(fields.as_object().unwrap())?;
        Ok(sets.map(|sets| sets.into_iter().map(|set| Json::Object(set.own)).collect()))
    }

    #[test]
    fn sets_are_the_product_of_lists_and_ranges() {
        assert_eq!(own(&json!({"name": "ema", "period": 9, "seed": "sma"})).unwrap(), None);
        let all = own(&json!({"name": "macd", "fast": {"range": [2, 4, 1]}, "slow": [10, 20], "signal": 9}));
        let expected: Vec<Json> = [(2.0, 10), (2.0, 20), (3.0, 10), (3.0, 20), (4.0, 10), (4.0, 20)]
            .iter()
            .map(|(fast, slow)| json!({"fast": fast, "slow": slow}))
            .collect();
        assert_eq!(all.unwrap().unwrap(), expected);
        let tenths = own(&json!({"x": {"range": [0.0, 0.3, 0.1]}})).unwrap().unwrap();
        assert_eq!(tenths.len(), 4);
        assert_eq!(own(&json!({"x": {"range": [5, 5, 1]}})).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn sweeps_that_cannot_be_are_refused() {
        for bad in [
            json!({"x": []}),
            json!({"x": {"range": [1, 2]}}),
            json!({"x": {"range": [1, 2, 0]}}),
            json!({"x": {"range": [2, 1, 1]}}),
            json!({"x": {"range": [1, 2, 1], "y": 1}}),
            json!({"x": {"a": 1}}),
            json!({"x": {"range": ["a", 2, 1]}}),
        ] {
            assert!(matches!(own(&bad), Err(Refusal::Parameter(_))), "{bad}");
        }
        for many in [
            json!({"x": {"range": [0, 1e300, 1e-300]}}),
            json!({"x": {"range": [1, 4097, 1]}}),
            json!({"x": vec![1; 4097]}),
            json!({"x": vec![1; 100], "y": vec![1; 100]}),
        ] {
            assert!(matches!(own(&many), Err(Refusal::TooMuch(_))));
        }
    }

    proptest! {
        #[test]
        fn a_range_stays_within_its_bounds(from in -1e3..1e3_f64, width in 0.0..1e3_f64, step in 0.5..50.0_f64) {
            let values = range(from, from + width, step).unwrap();
            prop_assert!(!values.is_empty() && values.len() <= 2_002);
            prop_assert!(values.iter().all(|value| (from..=from + width).contains(&value.as_f64().unwrap())));
        }
    }
}
