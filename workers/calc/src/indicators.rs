//! `POST /calculations/indicators`.

use serde::Deserialize;
use serde_json::{Map, Value as Json};
use sluice_calc::{CatalogError, Compat, Indicator, Value, catalog};
use sluice_wire::symbol::{Symbol, Timeframe};

use crate::body::{self, WithData};
use crate::bounds::{CELLS_MAX, ID_BYTES_MAX, INDICATORS_MAX};
use crate::data::{NanRule, Series};
use crate::encode;
use crate::error::Refusal;
use crate::pool::Scratch;
use crate::seeds;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) symbol: Option<Symbol>,
    pub(crate) timeframe: Option<Timeframe>,
    /// Checked to be there before anything is computed.
    pub(crate) data: Option<Series>,
    pub(crate) indicators: Vec<Ask>,
    #[serde(default)]
    pub(crate) output: Output,
    #[serde(default)]
    pub(crate) nan: NanRule,
    pub(crate) compat: Option<String>,
    /// Sent by the platforms' older clients beside the indicators; it has no meaning here.
    #[serde(default, rename = "strategy_config")]
    _strategy_config: Option<serde::de::IgnoredAny>,
}

impl WithData for Request {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

/// One wished indicator: a name, or a name with parameters and an id.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Ask {
    /// `"rsi"`.
    Name(String),
    /// `{"name":"macd","fast":12,"id":"m1"}`.
    Full(Map<String, Json>),
}

/// How much of each output is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Output {
    /// Every bar.
    #[default]
    Full,
    /// The newest bars.
    Tail(usize),
}

impl TryFrom<String> for Output {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "full" => Ok(Self::Full),
            "last" => Ok(Self::Tail(1)),
            _ => text
                .strip_prefix("tail:")
                .and_then(|bars| bars.parse().ok())
                .filter(|bars| *bars > 0)
                .map(Self::Tail)
                .ok_or_else(|| "output is `full`, `last` or `tail:N`".to_owned()),
        }
    }
}

/// An indicator with the id it is answered under.
struct Wish {
    id: String,
    indicator: Indicator,
}

/// Computes a body; returns the answer and the number of rows.
pub(crate) fn answer(
    body: &[u8],
    rows_max: usize,
    scratch: &mut Scratch,
) -> Result<(Vec<u8>, usize), Refusal> {
    let mut request: Request = body::parse(body)?;
    if request.indicators.len() > INDICATORS_MAX {
        return Err(Refusal::TooMuch(format!("more than {INDICATORS_MAX} indicators")));
    }
    if let Some(ask) = request.indicators.iter().find(|ask| ask.name().len() > ID_BYTES_MAX) {
        let start: String = ask.name().chars().take(ID_BYTES_MAX).collect();
        return Err(Refusal::Unknown { kind: "indicator", name: start, nearest: None });
    }
    let compat = compat(&request)?;
    let mut data = request.data.take().ok_or_else(|| Refusal::Shape("missing field `data`".to_owned()))?;
    let from = data.check(rows_max, request.nan)?;
    let rows = data.close.len();
    if compat == Compat::TradPal {
        return seeds::answer(&request, &data, from, scratch).map(|answer| (answer, rows));
    }
    let wishes = wishes(&request.indicators, compat)?;
    bounded(wishes.iter().map(|wish| wish.indicator.outputs().len() * rows).sum())?;
    write(&request, &data, &wishes, from, scratch).map(|answer| (answer, rows))
}

/// Refuses an answer with more values than the limit.
pub(crate) fn bounded(cells: usize) -> Result<(), Refusal> {
    if cells > CELLS_MAX {
        return Err(Refusal::TooMuch(format!("{cells} values are more than the limit of {CELLS_MAX}")));
    }
    Ok(())
}

/// The conventions asked for; the names of the older platform bring its conventions with them.
fn compat(request: &Request) -> Result<Compat, Refusal> {
    match &request.compat {
        Some(name) => Compat::find(name)
            .ok_or_else(|| Refusal::Parameter("compat is `talib`, `tradpal` or `tradingview`".to_owned())),
        None if request.indicators.iter().any(|ask| seeds::is_seed_name(ask.name())) => Ok(Compat::TradPal),
        None => Ok(Compat::TaLib),
    }
}

impl Ask {
    /// The name; empty when a full form has none.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Full(fields) => fields.get("name").and_then(Json::as_str).unwrap_or_default(),
        }
    }
}

fn wishes(asks: &[Ask], compat: Compat) -> Result<Vec<Wish>, Refusal> {
    let mut wishes: Vec<Wish> = Vec::with_capacity(asks.len());
    for ask in asks {
        let (id, parameters) = match ask {
            Ask::Name(name) => (name.clone(), Vec::new()),
            Ask::Full(fields) => (id(fields)?.to_owned(), parameters(fields)?),
        };
        if wishes.iter().any(|wish| wish.id == id) {
            let id: String = id.chars().take(ID_BYTES_MAX).collect();
            return Err(Refusal::Shape(format!("id `{id}` is used twice")));
        }
        let indicator =
            Indicator::parse(ask.name(), compat, &parameters).map_err(|error| refusal(error, "indicator"))?;
        wishes.push(Wish { id, indicator });
    }
    Ok(wishes)
}

fn id(fields: &Map<String, Json>) -> Result<&str, Refusal> {
    let id = match fields.get("id").or_else(|| fields.get("name")) {
        Some(Json::String(id)) => id.as_str(),
        _ => return Err(Refusal::Shape("an indicator needs a `name`, and its `id` is a text".to_owned())),
    };
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(Refusal::Shape(format!("an id has 1 to {ID_BYTES_MAX} bytes")));
    }
    Ok(id)
}

/// The parameters among the fields of an indicator or strategy.
pub(crate) fn parameters(fields: &Map<String, Json>) -> Result<Vec<(&str, Value<'_>)>, Refusal> {
    let own = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "name" | "id"));
    own.map(|(name, value)| match value {
        Json::Number(number) => Ok((name.as_str(), Value::Number(number.as_f64().unwrap_or(f64::NAN)))),
        Json::String(word) => Ok((name.as_str(), Value::Word(word))),
        _ => Err(Refusal::Parameter(format!("parameter `{}` is a number or a word", name.escape_default()))),
    })
    .collect()
}

/// What the catalogue refuses, with the nearest name where one is unknown.
pub(crate) fn refusal(error: CatalogError, kind: &'static str) -> Refusal {
    match error {
        CatalogError::UnknownName { name } => {
            let known: Vec<&str> = if kind == "strategy" {
                sluice_calc::signal::STRATEGIES.iter().map(|entry| entry.name).collect()
            } else {
                catalog::entries().map(|entry| entry.name).collect()
            };
            let nearest = known
                .into_iter()
                .map(|known| (strsim::damerau_levenshtein(known, &name), known))
                .filter(|(distance, known)| *distance <= known.len().div_ceil(2))
                .min();
            Refusal::Unknown { kind, name, nearest: nearest.map(|(_, known)| known.to_owned()) }
        }
        other => Refusal::Parameter(other.to_string()),
    }
}

fn write(
    request: &Request,
    data: &Series,
    wishes: &[Wish],
    from: usize,
    scratch: &mut Scratch,
) -> Result<Vec<u8>, Refusal> {
    let mut out = head(request, data.close.len());
    let mut first = true;
    for wish in wishes {
        encode::key(&mut out, &mut first, &wish.id);
        out.push(b'{');
        let mut first_output = true;
        compute(&wish.indicator, data, from, scratch, |name, values| {
            encode::key(&mut out, &mut first_output, name);
            let (skipped, values) = cut(request.output, from, values);
            encode::column(&mut out, skipped, values);
        })?;
        out.push(b'}');
    }
    out.extend_from_slice(b"},\"lookback\":{");
    let mut first = true;
    for wish in wishes {
        encode::key(&mut out, &mut first, &wish.id);
        out.extend_from_slice(wish.indicator.lookback().to_string().as_bytes());
    }
    out.extend_from_slice(b"}}");
    Ok(out)
}

/// Everything up to the opening brace of `indicators`.
pub(crate) fn head(request: &Request, rows: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + rows * 20);
    out.extend_from_slice(b"{\"success\":true");
    let texts = [
        ("symbol", request.symbol.as_ref().map(Symbol::as_str)),
        ("timeframe", request.timeframe.as_ref().map(Timeframe::as_str)),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            encode::key(&mut out, &mut false, name);
            encode::text(&mut out, value);
        }
    }
    out.extend_from_slice(format!(",\"count\":{rows},\"indicators\":{{").as_bytes());
    out
}

/// The part of an output that is answered, and how many nulls stand before it.
pub(crate) fn cut(output: Output, from: usize, values: &[f64]) -> (usize, &[f64]) {
    match output {
        Output::Full => (from, values),
        Output::Tail(bars) => (0, &values[values.len().saturating_sub(bars)..]),
    }
}

/// Computes an indicator and hands each output to `take`, in the order of its names.
pub(crate) fn compute(
    indicator: &Indicator,
    data: &Series,
    from: usize,
    scratch: &mut Scratch,
    mut take: impl FnMut(&'static str, &[f64]),
) -> Result<(), Refusal> {
    let bars = data.bars(from)?;
    let names = indicator.outputs();
    let mut buffers: Vec<Vec<f64>> = names.iter().map(|_| scratch.take(bars.len())).collect();
    let mut outs: Vec<&mut [f64]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
    let computed = indicator.compute(scratch.workspace(), &bars, &mut outs);
    for (name, buffer) in names.iter().zip(buffers) {
        if computed.is_ok() {
            take(name, &buffer);
        }
        scratch.give(buffer);
    }
    computed.map_err(|error| Refusal::Series { row: None, text: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(body: Json) -> Result<Json, Refusal> {
        let (bytes, _) = answer(
            body.to_string().as_bytes(),
            1_000,
            &mut Scratch::new(sluice_calc::Cpu::proven().unwrap()),
        )?;
        Ok(serde_json::from_slice(&bytes).unwrap())
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
        assert!(matches!(with(json!([{"name": "sma", "period": [5]}])), Err(Refusal::Parameter(_))));
        assert!(matches!(with(json!(["sma", "sma"])), Err(Refusal::Shape(_))));
        assert!(matches!(with(json!(["atr"])), Err(Refusal::Series { row: None, .. })));
        let many: Vec<_> = (0..65).map(|at| json!({"name": "sma", "id": format!("s{at}")})).collect();
        assert!(matches!(with(json!(many)), Err(Refusal::TooMuch(_))));
        assert!(matches!(
            ask(json!({"data": {"close": []}, "indicators": [], "x": 1})),
            Err(Refusal::Shape(_))
        ));
    }
}
