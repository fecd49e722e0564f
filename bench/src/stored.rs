//! What a store must do before it is measured: hold what it acknowledges.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::check::ask;
use crate::load::{Pace, Place, Plan, drive};
use crate::scenario::Scenario;
use crate::stores::nats_call;
use crate::subject::Running;
use crate::voice::Voice;
use crate::work::Work;

/// LIMIT: answers that are looked at.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Events of a request that fills a store, and connections that fill it.
const FILL_BATCH: u32 = 100;
const FILL_CONNECTIONS: u32 = 16;
const FILL_WINDOW: Duration = Duration::from_millis(500);
/// LIMIT: time to fill a store.
pub(crate) const FILL_LIMIT: Duration = Duration::from_secs(600);

/// Makes a store ready for trials: it holds what it acknowledges, and as many events as they need.
pub(crate) async fn filled(running: &Running, scenario: &Scenario, events: u64) -> anyhow::Result<()> {
    let single = Scenario { work: Work::Publish { batch: 1 }, ..scenario.clone() };
    holds_what_it_acknowledges(running, &single).await?;
    fill(&single, running, events).await.context("fill the store")
}

/// Stores the events of one request; they must be acknowledged, and be there.
pub(crate) async fn holds_what_it_acknowledges(running: &Running, scenario: &Scenario) -> anyhow::Result<()> {
    let (Work::Publish { batch } | Work::Fanout { batch, .. }) = scenario.work else { return Ok(()) };
    let before = count(running).await.context("count the events")?;
    let mut target = running.target(scenario)?;
    let link = target.connect(0).await?;
    let asked = &mut target.asks[0];
    link.send(asked.request.next(0, 0))?;
    let answer = async {
        let mut buffer = Vec::new();
        loop {
            if let Some(found) = asked.expects.read(&buffer)? {
                return anyhow::Ok((found, buffer));
            }
            ensure!(buffer.len() < ANSWER_BYTES_MAX && link.receive(&mut buffer).await? > 0, "no answer");
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), answer);
    let (found, bytes) = answer.await.context("no answer within 10 s")??;
    ensure!(found.right, "not acknowledged: {}", String::from_utf8_lossy(&bytes));
    let promise = format!("\"durability\":\"{}\"", running.promises);
    let promised = running.promises.is_empty() || memchr::memmem::find(&bytes, promise.as_bytes()).is_some();
    ensure!(promised, "acknowledged, but not as durable: {}", String::from_utf8_lossy(&bytes));
    let after = count(running).await.context("count the events")?;
    // Sluice's own roles publish too.
    ensure!(after >= before + u64::from(batch), "{batch} acknowledged, {before} before, {after} after");
    Ok(())
}

/// Stores events until there are as many.
pub(crate) async fn fill(scenario: &Scenario, running: &Running, events: u64) -> anyhow::Result<()> {
    let many = Scenario { work: Work::Publish { batch: FILL_BATCH }, faults: Vec::new(), ..scenario.clone() };
    let deadline = Instant::now() + FILL_LIMIT;
    loop {
        let stored = count(running).await?;
        if stored >= events {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{stored} of {events} events within {} s", FILL_LIMIT.as_secs());
        // Towards the end slower: a step is to be about as large as it says.
        let near = events - stored < 400_000;
        let rate =
            u32::try_from((events - stored) / u64::from(FILL_BATCH)).unwrap_or(u32::MAX).clamp(10, 4_000);
        let plan = Plan {
            pace: if near { Pace::Open(rate) } else { Pace::Closed },
            connections: FILL_CONNECTIONS,
            warmup: Duration::from_millis(1),
            window: FILL_WINDOW,
        };
        let outcome = drive(&running.target(&many)?, plan, || ()).await?;
        ensure!(outcome.failures.total() == 0, "{:?}", outcome.complaint);
    }
}

/// Events that a store holds.
pub(crate) async fn count(running: &Running) -> anyhow::Result<u64> {
    let credentials = running.authorization.as_deref();
    let request = running.voice.count(&running.address.to_string(), credentials);
    match running.voice {
        Voice::Http | Voice::WebSocket => {
            let answer = ask(&running.place()?, &request)?;
            let stats: serde_json::Value = serde_json::from_slice(&answer.body)?;
            stats["stream_length"].as_u64().with_context(|| format!("no stream_length in {stats}"))
        }
        Voice::Redis => {
            let link = Place::plain(running.address).link(None).await?;
            link.send(&request)?;
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                ensure!(link.receive(&mut line).await? > 0, "closed");
            }
            let text = String::from_utf8_lossy(&line);
            text.strip_prefix(':').and_then(|digits| digits.trim().parse().ok()).context(text.into_owned())
        }
        Voice::Nats => messages(&nats_call(running.address, "$JS.API.STREAM.INFO.bench", "").await?),
    }
}

/// `state.messages` of a stream's description.
fn messages(answer: &str) -> anyhow::Result<u64> {
    let at = answer.find('{').context("no JSON")?;
    let info: serde_json::Value = serde_json::from_str(answer[at..].trim())?;
    info["state"]["messages"].as_u64().with_context(|| format!("no messages in {info}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_messages_is_read() {
        let answer = "57\r\n{\"type\":\"x\",\"state\":{\"messages\":7,\"bytes\":9}}\r\n";
        assert_eq!(messages(answer).unwrap(), 7);
        assert!(messages("26\r\n{\"error\":{\"code\":404}}\r\n").is_err());
        assert!(messages("").is_err());
    }
}
