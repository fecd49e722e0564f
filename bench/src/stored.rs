//! What a store must do before it is measured: hold what it acknowledges.

use anyhow::{Context as _, ensure};

use crate::check::ask;
use crate::load::Place;
use crate::scenario::Scenario;
use crate::stores::nats_call;
use crate::subject::Running;
use crate::voice::Voice;
use crate::work::Work;

/// LIMIT: answers that are looked at.
const ANSWER_BYTES_MAX: usize = 1 << 20;

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
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), answer);
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

/// Events that a store holds.
pub(crate) async fn count(running: &Running) -> anyhow::Result<u64> {
    let credentials = running.authorization.as_deref();
    let request = running.voice.count(&running.address.to_string(), credentials);
    match running.voice {
        Voice::Http => {
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
