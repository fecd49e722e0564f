//! The three calls that spare a client the envelope: their bodies as events.

use std::borrow::Cow;

use serde_json::value::RawValue;
use sluice_wire::symbol::Symbol;

use crate::error::Fault;
use crate::incoming::{Incoming, loose, symbol_of};
use crate::json::{self, Members};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `{symbol, market_data:{…}, source?}`: the data is the market data with the symbol in front.
    MarketData,
    /// `{signal:{…}, source?}`, or the signal alone.
    TradingSignal,
    /// `{updates:{…}, source?}`.
    PortfolioUpdate,
}

/// Members that each of the bodies may have beside its content.
const COMMON: [&str; 4] = ["source", "event_id", "timestamp", "metadata"];

impl Call {
    /// Reads a body and hands it on as an event.
    pub(crate) fn read<T>(
        self,
        text: &str,
        then: impl FnOnce(&Incoming<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let whole: &RawValue =
            serde_json::from_str(text).map_err(|error| Fault::event("", error.to_string()))?;
        let body = Members::of(whole).ok_or_else(|| Fault::event("", "the body is not an object"))?;
        match self {
            Self::MarketData => {
                only(&body, &["symbol", "market_data"])?;
                let data = market_data(&body)?;
                then(&envelope("market_data_update", &body, &data)?)
            }
            Self::TradingSignal => match body.get("signal") {
                Some(signal) if signal.get().starts_with('{') => {
                    only(&body, &["signal"])?;
                    then(&envelope("trading_signal", &body, signal)?)
                }
                // The signal alone: every member is its own, `source` too.
                _ => then(&envelope("trading_signal", &Members::default(), whole)?),
            },
            Self::PortfolioUpdate => {
                only(&body, &["updates"])?;
                let updates =
                    body.get("updates").ok_or_else(|| Fault::event("/updates", "updates is missing"))?;
                then(&envelope("portfolio_update", &body, updates)?)
            }
        }
    }
}

fn only(body: &Members<'_>, own: &[&str]) -> Result<(), Fault> {
    let known = |key: &str| own.contains(&key) || COMMON.contains(&key);
    match body.0.iter().find(|(key, _)| !known(key)) {
        Some((key, _)) => {
            let key: String = key.chars().take(64).collect();
            Err(Fault::event("", format!("unknown field `{}`", key.escape_default())))
        }
        None => Ok(()),
    }
}

fn envelope<'a>(kind: &'a str, body: &Members<'a>, data: &'a RawValue) -> Result<Incoming<'a>, Fault> {
    let text = |name: &str, pointer: &'static str| -> Result<Option<Cow<'a, str>>, Fault> {
        let given = body.get(name).filter(|raw| raw.get() != "null");
        given
            .map(|raw| json::text(raw.get()))
            .transpose()
            .map_err(|_| Fault::event(pointer, format!("{name} is not a text")))
    };
    Ok(Incoming {
        event_type: Cow::Borrowed(kind),
        event_id: text("event_id", "/event_id")?,
        timestamp: body.get("timestamp").map(RawValue::get).filter(|text| *text != "null"),
        source: text("source", "/source")?,
        data: Some(loose(data)),
        metadata: body.get("metadata").filter(|raw| raw.get() != "null").map(loose),
        symbol: symbol_of(data.get()),
    })
}

fn market_data(body: &Members<'_>) -> Result<Box<RawValue>, Fault> {
    let symbol = body.get("symbol").ok_or_else(|| Fault::event("/symbol", "symbol is missing"))?;
    let symbol = json::text(symbol.get()).map_err(|_| Fault::event("/symbol", "symbol is not a text"))?;
    let symbol = Symbol::parse(&symbol).map_err(|error| Fault::event("/symbol", error.to_string()))?;
    let members = body
        .get("market_data")
        .and_then(Members::of)
        .ok_or_else(|| Fault::event("/market_data", "market_data is not an object"))?;
    if let Some(other) = members.get("symbol")
        && json::text(other.get()).ok().as_deref() != Some(symbol.as_str())
    {
        return Err(Fault::event("/market_data/symbol", "market_data names another symbol"));
    }
    let mut data = b"{\"symbol\":".to_vec();
    json::string(symbol.as_str(), &mut data);
    members.write_without(&["symbol"], false, &mut data);
    data.push(b'}');
    Ok(serde_json::from_slice(&data).expect("members of an object, put together again, are an object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(call: Call, text: &str) -> Result<(String, Option<String>, String), Fault> {
        call.read(text, |event| {
            let data = event.data.map(|data| data.text.to_owned()).unwrap_or_default();
            Ok((event.event_type.to_string(), event.source.as_deref().map(str::to_owned), data))
        })
    }

    #[test]
    fn market_data_has_its_symbol_in_front() {
        let text = r#"{"symbol":"BTC/USDT","market_data":{"price": 45000, "symbol":"BTC/USDT","volume":1.0},"source":"client"}"#;
        let (kind, source, data) = read(Call::MarketData, text).unwrap();
        assert_eq!((kind.as_str(), source.as_deref()), ("market_data_update", Some("client")));
        assert_eq!(data, r#"{"symbol":"BTC/USDT","price":45000,"volume":1.0}"#);
    }

    #[test]
    fn a_signal_comes_wrapped_or_alone() {
        let wrapped = r#"{"signal":{"symbol":"X","action":"BUY"},"source":"ml"}"#;
        assert_eq!(read(Call::TradingSignal, wrapped).unwrap().2, r#"{"symbol":"X","action":"BUY"}"#);
        let alone = r#"{"symbol":"X","signal":"BUY","confidence":0.85,"source":"ml"}"#;
        assert_eq!(read(Call::TradingSignal, alone).unwrap(), ("trading_signal".into(), None, alone.into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (call, text, pointer) in [
            (Call::MarketData, r#"{"market_data":{}}"#, "/symbol"),
            (Call::MarketData, r#"{"symbol":"a b","market_data":{}}"#, "/symbol"),
            (Call::MarketData, r#"{"symbol":"X"}"#, "/market_data"),
            (Call::MarketData, r#"{"symbol":"X","market_data":[]}"#, "/market_data"),
            (Call::MarketData, r#"{"symbol":"X","market_data":{"symbol":"Y"}}"#, "/market_data/symbol"),
            (Call::MarketData, r#"{"symbol":"X","market_data":{},"price":1}"#, ""),
            (Call::PortfolioUpdate, r#"{"source":"x"}"#, "/updates"),
            (Call::PortfolioUpdate, r#"{"updates":{},"source":7}"#, "/source"),
            (Call::TradingSignal, "[]", ""),
        ] {
            assert_eq!(read(call, text).unwrap_err().pointer.as_deref(), Some(pointer), "{text}");
        }
    }
}
