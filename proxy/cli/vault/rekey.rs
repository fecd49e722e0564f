//! `sluice vault rekey` and `generate-root`: whoever shows the present root key gets another, or a root token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::{Asked, Proof, Rekey};
use super::door::Door;
use super::key_file::{self, NewFile};
use super::{done, print, secret, share_lines, shown_once};
use crate::exit::{Code, Failure};

/// Where the new key is to be.
enum Target {
    Shares { shares: u64, threshold: u64 },
    File(NewFile),
}

/// Runs `sluice vault rekey`.
pub(super) fn run(args: &Rekey) -> Result<Code, Failure> {
    let door = Door::open(&args.asked)?;
    if args.cancel {
        door.delete("sys/rekey/init")?;
        return done(
            &args.asked,
            &json!({ "cancelled": true }),
            "no rekey is under way; the present key stays\n",
        );
    }
    shown_once()?;
    if door.get("sys/rekey/init")?["started"] == true {
        let text =
            "a rekey is under way; where it was broken off give it up with: sluice vault rekey --cancel";
        return Err(Failure::usage(text));
    }
    let target = target(args, &door.seal_status()?)?;
    let made = make(&door, args, &target).inspect_err(|_| {
        // Nothing was given back to the vault yet, so the present key stays.
        let _nothing_more_to_do = door.delete("sys/rekey/init");
        if let Target::File(file) = &target {
            file.forget();
        }
    })?;
    give_back(&door, &made).map_err(|failure| unsure(&target, failure))?;
    match &target {
        Target::Shares { .. } => {
            done(&args.asked, &Value::Null, "the new shares count; the former key opens nothing\n")
        }
        Target::File(file) => {
            let path = file.put_in_place()?.display().to_string();
            let text = format!(
                "the vault opens by {path}: set `seal = \"file:{path}\"` in [vault] unless it says so\n"
            );
            done(&args.asked, &json!({ "seal": "file", "key_file": path }), &text)
        }
    }
}

/// Shows the present key and keeps the new one: its shares are printed, or its file is on the disk.
fn make(door: &Door, args: &Rekey, target: &Target) -> Result<Value, Failure> {
    let begun = door.put("sys/rekey/init", &body(target))?;
    let made = show_all(door, "sys/rekey/update", &begun, &args.proof)?;
    match target {
        Target::File(file) => file.write(made["keys"][0].as_str().unwrap_or_default())?,
        Target::Shares { threshold, .. } => {
            let told = json!({ "seal": "shamir", "shares": made["keys"], "threshold": threshold });
            let text = format!(
                "{}Any {threshold} of the shares will open the vault. They are shown this once.\n",
                share_lines(&made["keys"])
            );
            print(&args.asked, &told, &text)?;
        }
    }
    Ok(made)
}

/// Gives the new key back: from the last part on it counts.
fn give_back(door: &Door, made: &Value) -> Result<(), Failure> {
    let nonce = &made["verification_nonce"];
    for key in made["keys"].as_array().into_iter().flatten() {
        let told = door.put("sys/rekey/verify", &json!({ "nonce": nonce, "key": key }))?;
        if told["complete"] == true {
            return Ok(());
        }
    }
    Err(Failure::from(anyhow::anyhow!("the vault wants more of the new key than there is")))
}

/// Shows what is had of the present root key until it is enough; the last answer.
fn show_all(door: &Door, path: &str, begun: &Value, proof: &Proof) -> Result<Value, Failure> {
    let mut status = begun.clone();
    loop {
        let (next, required) = (status["progress"].as_u64().unwrap_or(0) + 1, &status["required"]);
        let key = match &proof.key_file {
            Some(file) => key_file::read(file)?,
            None => secret::line(&format!("share {next} of {required}: "))?.ok_or_else(|| {
                Failure::usage("there are not enough shares; of a key file's vault name --key-file")
            })?,
        };
        status = door.put(path, &json!({ "nonce": begun["nonce"], "key": key.as_str() }))?;
        if status["complete"] == true {
            return Ok(status);
        }
        if proof.key_file.is_some() {
            return Err(Failure::usage("the vault opens by shares, not by a key file"));
        }
    }
}

fn target(args: &Rekey, status: &Value) -> Result<Target, Failure> {
    let present = args.proof.key_file.as_deref();
    if let (Some(shares), Some(threshold)) = (args.shares, args.threshold) {
        return Ok(Target::Shares { shares: shares.into(), threshold: threshold.into() });
    }
    if args.new_key_file.is_none() && present.is_none() && status["seal"] != "file" {
        let number = |name: &str| status[name].as_u64().unwrap_or(0);
        return Ok(Target::Shares { shares: number("n"), threshold: number("t") });
    }
    let like = present.unwrap_or(&args.asked.common.data_dir);
    NewFile::new(present, args.new_key_file.as_deref(), like).map(Target::File)
}

fn body(target: &Target) -> Value {
    match target {
        Target::Shares { shares, threshold } => {
            json!({ "secret_shares": shares, "secret_threshold": threshold, "require_verification": true })
        }
        Target::File(_) => json!({ "seal": "file", "require_verification": true }),
    }
}

/// The answer to the last part was lost: either key may count.
fn unsure(target: &Target, failure: Failure) -> Failure {
    let keep = match target {
        Target::Shares { .. } => "the present key and the new shares".to_owned(),
        Target::File(file) => format!("the present key and {}", file.beside().display()),
    };
    let text = format!("which key counts is not known: keep {keep} until one of them has opened the vault");
    Failure::new(failure.code, failure.error.context(text))
}

/// Runs `sluice vault generate-root`.
pub(super) fn generate_root(proof: &Proof, asked: &Asked) -> Result<Code, Failure> {
    shown_once()?;
    let door = Door::open(asked)?;
    if door.get("sys/generate-root/attempt")?["started"] == true {
        let text = "a root token is being made; where that was broken off give it up with: sluice vault generate-root --cancel";
        return Err(Failure::usage(text));
    }
    let begun = door.put("sys/generate-root/attempt", &json!({}))?;
    let made = show_all(&door, "sys/generate-root/update", &begun, proof).inspect_err(|_| {
        let _nothing_more_to_do = door.delete("sys/generate-root/attempt");
    })?;
    let (veiled, pad) = (made["encoded_root_token"].as_str(), begun["otp"].as_str());
    let token = unveiled(veiled.unwrap_or_default(), pad.unwrap_or_default());
    let token = token.ok_or_else(|| anyhow::anyhow!("the vault's answer holds no token"))?;
    let text = format!(
        "root token: {}\nIt is shown this once; revoke it when it has done its work.\n",
        token.as_str()
    );
    print(asked, &json!({ "root_token": token.as_str() }), &text)
}

fn unveiled(veiled: &str, pad: &str) -> Option<Zeroizing<String>> {
    let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(veiled).ok()?);
    if bytes.len() != pad.len() {
        return None;
    }
    let plain: Vec<u8> = bytes.iter().zip(pad.bytes()).map(|(a, b)| a ^ b).collect();
    String::from_utf8(plain).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_out_of_its_pad() {
        let veiled = STANDARD_NO_PAD.encode([b'h' ^ b'x', b'i' ^ b'y']);
        assert_eq!(unveiled(&veiled, "xy").unwrap().as_str(), "hi");
        assert!(unveiled(&veiled, "xyz").is_none() && unveiled("!", "x").is_none());
    }
}
