//! `sluice events replay`.

use std::future::Future;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};
use sluice_client::{Client, ClientError, Reply, SseEvent};

use super::args::Replay;
use super::show::{Frame, Out, closed, unread};
use crate::args::Format;
use crate::control;
use crate::exit::{self, Code, Failure};
use crate::pause::Pause;
use crate::progress::{Progress, grouped, rate, told};
use crate::say;

/// Time for a call that goes over all events of a window.
const SCAN_MAX: Duration = Duration::from_hours(24);
/// Between two looks at a stream that is being filled.
const LOOK: Duration = Duration::from_millis(500);
/// How long a replay that was lost is looked for.
const LOST_MAX: Duration = Duration::from_secs(30);

/// Runs `sluice events replay`: 0 done or nobody reads any more, 1 broken off, 2 refused, 4 nobody there, 130
/// interrupted.
pub(super) fn run(args: &Replay) -> Result<Code, Failure> {
    let client = super::client(&args.asked)?;
    super::block_on(async {
        if args.count {
            return unless_interrupted(count(args, &client)).await;
        }
        if let Some(into) = &args.into {
            return unless_interrupted(store(args, &client, into)).await;
        }
        print(args, &client).await
    })
}

async fn unless_interrupted(work: impl Future<Output = Result<Code, Failure>>) -> Result<Code, Failure> {
    tokio::select! {
        ended = work => ended,
        _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
    }
}

/// What is asked for: the window alone.
fn window(args: &Replay) -> Map<String, Value> {
    let mut window = Map::new();
    if !args.kinds.is_empty() {
        window.insert("event_type".into(), json!(args.kinds));
    }
    let named = [
        ("symbol", &args.symbol),
        ("source", &args.source),
        ("start_time", &args.start),
        ("end_time", &args.end),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            window.insert(name.into(), json!(value));
        }
    }
    window
}

async fn post(client: &Client, within: Duration, body: Map<String, Value>) -> Result<Value, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = Value::Object(body).to_string();
    let reply = client.call_within(within, Method::POST, "/events/replay", headers, body).await;
    super::json(&reply.map_err(control::unreached)?)
}

async fn get(client: &Client, path: &str) -> Result<Reply, ClientError> {
    client.call(Method::GET, path, HeaderMap::new(), "").await
}

async fn count(args: &Replay, client: &Client) -> Result<Code, Failure> {
    let answer = post(client, SCAN_MAX, window(args)).await?;
    match args.asked.format {
        Format::Json => say::result(&format!("{answer}\n"))?,
        Format::Text => say::result(&format!("{} events\n", grouped(events_of(&answer))))?,
    }
    Ok(exit::OK)
}

fn events_of(answer: &Value) -> u64 {
    answer["events_replayed"].as_u64().unwrap_or_default()
}

/// Stores the window's events in another stream, or hands them to a group. A repeat adds what is missing: the ids are
/// known there.
async fn store(args: &Replay, client: &Client, into: &str) -> Result<Code, Failure> {
    let mut progress = Progress::new("events", false);
    let mut body = window(args);
    body.insert("into".into(), json!(into));
    let answer = if progress.is_shown() {
        let all = events_of(&post(client, SCAN_MAX, window(args)).await?);
        let before = filled(client, into).await;
        let stored = post(client, SCAN_MAX, body);
        tokio::pin!(stored);
        loop {
            tokio::select! {
                answer = &mut stored => break answer?,
                () = tokio::time::sleep(LOOK) => {
                    let more = filled(client, into).await.saturating_sub(before);
                    progress.at("stored", more, (all > 0).then(|| more as f64 / all as f64));
                }
            }
        }
    } else {
        post(client, SCAN_MAX, body).await?
    };
    progress.clear();
    let (events, elapsed) = (events_of(&answer), progress.elapsed());
    match args.asked.format {
        Format::Json => say::result(&format!("{answer}\n"))?,
        Format::Text => {
            let known = answer["duplicates"].as_u64().unwrap_or_default();
            let known = if known > 0 { format!("; {} were there", grouped(known)) } else { String::new() };
            let (time, rate) = (told(elapsed), rate(events, elapsed));
            let done = if into.starts_with("group:") { "handed out" } else { "stored" };
            say::result(&format!("{done} {} events in {into} in {time}, {rate}{known}\n", grouped(events)))?;
        }
    }
    Ok(exit::OK)
}

/// Events ever stored in another stream; none while it is not there, and of a group.
async fn filled(client: &Client, into: &str) -> u64 {
    let Some(name) = into.strip_prefix("stream:") else { return 0 };
    let path = super::query("/events/stats", &[("stream", name)]);
    let Ok(reply) = get(client, &path).await else { return 0 };
    let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    answer["last_seq"].as_u64().unwrap_or_default()
}

/// Prints the window's events through a session, which can be taken up again when its stream is lost.
async fn print(args: &Replay, client: &Client) -> Result<Code, Failure> {
    let out = Out::new(args.asked.format);
    let mut player = Player {
        args,
        client,
        out,
        progress: Progress::new("events", true),
        session: None,
        last: None,
        events: 0,
        divided: false,
    };
    let ended = tokio::select! {
        ended = player.play() => ended,
        () = unread() => Ok(exit::OK),
        _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
    };
    player.progress.clear();
    player.leave().await;
    let (events, elapsed) = (player.events, player.progress.elapsed());
    // Nobody may read it any more.
    drop(player.out.flush());
    if !say::is_quiet()
        && args.asked.format == Format::Text
        && matches!(ended, Ok(code) if code != exit::INTERRUPTED)
    {
        say::problem(&format!("replayed {} events in {}\n", grouped(events), told(elapsed)));
    }
    ended
}

/// A session of the worker's.
struct Session {
    id: String,
    url: String,
    first: u64,
    last: u64,
}

struct Player<'a> {
    args: &'a Replay,
    client: &'a Client,
    out: Out,
    progress: Progress,
    session: Option<Session>,
    /// The newest event that was printed.
    last: Option<String>,
    events: u64,
    /// Seqs of the events count in partitions: they do not say how far the window is played.
    divided: bool,
}

/// What became of one stream.
enum Played {
    Done,
    /// It may be taken up again.
    Lost,
}

impl Player<'_> {
    async fn play(&mut self) -> Result<Code, Failure> {
        self.begin().await?;
        let (mut pause, mut lost) = (Pause::new(), None::<Instant>);
        loop {
            let before = self.events;
            match self.watch().await {
                Ok(Played::Done) => return Ok(exit::OK),
                Ok(Played::Lost) if self.events > before => {
                    pause.well();
                    lost = None;
                }
                Ok(Played::Lost) => {}
                Err(failure) if failure.code != exit::UNREACHABLE => return Err(failure),
                Err(failure) => {
                    if lost.is_some_and(|since| since.elapsed() > LOST_MAX) {
                        return Err(failure);
                    }
                }
            }
            let since = *lost.get_or_insert_with(Instant::now);
            if since.elapsed() > LOST_MAX {
                return Err(Failure::new(exit::UNREACHABLE, anyhow::anyhow!("the replay was lost")));
            }
            tokio::time::sleep(pause.next()).await;
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        let mut body = window(self.args);
        body.insert("session".into(), json!(true));
        // A number, where it is one.
        let speed = serde_json::from_str::<Value>(&self.args.speed).ok().filter(Value::is_number);
        body.insert("speed".into(), speed.unwrap_or_else(|| json!(self.args.speed)));
        let told = post(self.client, SCAN_MAX, body).await?;
        let word = |name: &str| told[name].as_str().map(str::to_owned);
        let (Some(id), Some(url)) = (word("replay_id"), word("url")) else {
            return Err(anyhow::anyhow!("the worker's answer is of another shape").into());
        };
        let seq = |name: &str| told[name].as_u64().unwrap_or_default();
        self.session = Some(Session { id, url, first: seq("next_seq"), last: seq("last_seq") });
        Ok(())
    }

    /// Prints one stream to its end.
    async fn watch(&mut self) -> Result<Played, Failure> {
        let Some(session) = &self.session else { return Ok(Played::Done) };
        let mut stream = match self.client.stream(&session.url, self.last.as_deref()).await {
            Ok(stream) => stream,
            // The worker was started again: another session goes on behind the last event.
            Err(ClientError::Status { status: StatusCode::NOT_FOUND, .. }) => {
                self.begin().await?;
                return Ok(Played::Lost);
            }
            Err(ClientError::Status { status, .. }) if status.is_server_error() || status.as_u16() == 429 => {
                return Ok(Played::Lost);
            }
            Err(error) => return Err(control::unreached(error)),
        };
        if stream.status() == StatusCode::NO_CONTENT {
            return Ok(Played::Done);
        }
        loop {
            let next = tokio::select! {
                biased;
                next = stream.next() => next,
                // Nothing is there for the moment.
                () = std::future::ready(()) => {
                    if closed(self.out.flush())? {
                        return Ok(Played::Done);
                    }
                    stream.next().await
                }
            };
            let Ok(Some(frame)) = next else { return Ok(Played::Lost) };
            if let Some(played) = self.take(&frame)? {
                return Ok(played);
            }
        }
    }

    fn take(&mut self, frame: &SseEvent) -> Result<Option<Played>, Failure> {
        match Frame::of(frame) {
            Frame::Event(event) => {
                let done = closed(self.out.event(&event, &frame.data))?;
                self.last.clone_from(&frame.id);
                self.events += 1;
                self.divided |= event["partition"].as_u64() > Some(0);
                self.progress.at("replayed", self.events, self.share(event["seq"].as_u64()));
                Ok(done.then_some(Played::Done))
            }
            Frame::Notice(_) if frame.event == "replay_complete" => Ok(Some(Played::Done)),
            Frame::Notice(said) if frame.event == "disconnect" => {
                match said["reason"].as_str().unwrap_or_default() {
                    reason @ ("taken_over" | "deleted" | "unreadable") => {
                        Err(anyhow::anyhow!("the worker ends the replay: {reason}").into())
                    }
                    _ => Ok(Some(Played::Lost)),
                }
            }
            Frame::Notice(said) => {
                let text = format!(
                    "… a gap: expected {}, got {} ({})",
                    said["expected"], said["got"], said["reason"]
                );
                let done = closed(self.out.notice(&frame.event, &said, &text))?;
                Ok(done.then_some(Played::Done))
            }
        }
    }

    fn share(&self, seq: Option<u64>) -> Option<f64> {
        let (session, seq) = (self.session.as_ref().filter(|_| !self.divided)?, seq?);
        let all = session.last.checked_sub(session.first)?.max(1);
        Some(seq.saturating_sub(session.first) as f64 / all as f64)
    }

    /// Gives the session back; it would go by itself after some minutes.
    async fn leave(&mut self) {
        let Some(session) = self.session.take() else { return };
        let path = format!("/events/replay/{}", session.id);
        let given = self.client.call_within(LOOK, Method::DELETE, &path, HeaderMap::new(), "");
        drop(given.await);
    }
}
