//! Policies as they are kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::answer::Answer;
use super::super::call::Op;
use super::super::policy::{self, Rule};
use super::super::route::{Ask, unsupported_operation, unsupported_path};
use super::super::{fault, logical};
use crate::context::Vault;
use crate::error::VaultError;
use crate::store::{Table, View};

/// A policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    text: String,
    rules: Vec<Rule>,
    modified: Timestamp,
    version: u64,
}

const FOLDER: &str = "policy/";

/// The rules of a policy; one that is not there allows nothing.
pub(in super::super) fn rules(view: &impl View, name: &str) -> Result<Vec<Rule>, VaultError> {
    Ok(row(view, name)?.map(|row| row.rules).unwrap_or_default())
}

/// A policy as it lies in the store.
pub(in super::super) fn sealed(view: &impl View, name: &str) -> Result<Option<Vec<u8>>, VaultError> {
    view.raw(Table::Logical, format!("{FOLDER}{name}").as_bytes())
}

fn row(view: &impl View, name: &str) -> Result<Option<Row>, VaultError> {
    match logical::load(view, &format!("{FOLDER}{name}"))? {
        None if name == "default" => {
            let rules = policy::parse(policy::DEFAULT).unwrap_or_default();
            let text = policy::DEFAULT.to_owned();
            Ok(Some(Row { text, rules, modified: Timestamp::UNIX_EPOCH, version: 1 }))
        }
        row => Ok(row),
    }
}

impl Row {
    fn described(&self, name: &str, older: bool) -> Value {
        let mut told = json!({
            "allow_slashes_in_identity_templates": false,
            "allow_wildcards_in_identity_templates": false,
            "cas_required": false,
            "modified": self.modified.to_string(),
            "name": name,
            "version": self.version,
        });
        told[if older { "rules" } else { "policy" }] = self.text.clone().into();
        told
    }
}

impl Vault {
    /// `sys/policies/acl…`, and `sys/policy…` in the older shape.
    pub(in super::super) fn v1_policy(
        &self,
        ask: &Ask,
        rest: &[&str],
        older: bool,
    ) -> Result<Answer, VaultError> {
        let name = match rest {
            [] if ask.call.op == Op::List || (older && ask.call.op == Op::Read) => {
                return self.v1_policies(ask, older);
            }
            [] => return Err(unsupported_operation()),
            [name] => logical::name(name)?.to_ascii_lowercase(),
            _ => return Err(unsupported_path()),
        };
        match ask.call.op {
            Op::Read => {
                let row = self.v1_read(ask, || match name.as_str() {
                    "root" => Ok(Some(Row {
                        text: String::new(),
                        rules: Vec::new(),
                        modified: Timestamp::UNIX_EPOCH,
                        version: 1,
                    })),
                    name => row(&self.store.snapshot()?, name),
                })?;
                let told = row.described(&name, older);
                if older { Answer::flat(&told) } else { Answer::data(&told) }
            }
            Op::Write => self.v1_policy_write(ask, name),
            Op::Delete if name == "root" || name == "default" => {
                Err(self.refuse(ask.entry(), fault(400, format!("cannot delete {name} policy"))))
            }
            Op::Delete => self.v1_remove(ask, format!("{FOLDER}{name}")),
            _ => Err(unsupported_operation()),
        }
    }

    fn v1_policies(&self, ask: &Ask, older: bool) -> Result<Answer, VaultError> {
        let mut names = self.read(ask.entry(), || logical::names(&self.store.snapshot()?, FOLDER))?;
        names.extend(["default".to_owned(), "root".to_owned()]);
        names.sort();
        names.dedup();
        if older { Answer::flat(&json!({ "keys": names, "policies": names })) } else { Answer::keys(&names) }
    }

    fn v1_policy_write(&self, ask: &Ask, name: String) -> Result<Answer, VaultError> {
        let text = policy_text(ask).and_then(|text| {
            let rules = policy::parse(&text).map_err(|error| fault(400, error.to_string()))?;
            if name == "root" { Err(fault(400, "cannot update root policy")) } else { Ok((text, rules)) }
        });
        let (text, rules) = match text {
            Ok(read) => read,
            Err(error) => return Err(self.refuse(ask.entry(), error)),
        };
        let now = ask.call.act.now;
        self.write(ask.entry(), move |change| {
            let key = format!("{FOLDER}{name}");
            let version = logical::load::<Row>(change, &key)?.map_or(1, |row| row.version + 1);
            logical::save(change, &key, &Row { text, rules, modified: now, version })
        })?;
        Ok(Answer::Nothing)
    }
}

fn policy_text(ask: &Ask) -> Result<String, VaultError> {
    let fields = &ask.call.fields;
    let text = match fields.text("policy")? {
        Some(text) => Some(text),
        None => fields.text("rules")?,
    };
    text.filter(|text| !text.is_empty()).ok_or_else(|| fault(400, "'policy' parameter not supplied or empty"))
}
