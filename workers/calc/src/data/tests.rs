use super::*;
use proptest::prelude::*;
use serde_json::json;

fn parse(value: serde_json::Value) -> Result<Series, Refusal> {
    sluice_wire::json::from_slice(value.to_string().as_bytes()).map_err(Refusal::from)
}

fn checked(value: serde_json::Value) -> Result<Series, Refusal> {
    let mut series = parse(value)?;
    series.check(1_000, NanRule::Reject)?;
    Ok(series)
}

#[test]
fn all_four_forms_give_the_same_series() {
    let rows =
        checked(json!([[1000, 1.0, 3.0, 0.5, 2.0, 10], [2000, "2.0", "4", "1.5", "3.5", "20"]])).unwrap();
    let records = checked(json!([
        {"timestamp": 1000, "open": 1.0, "high": 3.0, "low": 0.5, "close": 2.0, "volume": 10, "note": "x"},
        {"timestamp": "1970-01-01T00:00:02Z", "Open": 2.0, "High": 4, "Low": 1.5, "Close": 3.5, "Volume": 20}
    ]))
    .unwrap();
    let columns = checked(json!({
        "Timestamp": [1000, 2000], "open": [1.0, 2.0], "high": [3.0, 4], "low": [0.5, 1.5],
        "close": [2.0, 3.5], "volume": [10, 20]
    }))
    .unwrap();
    let split = checked(json!({
        "columns": ["open", "high", "low", "close", "volume"], "index": [1000, 2000],
        "data": [[1.0, 3.0, 0.5, 2.0, 10], [2.0, 4, 1.5, 3.5, 20]]
    }))
    .unwrap();
    assert_eq!(rows, records);
    assert_eq!(rows, columns);
    assert_eq!(rows, split);
}

#[test]
fn faults_name_their_row() {
    let row = |time: u64, high: f64| json!([time, 1.0, high, 1.0, 1.0, 1.0]);
    let cases = [
        (json!([row(2, 2.0), row(1, 2.0)]), 1, "ascending"),
        (json!([row(1, 2.0), row(1, 2.0)]), 1, "repeats"),
        (json!([row(1, 2.0), row(2, 0.5)]), 1, "high is below low"),
        (json!([[1, 1.0, 1.0, 1.0, 1.0, -1.0]]), 0, "volume is negative"),
        (json!([[1, 1.0, 1.0, 1.0, null, 1.0]]), 0, "not finite"),
        (json!([row(1, 2.0), [2, 1.0]]), 1, "2 values"),
        (json!([{"close": 1.0}, {"open": 1.0}]), 1, "close is missing"),
    ];
    for (data, row, text) in cases {
        match checked(data.clone()) {
            Err(Refusal::Series { row: Some(found), text: said }) => {
                assert!(found == row && said.contains(text), "{data}: row {found}: {said}");
            }
            other => panic!("{data}: {other:?}"),
        }
    }
    assert!(matches!(
        checked(json!({"close": [1.0, 2.0], "open": [1.0]})),
        Err(Refusal::Series { row: None, .. })
    ));
    assert!(matches!(checked(json!({"close": vec![1.0; 1001]})), Err(Refusal::TooMuch(_))));
    assert!(matches!(parse(json!("text")), Err(Refusal::Shape(_))));
}

#[test]
fn nan_rules_do_what_they_say() {
    let data = json!({"close": [null, 1.0, null, 3.0]});
    let with = |rule| {
        let mut series = parse(data.clone()).unwrap();
        series.check(10, rule).map(|from| (from, series.close))
    };
    assert!(matches!(with(NanRule::Reject), Err(Refusal::Series { row: Some(0), .. })));
    assert!(matches!(with(NanRule::SkipLeading), Err(Refusal::Series { row: Some(2), .. })));
    assert!(with(NanRule::Propagate).is_ok());
    assert!(matches!(with(NanRule::Ffill), Err(Refusal::Series { row: Some(0), .. })));
    let mut series = parse(json!({"close": [1.0, null, 3.0]})).unwrap();
    series.check(10, NanRule::Ffill).unwrap();
    assert_eq!(series.close, [1.0, 1.0, 3.0]);
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(text in "[\\[\\]{}:,0-9a-z\" .-]{0,80}") {
        if let Ok(mut series) = sluice_wire::json::from_slice::<Series>(text.as_bytes()) {
            let _any_outcome = series.check(100, NanRule::Reject).is_ok();
        }
    }
}
