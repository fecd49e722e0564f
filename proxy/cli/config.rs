//! `sluice config show` and `sluice config schema`.

use serde_json::{Value, json};
use sluice_schema::{Mode, Origins, json_schema, origin_of, settings, to_toml};

use crate::args::{Config, ConfigCommand, Format};
use crate::exit::{self, Code, Failure};
use crate::{load, say};

/// Runs `sluice config …`.
pub(crate) fn run(args: &Config) -> Result<Code, Failure> {
    let text = match &args.command {
        ConfigCommand::Schema => format!("{:#}\n", json_schema()),
        ConfigCommand::Show { conf, origin, dev, format } => {
            let mode = Mode { dev: *dev, secrets_required: false, now_unix_s: None, ..Mode::default() };
            let loaded = load::read(conf, &load::environment(), mode).map_err(|report| {
                load::print(&report);
                Failure::new(
                    exit::USAGE,
                    anyhow::anyhow!("{} error(s) in the configuration", report.errors()),
                )
            })?;
            let origins = origin.then_some(&loaded.origins);
            match format {
                Format::Text => to_toml(&loaded.config, origins),
                Format::Json => format!("{}\n", to_json(&loaded.config, origins)),
            }
        }
    };
    say::result(&text)?;
    Ok(exit::OK)
}

/// An array of the keys: path, value, meaning and, where asked for, origin.
fn to_json(config: &sluice_schema::Config, origins: Option<&Origins>) -> Value {
    let all = settings(config).into_iter().map(|setting| {
        let mut shown = json!(setting);
        if let Some(origins) = origins {
            shown["origin"] = json!(origin_of(origins, &setting.path));
        }
        shown
    });
    all.collect()
}
