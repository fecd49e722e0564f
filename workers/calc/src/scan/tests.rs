use proptest::prelude::*;

use super::*;

/// What the number at the beginning of a text is, also when nothing is left to load 16 bytes from.
fn read(text: &str) -> Option<u64> {
    let alone = number(text);
    // Numbers around it must not be taken for parts of it.
    for before in ["", "[", "99999999,", "[1.5,2,77777777.88888888,"] {
        let padded =
            format!("{before}{text},33333333.33333333,4.5e6                                          ");
        let mut cursor = Cursor::new(&padded);
        cursor.at = before.len();
        let within = cursor.number().ok().filter(|_| cursor.at == before.len() + text.len());
        assert_eq!(alone.map(f64::to_bits), within.map(f64::to_bits), "{before}{text}");
    }
    alone.map(f64::to_bits)
}

fn parsed(text: &str) -> Option<u64> {
    text.parse().ok().map(f64::to_bits)
}

#[test]
fn numbers_are_those_of_the_standard_parser() {
    for text in [
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1",
        "9",
        "10",
        "0.1",
        "0.30000000000000004",
        "123456789012345",
        "1234567890123456",
        "12345678901234567890",
        "0.12345678901234",
        "0.000000000000001",
        "999999999999.999",
        "9007199254740993",
        "1e22",
        "1e23",
        "1E-5",
        "1.5e+3",
        "-1.25e-300",
        "4.9e-324",
        "1e-400",
        "1.7976931348623157e308",
        "8.41",
        "42000.5",
        "1700000000000",
        "2.2250738585072011e-308",
        "12345678.12345678",
    ] {
        assert_eq!(read(text), parsed(text), "{text}");
    }
}

#[test]
fn what_json_does_not_allow_is_refused() {
    for text in [
        "",
        "-",
        "+1",
        "01",
        "00",
        "-01",
        ".5",
        "1.",
        "1.e3",
        "1e",
        "1e+",
        "0x1",
        "1e400",
        "-1e400",
        "NaN",
        "inf",
        "1..2",
        "1.2.3",
        "--1",
        "1-",
        "e5",
        "12345678901234567.",
        "01234567890123456",
        " 1",
        "1 ",
    ] {
        assert_eq!(read(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_number_is_that_of_the_standard_parser(
        sign in "-?", whole in "0|[1-9][0-9]{0,24}", decimals in "|\\.[0-9]{1,25}", exponent in "|[eE][+-]?[0-9]{1,2}",
    ) {
        let text = format!("{sign}{whole}{decimals}{exponent}");
        prop_assert_eq!(read(&text), parsed(&text));
    }

    #[test]
    fn any_value_comes_back_from_its_shortest_text(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        prop_assert_eq!(read(&format!("{value:?}")), Some(bits));
    }

    #[test]
    fn prices_come_back(ticks in 0_u64..10_000_000_000_000, decimals in 0_usize..9) {
        let text = format!("{}.{:0decimals$}", ticks / 10_u64.pow(decimals as u32), ticks % 10_u64.pow(decimals as u32));
        let text = text.trim_end_matches('.');
        prop_assume!(decimals > 0 || !text.contains('.'));
        prop_assert_eq!(read(text), parsed(text));
    }

    #[test]
    fn grammar_is_that_of_json(text in "[-+0-9.eE]{1,20}") {
        let is_json = serde_json::from_str::<serde_json::Number>(&text).is_ok();
        prop_assert_eq!(read(&text).is_some(), is_json, "{}", text);
    }

    #[test]
    fn rows_and_columns_are_those_of_the_standard_parser(
        text in candles(), changes in prop::collection::vec(changed(), 32),
    ) {
        // Whole, and with one byte changed: what is accepted has the bits that the standard parser finds.
        let others = changes.into_iter().map(|(at, byte)| replaced(&text, at, byte));
        for text in std::iter::once(text.clone()).chain(others) {
            let ours = series(&text).ok().filter(|(_, taken)| *taken == text.len()).map(|(series, _)| series);
            let rows = serde_json::from_str::<Vec<[f64; 6]>>(&text).ok();
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(ours.is_some(), rows.is_some(), "{}", text);
            let (Some(ours), Some(rows)) = (ours, rows) else { continue };
            let own = [ours.time_ms, ours.open, ours.high, ours.low, Some(ours.close), ours.volume];
            for (at, column) in own.into_iter().enumerate() {
                let theirs: Vec<f64> = rows.iter().map(|row| row[at]).collect();
                prop_assert_eq!(bits(&column.unwrap()), bits(&theirs), "{}", text);
                let text = format!("{{\"close\":{}}}", serde_json::to_string(&theirs).unwrap());
                prop_assert_eq!(bits(&series(&text).unwrap().0.close), bits(&theirs), "{}", text);
            }
        }
    }
}

/// Rows of six numbers, as machines write them and otherwise.
fn candles() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        3 => "[1-9][0-9]{0,7}(\\.[0-9]{1,8})?",
        1 => "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?([eE]-?[0-9]{1,2})?",
        1 => "1[67][0-9]{11}",
    ];
    let rows = prop::collection::vec(prop::collection::vec(number, 6), 2..12);
    (rows, prop::sample::select(vec![",", ", ", " , ", ",  "])).prop_map(|(rows, comma)| {
        let rows: Vec<_> = rows.iter().map(|row| format!("[{}]", row.join(comma))).collect();
        format!("[{}]", rows.join(comma))
    })
}

/// Where a text is changed, as a part of it, and to what.
fn changed() -> impl Strategy<Value = (f64, u8)> {
    (0.0..1.0, prop::sample::select(b"0129.,-+eE[] \t:/x".to_vec()))
}

fn replaced(text: &str, at: f64, byte: u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = (bytes.len() as f64 * at) as usize;
    bytes[at] = byte;
    String::from_utf8(bytes).unwrap()
}
