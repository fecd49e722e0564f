//! `sluice series`: importing candles, and listing what is stored.

pub(crate) mod args;
mod arrow;
mod csv;
mod import;
mod parquet;
mod piece;

use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use sluice_client::{Client, Reply};

use args::{Asked, List, Series, SeriesCommand};

use crate::args::Format;
use crate::events::block_on;
use crate::exit::{self, Code, Failure};
use crate::{control, role, say};

/// Variable with the address of the calculation worker.
const ADDRESS: &str = "CALC_SERVICE_URL";

/// Runs `sluice series …`: 0 done, 1 broken off, 2 refused, 3 done but for candles that were refused, 4 nobody there,
/// 130 interrupted.
pub(crate) fn run(args: &Series) -> Result<Code, Failure> {
    match &args.command {
        SeriesCommand::Import(import) => import::run(import),
        SeriesCommand::List(list) => self::list(list),
    }
}

/// A client of the calculation worker that the arguments name.
fn client(asked: &Asked) -> Result<Client, Failure> {
    let named = asked.url.clone().or_else(|| std::env::var(ADDRESS).ok().filter(|url| !url.is_empty()));
    let base = if let Some(url) = named {
        url
    } else {
        let listens = |config: &sluice_schema::Config| config.calc.listen;
        let known = control::address(&asked.common, asked.port_offset, role::NOTED_CALC, listens);
        format!("http://{}", known?)
    };
    let token = control::token(asked.token.as_deref(), &asked.common.data_dir);
    Client::api(&base, token).map_err(|error| Failure::new(exit::USAGE, error))
}

/// The JSON of an answer that went well; else the failure that its problem tells. `place` says where in the input the
/// row lies that the worker names by its place in the call.
fn json(reply: &Reply, place: impl Fn(u64) -> String) -> Result<Value, Failure> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if reply.status.is_success() {
        return Ok(body);
    }
    let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let row = body["index"].as_u64().map(|row| format!("{}: ", place(row))).unwrap_or_default();
    let hint = match reply.status {
        StatusCode::UNAUTHORIZED => "; give a token with --token, SLUICE_TOKEN or --data-dir",
        _ => "",
    };
    let text = format!(
        "{row}the calculation worker answers {}: {} {}{hint}",
        reply.status,
        word("code"),
        word("detail")
    );
    let code = if reply.status.is_client_error() { exit::USAGE } else { exit::RUNTIME };
    Err(Failure::new(code, anyhow::anyhow!("{text}")))
}

/// Runs `sluice series list`: page after page.
fn list(args: &List) -> Result<Code, Failure> {
    let client = client(&args.asked)?;
    block_on(async {
        let mut path = "/series".to_owned();
        loop {
            let answered = client.call(Method::GET, &path, HeaderMap::new(), "").await;
            let page = json(&answered.map_err(control::unreached)?, |row| format!("row {row}"))?;
            for series in page["series"].as_array().into_iter().flatten() {
                say::result(&match args.asked.format {
                    Format::Json => format!("{series}\n"),
                    Format::Text => line(series),
                })?;
            }
            let Some(cursor) = page["next_cursor"].as_str() else { return Ok(exit::OK) };
            path = crate::events::query("/series", &[("cursor", cursor)]);
        }
    })
}

/// One series in aligned columns.
fn line(series: &Value) -> String {
    let text = |name: &str| series[name].as_str().unwrap_or("-").to_owned();
    let time = |name: &str| {
        let time = series[name].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        time.map_or_else(|| text(name), |time| time.to_string())
    };
    let rows = crate::progress::grouped(series["rows"].as_u64().unwrap_or_default());
    let (symbol, timeframe) = (text("symbol"), text("timeframe"));
    format!("{symbol:<14} {timeframe:<5} {rows:>12}  {:<20}  {}\n", time("first"), time("last"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn a_refused_row_is_named_by_its_place_in_the_input() {
        let reply = |status: u16, body: &Value| Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_string().into(),
        };
        let place = |row: u64| format!("line {}", row + 2);
        assert_eq!(json(&reply(200, &value!({"a": 1})), place).unwrap()["a"], 1);
        let refused = reply(422, &value!({"code": "bad_series", "detail": "high < low", "index": 3}));
        let failure = json(&refused, place).unwrap_err();
        assert_eq!(failure.code, exit::USAGE);
        let said = failure.error.to_string();
        assert!(said.starts_with("line 5: ") && said.ends_with("bad_series high < low"), "{said}");
        assert_eq!(json(&reply(503, &value!({})), place).unwrap_err().code, exit::RUNTIME);
    }

    #[test]
    fn a_series_is_one_aligned_line() {
        let series =
            value!({"symbol": "BTC/USDT", "timeframe": "1m", "rows": 1_234, "first": 0, "last": 60_000});
        let line = line(&series);
        assert!(line.starts_with("BTC/USDT       1m           1,234  1970-01-01T00:00:00Z  "), "{line}");
    }
}
