//! `sluice vault`: making, opening and closing it, and new keys for it.
//!
//! Shares and key files never stand in arguments. What is shown once is written out before it counts: a new root key is
//! given back to the vault only after its shares were printed, or its file lies on the disk, so whatever ends in
//! between leaves the present key or the new one in somebody's hands.

pub(crate) mod args;
mod door;
mod key_file;
mod rekey;
mod secret;

use serde_json::{Value, json};

use args::{Asked, Vault, VaultCommand};
use door::Door;

use crate::args::Format;
use crate::exit::{self, Code, Failure};
use crate::say;

/// Runs `sluice vault …`: 0 done, 1 failed, 2 refused, 3 it is not open (`status`), 4 nobody there.
pub(crate) fn run(args: &Vault) -> Result<Code, Failure> {
    match &args.command {
        VaultCommand::Status(asked) => {
            let status = Door::open(asked)?.seal_status()?;
            show(asked, &status, &words(&status))?;
            Ok(if status["sealed"] == false { exit::OK } else { exit::CHECK })
        }
        VaultCommand::Init { shares, threshold, asked } => init(*shares, *threshold, asked),
        VaultCommand::Unseal(asked) => unseal(asked),
        VaultCommand::Seal(asked) => {
            Door::open(asked)?.put("sys/seal", &Value::Null)?;
            done(asked, &json!({ "sealed": true }), "sealed\n")
        }
        VaultCommand::Rotate(asked) => {
            let door = Door::open(asked)?;
            door.put("sys/rotate", &Value::Null)?;
            let status = door.get("sys/key-status")?;
            let (term, since) = (&status["data"]["term"], &status["data"]["install_time"]);
            let text = format!("new records use key {term}; the others are sealed anew in the background\n");
            done(asked, &json!({ "term": term, "install_time": since }), &text)
        }
        VaultCommand::Rekey(rekey) => rekey::run(rekey),
        VaultCommand::GenerateRoot { cancel: true, asked, .. } => {
            Door::open(asked)?.delete("sys/generate-root/attempt")?;
            done(asked, &json!({ "cancelled": true }), "no root token is being made\n")
        }
        VaultCommand::GenerateRoot { proof, asked, .. } => rekey::generate_root(proof, asked),
    }
}

fn init(shares: u8, threshold: u8, asked: &Asked) -> Result<Code, Failure> {
    shown_once()?;
    let body = json!({ "secret_shares": shares, "secret_threshold": threshold });
    let made = Door::open(asked)?.put("sys/init", &body)?;
    let (keys, token) = (&made["keys"], made["root_token"].as_str().unwrap_or_default());
    let text = format!(
        "{}root token: {token}\nAny {threshold} of the shares open the vault (sluice vault unseal). All this is shown this once.\n",
        share_lines(keys)
    );
    print(asked, &json!({ "shares": keys, "threshold": threshold, "root_token": token }), &text)
}

/// Takes one share after the other until the vault is open or no more are given.
fn unseal(asked: &Asked) -> Result<Code, Failure> {
    let door = Door::open(asked)?;
    let mut status = door.seal_status()?;
    let mut given = false;
    while status["sealed"] == true {
        if status["initialized"] == false {
            return Err(Failure::usage("there is no vault yet: sluice vault init"));
        }
        if status["seal"] == "file" {
            return Err(Failure::usage(format!("it is {}", words(&status).trim_end())));
        }
        let next = status["progress"].as_u64().unwrap_or(0) + 1;
        let Some(share) = secret::line(&format!("share {next} of {}: ", status["t"]))? else {
            if given {
                break;
            }
            return Err(Failure::usage("no share was given: the vault stays sealed"));
        };
        given = true;
        status = door.put("sys/unseal", &json!({ "key": share.as_str() }))?;
    }
    done(asked, &status, &words(&status))
}

fn words(status: &Value) -> String {
    if status["initialized"] == false {
        return "there is no vault yet\n".to_owned();
    }
    if status["sealed"] == false {
        return "open\n".to_owned();
    }
    if status["seal"] == "file" {
        return "sealed until the vault worker is started again: it opens by its key file\n".to_owned();
    }
    let (progress, t, n) = (&status["progress"], &status["t"], &status["n"]);
    format!("sealed; {progress} of {t} shares given, {n} exist\n")
}

/// The lines of the shares in a list.
fn share_lines(keys: &Value) -> String {
    let keys = keys.as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = keys
        .iter()
        .enumerate()
        .map(|(index, key)| format!("share {}: {}\n", index + 1, key.as_str().unwrap_or_default()));
    lines.collect()
}

/// What would be lost is not asked for.
fn shown_once() -> Result<(), Failure> {
    if say::is_quiet() {
        return Err(Failure::usage("what this prints is shown this once: do not use --quiet"));
    }
    Ok(())
}

/// Prints what must not be lost.
fn print(asked: &Asked, told: &Value, text: &str) -> Result<Code, Failure> {
    match asked.format {
        Format::Json => say::must(&format!("{told}\n"))?,
        Format::Text => say::must(text)?,
    }
    Ok(exit::OK)
}

fn done(asked: &Asked, told: &Value, text: &str) -> Result<Code, Failure> {
    show(asked, told, text)?;
    Ok(exit::OK)
}

fn show(asked: &Asked, told: &Value, text: &str) -> Result<(), Failure> {
    match asked.format {
        Format::Json => say::result(&format!("{told}\n")),
        Format::Text => say::result(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_it_stands_is_said_in_words() {
        let status = |initialized, sealed| json!({ "initialized": initialized, "sealed": sealed, "progress": 1, "t": 3, "n": 5 });
        assert_eq!(words(&status(false, true)), "there is no vault yet\n");
        assert_eq!(words(&status(true, true)), "sealed; 1 of 3 shares given, 5 exist\n");
        assert_eq!(words(&status(true, false)), "open\n");
        let by_file = json!({ "initialized": true, "sealed": true, "seal": "file", "t": 1, "n": 1 });
        assert!(words(&by_file).contains("started again"));
        assert_eq!(share_lines(&json!(["aa", "bb"])), "share 1: aa\nshare 2: bb\n");
    }
}
