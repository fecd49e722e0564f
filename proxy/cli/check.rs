//! `sluice check`.

use std::io::Write as _;

use sluice_schema::{Mode, Report};

use crate::args::{Check, Format};
use crate::exit::{self, Code, Failure};
use crate::load;

/// Runs `sluice check`: 0 fine, 2 errors, 3 warnings under `--strict`.
pub(crate) fn run(args: &Check) -> Result<Code, Failure> {
    let mode = Mode { dev: args.dev, secrets_required: true, now_unix_s: Some(load::now_unix_s()) };
    let (report, services) = match load::read(&args.path, &load::environment(), mode) {
        Ok(loaded) => (loaded.warnings, Some(loaded.config.services.len())),
        Err(report) => (report, None),
    };
    show(&report, services, args).map_err(anyhow::Error::from)?;
    Ok(match (report.errors(), report.warnings()) {
        (1.., _) => exit::USAGE,
        (0, 1..) if args.strict => exit::CHECK,
        _ => exit::OK,
    })
}

fn show(report: &Report, services: Option<usize>, args: &Check) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.format == Format::Json {
        serde_json::to_writer(&mut out, &report.findings())?;
        return writeln!(out);
    }
    load::print(report);
    let counted = format!("{} error(s), {} warning(s)", report.errors(), report.warnings());
    match services {
        Some(services) => writeln!(out, "{}: {services} service(s), {counted}", args.path.display()),
        None => writeln!(out, "{}: {counted}", args.path.display()),
    }
}
