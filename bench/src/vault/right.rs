//! The equal-answer check of vaults: before anything is measured each must do what it is asked, refuse who may not
//! ask, and have it in its audit log.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::task::JoinSet;

use super::ask::{Desk, Dialect, NAME, Op, csr, secret};
use crate::check::{ask, forged};
use crate::line::Line;
use crate::load::Place;
use crate::scenario::Scenario;
use crate::subject::Running;
use crate::trial::Trial;
use crate::work::Work;

/// Connections that write secrets beforehand.
const WRITERS: u32 = 64;

/// Makes a vault ready for a scenario and holds it to its answers; an error says what differs.
pub(crate) async fn answers_rightly(running: &Running, scenario: &Scenario) -> anyhow::Result<()> {
    let desk = running.desk.as_ref().context("there is no vault")?;
    let value_bytes = scenario.body_bytes as usize;
    match scenario.work {
        Work::Vault { op } => {
            // What each connection reads or writes is there before the first is measured.
            fill(desk, value_bytes, scenario.connections).await.context("write the secrets")?;
            let logged = size(desk)?;
            one(desk, op, value_bytes)?;
            refused(desk, op, value_bytes)?;
            // Asking Sluice whether a token is good is no use of it, and is not recorded.
            let silent = (op, desk.dialect) == (Op::Validate, Dialect::Own);
            ensure!(silent || size(desk)? > logged, "nothing of it is in the audit log");
        }
        Work::Unseal { secrets } => {
            fill(desk, value_bytes, secrets).await.context("write the secrets")?;
            Trial::new(running, scenario.work)?.once().await?;
            let last = format!("{:08x}", secrets - 1);
            desk.must("GET", &secret(desk.dialect, &last), None).context("read the last secret")?;
        }
        _ => {
            Trial::new(running, scenario.work)?.once().await?;
        }
    }
    Ok(())
}

fn size(desk: &Desk) -> anyhow::Result<u64> {
    let metadata = std::fs::metadata(&desk.audit);
    Ok(metadata.with_context(|| format!("audit log {}", desk.audit.display()))?.len())
}

/// Writes so many secrets.
async fn fill(desk: &Desk, value_bytes: usize, secrets: u32) -> anyhow::Result<()> {
    let next = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..WRITERS.min(secrets) {
        let (desk, next) = (desk.clone(), Rc::clone(&next));
        tasks.spawn_local(async move {
            let mut line = Line::open(desk.address, None).await?;
            let mut request = desk.request(Op::Write, value_bytes);
            while next.get() < secrets {
                let number = next.replace(next.get() + 1);
                let status = line.ask(request.next(number as usize, u64::from(number))).await?.status;
                ensure!(status == 200, "status {status} to secret {number}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// The operation as it is measured, and what must be true afterwards.
fn one(desk: &Desk, op: Op, value_bytes: usize) -> anyhow::Result<()> {
    let mut request = desk.request(op, value_bytes);
    let answer = ask(&Place::plain(desk.address), request.next(0, 4711))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!(answer.status == 200, "status {} in place of 200: {text}", answer.status);
    let told: Value = serde_json::from_slice(&answer.body).with_context(|| format!("no JSON: {text}"))?;
    let inner = |told: &Value| if desk.dialect == Dialect::V1 { told["data"].clone() } else { told.clone() };
    let told = inner(&told);
    match op {
        Op::Read => is_value(&told, 0, value_bytes)?,
        Op::Write => {
            let read = || desk.must("GET", &secret(desk.dialect, "00000000"), None).map(|told| inner(&told));
            is_value(&read()?, 4711, value_bytes)?;
            let before = told["version"].as_u64().context("the write names no version")?;
            ask(&Place::plain(desk.address), request.next(0, 4712))?;
            let now = read()?;
            is_value(&now, 4712, value_bytes)?;
            let version = now["version"].as_u64().or_else(|| now["metadata"]["version"].as_u64());
            ensure!(version == Some(before + 1), "version {version:?} after {before}");
        }
        Op::Issue | Op::Sign => is_kept(desk, op, &told)?,
        Op::Validate => {
            let who = told["service_name"].as_str().or_else(|| told["meta"]["service"].as_str());
            ensure!(who == Some(NAME), "the token is of {who:?}: {told}");
        }
    }
    Ok(())
}

/// Whether what was read is what was written at a time.
fn is_value(told: &Value, at: u64, bytes: usize) -> anyhow::Result<()> {
    let value = &told["data"];
    ensure!(value["at"] == format!("{at:016x}"), "another value was written: {value}");
    ensure!(value.to_string().len() == bytes, "the value has {} bytes: {value}", value.to_string().len());
    Ok(())
}

/// Whether a certificate is of the right key, and known to its issuer afterwards.
fn is_kept(desk: &Desk, op: Op, told: &Value) -> anyhow::Result<()> {
    let pem = told["certificate"].as_str().context("no certificate")?;
    let serial = told["serial_number"].as_str().context("no serial number")?;
    ensure!(told["private_key"].is_string() == (op == Op::Issue), "a private key, or none, is wrong");
    if op == Op::Sign {
        let point = &csr().point;
        ensure!(der(pem)?.windows(point.len()).any(|part| part == point), "a certificate of another key");
    }
    let path = match desk.dialect {
        Dialect::Own => format!("/credentials/{NAME}"),
        Dialect::V1 => format!("/v1/pki/cert/{serial}"),
    };
    let kept = desk.must("GET", &path, None)?;
    let kept = if desk.dialect == Dialect::V1 { &kept["data"] } else { &kept };
    let kept = kept["certificate"].as_str().context("the certificate was not kept")?;
    ensure!(der(kept)? == der(pem)?, "another certificate was kept");
    Ok(())
}

/// The first certificate of a text.
fn der(pem: &str) -> anyhow::Result<Vec<u8>> {
    let body = pem.split("-----BEGIN CERTIFICATE-----").nth(1).and_then(|rest| rest.split("-----END").next());
    let body: String = body.context("no certificate")?.split_whitespace().collect();
    Ok(STANDARD.decode(body)?)
}

/// The same with another token.
fn refused(desk: &Desk, op: Op, value_bytes: usize) -> anyhow::Result<()> {
    let other = Desk { token: forged(&desk.token), ..desk.clone() };
    let answer = ask(&Place::plain(desk.address), other.request(op, value_bytes).next(0, 0))?;
    let said = serde_json::from_slice::<Value>(&answer.body).unwrap_or(Value::Null);
    let refused = [401, 403].contains(&answer.status) || said["valid"] == false;
    ensure!(refused, "status {} to a forged token: {said}", answer.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_value_that_was_written_is_right() {
        let value = json!({ "data": { "at": "0000000000000007", "pad": "x" } });
        let bytes = value["data"].to_string().len();
        assert!(is_value(&value, 7, bytes).is_ok());
        assert!(is_value(&value, 8, bytes).is_err() && is_value(&value, 7, bytes + 1).is_err());
    }

    #[test]
    fn the_first_certificate_of_a_chain_is_read() {
        let one = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
        assert_eq!(der(&one.repeat(2)).unwrap(), [0, 1, 2]);
        assert!(der("").is_err() && der("-----BEGIN CERTIFICATE-----\n?\n").is_err());
    }
}
