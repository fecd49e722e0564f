//! Policies: who may do what at which path, in the language of Vault. Pure.
//!
//! A policy is a list of rules, a rule a path and its capabilities. Of all rules whose path matches a request's
//! the most specific one decides; rules of the same path in several policies are taken together, and `deny`
//! among them wins. What no rule matches is denied.

mod acl;
mod hcl;
mod rule;

pub(crate) use acl::Acl;
pub(crate) use rule::{Caps, Rule, parse};

/// LIMIT: bytes of a policy's text.
pub(crate) const TEXT_BYTES_MAX: usize = 64 * 1024;
/// LIMIT: rules of one policy.
pub(crate) const RULES_MAX: usize = 512;
/// LIMIT: bytes of a rule's path.
pub(crate) const PATH_BYTES_MAX: usize = 1_024;

/// What every token may do, unless it was made without: look at itself, renew and end itself, open what was
/// wrapped for it.
pub(crate) const DEFAULT: &str = r#"
# A token may look at itself, renew itself and end itself.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }

# It may ask what it may do.
path "sys/capabilities-self" { capabilities = ["update"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }

# It may wrap what it has, and look at and open what it was given.
path "sys/wrapping/wrap" { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
"#;
