//! `sluice audit verify`.

use serde_json::json;
use sluice_audit::{LogReport, Report};

use crate::args::{Audit, AuditCommand, Format};
use crate::exit::{self, Code, Failure};
use crate::say;

/// Runs `sluice audit …`: works offline, without a configuration. 0 whole, 3 broken.
pub(crate) fn run(args: &Audit) -> Result<Code, Failure> {
    let AuditCommand::Verify { data_dir, format } = &args.command;
    let report = sluice_audit::verify(&data_dir.join("audit")).map_err(anyhow::Error::from)?;
    let text = match format {
        Format::Json => to_json(&report).to_string() + "\n",
        Format::Text => report.logs.iter().map(to_line).collect(),
    };
    say::result(&text)?;
    Ok(if report.is_whole() { exit::OK } else { exit::CHECK })
}

fn to_line(log: &LogReport) -> String {
    let torn = if log.torn_bytes > 0 {
        format!(", {} bytes of a torn write", log.torn_bytes)
    } else {
        String::new()
    };
    match &log.fault {
        None => format!("ok      {:<8} {} records{torn}\n", log.role, log.records),
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
        json!({"role": log.role, "records": log.records, "torn_bytes": log.torn_bytes, "fault": fault})
    });
    json!({"whole": report.is_whole(), "logs": logs.collect::<Vec<_>>()})
}
