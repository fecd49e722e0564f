//! Calling the control port of a running edge.

use std::net::SocketAddr;
use std::path::Path;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use sluice_client::{Client, ClientError, Reply};
use sluice_schema::{Config, Mode};

use crate::args::{Common, Remote};
use crate::exit::{self, Failure};
use crate::load;

/// Where the edge notes the address of its control port, below its data directory.
const NOTED_ADDRESS: &str = "edge/control.addr";
/// Variable with the token.
const TOKEN: &str = "SLUICE_TOKEN";
/// LIMIT: bytes of a token or address file.
const FILE_BYTES: u64 = 16 << 10;

/// A client of the control port that the arguments name.
pub(crate) fn client(remote: &Remote) -> Result<Client, Failure> {
    let base = if let Some(url) = &remote.url {
        url.clone()
    } else {
        let listens = |config: &Config| config.control.listen;
        format!("http://{}", address(&remote.common, remote.port_offset, NOTED_ADDRESS, listens)?)
    };
    Client::api(&base, token(remote.token.as_deref(), &remote.common.data_dir))
        .map_err(|error| Failure::new(exit::USAGE, error))
}

/// Where a port of this data directory is reached: the address noted there at its start, for who noted it knows its
/// port offset, and a configuration is most in need of being taken back when it cannot be read. Where none ran there,
/// or a port offset is named, the configuration's.
pub(crate) fn address(
    common: &Common,
    port_offset: u16,
    noted: &str,
    listens: impl Fn(&Config) -> SocketAddr,
) -> Result<SocketAddr, Failure> {
    let noted = || small_file(&common.data_dir.join(noted))?.parse().ok();
    if port_offset == 0
        && let Some(address) = noted()
    {
        return Ok(reachable(address));
    }
    let mode = Mode { dev: common.dev, secrets_required: false, now_unix_s: None, ..Mode::default() };
    match load::read(&common.conf, &load::environment(), mode) {
        Ok(loaded) => {
            let mut config = loaded.config;
            config.port_offset(port_offset).map_err(Failure::usage)?;
            Ok(reachable(listens(&config)))
        }
        Err(report) => noted().map(reachable).ok_or_else(|| {
            load::print(&report);
            Failure::usage("the configuration has errors, so the port is not known; name it with --url")
        }),
    }
}

/// An address that can be connected to: this machine, where it listens everywhere.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The token that is given, else the variable's, else the data directory's.
pub(crate) fn token(given: Option<&str>, data_dir: &Path) -> Option<String> {
    let given = given.map(str::to_owned).or_else(|| std::env::var(TOKEN).ok());
    given.filter(|token| !token.is_empty()).or_else(|| small_file(&data_dir.join("token")))
}

fn small_file(path: &Path) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > FILE_BYTES {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Makes one call; `Value::Null` sends no body.
pub(crate) fn call(remote: &Remote, method: Method, path: &str, body: &Value) -> Result<Reply, Failure> {
    let client = client(remote)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(client.call(method, path, headers, body)).map_err(unreached)
}

/// The failure of a call that was not answered.
pub(crate) fn unreached(error: ClientError) -> Failure {
    let code = match &error {
        ClientError::Status { status, .. } => refused_code(*status),
        ClientError::Address(_) | ClientError::Request(_) | ClientError::Token(..) => exit::USAGE,
        ClientError::Shape(_) | ClientError::TooLarge => exit::RUNTIME,
        ClientError::Connect(..) | ClientError::Broken(_) | ClientError::Timeout(_) => exit::UNREACHABLE,
    };
    Failure::new(code, error)
}

/// The JSON of an answer that went well; else the failure that its problem tells.
pub(crate) fn json(reply: &Reply) -> Result<Value, Failure> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if reply.status.is_success() {
        return Ok(body);
    }
    let word = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let hint = match reply.status {
        StatusCode::UNAUTHORIZED => "; give a token with --token, SLUICE_TOKEN or --data-dir",
        _ => "",
    };
    let text = match body.get("report").and_then(Value::as_str) {
        Some(report) => format!("the edge refuses the configuration:\n{}", report.trim_end()),
        None => format!("the edge answers {}: {} {}{hint}", reply.status, word("code"), word("detail")),
    };
    Err(Failure::new(refused_code(reply.status), anyhow::anyhow!("{text}")))
}

/// What the caller can put right is a matter of usage.
fn refused_code(status: StatusCode) -> exit::Code {
    if status.is_client_error() { exit::USAGE } else { exit::RUNTIME }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_listens_everywhere_is_reached_here() {
        for (listens, reached) in
            [("0.0.0.0:8012", "127.0.0.1:8012"), ("[::]:1", "[::1]:1"), ("10.0.0.1:2", "10.0.0.1:2")]
        {
            assert_eq!(reachable(listens.parse().unwrap()), reached.parse().unwrap());
        }
    }

    #[test]
    fn the_edges_words_become_failures() {
        let reply = |status: u16, body: &str| Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
        };
        assert_eq!(json(&reply(200, r#"{"a":1}"#)).unwrap()["a"], 1);
        let refused = json(&reply(422, r#"{"code":"unprocessable","report":"error[E0101]\n"}"#)).unwrap_err();
        assert_eq!(refused.code, exit::USAGE);
        assert!(refused.error.to_string().ends_with("error[E0101]"), "{}", refused.error);
        let refused = json(&reply(401, "{}")).unwrap_err();
        assert!(refused.error.to_string().contains("--token"));
        assert_eq!(json(&reply(503, "{}")).unwrap_err().code, exit::RUNTIME);
    }
}
