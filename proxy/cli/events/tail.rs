//! `sluice events tail`.

use jiff::Timestamp;
use serde_json::Value;
use sluice_client::{Client, ClientError, SseEvent};

use super::args::Tail;
use super::show::{Frame, Out, closed, unread};
use crate::control;
use crate::exit::{self, Code, Failure};
use crate::pause::Pause;
use crate::say;

/// Runs `sluice events tail` until it is interrupted (130), nobody reads any more or the count is reached (0); 2
/// refused, 4 nobody there at the first call.
pub(super) fn run(args: &Tail) -> Result<Code, Failure> {
    let client = super::client(&args.asked)?;
    let out = Out::new(args.asked.format);
    let mut tail = Following { args, out, last: None, begun: None, left: args.count };
    super::block_on(async {
        let ended = tokio::select! {
            ended = tail.follow(&client) => ended,
            () = unread() => Ok(exit::OK),
            _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
        };
        // Nobody may read it any more.
        drop(tail.out.flush());
        ended
    })
}

struct Following<'a> {
    args: &'a Tail,
    out: Out,
    /// The newest event that was printed.
    last: Option<String>,
    /// When the stream was first open: where to begin again while no event was printed.
    begun: Option<Timestamp>,
    left: Option<u64>,
}

impl Following<'_> {
    /// Prints what comes, and opens a lost stream again behind what was printed. Only the first call may fail.
    async fn follow(&mut self, client: &Client) -> Result<Code, Failure> {
        let mut pause = Pause::new();
        loop {
            match client.stream(&self.path(), self.last.as_deref()).await {
                Ok(mut stream) => {
                    self.begun.get_or_insert_with(Timestamp::now);
                    // A stream that ends or breaks is opened again.
                    loop {
                        let next = tokio::select! {
                            biased;
                            next = stream.next() => next,
                            // Nothing is there for the moment.
                            () = std::future::ready(()) => {
                                if closed(self.out.flush())? {
                                    return Ok(exit::OK);
                                }
                                stream.next().await
                            }
                        };
                        let Ok(Some(frame)) = next else { break };
                        pause.well();
                        if self.take(&frame)? {
                            return Ok(exit::OK);
                        }
                    }
                    say::problem("the stream ended; opening it again\n");
                }
                Err(error) if self.begun.is_none() || is_final(&error) => {
                    return Err(control::unreached(error));
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause.next()).await;
        }
    }

    /// Prints a frame; `true` when it was the last one.
    fn take(&mut self, frame: &SseEvent) -> Result<bool, Failure> {
        let printed = match Frame::of(frame) {
            Frame::Event(event) => {
                let printed = self.out.event(&event, &frame.data);
                self.left = self.left.map(|left| left.saturating_sub(1));
                printed
            }
            Frame::Notice(said) => self.out.notice(&frame.event, &said, &words(&frame.event, &said)),
        };
        if frame.id.is_some() {
            self.last.clone_from(&frame.id);
        }
        Ok(closed(printed)? || self.left == Some(0))
    }

    fn path(&self) -> String {
        let (from, rate) = (self.from(), self.args.max_rate.map(|rate| rate.to_string()));
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (name, values) in
            [("event_type", &self.args.kinds), ("symbol", &self.args.symbols), ("source", &self.args.sources)]
        {
            pairs.extend(values.iter().map(|value| (name, value.as_str())));
        }
        pairs.push(("from", &from));
        if self.args.conflate {
            pairs.push(("mode", "conflate"));
        }
        if let Some(rate) = &rate {
            pairs.push(("max_rate", rate));
        }
        if self.args.snapshot && self.begun.is_none() {
            pairs.push(("snapshot", "true"));
        }
        super::query("/events/stream", &pairs)
    }

    /// Events that came while a stream was lost before its first event are not to be missed.
    fn from(&self) -> String {
        match self.begun {
            Some(begun) if self.args.from == "now" => begun.as_millisecond().to_string(),
            _ => self.args.from.clone(),
        }
    }
}

/// A refusal stays one; what is overloaded, starts or has lost its streams may answer later.
fn is_final(error: &ClientError) -> bool {
    matches!(error, ClientError::Status { status, .. } if status.is_client_error() && status.as_u16() != 429)
}

fn words(name: &str, said: &Value) -> String {
    let reason = said["reason"].as_str().unwrap_or("unknown");
    match name {
        "gap" => format!("… a gap: expected {}, got {} ({reason})", said["expected"], said["got"]),
        "disconnect" => format!("the worker ends the stream: {reason}"),
        "snapshot" => "… the newest of each symbol is above; what follows is new".to_owned(),
        _ => format!("… {name} {said}"),
    }
}
