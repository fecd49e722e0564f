//! `sys/rotate`, `sys/rekey/…`, `sys/generate-root/…`, `sys/seal`: steps of the barrier, behind their doors.
//!
//! A caller who may (`sudo` on the path) is found and recorded like any other; then the step is taken, with a record of
//! its own. A root token is also made without a credential, for callers on this machine: whoever lost them all has
//! the shares, or the key file, alone. OpenBao's newer names for the same calls are known too.

use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::answer::Answer;
use super::super::call::{Call, Fields, Op};
use super::super::{ROOT_TOKEN_BYTES, fault};
use crate::barrier::{Barrier, RekeyGiven, RekeyStatus, RootGiven, RootStatus};
use crate::error::VaultError;
use crate::request::Act;
use crate::seal::{Proof, Shape};

/// A step of the barrier that somebody asks for.
pub(in crate::v1) enum Step {
    Seal,
    Rotate,
    RekeyStatus,
    RekeyBegin { target: Shape, verify: bool },
    RekeyCancel,
    RekeyGive { nonce: Uuid, proof: Proof },
    VerifyStatus,
    VerifyRestart,
    RootStatus,
    RootBegin { pad: Option<Zeroizing<String>> },
    RootCancel,
    RootGive { nonce: Uuid, proof: Proof },
}

impl Step {
    /// Whether this is a step at all.
    pub(in crate::v1) fn is_one(path: &str, op: Op) -> bool {
        let below = path.strip_prefix("sys/").unwrap_or_default();
        match (rekey(below), root(below)) {
            (Some("init" | "verify"), _) | (_, Some("attempt")) => {
                matches!(op, Op::Read | Op::Write | Op::Delete)
            }
            (Some("update"), _) | (_, Some("update")) => op == Op::Write,
            _ => op == Op::Write && ["seal", "rotate", "rotate/keyring"].contains(&below),
        }
    }

    /// Whether callers on this machine need no credential for it.
    pub(in crate::v1) fn is_for_the_locked_out(path: &str) -> bool {
        root(path.strip_prefix("sys/").unwrap_or_default()).is_some()
    }

    /// Reads it; `None`: something else was asked.
    pub(in crate::v1) fn of(call: &Call) -> Option<Result<Self, VaultError>> {
        Self::is_one(&call.path, call.op).then(|| Self::read(&call.path, call.op, &call.fields))
    }

    fn read(path: &str, op: Op, fields: &Fields) -> Result<Self, VaultError> {
        let below = path.strip_prefix("sys/").unwrap_or_default();
        let (rekey, root) = (rekey(below), root(below));
        Ok(match (rekey.or(root).unwrap_or(below), op) {
            ("seal", _) => Self::Seal,
            ("rotate" | "rotate/keyring", _) => Self::Rotate,
            ("init", Op::Read) => Self::RekeyStatus,
            ("init", Op::Delete) => Self::RekeyCancel,
            ("init", _) => Self::RekeyBegin {
                target: target(fields)?,
                verify: fields.flag("require_verification")?.unwrap_or(false),
            },
            ("verify", Op::Read) => Self::VerifyStatus,
            ("verify", Op::Delete) => Self::VerifyRestart,
            ("attempt", Op::Read) => Self::RootStatus,
            ("attempt", Op::Delete) => Self::RootCancel,
            ("attempt", _) => {
                plain(fields, "pgp_key")?;
                let pad = fields.text("otp")?.filter(|pad| !pad.is_empty());
                Self::RootBegin { pad: pad.map(Zeroizing::new) }
            }
            (_, _) => {
                let (nonce, proof) = given(fields)?;
                if root.is_some() {
                    Self::RootGive { nonce, proof }
                } else {
                    Self::RekeyGive { nonce, proof }
                }
            }
        })
    }

    /// Takes it.
    pub(in crate::v1) fn take(self, barrier: &Barrier, act: &Act) -> Result<Answer, VaultError> {
        let nothing = |()| Answer::Nothing;
        match self {
            Self::Seal => barrier.seal(act).map(nothing),
            Self::Rotate => barrier.rotate(act).map(|_| Answer::Nothing),
            Self::RekeyStatus => Answer::flat(&rekey_told(barrier, barrier.rekey_status())),
            Self::RekeyBegin { target, verify } => {
                let begun = barrier.rekey_begin(act, target, verify)?;
                Answer::flat(&rekey_told(barrier, Some(begun)))
            }
            Self::RekeyCancel => barrier.rekey_cancel(act).map(nothing),
            Self::RekeyGive { nonce, proof } => {
                let given = barrier.rekey_give(act, nonce, proof)?;
                Answer::flat(&rekey_given(barrier, nonce, given)?)
            }
            Self::VerifyStatus => Answer::flat(&verify_told(barrier.rekey_status())?),
            Self::VerifyRestart => Answer::flat(&verify_told(Some(barrier.rekey_verify_restart(act)?))?),
            Self::RootStatus => Answer::flat(&root_told(&barrier.root_status(), "")),
            Self::RootBegin { pad } => {
                let (status, made) = barrier.root_begin(act, pad)?;
                Answer::flat(&root_told(&status, made.as_ref().map_or("", |pad| pad.as_str())))
            }
            Self::RootCancel => barrier.root_cancel(act).map(nothing),
            Self::RootGive { nonce, proof } => match barrier.root_give(act, nonce, proof)? {
                RootGiven::More(status) => Answer::flat(&root_told(&status, "")),
                RootGiven::Made(status, token) => {
                    let mut answer = root_told(&status, "");
                    answer["complete"] = true.into();
                    for name in ["encoded_token", "encoded_root_token"] {
                        answer[name] = token.as_str().into();
                    }
                    Answer::flat(&answer)
                }
            },
        }
    }
}

/// What follows `rekey/`, or `rotate/root/` as OpenBao calls it.
fn rekey(below: &str) -> Option<&str> {
    below.strip_prefix("rekey/").or_else(|| below.strip_prefix("rotate/root/"))
}

/// What follows `generate-root/`, or `generate-root-token/` as OpenBao calls it.
fn root(below: &str) -> Option<&str> {
    below.strip_prefix("generate-root/").or_else(|| below.strip_prefix("generate-root-token/"))
}

/// How the new root key is to be had: shares, or a key file (`"seal": "file"`, our own word).
fn target(fields: &Fields) -> Result<Shape, VaultError> {
    plain(fields, "pgp_keys")?;
    if fields.flag("backup")?.unwrap_or(false) {
        return Err(fault(400, "keys are not backed up: they are shown once"));
    }
    match fields.text("seal")?.as_deref() {
        None | Some("" | "shamir") => super::split(fields).map(Shape::Shares),
        Some("file") => Ok(Shape::File),
        Some(_) => Err(fault(400, "'seal' is \"shamir\" or \"file\"")),
    }
}

/// What is not encrypted here must not be thought to be.
fn plain(fields: &Fields, name: &str) -> Result<(), VaultError> {
    match fields.raw(name).map(serde_json::value::RawValue::get) {
        None | Some("[]" | "\"\"") => Ok(()),
        Some(_) => Err(fault(400, format!("{name} is not supported"))),
    }
}

fn given(fields: &Fields) -> Result<(Uuid, Proof), VaultError> {
    let nonce = fields.needed("nonce")?;
    let nonce = nonce.parse().map_err(|_| fault(400, "the nonce is not that of the operation under way"))?;
    let text = Zeroizing::new(fields.needed("key")?);
    let wrong = || fault(400, "'key' must be a valid hex or base64 string");
    Ok((nonce, Proof::parse(&text).ok_or_else(wrong)?))
}

fn rekey_told(barrier: &Barrier, status: Option<RekeyStatus>) -> Value {
    let Some(status) = status else {
        let required = barrier.seal_status().threshold;
        return json!({
            "nonce": "", "started": false, "t": 0, "n": 0, "progress": 0, "required": required,
            "pgp_fingerprints": null, "backup": false, "verification_required": false,
        });
    };
    let (n, t) = status.target.counts();
    let mut answer = json!({
        "nonce": status.nonce.to_string(), "started": true, "t": t, "n": n, "progress": status.progress,
        "required": status.required, "pgp_fingerprints": null, "backup": false,
        "verification_required": status.verify,
    });
    if let Some(nonce) = status.verification {
        answer["verification_nonce"] = nonce.to_string().into();
    }
    answer
}

fn verify_told(status: Option<RekeyStatus>) -> Result<Value, VaultError> {
    let under_way = status.and_then(|status| status.verification.map(|nonce| (status, nonce)));
    let (status, nonce) = under_way.ok_or_else(|| fault(400, "no rekey verification in progress"))?;
    let (n, t) = status.target.counts();
    Ok(json!({ "nonce": nonce.to_string(), "started": true, "t": t, "n": n, "progress": status.progress }))
}

fn rekey_given(barrier: &Barrier, nonce: Uuid, given: RekeyGiven) -> Result<Value, VaultError> {
    let (keys, status) = match given {
        RekeyGiven::More(status) if status.verification.is_some() => return verify_told(Some(status)),
        RekeyGiven::More(status) => return Ok(rekey_told(barrier, Some(status))),
        RekeyGiven::Done => return Ok(json!({ "nonce": nonce.to_string(), "complete": true })),
        RekeyGiven::Made(keys, status) => (keys, status),
    };
    let hex: Vec<String> = keys.iter().map(|key| key.to_hex().to_string()).collect();
    let base64: Vec<String> = keys.iter().map(|key| key.to_base64().to_string()).collect();
    let mut answer = json!({
        "nonce": status.nonce.to_string(), "complete": true, "keys": hex, "keys_base64": base64,
        "pgp_fingerprints": null, "backup": false, "verification_required": status.verify,
    });
    if let Some(nonce) = status.verification {
        answer["verification_nonce"] = nonce.to_string().into();
    }
    Ok(answer)
}

fn root_told(status: &RootStatus, pad: &str) -> Value {
    json!({
        "nonce": status.nonce.map(|nonce| nonce.to_string()).unwrap_or_default(),
        "started": status.nonce.is_some(), "progress": status.progress, "required": status.required,
        "complete": false, "encoded_token": "", "encoded_root_token": "", "pgp_fingerprint": "",
        "otp_length": ROOT_TOKEN_BYTES, "otp": pad,
    })
}
