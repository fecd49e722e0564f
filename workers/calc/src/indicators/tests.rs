use super::*;
use serde_json::json;

fn ask(body: Json) -> Result<Json, Refusal> {
    let bytes = body.to_string().into();
    let incoming = Incoming { format: Format::Json, bytes, query: None };
    let answer = answer(
        incoming,
        None,
        Means { rows_max: 1_000, series: None },
        &mut Scratch::new(sluice_calc::Cpu::proven().unwrap(), std::sync::Arc::default()),
    )?;
    Ok(serde_json::from_slice(&answer.bytes).unwrap())
}

fn closes(count: u32) -> Vec<f64> {
    (0..count).map(|at| 100.0 + f64::from(at % 5)).collect()
}

#[test]
fn outputs_are_named_and_as_long_as_the_data() {
    let answer = ask(json!({"symbol": "X", "timeframe": "1m", "data": {"close": closes(60)},
        "indicators": ["sma", {"name": "macd", "id": "m1"}]}))
    .unwrap();
    assert_eq!((answer["success"].as_bool(), answer["symbol"].as_str()), (Some(true), Some("X")));
    assert_eq!(answer["count"], 60);
    for output in ["macd", "signal", "histogram"] {
        assert_eq!(answer["indicators"]["m1"][output].as_array().unwrap().len(), 60);
    }
    assert_eq!(answer["lookback"]["m1"], 33);
    assert!(answer["indicators"]["m1"]["macd"][32].is_null());
    assert!(answer["indicators"]["m1"]["macd"][33].is_f64());
}

#[test]
fn last_and_tail_cut_the_arrays() {
    let body = |output| json!({"data": {"close": closes(30)}, "indicators": ["sma"], "output": output});
    assert_eq!(ask(body("last")).unwrap()["indicators"]["sma"]["value"].as_array().unwrap().len(), 1);
    assert_eq!(ask(body("tail:7")).unwrap()["indicators"]["sma"]["value"].as_array().unwrap().len(), 7);
    assert!(matches!(ask(body("tail:0")), Err(Refusal::Shape(_))));
}

#[test]
fn leading_gaps_stay_null() {
    let mut data = vec![Json::Null; 3];
    data.extend(closes(30).into_iter().map(Json::from));
    let answer = ask(
        json!({"data": {"close": data}, "indicators": [{"name": "sma", "period": 2}], "nan": "skip_leading"}),
    );
    let answer = answer.unwrap();
    let values = answer["indicators"]["sma"]["value"].as_array().unwrap();
    assert_eq!(values.len(), 33);
    assert!(values[..4].iter().all(Json::is_null) && values[4].is_f64());
}

#[test]
fn refusals_say_what_is_wrong() {
    let with = |indicators: Json| ask(json!({"data": {"close": closes(30)}, "indicators": indicators}));
    match with(json!(["rsii"])) {
        Err(Refusal::Unknown { nearest, .. }) => assert_eq!(nearest.as_deref(), Some("rsi")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(with(json!([{"name": "sma", "period": -5}])), Err(Refusal::Parameter(_))));
    assert!(matches!(with(json!([{"name": "sma", "period": [[5]]}])), Err(Refusal::Parameter(_))));
    assert!(matches!(with(json!(["sma", "sma"])), Err(Refusal::Shape(_))));
    assert!(matches!(with(json!(["atr"])), Err(Refusal::Series { row: None, .. })));
    let many: Vec<_> = (0..65).map(|at| json!({"name": "sma", "id": format!("s{at}")})).collect();
    assert!(matches!(with(json!(many)), Err(Refusal::TooMuch(_))));
    assert!(matches!(ask(json!({"data": {"close": []}, "indicators": [], "x": 1})), Err(Refusal::Shape(_))));
}

#[test]
fn sweeps_answer_a_list_of_sets() {
    let sweep = |reduce: &str| {
        ask(json!({"data": {"close": closes(30)}, "reduce": reduce, "unstable": 2,
            "indicators": [{"name": "sma", "period": {"range": [2, 4, 1]}, "id": "s"}, {"name": "sma", "period": 3}]}))
        .unwrap()
    };
    let answer = sweep("none");
    let single = &answer["indicators"]["sma"]["value"];
    let swept = answer["indicators"]["s"].as_array().unwrap();
    assert_eq!((swept.len(), &swept[1]["params"]), (3, &json!({"period": 3.0})));
    assert_eq!(&swept[1]["outputs"]["value"], single);
    assert!(single[3].is_null() && single[4].is_f64(), "two more are left out: {single}");
    assert_eq!((&answer["begin"]["s"], &answer["lookback"]["s"]), (&json!([3, 4, 5]), &json!([1, 2, 3])));
    let last = sweep("last");
    assert_eq!(last["indicators"]["s"][2]["outputs"]["value"].as_array().unwrap().len(), 1);
    assert_eq!(last["indicators"]["s"][1]["outputs"]["value"][0], single[29]);
    assert_eq!(&last["indicators"]["sma"]["value"], single);
}

#[test]
fn sweeps_and_answers_have_their_limits() {
    let many = json!({"data": {"close": closes(900)}, "output": "full",
        "indicators": [{"name": "sma", "period": {"range": [2, 4097, 1]}}, {"name": "ema", "period": [2, 3]}]});
    match ask(many) {
        Err(Refusal::TooMuch(text)) => assert!(text.contains("4096 sets"), "{text}"),
        other => panic!("{other:?}"),
    }
    let wide = json!({"data": {"close": closes(999)}, "indicators": [{"name": "sma", "period": {"range": [2, 4097, 1]}}]});
    match ask(wide) {
        Err(Refusal::TooMuch(text)) => assert!(text.contains("limit of 4000000"), "{text}"),
        other => panic!("{other:?}"),
    }
    let unstable = json!({"data": {"close": closes(9)}, "indicators": ["sma"], "unstable": 100_001});
    assert!(matches!(ask(unstable), Err(Refusal::Parameter(_))));
}
