//! Trials of a store of events: looking through all that is stored, and coming back after kill -9.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{COME_TRUE, LOOK_EVERY};
use crate::account::tree;
use crate::line::Line;
use crate::subject::Running;
use crate::voice::Voice;

/// Bytes of an event that is stored to see whether it can be.
const EVENT_BYTES: usize = 200;

/// Sluice's event worker under its supervisor, with so many events.
pub(crate) struct Store {
    address: SocketAddr,
    credentials: String,
    supervisor: u32,
    events: u64,
}

impl Store {
    pub(super) fn of(running: &Running, events: u64) -> anyhow::Result<Self> {
        Ok(Self {
            address: running.address,
            credentials: running.authorization.clone().context("there is no credential")?,
            supervisor: running.child.as_ref().context("it was not started by the bench")?.pid(),
            events,
        })
    }

    /// Looks through everything for one symbol of one type, which all events have.
    pub(super) async fn replayed(&self) -> anyhow::Result<Duration> {
        let body = r#"{"event_type":"market_data_update","symbol":"BTC/USDT"}"#;
        let request = format!(
            "POST /events/replay HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            self.credentials,
            body.len()
        );
        let mut line = Line::open(self.address, None).await?;
        let began = Instant::now();
        let answer = line.ask(request.as_bytes()).await?;
        let took = began.elapsed();
        let told: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let found = told["events_replayed"].as_u64().with_context(|| format!("{}: {told}", answer.status))?;
        ensure!(found >= self.events, "{found} of {} events were found", self.events);
        Ok(took)
    }

    /// Kills the worker; its supervisor starts it again, and it is back when it acknowledges an event.
    pub(super) async fn restarted(&self) -> anyhow::Result<Duration> {
        let worker = self.worker()?;
        let host = self.address.to_string();
        let (event, expects) = Voice::Http.publish(&host, Some(&self.credentials), 1, EVENT_BYTES, false);
        let began = Instant::now();
        kill_process(worker, Signal::KILL)?;
        while began.elapsed() < COME_TRUE {
            // A connection that the old one had accepted ends with it; the next one waits for its successor.
            if let Ok(mut line) = Line::open(self.address, None).await
                && let Ok(answer) = line.ask(&event).await
                && answer.status == 200
            {
                ensure!(
                    expects.accepts(&answer.body),
                    "not stored: {}",
                    String::from_utf8_lossy(&answer.body)
                );
                return Ok(began.elapsed());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::bail!("no event is stored {} s after the kill", COME_TRUE.as_secs())
    }

    fn worker(&self) -> anyhow::Result<Pid> {
        let is_worker = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == b"events")
        };
        let found = tree(self.supervisor).into_iter().skip(1).find(is_worker);
        found.and_then(|pid| Pid::from_raw(pid.cast_signed())).context("no event worker runs")
    }
}
