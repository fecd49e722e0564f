//! `sluice reload` and `sluice rollback`.

use std::fmt::Write as _;

use http::Method;
use serde_json::{Value, json};

use crate::args::{Format, Reload, Rollback};
use crate::exit::{self, Code, Failure};
use crate::{control, say};

/// Runs `sluice reload`: 0 taken, 2 refused, 4 nobody there.
pub(crate) fn run(args: &Reload) -> Result<Code, Failure> {
    let reply = control::call(&args.remote, Method::POST, "/admin/reload", &Value::Null)?;
    show(&control::json(&reply)?, args.format)
}

/// Runs `sluice rollback`: 0 done, 2 refused, 4 nobody there.
pub(crate) fn roll_back(args: &Rollback) -> Result<Code, Failure> {
    if args.list {
        return list(args);
    }
    let body = args.generation.map_or(Value::Null, |number| json!({ "generation": number }));
    let reply = control::call(&args.remote, Method::POST, "/admin/rollback", &body)?;
    show(&control::json(&reply)?, args.format)
}

fn show(done: &Value, format: Format) -> Result<Code, Failure> {
    let text = match format {
        Format::Json => format!("{done}\n"),
        Format::Text => words(done),
    };
    say::result(&text)?;
    Ok(exit::OK)
}

/// The generations that can be gone back to.
fn list(args: &Rollback) -> Result<Code, Failure> {
    let reply = control::call(&args.remote, Method::GET, "/admin/config", &Value::Null)?;
    let config = control::json(&reply)?;
    let text = match args.format {
        Format::Json => format!("{}\n", config["kept"]),
        Format::Text => kept(&config),
    };
    say::result(&text)?;
    Ok(exit::OK)
}

fn kept(config: &Value) -> String {
    let mut text = String::new();
    for one in config["kept"].as_array().into_iter().flatten().rev() {
        let word = |name: &str| one[name].as_str().unwrap_or_default();
        let restores = match &one["restores"] {
            Value::Null => String::new(),
            number => format!(", as generation {number}"),
        };
        let present = if one["number"] == config["generation"] { ", in force" } else { "" };
        let at = word("at").get(..19).unwrap_or_default();
        let _never_fails = writeln!(
            text,
            "{:>6}  {at}Z  {}  {} file(s), by {}{restores}{present}",
            one["number"].to_string(),
            word("hash"),
            one["files"],
            word("trigger"),
        );
    }
    if text.is_empty() {
        text.push_str("no generation is kept\n");
    }
    text
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
    fn kept_generations_are_listed_newest_first() {
        let config = json!({"generation": 3, "kept": [
            {"number": 2, "at": "2026-01-02T03:04:05.6Z", "hash": "abc", "trigger": "file", "files": 4},
            {"number": 3, "at": "2026-01-02T03:05:05.6Z", "hash": "def", "trigger": "rollback", "restores": 1, "files": 5},
        ]});
        assert_eq!(
            kept(&config),
            "     3  2026-01-02T03:05:05Z  def  5 file(s), by rollback, as generation 1, in force\n     \
             2  2026-01-02T03:04:05Z  abc  4 file(s), by file\n"
        );
        assert_eq!(kept(&json!({})), "no generation is kept\n");
    }

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
