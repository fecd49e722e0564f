//! `sluice audit verify`.

use std::path::Path;

use serde_json::json;
use sluice_audit::{CheckpointKey, LogReport, Report};
use sluice_identity::jwk::PublicKey;
use sluice_wire::feed::Jwk;
use sluice_wire::role::Role;

use crate::args::{Audit, AuditCommand, Format};
use crate::exit::{self, Code, Failure};
use crate::say;

/// Runs `sluice audit …`: works offline, without a configuration. 0 whole, 3 broken.
pub(crate) fn run(args: &Audit) -> Result<Code, Failure> {
    let AuditCommand::Verify { data_dir, key, format } = &args.command;
    let dir = data_dir.join("audit");
    let report = match key {
        Some(file) => sluice_audit::verify_signed(&dir, &read_key(file)?),
        None => sluice_audit::verify(&dir),
    };
    let report = report.map_err(anyhow::Error::from)?;
    let text = match format {
        Format::Json => to_json(&report).to_string() + "\n",
        Format::Text => report.logs.iter().map(to_line).collect(),
    };
    say::result(&text)?;
    Ok(if report.is_whole() { exit::OK } else { exit::CHECK })
}

/// The vault's key, a JWK in a file.
fn read_key(path: &Path) -> Result<CheckpointKey, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    let key: Jwk = serde_json::from_str(&text).map_err(|error| named(&error))?;
    let key = PublicKey::try_from(&key).map_err(|error| named(&error))?;
    Ok(CheckpointKey { role: Role::Vault.to_string(), point: key.point().to_vec() })
}

fn to_line(log: &LogReport) -> String {
    let torn = if log.torn_bytes > 0 {
        format!(", {} bytes of a torn write", log.torn_bytes)
    } else {
        String::new()
    };
    let signed = log.signed_upto.map_or_else(String::new, |seq| format!(", signed up to {seq}"));
    match &log.fault {
        None => format!("ok      {:<8} {} records{signed}{torn}\n", log.role, log.records),
        Some(fault) => format!(
            "BROKEN  {:<8} {:?} at record {} (line {}): {}\n",
            log.role, fault.kind, fault.seq, fault.line, fault.detail
        ),
    }
}

fn to_json(report: &Report) -> serde_json::Value {
    let logs = report.logs.iter().map(|log| {
        let fault = log.fault.as_ref().map(|fault| {
            json!({"kind": format!("{:?}", fault.kind).to_lowercase(), "seq": fault.seq, "line": fault.line, "detail": fault.detail})
        });
        json!({"role": log.role, "records": log.records, "torn_bytes": log.torn_bytes,
            "signed_upto": log.signed_upto, "fault": fault})
    });
    json!({"whole": report.is_whole(), "logs": logs.collect::<Vec<_>>()})
}
