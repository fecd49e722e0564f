//! `sluice events publish`.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_client::{Client, ClientError, Reply};
use tokio::sync::mpsc;

use super::args::Publish;
use super::batch::{BATCH_BYTES_MAX, Batch, Ids};
use super::input::{Input, InputError, Step};
use crate::args::Format;
use crate::exit::{self, Code, Failure};
use crate::pause::{Pause, asked};
use crate::progress::{Progress, grouped, rate, told};
use crate::{control, say};

/// LIMIT: batches that are read ahead.
const AHEAD: usize = 2;
/// LIMIT: refused events that are named.
const NAMED_MAX: usize = 100;
/// Those that are said as they come; the others are counted.
const SAID_MAX: u64 = 20;

/// Runs `sluice events publish`: 0 all are stored, 3 some were refused, 1 broken off, 2 nothing may be published,
/// 4 nobody there, 130 interrupted.
pub(super) fn run(args: &Publish) -> Result<Code, Failure> {
    let client = super::client(&args.asked)?;
    let (input, size) = open(&args.file)?;
    let mut batches = read_ahead(input, args);
    let mut run = Run::new(args, client, size);
    super::block_on(async {
        let ended = tokio::select! {
            ended = run.publish(&mut batches) => ended,
            _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
        };
        run.progress.clear();
        run.close(ended)
    })
}

type Source = Box<dyn Read + Send>;

/// The input, and its size where it is known.
fn open(path: &Path) -> Result<(Input<Source>, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Input::new(Box::new(std::io::stdin())), None));
    }
    let fault = |error| Failure::usage(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(fault)?;
    let known = file.metadata().map_err(fault)?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let make = if matches!(extension, Some("ndjson" | "jsonl")) { Input::lines } else { Input::new };
    let source: Source = Box::new(file);
    Ok((make(source), known.is_file().then_some(known.len())))
}

type Read1 = Result<Batch, InputError>;

/// Reads on a thread of its own, for reading may take for ever; a few batches ahead at most.
fn read_ahead(input: Input<Source>, args: &Publish) -> mpsc::Receiver<Read1> {
    let (give, take) = mpsc::channel(AHEAD);
    let ids = args.key.clone().map_or(Ids::New, Ids::Key);
    let (most, skip, atomic) = (usize::from(args.batch), args.skip, args.atomic);
    // It is not waited for: whoever ends early leaves it at its read.
    std::thread::spawn(move || {
        let mut reader =
            Reader { input, ids, most, skip, whole: atomic, ordinal: 0, batch: Batch::default() };
        loop {
            match reader.next() {
                // Nobody takes them any more.
                Ok(Some(batch)) => {
                    if give.blocking_send(Ok(batch)).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return drop(give.blocking_send(Err(error))),
            }
        }
    });
    take
}

/// Puts batches together.
struct Reader {
    input: Input<Source>,
    ids: Ids,
    most: usize,
    skip: u64,
    /// What has come so far does not go out before the end.
    whole: bool,
    ordinal: u64,
    batch: Batch,
}

impl Reader {
    /// The next batch: a full one, or what there is before reading would wait; `None` at the end.
    fn next(&mut self) -> Result<Option<Batch>, InputError> {
        loop {
            match self.input.next() {
                Ok(Step::Item { text, line }) => {
                    if self.ordinal >= self.skip {
                        self.batch.push(&text, line, self.ordinal, &self.ids);
                    }
                    self.ordinal += 1;
                }
                Ok(Step::LongLine(line)) => {
                    if self.ordinal >= self.skip {
                        self.batch.unsent.push((line, "the event is too large".into()));
                    }
                    self.ordinal += 1;
                }
                Ok(Step::More) if self.batch.events() == 0 || self.whole => self.input.fill()?,
                Ok(Step::More) => return Ok(Some(self.flush())),
                Ok(Step::End) => return Ok((self.batch.events() > 0).then(|| self.flush())),
                // What came before it goes out first; the next call meets the fault again.
                Err(_) if self.batch.events() > 0 && !self.whole => return Ok(Some(self.flush())),
                Err(error) => return Err(error),
            }
            if self.batch.events() >= self.most as u64 || self.batch.body.len() >= BATCH_BYTES_MAX {
                return Ok(Some(self.flush()));
            }
        }
    }

    fn flush(&mut self) -> Batch {
        self.batch.taken = self.input.taken();
        std::mem::take(&mut self.batch)
    }
}

/// What the worker says of a batch.
#[derive(Debug, Deserialize)]
struct Answer {
    published: u64,
    duplicates: u64,
    #[serde(default)]
    results: Vec<One>,
}

#[derive(Debug, Deserialize)]
struct One {
    index: usize,
    #[serde(default)]
    message_id: Option<String>,
    #[serde(default)]
    durability: Option<String>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    pointer: Option<String>,
}

/// What has been done.
#[derive(Debug, Default)]
struct Totals {
    published: u64,
    duplicates: u64,
    failed: u64,
    durability: Option<String>,
    first: Option<String>,
    last: Option<String>,
    failures: Vec<Value>,
}

struct Run<'a> {
    args: &'a Publish,
    client: Client,
    size: Option<u64>,
    progress: Progress,
    totals: Totals,
    /// Whether a call was answered: who never was there is not waited for.
    met: bool,
}

impl<'a> Run<'a> {
    fn new(args: &'a Publish, client: Client, size: Option<u64>) -> Self {
        let (progress, totals) = (Progress::new("events", false), Totals::default());
        Self { args, client, size, progress, totals, met: false }
    }

    async fn publish(&mut self, batches: &mut mpsc::Receiver<Read1>) -> Result<Code, Failure> {
        while let Some(batch) = batches.recv().await {
            let batch = batch.map_err(|error| Failure::new(exit::RUNTIME, error))?;
            if self.args.atomic {
                self.check_atomic(&batch, batches).await?;
            }
            if !batch.lines.is_empty() {
                let answer = self.send(&batch).await?;
                self.count(&batch, answer);
            }
            for (line, why) in &batch.unsent {
                self.failure(*line, "invalid_json", why, None);
            }
            let share = self.size.filter(|size| *size > 0).map(|size| batch.taken as f64 / size as f64);
            self.progress.at("published", self.totals.done(), share);
        }
        Ok(if self.totals.failed > 0 { exit::CHECK } else { exit::OK })
    }

    /// All or nothing: what does not fit into one call, or is no event, stops it before anything is sent.
    async fn check_atomic(&self, batch: &Batch, rest: &mut mpsc::Receiver<Read1>) -> Result<(), Failure> {
        if let Some((line, why)) = batch.unsent.first() {
            return Err(Failure::usage(format!("line {line}: {why}; nothing was published")));
        }
        match rest.recv().await {
            None => Ok(()),
            Some(Err(error)) => Err(Failure::new(exit::USAGE, error)),
            Some(Ok(_)) => Err(Failure::usage(format!(
                "with --atomic at most {} events and {} MiB can be published; nothing was",
                self.args.batch,
                BATCH_BYTES_MAX >> 20
            ))),
        }
    }

    /// Sends a batch until it is answered. Its events have ids, so one that was stored unheard is stored once.
    async fn send(&mut self, batch: &Batch) -> Result<Answer, Failure> {
        let path = if self.args.atomic { "/events/batch?atomic=true" } else { "/events/batch" };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let body = bytes::Bytes::copy_from_slice(&batch.body);
        let (begun, mut pause) = (Instant::now(), Pause::new());
        loop {
            let answered = self.client.call(Method::POST, path, headers.clone(), body.clone()).await;
            let (failure, asked) = match self.judge(answered)? {
                Judged::Done(answer) => return Ok(answer),
                Judged::Again(failure, asked) => (failure, asked),
            };
            let pause = asked.unwrap_or_else(|| pause.next());
            if begun.elapsed() + pause > self.args.retry_for {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn judge(&mut self, answered: Result<Reply, ClientError>) -> Result<Judged, Failure> {
        match answered {
            Ok(reply) if reply.status.is_success() => {
                self.met = true;
                let answer = serde_json::from_slice(&reply.body).map_err(anyhow::Error::from)?;
                Ok(Judged::Done(answer))
            }
            Ok(reply) => {
                self.met = true;
                let failure = super::json(&reply).err().unwrap_or_else(|| Failure::usage("no answer"));
                let later = reply.status == StatusCode::TOO_MANY_REQUESTS || reply.status.is_server_error();
                if later { Ok(Judged::Again(failure, asked(&reply.headers))) } else { Err(failure) }
            }
            Err(error) => {
                let later = match &error {
                    ClientError::Connect(..) => self.met,
                    ClientError::Broken(_) | ClientError::Timeout(_) => true,
                    _ => false,
                };
                let failure = control::unreached(error);
                if later { Ok(Judged::Again(failure, None)) } else { Err(failure) }
            }
        }
    }

    fn count(&mut self, batch: &Batch, answer: Answer) {
        self.totals.published += answer.published;
        self.totals.duplicates += answer.duplicates;
        for one in answer.results {
            if let Some(code) = one.code {
                let line = batch.lines.get(one.index).copied().unwrap_or_default();
                self.failure(line, &code, one.detail.as_deref().unwrap_or_default(), one.pointer.as_deref());
                continue;
            }
            self.totals.stored(one);
        }
    }

    fn failure(&mut self, line: u64, code: &str, detail: &str, pointer: Option<&str>) {
        self.totals.failed += 1;
        if self.totals.failures.len() < NAMED_MAX {
            let failure = json!({ "line": line, "code": code, "detail": detail, "pointer": pointer });
            self.totals.failures.push(failure);
        }
        if self.totals.failed <= SAID_MAX {
            self.progress.clear();
            let pointer = pointer.map(|pointer| format!(" at {pointer}")).unwrap_or_default();
            say::problem(&format!("line {line}: {code}{pointer}: {detail}\n"));
        }
    }

    /// Prints what was done, and where to go on when it was not all.
    fn close(&self, ended: Result<Code, Failure>) -> Result<Code, Failure> {
        let totals = &self.totals;
        if totals.failed > SAID_MAX {
            say::problem(&format!("… and {} more were refused\n", totals.failed - SAID_MAX));
        }
        let whole = matches!(ended, Ok(code) if code != exit::INTERRUPTED);
        let next = self.args.skip + totals.done();
        let elapsed = self.progress.elapsed();
        match self.args.asked.format {
            Format::Json => {
                let seconds = (elapsed.as_secs_f64() * 1e3).round() / 1e3;
                say::result(&format!("{}\n", totals.json(whole, next, seconds)))?;
            }
            Format::Text => say::result(&totals.text(elapsed))?,
        }
        if !whole && totals.done() > 0 {
            say::problem(&format!("broken off; go on with --skip {next}\n"));
        }
        ended
    }
}

enum Judged {
    Done(Answer),
    /// Later, after the time the worker asks for.
    Again(Failure, Option<Duration>),
}

impl Totals {
    /// Events of the input that are done, one way or the other.
    const fn done(&self) -> u64 {
        self.published + self.duplicates + self.failed
    }

    fn stored(&mut self, one: One) {
        self.durability = one.durability.or(self.durability.take());
        if self.first.is_none() {
            self.first.clone_from(&one.message_id);
        }
        self.last = one.message_id.or(self.last.take());
    }

    fn json(&self, whole: bool, next: u64, seconds: f64) -> Value {
        json!({
            "complete": whole, "published": self.published, "duplicates": self.duplicates, "failed": self.failed,
            "durability": self.durability, "first_message_id": self.first, "last_message_id": self.last,
            "next": next, "seconds": seconds, "failures": self.failures,
        })
    }

    fn text(&self, elapsed: Duration) -> String {
        let durability = self.durability.as_ref().map(|word| format!(" ({word})")).unwrap_or_default();
        let mut text = format!(
            "published {} event{}{durability} in {}, {}",
            grouped(self.published),
            if self.published == 1 { "" } else { "s" },
            told(elapsed),
            rate(self.done(), elapsed)
        );
        for (count, what) in [(self.duplicates, "stored before"), (self.failed, "refused")] {
            if count > 0 {
                text.push_str(&format!("; {} {what}", grouped(count)));
            }
        }
        text + "\n"
    }
}
