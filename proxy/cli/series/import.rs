//! `sluice series import`.
//!
//! A file goes in pieces, one call after the other, and what was answered is on the disk. A call that was not answered
//! is made again: candles that are there already are counted and change nothing, so a broken import is simply repeated.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use sluice_client::{Client, ClientError, Reply};

use super::args::Import;
use super::piece::{Piece, Pieces};
use crate::args::Format;
use crate::exit::{self, Code, Failure};
use crate::pause::{Pause, asked};
use crate::progress::{Progress, grouped, rate, told};
use crate::{control, say};

/// Time for one call: a piece is a few MiB and one sync of the disk.
const CALL_WITHIN: Duration = Duration::from_secs(60);
/// Candles that were refused and are named.
const NAMED_MAX: usize = 5;

/// Runs `sluice series import`: 0 all are stored, 3 some were refused, 1 broken off, 2 refused, 4 nobody there, 130
/// interrupted.
pub(super) fn run(args: &Import) -> Result<Code, Failure> {
    let (mut pieces, size) = Pieces::open(&args.file)?;
    let client = super::client(&args.asked)?;
    let progress = Progress::new("candles", false);
    let mut run = Run { args, client, size, progress, totals: Totals::default(), met: false };
    crate::events::block_on(async {
        let ended = tokio::select! {
            ended = run.import(&mut pieces) => ended,
            _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
        };
        run.progress.clear();
        run.close(ended)
    })
}

/// What has been done.
#[derive(Debug, Default)]
struct Totals {
    /// Candles that were sent and answered.
    sent: u64,
    applied: u64,
    repeated: u64,
    /// Rows of the series now.
    rows: u64,
    gaps: u64,
    /// Candles that changed nothing and are not there.
    refused: u64,
    /// Begins of the first of them: there is a row with other numbers, or the series has passed them.
    named: Vec<(&'static str, i64)>,
}

struct Run<'a> {
    args: &'a Import,
    client: Client,
    size: Option<u64>,
    progress: Progress,
    totals: Totals,
    /// Whether a call was answered: who never was there is not waited for.
    met: bool,
}

impl Run<'_> {
    async fn import(&mut self, pieces: &mut Pieces) -> Result<Code, Failure> {
        let media = pieces.media();
        let mut replaces = self.args.replace;
        while let Some(piece) = self.next(pieces)? {
            let answer = self.send(&piece, media, replaces).await?;
            self.totals.count(&answer, piece.rows, replaces);
            replaces = false;
            let share = self.size.filter(|size| *size > 0 && piece.read > 0);
            let share = share.map(|size| piece.read as f64 / size as f64);
            self.progress.at("imported", self.totals.sent, share);
        }
        if self.totals.sent == 0 {
            return Err(Failure::usage(format!("{}: there are no candles", self.args.file.display())));
        }
        Ok(if self.totals.refused > 0 { exit::CHECK } else { exit::OK })
    }

    fn next(&self, pieces: &mut Pieces) -> Result<Option<Piece>, Failure> {
        let fault = |error| {
            let error = anyhow::Error::from(error).context(self.args.file.display().to_string());
            Failure::new(exit::USAGE, error)
        };
        pieces.next().map_err(fault)
    }

    /// Sends a piece until it is answered.
    async fn send(&mut self, piece: &Piece, media: &'static str, replaces: bool) -> Result<Value, Failure> {
        let series = format!("/series/{}/{}", self.args.symbol, self.args.timeframe);
        let (method, path) =
            if replaces { (Method::PUT, series) } else { (Method::POST, series + "/candles") };
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))]);
        let body = Bytes::copy_from_slice(&piece.body);
        let (begun, mut pause) = (Instant::now(), Pause::new());
        loop {
            let call =
                self.client.call_within(CALL_WITHIN, method.clone(), &path, headers.clone(), body.clone());
            let (failure, wait) = match self.judge(call.await, piece)? {
                Judged::Done(answer) => return Ok(answer),
                Judged::Again(failure, asked) => (failure, asked.unwrap_or_else(|| pause.next())),
            };
            if begun.elapsed() + wait > self.args.retry_for {
                return Err(failure);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn judge(&mut self, answered: Result<Reply, ClientError>, piece: &Piece) -> Result<Judged, Failure> {
        let reply = match answered {
            Ok(reply) => reply,
            Err(error) => {
                let later = match &error {
                    ClientError::Connect(..) => self.met,
                    ClientError::Broken(_) | ClientError::Timeout(_) => true,
                    _ => false,
                };
                let failure = control::unreached(error);
                return if later { Ok(Judged::Again(failure, None)) } else { Err(failure) };
            }
        };
        self.met = true;
        let file = self.args.file.display();
        let failure = match super::json(&reply, |row| format!("{file}: {}", piece.place(row))) {
            Ok(answer) => return Ok(Judged::Done(answer)),
            Err(failure) => failure,
        };
        let later = reply.status == StatusCode::TOO_MANY_REQUESTS
            || (reply.status.is_server_error() && reply.status != StatusCode::INSUFFICIENT_STORAGE);
        if later { Ok(Judged::Again(failure, asked(&reply.headers))) } else { Err(failure) }
    }

    /// Prints what was done.
    fn close(&self, ended: Result<Code, Failure>) -> Result<Code, Failure> {
        let whole = matches!(ended, Ok(code) if code != exit::INTERRUPTED);
        let (totals, elapsed) = (&self.totals, self.progress.elapsed());
        match self.args.asked.format {
            Format::Json => say::result(&format!("{}\n", totals.json(whole, elapsed)))?,
            Format::Text if totals.sent > 0 => {
                let series = format!("{} {}", self.args.symbol, self.args.timeframe);
                say::result(&totals.text(&series, elapsed))?;
            }
            Format::Text => {}
        }
        for (why, begin) in &totals.named {
            say::problem(&format!("the candle of {}: {why}\n", time(*begin)));
        }
        if !whole && totals.sent > 0 {
            say::problem(
                "broken off; repeat the command without --replace, what is stored is not stored twice\n",
            );
        }
        ended
    }
}

enum Judged {
    Done(Value),
    /// Later, after the time the worker asks for.
    Again(Failure, Option<Duration>),
}

impl Totals {
    /// Counts what became of a piece.
    fn count(&mut self, answer: &Value, sent: u64, replaced: bool) {
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        let list = |name: &str| answer[name].as_array().map(Vec::as_slice).unwrap_or_default();
        self.sent += sent;
        self.applied += if replaced { sent } else { number("applied") };
        self.repeated += number("repeated");
        self.rows = number("rows");
        // The answer to a replacement names its gaps, and does not count them.
        self.gaps += answer["gap_count"].as_u64().unwrap_or(list("gaps").len() as u64);
        self.refused += number("conflict_count") + number("late_count");
        let whys = [("conflicts", "there is a row with other numbers"), ("late", "the series has passed it")];
        for (name, why) in whys {
            let begins = list(name).iter().filter_map(|one| one["timestamp"].as_i64());
            let room = NAMED_MAX.saturating_sub(self.named.len());
            self.named.extend(begins.take(room).map(|begin| (why, begin)));
        }
    }

    fn json(&self, whole: bool, elapsed: Duration) -> Value {
        json!({
            "complete": whole, "candles": self.sent, "applied": self.applied, "repeated": self.repeated,
            "refused": self.refused, "gaps": self.gaps, "rows": self.rows,
            "seconds": (elapsed.as_secs_f64() * 1e3).round() / 1e3,
        })
    }

    fn text(&self, series: &str, elapsed: Duration) -> String {
        let (applied, rows) = (grouped(self.applied), grouped(self.rows));
        let speed = rate(self.sent, elapsed);
        let mut text = format!("imported {applied} candles into {series} in {}, {speed}", told(elapsed));
        for (count, what) in
            [(self.repeated, "were there"), (self.refused, "refused"), (self.gaps, "gaps in time")]
        {
            if count > 0 {
                text.push_str(&format!("; {} {what}", grouped(count)));
            }
        }
        text + &format!("; {rows} rows now\n")
    }
}

/// The begin of a candle as people read it.
fn time(begin_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(begin_ms).map_or_else(|_| begin_ms.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_pieces_is_summed_up() {
        let mut totals = Totals::default();
        totals.count(&json!({"rows": 10, "gaps": [{"from": 1}]}), 10, true);
        let answer = json!({"applied": 5, "repeated": 3, "conflicts": [{"timestamp": 60_000}],
            "conflict_count": 1, "late": [{"timestamp": 0}], "late_count": 1, "gaps": [{"from": 1}], "gap_count": 2,
            "rows": 15});
        totals.count(&answer, 10, false);
        assert_eq!((totals.refused, totals.gaps, totals.rows), (2, 3, 15));
        let text = totals.text("A 1m", Duration::from_secs(2));
        let said = "imported 15 candles into A 1m in 2.00 s, 10/s; 3 were there; 2 refused; 3 gaps in time; 15 rows now\n";
        assert_eq!(text, said);
        assert_eq!(totals.named[0].1, 60_000);
        let done = totals.json(true, Duration::from_millis(1_500));
        assert_eq!((&done["refused"], &done["seconds"]), (&json!(2), &json!(1.5)));
    }
}
