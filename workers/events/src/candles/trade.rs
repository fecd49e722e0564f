//! A trade in a market data event.

use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use foldhash::fast::FixedState;
use jiff::Timestamp;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_wire::event::parse_time;
use sluice_wire::json::Scanner;
use sluice_wire::symbol::Symbol;

use super::book::Trade;

/// Numbers below this are seconds since 1970, others milliseconds.
const SECONDS_MAX: f64 = 1e11;

/// The members that matter, under the names that feeds give them.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    data: Found<'a>,
}

/// The same as text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Data<'a> {
    price: Option<&'a str>,
    volume: Option<&'a str>,
    size: Option<&'a str>,
    quantity: Option<&'a str>,
    amount: Option<&'a str>,
    timestamp: Option<&'a str>,
    time: Option<&'a str>,
    trade_id: Option<&'a str>,
    id: Option<&'a str>,
    open: Option<&'a str>,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow, default)]
    price: Option<&'a RawValue>,
    #[serde(borrow, default)]
    volume: Option<&'a RawValue>,
    #[serde(borrow, default)]
    size: Option<&'a RawValue>,
    #[serde(borrow, default)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    amount: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(borrow, default)]
    trade_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    /// A bar or a ticker has it: no trade.
    #[serde(borrow, default)]
    open: Option<&'a RawValue>,
}

/// The trade that an event tells of; `None` when it tells of none: no price, a bar, a text that is no number.
pub(crate) fn trade(symbol: &str, event_time_us: i64, json: &[u8]) -> Option<Trade> {
    // Most market data is no trade. A name may be written with escapes.
    static PRICE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\"price\""));
    if PRICE.find(json).is_none() && memchr::memchr(b'\\', json).is_none() {
        return None;
    }
    // What could not stand in a path of the stored series is no symbol of a candle either.
    let symbol = Symbol::parse(symbol).ok()?;
    let data = at_once(json).or_else(|| looked_at(json))?;
    if data.open.is_some() {
        return None;
    }
    let price = number(data.price?)?;
    let volume = match data.volume.or(data.size).or(data.quantity).or(data.amount) {
        Some(raw) => number(raw).filter(|volume| *volume >= 0.0)?,
        None => 0.0,
    };
    let time_ms = match data.timestamp.or(data.time) {
        Some(raw) => time_ms(raw)?,
        None => event_time_us.div_euclid(1_000),
    };
    let id = data.trade_id.or(data.id);
    let exchange_id = id.map(|raw| FixedState::default().hash_one((symbol.as_str(), raw)));
    Some(Trade { symbol: symbol.as_str().into(), price, volume, time_ms, exchange_id })
}

/// The members of the data in one pass, which costs a quarter of what serde does; `None` for what takes it, names with
/// escapes above all.
fn at_once(json: &[u8]) -> Option<Data<'_>> {
    let mut scanner = Scanner::new(json).ok()?;
    let mut data = None;
    let read = scanner.object(|scanner, name| {
        if name != "data" || scanner.peek() != Some(b'{') {
            return scanner.value().map(|_| ());
        }
        let found = data.insert(Data::default());
        scanner.object(|scanner, name| {
            let text = scanner.value()?.text;
            if let Some(slot) = found.slot(name) {
                *slot = Some(text).filter(|text| *text != "null");
            }
            Ok(())
        })
    });
    read.ok().and(data)
}

/// The same by serde.
fn looked_at(json: &[u8]) -> Option<Data<'_>> {
    let found = serde_json::from_slice::<Event<'_>>(json).ok()?.data;
    Some(Data {
        price: text(found.price),
        volume: text(found.volume),
        size: text(found.size),
        quantity: text(found.quantity),
        amount: text(found.amount),
        timestamp: text(found.timestamp),
        time: text(found.time),
        trade_id: text(found.trade_id),
        id: text(found.id),
        open: text(found.open),
    })
}

fn text(raw: Option<&RawValue>) -> Option<&str> {
    raw.map(RawValue::get)
}

impl<'a> Data<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        Some(match name {
            "price" => &mut self.price,
            "volume" => &mut self.volume,
            "size" => &mut self.size,
            "quantity" => &mut self.quantity,
            "amount" => &mut self.amount,
            "timestamp" => &mut self.timestamp,
            "time" => &mut self.time,
            "trade_id" => &mut self.trade_id,
            "id" => &mut self.id,
            "open" => &mut self.open,
            _ => return None,
        })
    }
}

/// A finite number, perhaps as a text.
fn number(raw: &str) -> Option<f64> {
    raw.trim_matches('"').parse().ok().filter(|number: &f64| number.is_finite())
}

fn time_ms(raw: &str) -> Option<i64> {
    if let Some(number) = number(raw) {
        let ms = if number.abs() < SECONDS_MAX { number * 1e3 } else { number };
        return Some(ms as i64);
    }
    parse_time(raw.trim_matches('"')).map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(data: &str) -> Option<Trade> {
        let json = format!(r#"{{"event_type":"market_data_update","data":{data},"metadata":{{}}}}"#);
        trade("BTC/USDT", 7_500_000, json.as_bytes())
    }

    #[test]
    fn trades_are_read_in_the_forms_that_feeds_send() {
        let plain = read(r#"{"symbol":"BTC/USDT","price":45000,"volume":100}"#).unwrap();
        assert_eq!(
            (plain.price, plain.volume, plain.time_ms, plain.exchange_id),
            (45_000.0, 100.0, 7_500, None)
        );
        let texts = read(r#"{"price":"1.5","size":"2","timestamp":1795255200123,"trade_id":"a"}"#).unwrap();
        assert_eq!((texts.price, texts.volume, texts.time_ms), (1.5, 2.0, 1_795_255_200_123));
        assert_eq!(texts.exchange_id, read(r#"{"price":9,"id":"a"}"#).unwrap().exchange_id);
        assert_ne!(texts.exchange_id, read(r#"{"price":9,"id":"b"}"#).unwrap().exchange_id);
        assert_eq!(read(r#"{"price":1,"time":1795255200}"#).unwrap().time_ms, 1_795_255_200_000);
        assert_eq!(read(r#"{"price":1,"time":"2026-11-21T10:00:00Z"}"#).unwrap().time_ms, 1_795_255_200_000);
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_serde_finds(
            members in prop::collection::btree_map(
                prop::sample::select(vec![
                    "price", "volume", "size", "quantity", "amount", "timestamp", "time", "trade_id", "id", "open",
                    "symbol", "pri\\u0063e",
                ]),
                prop::sample::select(vec!["null", "1", "\"x\"", "\"a\\\"b\"", "[1, 2]", "{\"price\":3}", "1e9"]),
                0..8,
            ),
        ) {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            let json = format!(r#"{{"event_type":"x","data":{{{}}},"metadata":{{"price":7}}}}"#, members.join(","));
            let found = looked_at(json.as_bytes());
            match at_once(json.as_bytes()) {
                Some(data) => prop_assert_eq!(Some(data), found),
                None => prop_assert!(json.contains('\\'), "only escapes take another look: {}", json),
            }
        }
    }

    #[test]
    fn what_is_no_trade_is_none() {
        for data in [
            r#"{"open":1,"price":1,"close":2}"#,
            r#"{"volume":1}"#,
            r#"{"price":"x"}"#,
            r#"{"price":"NaN"}"#,
            r#"{"price":1,"volume":-1}"#,
            r#"{"price":1,"timestamp":"yesterday"}"#,
            r#"{"price":null}"#,
            "[]",
        ] {
            assert_eq!(read(data), None, "{data}");
        }
        assert_eq!(trade("", 0, br#"{"data":{"price":1}}"#), None);
        assert_eq!(trade("a b", 0, br#"{"data":{"price":1}}"#), None);
    }
}
