//! Bars over HTTP: the calculations asked in each form that they take, JSON, plain columns and Arrow.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::Schema;
use memchr::memmem;
use serde_json::{Value, json};
use sluice_calc::{Bars, Compat, Cpu, Indicator, Workspace};

use crate::account::pin_process;
use crate::check::ask;
use crate::kernels::walk;
use crate::program::Identity;
use crate::question::Request;
use crate::sluice::{ABSENT, PROGRAM, binary, up};
use crate::subject::{Running, Site, StartError, Starting, Subject};
use crate::voice::Expects;

const SETTINGS: &str = include_str!("../peers/sluice-calc.toml");
const NAMES: [&str; 6] = ["timestamp", "open", "high", "low", "close", "volume"];
/// What is computed of the bars.
const INDICATORS: [&str; 4] = ["sma", "ema", "rsi", "macd"];
/// LIMIT: with the request's head they fit the socket's buffer, because it is sent in one write.
pub(crate) const BARS_MAX: u32 = 800;

/// A form of bars, out and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Rows as exchanges send them; arrays back.
    Json,
    /// `application/x-sluice-columns`.
    Columns,
    /// Arrow's IPC stream.
    Arrow,
}

/// The calculations, asked in one form.
#[derive(Debug)]
pub(crate) struct Calculations {
    name: &'static str,
    policies: &'static str,
    form: Form,
    program: Option<PathBuf>,
}

/// Every form; `program` is the Sluice that was asked for.
pub(crate) fn all(program: Option<&Path>) -> Vec<Calculations> {
    let of = |name, policies, form| Calculations { name, policies, form, program: binary(program) };
    vec![
        of(
            "sluice-calc-json",
            "the calculation worker at its own port: JWT ES256, rows of JSON, arrays back",
            Form::Json,
        ),
        of("sluice-calc-columns", "the same with plain columns, there and back", Form::Columns),
        of("sluice-calc-arrow", "the same with Arrow's IPC stream, there and back", Form::Arrow),
    ]
}

impl Subject for Calculations {
    fn name(&self) -> &str {
        self.name
    }

    fn program(&self) -> &str {
        PROGRAM
    }

    fn policies(&self) -> &str {
        self.policies
    }

    fn sets_request_id(&self) -> bool {
        true
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move {
            let missing = || StartError::Missing(ABSENT.into());
            Ok(started(self.program.as_deref().ok_or_else(missing)?, self.form, site).await?)
        })
    }
}

/// The calculation worker alone goes to the first core; the other roles idle beside the generator.
async fn started(program: &Path, form: Form, site: &Site<'_>) -> anyhow::Result<Running> {
    let identity = Identity::ask(program, "--version", program.display().to_string())?;
    let config = site.dir.join("sluice.toml");
    std::fs::write(&config, SETTINGS).with_context(|| format!("write {}", config.display()))?;
    let (child, banner) = up(program, site, config).await?;
    let (url, worker) = banner.calc.zip(banner.pids.calc).context("the ready line has no calculations")?;
    let token = banner.token.context("the ready line has no token")?;
    let address = url.strip_prefix("http://").unwrap_or(&url);
    let address = address.parse().with_context(|| format!("address of the calculations `{address}`"))?;
    if let Some(cores) = site.cores {
        pin_process(worker, cores.proxy)?;
    }
    let authorization = Some(format!("Bearer {token}"));
    Ok(Running { authorization, form: Some(form), ..Running::new(identity, address, worker, child) })
}

/// Bars as an exchange sends them: milliseconds and prices of two decimals.
fn bars(count: u32) -> [Vec<f64>; 6] {
    let [open, high, low, close, volume] = walk(count as usize)
        .map(|column| column.into_iter().map(|value| (value * 100.0).round() / 100.0).collect::<Vec<f64>>());
    let times = (0..count).map(|at| 1_700_000_000_000.0 + f64::from(at) * 60_000.0).collect();
    [times, open, high, low, close, volume]
}

impl Form {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Columns => "application/x-sluice-columns",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The request for the indicators of so many bars, and what stands in a right answer.
    pub(crate) fn request(
        self,
        host: &str,
        credentials: &str,
        count: u32,
    ) -> anyhow::Result<(Request, Expects)> {
        let (kind, body) = (self.media_type(), self.body(&bars(count))?);
        let head = format!(
            "POST /calculations/indicators HTTP/1.1\r\nHost: {host}\r\nAuthorization: {credentials}\r\n\
             Content-Type: {kind}\r\nAccept: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let expected = if self == Self::Json { "\"rsi\":" } else { "rsi.value" };
        Ok((Request::plain([head.as_bytes(), &body].concat()), Expects::Says(expected)))
    }

    fn body(self, columns: &[Vec<f64>; 6]) -> anyhow::Result<Vec<u8>> {
        let rows = columns[0].len();
        Ok(match self {
            Self::Json => {
                let row =
                    |at: usize| -> Vec<Value> { columns.iter().map(|column| short(column[at])).collect() };
                let rows: Vec<_> = (0..rows).map(row).collect();
                json!({ "indicators": INDICATORS, "data": rows }).to_string().into_bytes()
            }
            Self::Columns => {
                let place = |(at, name): (usize, &&str)| {
                    let kind = if at == 0 { "i64" } else { "f64" };
                    // Each column begins at a multiple of 64.
                    json!({ "name": name, "type": kind, "offset": at * (rows * 8).next_multiple_of(64) })
                };
                let places: Vec<_> = NAMES.iter().enumerate().map(place).collect();
                let header =
                    json!({ "rows": rows, "columns": places, "request": { "indicators": INDICATORS } });
                let mut header = header.to_string();
                while !(12 + header.len()).is_multiple_of(64) {
                    header.push(' ');
                }
                let mut body = b"SLCOLS1\n".to_vec();
                body.extend(u32::try_from(header.len())?.to_le_bytes());
                body.extend(header.as_bytes());
                let begin = body.len();
                for (at, column) in columns.iter().enumerate() {
                    body.resize(begin + at * (rows * 8).next_multiple_of(64), 0);
                    match at {
                        0 => body.extend(column.iter().flat_map(|value| (*value as i64).to_le_bytes())),
                        _ => body.extend(column.iter().flat_map(|value| value.to_le_bytes())),
                    }
                }
                body
            }
            Self::Arrow => {
                let array = |(at, column): (usize, &Vec<f64>)| -> ArrayRef {
                    match at {
                        0 => Arc::new(Int64Array::from_iter_values(column.iter().map(|value| *value as i64))),
                        _ => Arc::new(Float64Array::from(column.clone())),
                    }
                };
                let arrays = columns.iter().enumerate().map(array);
                let batch = RecordBatch::try_from_iter(NAMES.into_iter().zip(arrays))?;
                let request = json!({ "indicators": INDICATORS }).to_string();
                let metadata = HashMap::from([("sluice.request".to_owned(), request)]);
                let schema = Schema::new_with_metadata(batch.schema().fields().clone(), metadata);
                let batch = batch.with_schema(Arc::new(schema))?;
                let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
                writer.write(&batch)?;
                writer.into_inner()?
            }
        })
    }

    /// Whether an answer holds this number, as this form writes one.
    fn holds(self, body: &[u8], number: f64) -> bool {
        match self {
            Self::Json => serde_json::from_slice::<Value>(body).is_ok_and(|told| {
                told["indicators"]["rsi"]["value"].as_array().and_then(|all| all.last()?.as_f64())
                    == Some(number)
            }),
            Self::Columns | Self::Arrow => memmem::find(body, &number.to_le_bytes()).is_some(),
        }
    }
}

/// As exchanges write it: without a point where there is nothing behind it.
fn short(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// Each form must give the number that the library in this process computes.
pub(crate) fn computes_rightly(running: &Running, count: u32) -> anyhow::Result<()> {
    let form = running.form.context("no calculations")?;
    let [_, open, high, low, close, volume] = bars(count);
    let view = Bars::ohlcv(&open, &high, &low, &close, &volume)?;
    let (indicator, mut values) = (Indicator::parse("rsi", Compat::TaLib, &[])?, vec![0.0; count as usize]);
    indicator.compute(&mut Workspace::new(Cpu::proven()?), &view, &mut [&mut values])?;
    let credentials = running.authorization.as_deref().unwrap_or_default();
    let (mut request, _) = form.request(&running.address.to_string(), credentials, count)?;
    let answer = ask(&running.place()?, request.fresh())?;
    let text = || String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]).into_owned();
    ensure!(answer.status == 200, "status {}: {}", answer.status, text());
    let last = values.last().copied().unwrap_or(f64::NAN);
    ensure!(form.holds(&answer.body, last), "the last rsi is not {last}: {}", text());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_every_form_are_whole_and_fit_one_write() {
        for form in [Form::Json, Form::Columns, Form::Arrow] {
            let (request, _) = form.request("h:1", "Bearer t", BARS_MAX).unwrap();
            let bytes = request.same();
            let end = memmem::find(bytes, b"\r\n\r\n").unwrap() + 4;
            let head = std::str::from_utf8(&bytes[..end]).unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", bytes.len() - end)), "{head}");
            assert!(bytes.len() < 64 * 1024, "{form:?}: {}", bytes.len());
        }
    }

    #[test]
    fn numbers_are_found_as_each_form_writes_them() {
        let json = br#"{"indicators":{"rsi":{"value":[null,51.25]}}}"#;
        assert!(Form::Json.holds(json, 51.25) && !Form::Json.holds(json, 51.0));
        let plain = [&[0; 8][..], &51.25_f64.to_le_bytes()].concat();
        assert!(Form::Arrow.holds(&plain, 51.25) && !Form::Columns.holds(&plain, 51.0));
    }
}
