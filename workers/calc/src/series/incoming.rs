//! Bodies with candles for a stored series.

use serde::Deserialize;
use sluice_wire::symbol::{Symbol, Timeframe};

use super::{Candle, SeriesKey};
use crate::body::{self, Incoming, WithData};
use crate::data::{NanRule, Series};
use crate::error::Refusal;

/// Latest begin of a bar: the last millisecond of the year 9999, milliseconds since 1970.
const TIME_MS_MAX: f64 = 253_402_300_799_999.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    data: Option<Series>,
    /// The last candle is of the bar that is still forming.
    #[serde(default)]
    open: bool,
    /// Those of the path, where they are there.
    symbol: Option<Symbol>,
    timeframe: Option<Timeframe>,
}

impl WithData for Request {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

/// Candles that ascend, at least one.
#[derive(Debug)]
pub(crate) struct Candles {
    pub(crate) candles: Vec<Candle>,
    pub(crate) last_is_open: bool,
}

/// Reads and checks a body for a series.
pub(crate) fn read(incoming: Incoming, key: &SeriesKey, rows_max: usize) -> Result<Candles, Refusal> {
    let mut request: Request = body::read(incoming, rows_max)?;
    let is_other = request.symbol.is_some_and(|symbol| symbol != key.symbol)
        || request.timeframe.is_some_and(|timeframe| timeframe != key.timeframe);
    if is_other {
        return Err(Refusal::Shape(format!("symbol and timeframe are those of the path, {}", key.text())));
    }
    let series = request.data.take();
    let mut series = series.ok_or_else(|| Refusal::Shape("missing field `data`".to_owned()))?;
    series.check(rows_max, NanRule::Reject)?;
    if series.close.is_empty() {
        return Err(Refusal::Series { row: None, text: "there is no candle in it".to_owned() });
    }
    Ok(Candles { candles: candles(&series)?, last_is_open: request.open })
}

fn candles(series: &Series) -> Result<Vec<Candle>, Refusal> {
    let (Some(times), Some(open), Some(high), Some(low)) =
        (&series.time_ms, &series.open, &series.high, &series.low)
    else {
        let text = "a stored candle has timestamp, open, high, low and close; without volume it is 0";
        return Err(Refusal::Shape(text.to_owned()));
    };
    let volume = |row: usize| series.volume.as_ref().map_or(0.0, |volume| volume[row]);
    let candle = |(row, time): (usize, &f64)| {
        let numbers = [open[row], high[row], low[row], series.close[row], volume(row)];
        Ok(Candle::of(time_ms(row, *time)?, numbers))
    };
    times.iter().enumerate().map(candle).collect()
}

fn time_ms(row: usize, time: f64) -> Result<i64, Refusal> {
    if time.fract() == 0.0 && (0.0..=TIME_MS_MAX).contains(&time) {
        return Ok(time as i64);
    }
    let text = format!(
        "row {row}: timestamp {time} is not a whole number of milliseconds from 1970 to the year 9999"
    );
    Err(Refusal::Series { row: Some(row), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::Format;
    use serde_json::{Value, json};

    fn read_json(body: &Value) -> Result<Candles, Refusal> {
        let incoming = Incoming { format: Format::Json, bytes: body.to_string().into(), query: None };
        read(incoming, &SeriesKey::parse("BTC/USDT/1m").unwrap(), 3)
    }

    #[test]
    fn candles_need_their_times_and_prices() {
        let row = |time: Value| json!([time, 1, 2, 0.5, 1.5, 9]);
        let good = read_json(&json!({"data": [row(json!(0)), row(json!(60_000))], "open": true})).unwrap();
        assert_eq!((good.candles.len(), good.last_is_open), (2, true));
        assert_eq!(good.candles[1], Candle::of(60_000, [1.0, 2.0, 0.5, 1.5, 9.0]));
        let without = read_json(&json!({"data": [[0, 1, 2, 0.5, 1.5]]})).unwrap();
        assert_eq!(without.candles[0].volume, 0.0);
        let at_row = |body: Value| match read_json(&body) {
            Err(Refusal::Series { row, .. }) => row,
            other => panic!("{body}: {other:?}"),
        };
        assert_eq!(at_row(json!({"data": [row(json!(0.5))]})), Some(0));
        assert_eq!(at_row(json!({"data": [row(json!(-1))]})), Some(0));
        assert_eq!(at_row(json!({"data": [row(json!(0)), row(json!(1e15))]})), Some(1));
        assert_eq!(at_row(json!({"data": [row(json!(5)), row(json!(5))]})), Some(1));
        assert_eq!(at_row(json!({"data": [[0, 1, 0.5, 2, 1, 1]]})), Some(0));
        assert_eq!(at_row(json!({"data": []})), None);
        assert!(matches!(read_json(&json!({"data": {"close": [1]}})), Err(Refusal::Shape(_))));
        assert!(matches!(
            read_json(&json!({"data": [row(json!(1))], "symbol": "ETH"})),
            Err(Refusal::Shape(_))
        ));
        let many: Vec<Value> = (0..4).map(|at| row(json!(at))).collect();
        assert!(matches!(read_json(&json!({"data": many})), Err(Refusal::TooMuch(_))));
    }
}
