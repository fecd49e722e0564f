//! `sluice tap`: requests of the running edge as they end.

use std::io::{self, Write as _};
use std::time::Duration;

use serde_json::Value;
use sluice_client::{Client, ClientError, SseEvent};
use sluice_policy::tap::Filter;

use crate::args::{Format, Tap};
use crate::control;
use crate::exit::{self, Code, Failure};
use crate::say;

/// Pause before a lost stream is opened again; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Runs `sluice tap` until it is interrupted: 130 then, 2 refused, 4 nobody there at the first call.
pub(crate) fn run(args: &Tap) -> Result<Code, Failure> {
    let (route, status) = (args.route.as_deref(), args.status.as_deref());
    let (client, method) = (args.client.as_deref(), args.method.as_deref());
    Filter::new(route, status, client, method).map_err(Failure::usage)?;
    let path = path(&[("route", route), ("status", status), ("client", client), ("method", method)]);
    let client = control::client(&args.remote)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        tokio::select! {
            ended = follow(&client, &path, args.format) => ended,
            _ = tokio::signal::ctrl_c() => Ok(exit::INTERRUPTED),
        }
    })
}

/// The call with its conditions.
fn path(conditions: &[(&str, Option<&str>)]) -> String {
    let mut path = "/admin/tap".to_owned();
    let mut mark = '?';
    for (name, value) in conditions.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        path.push(mark);
        mark = '&';
        path.push_str(name);
        path.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~,:/".contains(&byte) {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    path
}

/// Prints what comes, and opens a lost stream again. Only the first call may fail.
async fn follow(client: &Client, path: &str, format: Format) -> Result<Code, Failure> {
    let (mut first, mut pause) = (true, PAUSE);
    loop {
        match client.stream(path, None).await {
            Ok(mut stream) => {
                (first, pause) = (false, PAUSE);
                // A stream that ends or breaks is opened again.
                while let Ok(Some(event)) = stream.next().await {
                    if let Err(error) = print(&event, format) {
                        // Nobody reads any more: `sluice tap | head`.
                        let closed = error.kind() == io::ErrorKind::BrokenPipe;
                        return if closed { Ok(exit::OK) } else { Err(anyhow::Error::from(error).into()) };
                    }
                }
                say::problem("the stream ended; opening it again\n");
            }
            Err(error) if first || is_final(&error) => return Err(control::unreached(error)),
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A refusal stays one; what is overloaded or starts may answer later.
fn is_final(error: &ClientError) -> bool {
    matches!(error, ClientError::Status { status, .. } if status.is_client_error())
}

fn print(event: &SseEvent, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let value: Value = serde_json::from_str(&event.data).unwrap_or_default();
    match (format, event.event.as_str()) {
        (Format::Json, "gap") => writeln!(out, "{{\"gap\":{}}}", value["missing"])?,
        (Format::Json, _) => writeln!(out, "{}", event.data)?,
        (Format::Text, "gap") => writeln!(out, "… {} request(s) are not shown", value["missing"])?,
        (Format::Text, _) => writeln!(out, "{}", line(&value))?,
    }
    out.flush()
}

/// One request in aligned columns; what does not fit pushes the rest to the right.
fn line(request: &Value) -> String {
    let text = |name: &str| {
        let value = request[name].as_str().unwrap_or("-");
        value.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>()
    };
    let time = text("time");
    let time = time.split_once('T').map_or("", |(_, clock)| clock).get(..12).unwrap_or("");
    let total_ms = request["stages_us"]["total"].as_f64().unwrap_or(0.0) / 1000.0;
    let decision = text("decision");
    let shown = if decision == "forwarded" { String::new() } else { format!("  [{decision}]") };
    let tries = match request["attempts"].as_u64() {
        Some(tries) if tries > 1 => format!("  ({tries} tries)"),
        _ => String::new(),
    };
    format!(
        "{time:<12} {:<15} {:<7} {} {total_ms:>9.3} ms  {:<18} {:<24} {}{shown}{tries}",
        text("client"),
        text("method"),
        request["status"],
        text("route"),
        text("upstream"),
        text("path"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_is_one_aligned_line() {
        let request = json!({
            "time": "2026-01-02T03:04:05.678901Z", "client": "10.0.0.1", "method": "GET", "status": 503,
            "stages_us": {"total": 1250}, "route": "orders", "upstream": "http://127.0.0.1:8001",
            "path": "/a\u{1b}[31m", "decision": "breaker_open", "attempts": 2,
        });
        assert_eq!(
            line(&request),
            "03:04:05.678 10.0.0.1        GET     503     1.250 ms  orders             http://127.0.0.1:8001    /a?[31m  [breaker_open]  (2 tries)"
        );
        assert!(line(&json!({"status": 501})).contains("501"), "what is missing is a dash");
    }

    #[test]
    fn conditions_are_escaped() {
        let conditions = [("route", Some("a b&c")), ("status", None), ("client", Some("10.0.0.0/8"))];
        assert_eq!(path(&conditions), "/admin/tap?route=a%20b%26c&client=10.0.0.0/8");
        assert_eq!(path(&[("route", None)]), "/admin/tap");
    }
}
