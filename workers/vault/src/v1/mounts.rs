//! What is mounted: a fixed list, all there from the start. Mounting one of them again changes nothing.

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::call::Op;
use super::fault;
use super::route::{Ask, unsupported_operation};
use super::who::Who;
use crate::context::Vault;
use crate::error::VaultError;

/// A mount.
struct Mount {
    path: &'static str,
    kind: &'static str,
    description: &'static str,
}

const SECRETS: [Mount; 4] = [
    Mount { path: "pki/", kind: "pki", description: "certificates of this installation's authority" },
    Mount { path: "secret/", kind: "kv", description: "key/value secret storage" },
    Mount {
        path: "sys/",
        kind: "system",
        description: "system endpoints used for control, policy and debugging",
    },
    Mount { path: "transit/", kind: "transit", description: "encryption with keys that stay here" },
];

const AUTH: [Mount; 5] = [
    Mount { path: "approle/", kind: "approle", description: "roles of programs" },
    Mount { path: "cert/", kind: "cert", description: "certificates of services" },
    Mount { path: "jwt/", kind: "jwt", description: "tokens of this installation" },
    Mount { path: "token/", kind: "token", description: "token based credentials" },
    Mount { path: "userpass/", kind: "userpass", description: "passwords of users" },
];

impl Mount {
    fn described(&self, auth: bool) -> Value {
        let area = if auth { "auth_" } else { "" };
        let mut config = json!({ "default_lease_ttl": 0, "force_no_cache": false, "max_lease_ttl": 0 });
        if auth {
            config["token_type"] = "default-service".into();
        }
        // Clients only compare these with what they saw before.
        let digest =
            crate::ca::hex(ring::digest::digest(&ring::digest::SHA256, self.path.as_bytes()).as_ref());
        json!({
            "accessor": format!("{area}{}_{}", self.kind, &digest[..8]),
            "config": config,
            "deprecation_status": "supported",
            "description": self.description,
            "external_entropy_access": false,
            "local": false,
            "options": if self.kind == "kv" { json!({ "version": "2" }) } else { Value::Null },
            "plugin_version": "",
            "running_plugin_version": concat!("v", env!("CARGO_PKG_VERSION"), "+builtin.sluice"),
            "running_sha256": "",
            "seal_wrap": false,
            "type": self.kind,
            "uuid": format!("{}-{}-4{}-8{}-{}", &digest[8..16], &digest[16..20], &digest[20..23], &digest[23..26], &digest[26..38]),
        })
    }
}

fn all(mounts: &[Mount], auth: bool) -> Map<String, Value> {
    mounts.iter().map(|mount| (mount.path.to_owned(), mount.described(auth))).collect()
}

fn tuning(mount: &Mount) -> Value {
    json!({
        "default_lease_ttl": super::TTL_MAX_S,
        "description": mount.description,
        "force_no_cache": false,
        "max_lease_ttl": super::TTL_MAX_S,
        "options": if mount.kind == "kv" { json!({ "version": "2" }) } else { Value::Null },
    })
}

impl Vault {
    /// `sys/mounts…` and `sys/auth…`.
    pub(super) fn v1_mounts(&self, ask: &Ask, rest: &[&str], auth: bool) -> Result<Answer, VaultError> {
        let mounts: &[Mount] = if auth { &AUTH } else { &SECRETS };
        let (name, tune) = match rest {
            [] => {
                return match ask.call.op {
                    Op::Read => self.read(ask.entry(), || Answer::flat(&all(mounts, auth))),
                    _ => Err(unsupported_operation()),
                };
            }
            [name @ .., "tune"] => (name.join("/"), true),
            name => (name.join("/"), false),
        };
        let mount = mounts.iter().find(|mount| mount.path.trim_end_matches('/') == name);
        let outcome = match (ask.call.op, mount, tune) {
            (Op::Read, Some(mount), true) => Answer::flat(&tuning(mount)),
            (Op::Read, Some(mount), false) => Answer::flat(&mount.described(auth)),
            (Op::Write, Some(_), true) => Err(fault(400, "mounts cannot be tuned")),
            (Op::Write, Some(mount), false) => again(ask, mount),
            (Op::Write, None, false) => {
                Err(fault(400, "no other mounts are made: what there is stands under the name of its type"))
            }
            (Op::Delete, Some(_), false) => Err(fault(400, "this mount cannot be disabled")),
            (Op::Delete, None, false) => Ok(Answer::Nothing),
            (_, None, _) => Err(fault(400, format!("No secret engine mount at {name}/"))),
            _ => Err(unsupported_operation()),
        };
        match outcome {
            Ok(answer) => self.read(ask.entry(), || Ok(answer)),
            Err(error) => Err(self.refuse(ask.entry(), error)),
        }
    }

    /// What `bao kv` asks before anything else: whose mount a path is.
    pub(super) fn v1_ui_mounts(&self, ask: &Ask, rest: &[&str]) -> Result<Answer, VaultError> {
        let open = |mount: &&Mount| mount.kind != "system" && sees(&ask.who);
        let answer = if rest.is_empty() {
            let told = |mounts: &[Mount], auth| -> Map<String, Value> {
                let open = mounts.iter().filter(open);
                open.map(|mount| (mount.path.to_owned(), mount.described(auth))).collect()
            };
            Answer::data(&json!({ "auth": told(&AUTH, true), "secret": told(&SECRETS, false) }))
        } else {
            let path = format!("{}/", rest.join("/"));
            let found = SECRETS.iter().filter(open).find(|mount| path.starts_with(mount.path));
            match found {
                Some(mount) => {
                    let mut told = mount.described(false);
                    told["path"] = mount.path.into();
                    Answer::data(&told)
                }
                None => Err(fault(
                    403,
                    format!(
                        "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}\""
                    ),
                )),
            }
        };
        match answer {
            Ok(answer) => self.read(ask.entry(), || Ok(answer)),
            Err(error) => Err(self.refuse(ask.entry(), error)),
        }
    }
}

/// Roles speaking for themselves have no business here.
fn sees(who: &Who) -> bool {
    match who {
        Who::Nobody => false,
        Who::Sluice(caller) => caller.as_role().is_none(),
        Who::Token(_) => true,
    }
}

/// A mount that is there: the same type again changes nothing, but `secret/` is nobody's to make.
fn again(ask: &Ask, mount: &Mount) -> Result<Answer, VaultError> {
    let kind = ask.call.fields.needed("type")?;
    if kind != mount.kind || ["kv", "system", "token"].contains(&mount.kind) {
        return Err(fault(400, format!("path is already in use at {}", mount.path)));
    }
    Ok(Answer::Nothing)
}
