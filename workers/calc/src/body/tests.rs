use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    data: Option<Series>,
    #[serde(default)]
    symbol: Option<String>,
    #[serde(default)]
    _options: Option<serde_json::Value>,
}

impl WithData for Body {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

/// Bits of every column, and the other member; or the refusal's words.
type Verdict = Result<(Option<Vec<Option<Vec<u64>>>>, Option<String>), String>;

fn verdict(parsed: Result<Body, JsonError>) -> Verdict {
    let bits = |column: Vec<f64>| column.into_iter().map(f64::to_bits).collect();
    let columns = |series: Series| {
        let Series { time_ms, open, high, low, close, volume } = series;
        [time_ms, open, high, low, Some(close), volume].map(|column| column.map(bits)).to_vec()
    };
    parsed.map(|body| (body.data.map(columns), body.symbol)).map_err(|error| error.to_string())
}

fn both(body: &[u8]) -> (Verdict, Verdict) {
    (verdict(parse(body)), verdict(json::from_slice(body)))
}

#[test]
fn plain_forms_take_the_short_way() {
    for body in [
        r#"{"data":[[1,2.5,3,1e0,2,"7.25"],[2,2,3,1,2,7]],"symbol":"X"}"#,
        r#" { "symbol" : "X" , "data" : [ [ 1 , 2.5 , null , 1 , 2 , 7 , 8 ] , [ 1 , 2.5 , 3 , 1 , 2 , 7 , 8 ] ] } "#,
        r#"{"data":{"close":[1.5,"2",null],"Volume":[]}}"#,
        r#"{"data":[]}"#,
        r#"{"data":{"c":[]}}"#,
    ] {
        assert!(split(body.as_bytes()).is_ok(), "{body}");
        let (fast, slow) = both(body.as_bytes());
        assert!(slow.is_ok(), "{body}: {slow:?}");
        assert_eq!(fast, slow, "{body}");
    }
}

#[test]
fn everything_else_is_judged_by_the_strict_parser() {
    for body in [
        r#"{"data":[[1,2,3,1,2,7]],"data":[[1,2,3,1,2,7]]}"#,
        r#"{"data":[[1,2,3,1,2,7]],"\u0064ata":1}"#,
        r#"{"data":[[1,2,3,1,2,7]],"symbol":"X","symbol":"Y"}"#,
        r#"{"data":[[1,2,3,1,2,7]]} x"#,
        r#"{"data":[[1,2,3,1,2,7],]}"#,
        r#"{"data":[[1,2,3,1,2,7],[1,2,3,1]]}"#,
        r#"{"data":[[1,2,3,1,2,07]]}"#,
        r#"{"data":[[1,2,3,1,2,1e999]]}"#,
        r#"{"data":[[1,2,3,1,2,7]],"strange":1}"#,
        r#"{"data":null}"#,
        r#"{"data":5}"#,
        r#"[{"data":[]}]"#,
        "{\"data\":[[1,2,3,1,2,7]],\"symbol\":\"\u{1}\"}",
    ] {
        let (fast, slow) = both(body.as_bytes());
        assert_eq!(fast, slow, "{body}");
    }
    let deep = format!(r#"{{"data":[[1,2,3,1,2,7]],"_options":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    let (fast, slow) = both(deep.as_bytes());
    assert!(fast.as_ref().is_err_and(|text| text.contains("nesting")), "{fast:?}");
    assert_eq!(fast, slow);
}

/// Bodies, some of them with a few bytes changed.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        6 => "-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,9})?",
        1 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        1 => "\"-?[0-9]{1,4}(\\.[0-9]{1,4})?\"",
        1 => prop::sample::select(vec!["null", "\"x\"", "01", "true", "[]", "\"2024-01-01\"", "\"\""]).prop_map(str::to_owned),
    ];
    let row = prop_oneof![8 => Just(6_usize), 1 => 4_usize..8]
        .prop_flat_map(move |width| prop::collection::vec(number.clone(), width));
    let rows = prop::collection::vec(row, 0..4);
    let form = (rows, 0..4_u8).prop_map(|(rows, form)| match form {
        0 | 1 => format!(
            "[{}]",
            rows.iter().map(|row| format!("[{}]", row.join(","))).collect::<Vec<_>>().join(", ")
        ),
        2 => {
            let names = ["timestamp", "open", "high", "low", "close", "c", "other"];
            let columns = rows.iter().zip(names.iter().cycle().skip(2));
            format!(
                "{{{}}}",
                columns
                    .map(|(row, name)| format!("\"{name}\":[{}]", row.join(",")))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        }
        _ => format!(
            "[{}]",
            rows.iter()
                .map(|row| format!("{{\"close\":{},\"v\":{}}}", row[0], row[1]))
                .collect::<Vec<_>>()
                .join(",")
        ),
    });
    let body = (form, "[a-c]{0,3}")
        .prop_map(|(data, symbol)| format!("{{\"data\":{data},\"symbol\":\"{symbol}\"}}").into_bytes());
    let change = (any::<prop::sample::Index>(), prop::sample::select(b"[]{},:\"0-e. \\".to_vec()));
    (body, prop::collection::vec(change, 0..3), 0..3_u8).prop_map(|(mut body, changes, how)| {
        for (at, byte) in changes.iter().filter(|_| how > 0) {
            let at = at.index(body.len());
            body[at] = *byte;
        }
        body
    })
}

proptest! {
    #[test]
    fn both_ways_give_the_same_verdict(body in bodies()) {
        let (fast, slow) = both(&body);
        prop_assert_eq!(fast, slow, "{}", String::from_utf8_lossy(&body));
    }
}
