//! The answer shape of the older calculation service: flat keys under `compat = "tradpal"`.
//!
//! Its names (`bb`, `stochastic`) and fixed parameters: EMA 9 and 21, RSI levels 30 and 70.

use sluice_calc::{Compat, Indicator, Value};

use crate::coalesce;
use crate::encode::{Encoder, Item, Shape};
use crate::error::Refusal;
use crate::indicators::{Answer, Ask, Prepared, compute_over, cut, parameters, refusal};
use crate::pool::Scratch;
use crate::series::source::Source;

/// Most columns that one name brings.
const OUTPUTS_MAX: usize = 3;
const OVERSOLD: f64 = 30.0;
const OVERBOUGHT: f64 = 70.0;

/// Whether a name exists only in the older service.
pub(crate) fn is_seed_name(name: &str) -> bool {
    matches!(name, "bb" | "stochastic")
}

/// Flat columns, in the order they were asked for.
struct Flat {
    columns: Vec<(&'static str, Vec<f64>)>,
}

/// Computes a request in the older shape.
pub(crate) fn answer(prepared: &Prepared, scratch: &mut Scratch) -> Result<Answer, Refusal> {
    let Prepared { request, source, from, format, .. } = prepared;
    let asked = || request.indicators.iter().map(Ask::name);
    if let Some((_, twice)) =
        asked().enumerate().find(|(at, name)| asked().take(*at).any(|before| before == *name))
    {
        return Err(Refusal::Shape(format!("`{twice}` is asked for twice")));
    }
    let count = source.len();
    prepared.bounded_cells(request.indicators.len() * OUTPUTS_MAX * count)?;
    let mut flat = Flat { columns: Vec::new() };
    for ask in &request.indicators {
        flat.add(ask, source, *from, scratch)?;
    }
    let rows = prepared.rows();
    let item =
        |(name, _): &(&'static str, Vec<f64>)| Item { id: (*name).to_owned(), shape: Shape::Flat, rows };
    let layout = coalesce::layout(prepared, flat.columns.iter().map(item).collect(), rows);
    let mut encoder = Encoder::begin(&layout, *format, Vec::new())?;
    for (_, values) in &flat.columns {
        let (skipped, values) = cut(request.output, *from, values);
        encoder.column(skipped, values);
    }
    Ok(Answer { bytes: encoder.finish()?, format: *format, rows: count, room: None })
}

impl Flat {
    fn add(&mut self, ask: &Ask, data: &Source, from: usize, scratch: &mut Scratch) -> Result<(), Refusal> {
        let given = match ask {
            Ask::Name(_) => Vec::new(),
            Ask::Full(fields) => parameters(fields)?,
        };
        let mut run = |name: &str, given: &[(&str, Value<'_>)], keys: &[&'static str]| {
            let indicator = Indicator::parse(name, Compat::TradPal, given)
                .map_err(|error| refusal(error, "indicator"))?;
            let mut keys = keys.iter();
            compute_over(&indicator, &data.bars(from)?, scratch, |_, values| {
                if let Some(key) = keys.next() {
                    self.columns.push((key, values.to_vec()));
                }
            })
        };
        match ask.name() {
            "ema" => {
                if !given.is_empty() {
                    return Err(Refusal::Parameter("the older `ema` has fixed periods, 9 and 21".to_owned()));
                }
                run("ema", &[("period", Value::Number(9.0))], &["ema_short"])?;
                run("ema", &[("period", Value::Number(21.0))], &["ema_long"])?;
                self.crossover();
            }
            "rsi" => {
                run("rsi", &given, &["rsi"])?;
                self.levels();
            }
            "bb" | "bbands" => run("bbands", &given, &["bb_upper", "bb_middle", "bb_lower"])?,
            "macd" => run("macd", &given, &["macd_line", "macd_signal", "macd_histogram"])?,
            "stochastic" | "stoch" => run("stoch", &given, &["stoch_k", "stoch_d"])?,
            "atr" => run("atr", &given, &["atr"])?,
            "adx" => run("adx", &given, &["adx"])?,
            "obv" => run("obv", &given, &["obv"])?,
            "sma" => run("sma", &given, &["sma"])?,
            other => {
                return Err(refusal(
                    sluice_calc::CatalogError::UnknownName { name: other.to_owned() },
                    "indicator",
                ));
            }
        }
        Ok(())
    }

    fn last(&self, name: &str) -> Vec<f64> {
        let found = self.columns.iter().rev().find(|(known, _)| *known == name);
        found.map(|(_, values)| values.clone()).unwrap_or_default()
    }

    /// 1 where the short average is above the long one, -1 below, 0 where they are equal.
    fn crossover(&mut self) {
        let (short, long) = (self.last("ema_short"), self.last("ema_long"));
        let sides = short.iter().zip(&long).map(|(short, long)| {
            let difference = short - long;
            if difference.is_nan() || difference == 0.0 { difference } else { difference.signum() }
        });
        self.columns.push(("ema_crossover", sides.collect()));
    }

    /// 1 where the index is beyond its level, else 0.
    fn levels(&mut self) {
        let rsi = self.last("rsi");
        let mark = |beyond: fn(f64) -> bool| -> Vec<f64> {
            rsi.iter()
                .map(|value| if value.is_nan() { *value } else { f64::from(u8::from(beyond(*value))) })
                .collect()
        };
        let (low, high) = (mark(|value| value < OVERSOLD), mark(|value| value > OVERBOUGHT));
        self.columns.push(("rsi_oversold", low));
        self.columns.push(("rsi_overbought", high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn seed_names_bring_their_shape() {
        let rows: Vec<_> =
            (0..60).map(|at| json!([at, 10.0, 12.0, 8.0, 10.0 + f64::from(at % 7), 5.0])).collect();
        let body = json!({"symbol": "BTC/USDT", "timeframe": "1h", "data": rows,
            "indicators": ["ema", "rsi", "bb", "atr", "adx", "macd", "obv", "stochastic"]});
        let bytes = body.to_string().into();
        let incoming = crate::body::Incoming { format: crate::negotiate::Format::Json, bytes, query: None };
        let mut scratch = Scratch::new(sluice_calc::Cpu::proven().unwrap(), std::sync::Arc::default());
        let means = crate::series::source::Means { rows_max: 1_000, series: None };
        let answer = crate::indicators::answer(incoming, None, means, &mut scratch).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.bytes).unwrap();
        for key in [
            "ema_short",
            "ema_long",
            "ema_crossover",
            "rsi",
            "rsi_oversold",
            "rsi_overbought",
            "bb_upper",
            "bb_middle",
            "bb_lower",
            "atr",
            "adx",
            "macd_line",
            "macd_signal",
            "macd_histogram",
            "obv",
            "stoch_k",
            "stoch_d",
        ] {
            assert_eq!(answer["indicators"][key].as_array().map(Vec::len), Some(60), "{key}: {answer}");
        }
        assert!([1.0, -1.0, 0.0].contains(&answer["indicators"]["ema_crossover"][50].as_f64().unwrap()));
    }
}
