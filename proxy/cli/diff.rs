//! `sluice diff`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_schema::{Config, Diff, Effective, Mode, diff};

use crate::args::{self, Format};
use crate::exit::{self, Code, Failure};
use crate::{control, load, say};

/// What the running edge says of its configuration, as far as it is needed here.
#[derive(Deserialize)]
struct Running {
    dev: bool,
    port_offset: u16,
    environment: BTreeMap<String, String>,
    effective: Effective,
}

/// Runs `sluice diff`: 0 whether they differ or not, 2 where one of them has errors, 4 where nobody runs.
pub(crate) fn run(args: &args::Diff) -> Result<Code, Failure> {
    let difference = match (args.running, args.paths.as_slice()) {
        (true, []) => running(args, &args.remote.common.conf)?,
        (true, [path]) => running(args, path)?,
        (false, [old, new]) => {
            let environment = load::environment();
            let mode = Mode {
                dev: args.remote.common.dev,
                secrets_required: false,
                now_unix_s: None,
                ..Mode::default()
            };
            diff(&config(old, &environment, mode)?, &config(new, &environment, mode)?)
        }
        _ => return Err(Failure::usage("give OLD and NEW, or --running and at most one PATH")),
    };
    let text = match args.format {
        Format::Json => to_json(&difference).to_string() + "\n",
        Format::Text => to_text(&difference),
    };
    say::result(&text)?;
    Ok(exit::OK)
}

/// From what is in force to what the files say. The files are read as the edge would read them: with its
/// variables, its rules and its port offset.
fn running(args: &args::Diff, path: &Path) -> Result<Diff, Failure> {
    let reply = control::call(&args.remote, Method::GET, "/admin/config", &Value::Null)?;
    let answer = control::json(&reply)?;
    let running: Running =
        serde_json::from_value(answer).context("the edge's answer has an unexpected shape")?;
    let mode = Mode { dev: running.dev, secrets_required: false, now_unix_s: None, ..Mode::default() };
    let mut files = config(path, &running.environment, mode)?;
    files.port_offset(running.port_offset).map_err(Failure::usage)?;
    let mut files = Effective::of(&files);
    // Whether a secret is set depends on variables that only the edge has.
    for name in ["auth.hs256_secret", "falco.secret", "kill_switch.secret"] {
        match running.effective.keys.get(name) {
            Some(value) => files.keys.insert(name.to_owned(), value.clone()),
            None => files.keys.remove(name),
        };
    }
    Ok(running.effective.diff(&files))
}

fn config(path: &Path, environment: &BTreeMap<String, String>, mode: Mode) -> Result<Config, Failure> {
    let loaded = load::read(path, environment, mode).map_err(|report| {
        load::print(&report);
        let errors = report.errors();
        Failure::new(exit::USAGE, anyhow::anyhow!("{errors} error(s) in {}", path.display()))
    })?;
    Ok(loaded.config)
}

fn to_text(difference: &Diff) -> String {
    if difference.is_empty() {
        return "no difference\n".to_owned();
    }
    let mut text = difference.to_string();
    let restarts: Vec<&str> = difference.restarts().iter().map(|role| role.as_str()).collect();
    if !restarts.is_empty() {
        text.push_str(&format!("restarts {}\n", restarts.join(", ")));
    }
    text
}

fn to_json(difference: &Diff) -> Value {
    let mut value = serde_json::to_value(difference).unwrap_or_default();
    value["equal"] = difference.is_empty().into();
    value["restart"] = json!(difference.restarts());
    value
}
