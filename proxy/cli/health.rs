//! `sluice health`, and what the supervisor asks of running roles.

use std::time::Duration;

use http::{HeaderMap, Method};
use serde_json::json;
use sluice_client::Client;

use crate::args::{Format, Health};
use crate::exit::{self, Code, Failure};
use crate::say;

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(3);
/// The same for a poll that is repeated.
const POLL_WITHIN: Duration = Duration::from_millis(500);

/// Runs `sluice health`: 0 when the address answers 2xx, 3 when it answers otherwise, 4 when it
/// does not answer.
pub(crate) fn run(args: &Health) -> Result<Code, Failure> {
    let authority_end = args.url.get(7..).and_then(|rest| rest.find('/')).map_or(args.url.len(), |at| at + 7);
    let (base, path) = args.url.split_at(authority_end);
    let client = Client::api(base, None).map_err(|error| Failure::new(exit::USAGE, error))?;
    let path = if path.is_empty() { "/readyz" } else { path };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(WITHIN, client.call(Method::GET, path, HeaderMap::new(), "")).await
    });
    if args.format == Format::Json {
        let status = answer.as_ref().ok().and_then(|answer| Some(answer.as_ref().ok()?.status.as_u16()));
        let ready = status.is_some_and(|status| (200..300).contains(&status));
        say::result(&format!("{}\n", json!({"url": args.url, "status": status, "ready": ready})))?;
    }
    match answer {
        Ok(Ok(reply)) if reply.status.is_success() => Ok(exit::OK),
        Ok(Ok(reply)) => {
            Err(Failure::new(exit::CHECK, anyhow::anyhow!("{} answered {}", args.url, reply.status)))
        }
        Ok(Err(error)) => Err(Failure::new(exit::UNREACHABLE, error)),
        Err(_) => {
            Err(Failure::new(exit::UNREACHABLE, anyhow::anyhow!("{} did not answer in {WITHIN:?}", args.url)))
        }
    }
}

/// Whether the edge at an address says that it can serve.
pub(crate) async fn is_ready(address: &str) -> bool {
    get(address, "/readyz").await.is_some()
}

/// Whether the edge at an address says that every part is well.
pub(crate) async fn is_well(address: &str) -> bool {
    let health = get(address, "/health").await.unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&health).is_ok_and(|health| health["status"] == "healthy")
}

/// SHA-256 of the CA certificate that the vault at an address publishes.
pub(crate) async fn ca_fingerprint(address: &str) -> Option<String> {
    let pem = String::from_utf8(get(address, "/ca/certificate").await?).ok()?;
    let der = pem.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, der).ok()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &der);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    Some(pairs.join(":"))
}

async fn get(address: &str, path: &str) -> Option<Vec<u8>> {
    let address = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    let client = Client::api(&format!("http://{address}"), None).ok()?;
    let call = client.call(Method::GET, path, HeaderMap::new(), "");
    let reply = tokio::time::timeout(POLL_WITHIN, call).await.ok()?.ok()?;
    reply.status.is_success().then(|| reply.body.to_vec())
}
