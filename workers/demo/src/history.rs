//! The shipped price history.

use jiff::civil::Date;
use serde_json::{Value, json};

use crate::error::DemoError;

/// One daily bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Midnight UTC of the day, milliseconds since the epoch.
    pub time_ms: i64,
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Shares traded.
    pub volume: f64,
}

impl Bar {
    /// The row `[time_ms, open, high, low, close, volume]`.
    pub fn row(&self) -> Value {
        json!([self.time_ms, self.open, self.high, self.low, self.close, self.volume])
    }
}

/// The bars of one symbol, oldest first.
#[derive(Debug, Clone)]
pub struct Series {
    /// The symbol.
    pub symbol: &'static str,
    /// Its bars.
    pub bars: Vec<Bar>,
}

const FILES: [(&str, &str); 7] = [
    ("AAPL", include_str!("../../../conf/demo/AAPL.csv")),
    ("FB", include_str!("../../../conf/demo/FB.csv")),
    ("GOOG", include_str!("../../../conf/demo/GOOG.csv")),
    ("IBM", include_str!("../../../conf/demo/IBM.csv")),
    ("MSFT", include_str!("../../../conf/demo/MSFT.csv")),
    ("NASDAQ", include_str!("../../../conf/demo/NASDAQ.csv")),
    ("SP500", include_str!("../../../conf/demo/SP500.csv")),
];

/// Symbol whose bars stand in for symbols without shipped history.
pub const STAND_IN: &str = "NASDAQ";

/// Reads every shipped file.
pub fn load() -> Result<Vec<Series>, DemoError> {
    FILES.into_iter().map(|(symbol, text)| Ok(Series { symbol, bars: parse(symbol, text)? })).collect()
}

fn parse(file: &'static str, text: &str) -> Result<Vec<Bar>, DemoError> {
    let numbered = text.lines().enumerate().skip(1);
    numbered.map(|(at, line)| bar(line).ok_or(DemoError::History { file, line: at + 1 })).collect()
}

fn bar(line: &str) -> Option<Bar> {
    let mut fields = line.split(',');
    let date: Date = fields.next()?.parse().ok()?;
    let time_ms = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    let mut number = || fields.next()?.parse::<f64>().ok().filter(|value| value.is_finite());
    Some(Bar {
        time_ms,
        open: number()?,
        high: number()?,
        low: number()?,
        close: number()?,
        volume: number()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_bars_are_sorted_and_sane() {
        let series = load().unwrap();
        assert_eq!(series.iter().map(|series| series.bars.len()).sum::<usize>(), 22_216);
        for Series { symbol, bars } in series {
            assert!(bars.windows(2).all(|pair| pair[0].time_ms < pair[1].time_ms), "{symbol}");
            assert!(
                bars.iter()
                    .all(|bar| bar.low <= bar.open.min(bar.close) && bar.high >= bar.open.max(bar.close))
            );
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = parse("X", "date,open\n2000-01-01,1,2,0.5,1,10\n2000-01-02,1,2,x,1,10\n").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
