//! `sluice config show` and `sluice config schema`.

use std::io::Write as _;

use sluice_schema::{Mode, json_schema, to_toml};

use crate::args::{Config, ConfigCommand};
use crate::exit::{self, Code, Failure};
use crate::load;

/// Runs `sluice config …`.
pub(crate) fn run(args: &Config) -> Result<Code, Failure> {
    let text = match &args.command {
        ConfigCommand::Schema => format!("{:#}\n", json_schema()),
        ConfigCommand::Show { conf, origin, dev } => {
            let mode = Mode { dev: *dev, secrets_required: false, now_unix_s: None };
            let loaded = load::read(conf, &load::environment(), mode).map_err(|report| {
                load::print(&report);
                Failure::new(
                    exit::USAGE,
                    anyhow::anyhow!("{} error(s) in the configuration", report.errors()),
                )
            })?;
            to_toml(&loaded.config, origin.then_some(&loaded.origins))
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
