//! Logging in: how a credential of another kind becomes a token.

mod approle;
mod sluice;
mod userpass;

pub(crate) use userpass::forget as forget_user;
pub(super) use userpass::key as user_key;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::call::{Fields, Op};
use super::route::{Ask, no_route};
use super::token::{Draft, Term};
use super::{fault, token_ops};
use crate::context::Vault;
use crate::error::VaultError;

/// What tokens made by a role, user or other login are to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tokens {
    policies: Vec<String>,
    ttl_s: i64,
    max_s: i64,
    explicit_max_s: i64,
    period_s: i64,
    uses: u32,
    no_default_policy: bool,
}

impl Tokens {
    /// Takes from a body what it names; the older names without `token_` too.
    fn take(&mut self, fields: &Fields) -> Result<(), VaultError> {
        let seconds = |name: &str| fields.seconds(name);
        if let Some(policies) = fields.words("token_policies")?.or(fields.words("policies")?) {
            self.policies = token_ops::tidy(policies, false)?;
        }
        if self.policies.iter().any(|name| name == "root") {
            return Err(fault(400, "a login gives no root token"));
        }
        self.ttl_s = seconds("token_ttl")?.or(seconds("ttl")?).unwrap_or(self.ttl_s);
        self.max_s = seconds("token_max_ttl")?.or(seconds("max_ttl")?).unwrap_or(self.max_s);
        self.explicit_max_s = seconds("token_explicit_max_ttl")?.unwrap_or(self.explicit_max_s);
        self.period_s = seconds("token_period")?.or(seconds("period")?).unwrap_or(self.period_s);
        if self.max_s > 0 && self.ttl_s > self.max_s {
            return Err(fault(400, "token_ttl cannot be greater than token_max_ttl"));
        }
        if let Some(uses) = fields.number("token_num_uses")? {
            self.uses = u32::try_from(uses).map_err(|_| fault(400, "token_num_uses cannot be negative"))?;
        }
        self.no_default_policy = fields.flag("token_no_default_policy")?.unwrap_or(self.no_default_policy);
        for unsupported in ["token_bound_cidrs", "bound_cidr_list", "secret_id_bound_cidrs"] {
            if !fields.words(unsupported)?.unwrap_or_default().is_empty() {
                return Err(fault(400, format!("{unsupported} is not supported")));
            }
        }
        Ok(())
    }

    fn described(&self) -> serde_json::Value {
        serde_json::json!({
            "token_bound_cidrs": [],
            "token_explicit_max_ttl": self.explicit_max_s,
            "token_max_ttl": self.max_s,
            "token_no_default_policy": self.no_default_policy,
            "token_num_uses": self.uses,
            "token_period": self.period_s,
            "token_policies": self.policies,
            "token_strictly_bind_ip": false,
            "token_ttl": self.ttl_s,
            "token_type": "default",
        })
    }

    /// A token without a parent.
    fn draft(&self, path: &str, name: String, meta: BTreeMap<String, String>) -> Result<Draft, VaultError> {
        Ok(Draft {
            policies: token_ops::tidy(self.policies.clone(), !self.no_default_policy)?,
            path: path.to_owned(),
            meta: Some(meta),
            payer: format!("{path}/{name}"),
            display_name: name,
            term: Term {
                ttl_s: self.ttl_s,
                max_s: self.max_s,
                explicit_max_s: self.explicit_max_s,
                period_s: self.period_s,
            },
            uses: self.uses,
            renewable: true,
            ..Draft::default()
        })
    }
}

/// Whether a call is a login, which anybody may try.
pub(super) fn is_login(path: &str, op: Op) -> bool {
    let known = ["auth/approle/login", "auth/cert/login", "auth/jwt/login"].contains(&path);
    op == Op::Write && (known || path.starts_with("auth/userpass/login/"))
}

impl Vault {
    /// `auth/…` beside tokens, for callers that may.
    pub(super) fn v1_auth(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        match path {
            ["approle", rest @ ..] => self.v1_approle(ask, rest),
            ["userpass", rest @ ..] => self.v1_userpass(ask, rest),
            [kind @ ("cert" | "jwt"), rest @ ..] => self.v1_sluice_roles(ask, kind, rest),
            _ => Err(no_route(&ask.call.path)),
        }
    }

    /// Logins, which anybody may try.
    pub(super) fn v1_login(&self, ask: &Ask, path: &[&str]) -> Option<Result<Answer, VaultError>> {
        match (path, ask.call.op) {
            (["auth", "approle", "login"], Op::Write) => Some(self.v1_approle_login(ask)),
            (["auth", "cert", "login"], Op::Write) => Some(self.v1_cert_login(ask)),
            (["auth", "jwt", "login"], Op::Write) => Some(self.v1_jwt_login(ask)),
            (["auth", "userpass", "login", name], Op::Write) => Some(self.v1_userpass_login(ask, name)),
            _ => None,
        }
    }
}
