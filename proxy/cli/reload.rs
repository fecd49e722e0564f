//! `sluice reload` and `sluice rollback`.

use std::fmt::Write as _;
use std::io::Write as _;

use http::Method;
use serde_json::{Value, json};

use crate::args::{Format, Reload, Rollback};
use crate::control;
use crate::exit::{self, Code, Failure};

/// Runs `sluice reload`: 0 taken, 2 refused, 4 nobody there.
pub(crate) fn run(args: &Reload) -> Result<Code, Failure> {
    let reply = control::call(&args.remote, Method::POST, "/admin/reload", &Value::Null)?;
    show(&control::json(&reply)?, args.format)
}

/// Runs `sluice rollback`: 0 done, 2 refused, 4 nobody there.
pub(crate) fn roll_back(args: &Rollback) -> Result<Code, Failure> {
    let body = args.generation.map_or(Value::Null, |number| json!({ "generation": number }));
    let reply = control::call(&args.remote, Method::POST, "/admin/rollback", &body)?;
    show(&control::json(&reply)?, args.format)
}

fn show(done: &Value, format: Format) -> Result<Code, Failure> {
    let text = match format {
        Format::Json => format!("{done}\n"),
        Format::Text => words(done),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn words(done: &Value) -> String {
    let list = |name: &str| -> Vec<&str> {
        done[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let changes = list("changes");
    let mut text = match &done["restored"] {
        Value::Null => "reloaded".to_owned(),
        restored => format!("rolled back to generation {restored}"),
    };
    let hash = done["hash"].as_str().unwrap_or_default();
    let _never_fails =
        writeln!(text, ": generation {} ({hash}), {} change(s)", done["generation"], changes.len());
    for change in changes {
        let _never_fails = writeln!(text, "  {change}");
    }
    let restart = list("restart");
    if !restart.is_empty() {
        let _never_fails = writeln!(text, "takes effect when these start again: {}", restart.join(", "));
    }
    if let Some(saved) = done["saved"].as_str() {
        let _never_fails = writeln!(text, "the files that were replaced are in {saved}");
    }
    if done["kept"] == false {
        text.push_str("its files could not be kept for a rollback\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_words() {
        let done = json!({
            "status": "rolled_back", "restored": 5, "generation": 8, "hash": "abc", "kept": true,
            "changes": ["+ service a"], "restart": ["edge"], "saved": "/data/edge/replaced",
        });
        assert_eq!(
            words(&done),
            "rolled back to generation 5: generation 8 (abc), 1 change(s)\n  + service a\n\
             takes effect when these start again: edge\nthe files that were replaced are in /data/edge/replaced\n"
        );
        let none = json!({"generation": 1, "hash": "x", "changes": [], "restart": [], "kept": false});
        assert_eq!(
            words(&none),
            "reloaded: generation 1 (x), 0 change(s)\nits files could not be kept for a rollback\n"
        );
    }
}
