//! Trials of a vault: ending a token, and opening.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::{COME_TRUE, LOOK_EVERY};
use crate::line::Line;
use crate::question::Question;
use crate::subject::PATH;
use crate::vault::{Desk, NAME};

/// LIMIT: trials after which source addresses are used again.
const SOURCES: u32 = 1 << 20;

thread_local! {
    static TRIALS: Cell<u32> = const { Cell::new(0) };
}

/// A token is made, let in by the edge, ended, and refused.
pub(super) async fn revoked(desk: &Desk, edge: SocketAddr) -> anyhow::Result<Duration> {
    let mut vault = Line::open(desk.address, None).await?;
    let body = json!({ "permissions": ["read"] });
    let made = said(&mut vault, desk, &desk.root, ("POST", &format!("/tokens/{NAME}")), &body).await?;
    let token = made["token"].as_str().context("no token was made")?;
    let bearer = format!("Bearer {token}");
    let request = Question::default().request(&edge.to_string(), PATH, Some(&bearer)).fresh().to_vec();
    let mut edge = Line::open(edge, Some(source())).await?;
    let status = edge.ask(&request).await?.status;
    ensure!(status == 200, "the edge answers {status} to a token that is good");
    let began = Instant::now();
    let wish = json!({ "token": token });
    said(&mut vault, desk, &desk.root, ("POST", "/tokens/revoke"), &wish).await?;
    loop {
        match edge.ask(&request).await?.status {
            401 => return Ok(began.elapsed()),
            200 if began.elapsed() < COME_TRUE => tokio::time::sleep(LOOK_EVERY).await,
            status => bail!("the edge answers {status} to a token that was revoked"),
        }
    }
}

/// The vault is closed, opened, and serves.
pub(super) async fn opened(desk: &Desk) -> anyhow::Result<Duration> {
    let share = desk.share.as_deref().context("this vault does not open by a share")?;
    let mut line = Line::open(desk.address, None).await?;
    said(&mut line, desk, &desk.root, ("PUT", "/v1/sys/seal"), &json!({})).await?;
    let began = Instant::now();
    said(&mut line, desk, "", ("PUT", "/v1/sys/unseal"), &json!({ "key": share })).await?;
    let health = desk.written("", "GET", "/v1/sys/health", None);
    loop {
        match line.ask(&health).await?.status {
            200 => return Ok(began.elapsed()),
            _ if began.elapsed() < COME_TRUE => tokio::time::sleep(LOOK_EVERY).await,
            status => bail!("the vault says {status} of itself after it was opened"),
        }
    }
}

/// One call that must succeed; what is answered, null where it is no JSON.
async fn said(
    line: &mut Line,
    desk: &Desk,
    token: &str,
    (method, path): (&str, &str),
    body: &Value,
) -> anyhow::Result<Value> {
    let answer = line.ask(&desk.written(token, method, path, Some(body))).await?;
    let told = || String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]).into_owned();
    ensure!((200..300).contains(&answer.status), "{method} {path}: status {}: {}", answer.status, told());
    Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

/// An address of this machine, another one for each trial: the edge looks at no credential of an address that failed
/// too often, and every trial ends with a failure.
fn source() -> Ipv4Addr {
    let number = TRIALS.get();
    TRIALS.set((number + 1) % SOURCES);
    let [_, high, middle, low] = (number + 256).to_be_bytes();
    Ipv4Addr::new(127, high + 1, middle, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_loopback_and_differ() {
        let found: std::collections::BTreeSet<_> = (0..1000).map(|_| source()).collect();
        assert!(found.len() == 1000 && found.iter().all(Ipv4Addr::is_loopback));
    }
}
