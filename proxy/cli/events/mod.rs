//! `sluice events`: publishing, following and replaying.

pub(crate) mod args;
mod batch;
mod input;
mod publish;
mod replay;
mod show;
mod tail;

use std::future::Future;

use http::StatusCode;
use serde_json::Value;
use sluice_client::{Client, Reply};

use args::{Asked, Events, EventsCommand};

use crate::exit::{self, Code, Failure};
use crate::{control, role};

/// Variable with the address of the event worker.
const ADDRESS: &str = "EVENT_SERVICE_URL";

/// Runs `sluice events …`: 0 done, 1 broken off, 2 refused, 3 done but for events that were refused, 4 nobody there,
/// 130 interrupted.
pub(crate) fn run(args: &Events) -> Result<Code, Failure> {
    match &args.command {
        EventsCommand::Publish(publish) => publish::run(publish),
        EventsCommand::Tail(tail) => tail::run(tail),
        EventsCommand::Replay(replay) => replay::run(replay),
    }
}

/// A client of the event worker that the arguments name.
fn client(asked: &Asked) -> Result<Client, Failure> {
    let named = asked.url.clone().or_else(|| std::env::var(ADDRESS).ok().filter(|url| !url.is_empty()));
    let base = if let Some(url) = named {
        url
    } else {
        let listens = |config: &sluice_schema::Config| config.events.listen;
        let known = control::address(&asked.common, asked.port_offset, role::NOTED_EVENTS, listens);
        format!("http://{}", known?)
    };
    let token = control::token(asked.token.as_deref(), &asked.common.data_dir);
    Client::api(&base, token).map_err(|error| Failure::new(exit::USAGE, error))
}

/// Does the work on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let done = runtime.block_on(work);
    // A look-up or a read that nobody waits for any more.
    runtime.shutdown_background();
    done
}

/// The JSON of an answer that went well; else the failure that its problem tells.
fn json(reply: &Reply) -> Result<Value, Failure> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if reply.status.is_success() {
        return Ok(body);
    }
    let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let event =
        body["index"].as_u64().map(|index| format!(" (event {index} of the call)")).unwrap_or_default();
    let hint = match reply.status {
        StatusCode::UNAUTHORIZED => "; give a token with --token, SLUICE_TOKEN or --data-dir",
        _ => "",
    };
    let text = format!(
        "the event worker answers {}: {} {}{event}{hint}",
        reply.status,
        word("code"),
        word("detail")
    );
    let code = if reply.status.is_client_error() { exit::USAGE } else { exit::RUNTIME };
    Err(Failure::new(code, anyhow::anyhow!("{text}")))
}

/// A query of pairs, escaped.
pub(crate) fn query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut out = path.to_owned();
    for (index, (name, value)) in pairs.iter().enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~,:/".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(query("/events", &[]), "/events");
        let pairs = [("event_type", "a b&c"), ("symbol", "BTC/USDT")];
        assert_eq!(query("/events", &pairs), "/events?event_type=a%20b%26c&symbol=BTC/USDT");
    }

    #[test]
    fn refusals_become_failures() {
        let reply = |status: u16, body: &str| Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_owned().into(),
        };
        assert_eq!(json(&reply(200, r#"{"a":1}"#)).unwrap()["a"], 1);
        let refused =
            json(&reply(409, r#"{"code":"event_id_conflict","detail":"x","index":3}"#)).unwrap_err();
        assert_eq!(refused.code, exit::USAGE);
        assert!(refused.error.to_string().ends_with("event_id_conflict x (event 3 of the call)"));
        assert!(json(&reply(401, "{}")).unwrap_err().error.to_string().contains("--token"));
        assert_eq!(json(&reply(507, "")).unwrap_err().code, exit::RUNTIME);
    }
}
