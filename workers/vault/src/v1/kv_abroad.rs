//! `secret/…` while an external vault keeps the secrets: the calls are checked here and asked there.

use http::Method;

use super::answer::{Answer, Reply};
use super::call::{Call, Op};
use super::route::{Ask, unsupported_operation, unsupported_path};
use super::{fault, kv, nothing};
use crate::context::Vault;
use crate::error::VaultError;
use crate::external::{External, Pass};
use crate::path::SecretPath;

impl Vault {
    pub(super) fn v1_kv_abroad(
        &self,
        ask: &Ask,
        external: &External,
        area: &str,
        rest: &[&str],
    ) -> Result<Answer, VaultError> {
        let pass = pass(&ask.call, area, rest).map_err(|error| match &error {
            // The router records these.
            VaultError::Worded(404 | 405, _) => error,
            _ => self.refuse(ask.entry(), error),
        })?;
        self.abroad(ask.entry(), || {
            let passed = external.pass(pass)?;
            let found = match passed.status {
                200..=299 => passed.data.is_some() || !passed.warnings.is_empty(),
                404 => passed.data.is_some(),
                _ => false,
            };
            if found {
                let status = (passed.status != 200).then_some(passed.status);
                let (data, warnings) = (passed.data, passed.warnings);
                return Ok(Answer::Data(Box::new(Reply { status, data, warnings, ..Reply::default() })));
            }
            match passed.status {
                200..=299 => Ok(Answer::Nothing),
                404 if passed.errors.is_empty() => Err(nothing()),
                status => Err(fault(status, passed.errors.join("\n"))),
            }
        })
    }
}

/// The call as it goes out: the same as the own engine takes, and no more.
fn pass(call: &Call, area: &str, rest: &[&str]) -> Result<Pass, VaultError> {
    let mut query = Vec::new();
    let method = match (area, call.op) {
        ("config" | "metadata", Op::Read) => Method::GET,
        ("data" | "subkeys", Op::Read) => {
            if let Some(version) = kv::version(call)? {
                query.push(("version", version.to_string()));
            }
            if let Some(depth) = call.fields.number("depth")?.filter(|_| area == "subkeys") {
                query.push(("depth", depth.max(0).to_string()));
            }
            Method::GET
        }
        ("metadata", Op::List) => {
            if let Some(limit) = call.fields.number("limit")? {
                query.push(("limit", limit.max(0).to_string()));
            }
            if let Some(after) = call.query.get("after") {
                query.push(("after", after.clone()));
            }
            query.push(("list", "true".to_owned()));
            Method::GET
        }
        ("config" | "data" | "delete" | "undelete" | "destroy" | "metadata", Op::Write) => Method::POST,
        ("data" | "metadata", Op::Patch) => Method::PATCH,
        ("data" | "metadata", Op::Delete) => Method::DELETE,
        ("config" | "data" | "delete" | "undelete" | "destroy" | "subkeys", _) => {
            return Err(unsupported_operation());
        }
        _ => return Err(unsupported_path()),
    };
    let is_folder = call.op == Op::List;
    let below = match (area, rest.is_empty()) {
        ("config", true) => "config".to_owned(),
        ("config", false) => return Err(unsupported_path()),
        ("metadata", true) if is_folder => "metadata/".to_owned(),
        _ => {
            let end = if is_folder { "/" } else { "" };
            format!("{area}/{}{end}", SecretPath::parse(&rest.join("/"))?)
        }
    };
    let body = matches!(call.op, Op::Write | Op::Patch)
        .then(|| serde_json::to_vec(call.fields.whole()))
        .transpose()
        .map_err(|_| VaultError::Crypto("a call cannot be written"))?;
    Ok(Pass { method, below, query, body })
}
