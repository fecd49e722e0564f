//! The bar that an event tells of.

use serde_json::{Map, Value};
use sluice_wire::event::parse_time;
use sluice_wire::symbol::{Symbol, Timeframe};

use crate::series::{Candle, SeriesKey};

/// Numbers below this are seconds since 1970, others milliseconds, as for the trades that candles are made of.
const SECONDS_MAX: f64 = 1e11;
/// The last millisecond of the year 9999.
const TIME_MS_MAX: f64 = 253_402_300_799_999.0;

/// Reads the data of an event: a whole bar of a symbol and timeframe, else why it is none.
pub(crate) fn bar(data: &Map<String, Value>) -> Result<(SeriesKey, Candle), &'static str> {
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let symbol = text("symbol").and_then(|text| Symbol::parse(text).ok()).ok_or("no symbol")?;
    let timeframe = text("timeframe").and_then(|text| Timeframe::parse(text).ok()).ok_or("no timeframe")?;
    let time_ms = data.get("timestamp").or_else(|| data.get("time")).and_then(time).ok_or("no begin")?;
    let price = |name: &str| data.get(name).and_then(number).ok_or("a price is missing or no number");
    let [open, high, low, close] = [price("open")?, price("high")?, price("low")?, price("close")?];
    let volume = match data.get("volume") {
        None | Some(Value::Null) => 0.0,
        Some(value) => number(value).ok_or("volume is no number")?,
    };
    if high < low {
        return Err("high is below low");
    }
    if volume < 0.0 {
        return Err("volume is negative");
    }
    let candle = Candle { time_ms, open, high, low, close, volume };
    Ok((SeriesKey::new(symbol, timeframe), candle))
}

/// A number, or a text that is one, as exchanges write them.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.parse().ok()?,
        other => other.as_f64()?,
    };
    number.is_finite().then_some(number)
}

fn time(value: &Value) -> Option<i64> {
    if let Some(time) = value.as_str().and_then(parse_time) {
        return Some(time.as_millisecond()).filter(|ms| *ms >= 0);
    }
    let time = number(value)?;
    let ms = if time.abs() < SECONDS_MAX { time * 1e3 } else { time };
    (0.0..=TIME_MS_MAX).contains(&ms).then_some(ms as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: &Value) -> Result<(SeriesKey, Candle), &'static str> {
        let mut data = json!({"symbol": "BTC/USDT", "timeframe": "1m", "timestamp": 1_767_225_600_000_i64,
            "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 3.0, "trades": 7});
        let changes = change.as_object().unwrap().clone();
        data.as_object_mut().unwrap().extend(changes);
        bar(data.as_object().unwrap())
    }

    #[test]
    fn a_bar_is_read_as_exchanges_write_it() {
        let (key, candle) = read(&json!({})).unwrap();
        assert_eq!((key.text().as_str(), candle.time_ms), ("BTC/USDT/1m", 1_767_225_600_000));
        assert_eq!(candle.numbers(), [1.0, 2.0, 0.5, 1.5, 3.0]);
        for same in [json!("2026-01-01T00:00:00Z"), json!(1_767_225_600), json!("1767225600000")] {
            assert_eq!(
                read(&json!({"timestamp": same, "close": "1.5"})),
                Ok((key.clone(), candle)),
                "{same}"
            );
        }
        assert_eq!(read(&json!({"volume": null})).unwrap().1.volume, 0.0);
    }

    #[test]
    fn what_is_no_bar_says_why() {
        let cases = [
            (json!({"symbol": "1m"}), "no symbol"),
            (json!({"timeframe": "1x"}), "no timeframe"),
            (json!({"timestamp": "soon"}), "no begin"),
            (json!({"timestamp": 1e300}), "no begin"),
            (json!({"timestamp": -1}), "no begin"),
            (json!({"close": "NaN"}), "a price is missing or no number"),
            (json!({"open": null}), "a price is missing or no number"),
            (json!({"volume": "much"}), "volume is no number"),
            (json!({"high": 0.1}), "high is below low"),
            (json!({"volume": -1}), "volume is negative"),
        ];
        for (change, why) in cases {
            assert_eq!(read(&change), Err(why), "{change}");
        }
    }
}
