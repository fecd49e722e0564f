//! `sluice check`.

use serde_json::json;
use sluice_schema::{Mode, Report};

use crate::args::{Check, Format};
use crate::exit::{self, Code, Failure};
use crate::{load, say};

/// Runs `sluice check`: 0 fine, 2 errors, 3 warnings under `--strict`.
pub(crate) fn run(args: &Check) -> Result<Code, Failure> {
    let mode = Mode { dev: args.dev, now_unix_s: Some(load::now_unix_s()), ..Mode::default() };
    let (report, services) = match load::read(&args.path, &load::environment(), mode) {
        Ok(loaded) => (loaded.warnings, Some(loaded.config.services.len())),
        Err(report) => (report, None),
    };
    show(&report, services, args)?;
    Ok(match (report.errors(), report.warnings()) {
        (1.., _) => exit::USAGE,
        (0, 1..) if args.strict => exit::CHECK,
        _ => exit::OK,
    })
}

fn show(report: &Report, services: Option<usize>, args: &Check) -> Result<(), Failure> {
    if args.format == Format::Json {
        return say::result(&format!("{}\n", json!(report.findings())));
    }
    load::print(report);
    let counted = format!("{} error(s), {} warning(s)", report.errors(), report.warnings());
    let services = services.map(|count| format!("{count} service(s), ")).unwrap_or_default();
    say::result(&format!("{}: {services}{counted}\n", args.path.display()))
}
