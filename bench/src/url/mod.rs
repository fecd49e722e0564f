//! `sluice-bench load`: any URL, driven as the scenarios drive their subjects.

mod address;
mod args;
mod tls;

use std::path::Path;

use anyhow::{Context as _, ensure};
use rustls::pki_types::ServerName;
use tokio::task::LocalSet;

use crate::audience::{Audience, Step, UPGRADE, frame};
use crate::load::{Act, Ask, Place, Target, Tls};
use crate::program::Identity;
use crate::question::Request;
use crate::report::Described;
use crate::run::{Ended, Fleet, Opening, Signals, measured, time_limit};
use crate::scenario::ScenarioError;
use crate::subject::Running;
use crate::voice::{BEFORE_STAMP, Expects, STAMP};
use address::Address;
pub(crate) use args::LoadArgs;
pub(crate) use tls::Trust;

/// LIMIT: tokens of a file, and the file's bytes.
const TOKENS_MAX: usize = 100_000;
const TOKEN_FILE_BYTES_MAX: u64 = 256 << 20;
/// LIMIT: bytes of a body: with its head it must fit the socket's buffer, because it is sent in one write.
const BODY_BYTES_MAX: usize = 128 * 1024;
/// The place of an intended time in a body.
const PLACE: &str = "{{at}}";

/// Asks each URL in turn, as the arguments say.
pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<Ended> {
    let mistake = |error: anyhow::Error| ScenarioError::Range(format!("{error:#}"));
    let scenario = args.scenario().map_err(mistake)?;
    let fleet = fleet(args).map_err(mistake)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let signals = Signals::watch()?;
        let mut opening = Opening::now(args.compare.as_deref(), &scenario)?;
        opening.unpinned("subjects run where they run; the generator on every core");
        let limit = time_limit(&scenario, false);
        let ended = tokio::time::timeout(limit, measured(opening, scenario, fleet, signals, &args.out)).await;
        ended.with_context(|| format!("not done within {} s", limit.as_secs()))?
    }))
}

fn fleet(args: &LoadArgs) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet { running: Vec::new(), described: Vec::new() };
    ensure!(args.pids.is_empty() || args.pids.len() == args.urls.len(), "--pid: one for each URL, or none");
    for (at, text) in args.urls.iter().enumerate() {
        let (name, url) = named(text);
        ensure!(fleet.running.iter().all(|(other, _)| *other != name), "`{name}` is named twice");
        let address = Address::parse(url)?;
        let target = target(args, &address)?;
        let identity =
            Identity { version: "–".into(), sha256: String::new(), source: address.text.clone() };
        let mut running = Running::elsewhere(identity, target.place.address);
        running.aim = Some(target);
        running.cpu_root = args.pids.get(at).copied();
        fleet.described.push(Described {
            name: name.clone(),
            policies: address.text.clone(),
            version: Some("–".into()),
            sha256: None,
            source: Some(address.text),
            not_available: None,
        });
        fleet.running.push((name, running));
    }
    Ok(fleet)
}

/// `NAME=URL`, or a URL whose host and port are its name.
fn named(text: &str) -> (String, &str) {
    let plain = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text.split_once('=') {
        Some((name, url)) if plain(name) => (name.to_owned(), url),
        _ => {
            let after = text.split_once("://").map_or(text, |(_, rest)| rest);
            (after.split('/').next().unwrap_or(after).to_owned(), text)
        }
    }
}

fn place(args: &LoadArgs, address: &Address, http2: bool) -> anyhow::Result<Place> {
    let tls = if address.secure {
        let name = ServerName::try_from(address.host.clone()).context("the host is no name of a server")?;
        Some(Tls { config: args.trust().config(http2)?, name })
    } else {
        None
    };
    Ok(Place { address: address.resolve()?, tls })
}

fn target(args: &LoadArgs, address: &Address) -> anyhow::Result<Target> {
    ensure!(!address.upgraded, "{}: ws and wss are for --listen", address.text);
    let body = args.body()?;
    ensure!(body.len() <= BODY_BYTES_MAX, "the body has more than {BODY_BYTES_MAX} bytes");
    let expects = args.expect_bytes.map_or(Expects::Any, Expects::Body);
    let ask = |token: Option<&str>, status: Option<u16>| {
        let request = request(args, address, &body, token)?;
        anyhow::Ok(Ask { request, expects, status })
    };
    let mut asks = Vec::new();
    match &args.tokens {
        None => asks.push(ask(None, args.status)?),
        Some(path) => {
            for (token, status) in tokens(path)? {
                asks.push(ask(Some(&token), status.or(args.status))?);
            }
        }
    }
    Ok(Target {
        place: place(args, address, args.http2)?,
        streams: args.http2.then_some(args.streams),
        asks,
        greeting: None,
        audience: audience(args, &body)?,
        script: args.acts()?.into_iter().map(|(at, words)| Act::command(at, &words)).collect(),
    })
}

/// The bytes of a request, with a place for the time where the body has one.
fn request(args: &LoadArgs, address: &Address, body: &str, token: Option<&str>) -> anyhow::Result<Request> {
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", args.method(), address.path, address.authority);
    for header in &args.headers {
        let (name, value) =
            header.split_once(':').with_context(|| format!("`{header}` is no `Name: value`"))?;
        let clean = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        ensure!(clean(name) && clean(value) && !name.contains(' '), "`{header}` is no header");
        head += &format!("{name}: {}\r\n", value.trim());
    }
    if let Some(token) = token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    let stamped = body.replace(PLACE, STAMP);
    if !body.is_empty() || args.method() != "GET" {
        head += &format!("Content-Length: {}\r\n", stamped.len());
    }
    Ok(Request::with_places(format!("{head}\r\n{stamped}").into_bytes()))
}

/// A token on each line, and behind it the status it is to be answered with if that is not 2xx.
fn tokens(path: &Path) -> anyhow::Result<Vec<(String, Option<u16>)>> {
    let length = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    ensure!(length <= TOKEN_FILE_BYTES_MAX, "{} has more than {TOKEN_FILE_BYTES_MAX} bytes", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = || format!("{}:{}: not `TOKEN [STATUS]`", path.display(), at + 1);
        let mut words = line.split_ascii_whitespace();
        let token = words.next().with_context(wrong)?;
        let status = words.next().map(|word| word.parse().with_context(wrong)).transpose()?;
        ensure!(token.bytes().all(|byte| byte.is_ascii_graphic()) && words.next().is_none(), wrong());
        ensure!(found.len() < TOKENS_MAX, "{} has more than {TOKENS_MAX} tokens", path.display());
        found.push((token.to_owned(), status));
    }
    ensure!(!found.is_empty(), "{} has no token", path.display());
    Ok(found)
}

/// Who listens for what is sent: Server-Sent Events or a WebSocket, by the URL's scheme.
fn audience(args: &LoadArgs, body: &str) -> anyhow::Result<Option<Audience>> {
    let Some(url) = &args.listen else { return Ok(None) };
    let batch = body.matches(&format!("{BEFORE_STAMP}{PLACE}")).count();
    ensure!(
        batch > 0,
        "--listen: the body must have {BEFORE_STAMP}{PLACE}\" in each event, for the time of its send"
    );
    let address = Address::parse(url)?;
    let mut words = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", address.path, address.authority);
    let headers = args.headers.iter().filter(|header| !header.to_ascii_lowercase().starts_with("content-"));
    headers.for_each(|header| words += &format!("{header}\r\n"));
    // The answer's head is awaited: who listens from now on hears all that is sent later.
    let (rest, must) =
        if address.upgraded { (UPGRADE, " 101 ") } else { ("Accept: text/event-stream\r\n\r\n", " 200 ") };
    let mut steps = vec![Step { say: (words + rest).into_bytes(), end: b"\r\n\r\n", must }];
    if let Some(text) = &args.subscribe {
        ensure!(address.upgraded, "--subscribe: only a WebSocket is told anything");
        steps.push(Step { say: frame(text)?, end: b"", must: "" });
    }
    let place = Some(place(args, &address, false)?);
    let batch = u32::try_from(batch)?;
    Ok(Some(Audience { subscribers: args.subscribers, batch, place, steps }))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
