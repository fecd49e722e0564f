//! `auth/cert/login` and `auth/jwt/login`: a service's certificate, or a token of Sluice, becomes a token of this
//! kind. A role of the same name as the service (or the one that is named) says which policies it gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sluice_identity::caller::Caller;

use super::super::answer::Answer;
use super::super::born::Born;
use super::super::call::{Certified, Op};
use super::super::route::{Ask, unsupported_operation, unsupported_path};
use super::super::token;
use super::super::{fault, logical, unproved};
use super::Tokens;
use crate::context::Vault;
use crate::error::VaultError;
use crate::falco;

/// Who may take a role: these services.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Role {
    subjects: Vec<String>,
    tokens: Tokens,
}

/// The bodies' names for them.
const SUBJECTS: [&str; 4] = ["allowed_common_names", "allowed_names", "bound_subject", "subjects"];

impl Vault {
    pub(super) fn v1_sluice_roles(&self, ask: &Ask, kind: &str, path: &[&str]) -> Result<Answer, VaultError> {
        let folder = format!("{kind}/role/");
        match (path, ask.call.op) {
            (["certs" | "role" | "roles"], Op::List) => self.v1_names(ask, &folder),
            (["certs" | "role", name], op) => {
                let key = format!("{folder}{}", logical::name(name)?);
                match op {
                    Op::Read => {
                        let role: Role =
                            self.v1_read(ask, || logical::load(&self.store.snapshot()?, &key))?;
                        let mut told = role.tokens.described();
                        told["subjects"] = json!(role.subjects);
                        Answer::data(&told)
                    }
                    Op::Write => {
                        let role = role_of(ask, name).map_err(|error| self.refuse(ask.entry(), error))?;
                        self.write(ask.entry(), move |change| logical::save(change, &key, &role))?;
                        Ok(Answer::Nothing)
                    }
                    Op::Delete => self.v1_remove(ask, key),
                    _ => Err(unsupported_operation()),
                }
            }
            _ => Err(unsupported_path()),
        }
    }

    /// The client's certificate was verified by the door, and looked at again with this request.
    pub(super) fn v1_cert_login(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let Some(Certified { service, serial }) = ask.call.certified.clone() else {
            return Err(self.refuse(ask.entry(), fault(400, "client certificate must be supplied")));
        };
        let name =
            ask.call.fields.text("name")?.filter(|name| !name.is_empty()).unwrap_or_else(|| service.clone());
        let born = Born::of_certificate(&service, Some(serial), ask.call.act.now);
        self.v1_sluice_login(ask, "cert", &name, born)
    }

    /// Tokens of Sluice only: the verifier is the one of every request.
    pub(super) fn v1_jwt_login(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let checked = || {
            let jwt = ask.call.fields.needed("jwt")?;
            let role = ask.call.fields.needed("role")?;
            let claims = self.trust.verify(&jwt).map_err(|_| unproved(400, "the token is not valid"))?;
            // Whoever has the old shared secret makes such tokens himself; one that is bound proves nothing in a body.
            if claims.legacy || claims.bound.is_some() {
                return Err(unproved(400, "the token is not valid"));
            }
            // A role's policies are the service's: a token that was made of another stands for less.
            let caller = Caller::from_claims(&claims);
            if !self.shown_by(&caller)?.is_whole() {
                return Err(unproved(400, "the token is not valid"));
            }
            Ok((role, caller))
        };
        let (role, caller) = checked().map_err(|error| self.refuse(ask.entry(), error))?;
        let born =
            Born { subject: caller.subject, jti: caller.jti, serial: None, issued_s: caller.issued_at_s };
        self.v1_sluice_login(ask, "jwt", &role, born)
    }

    fn v1_sluice_login(
        &self,
        ask: &Ask,
        kind: &'static str,
        name: &str,
        born: Born,
    ) -> Result<Answer, VaultError> {
        let (name, now) = (logical::name(name)?.to_owned(), ask.call.act.now);
        let (keys, path) = (Arc::clone(&self.api_keys), ask.call.path.clone());
        let (token, row) = self.write(ask.entry(), move |change| {
            falco::check(change, &born.subject, now)?;
            let role: Option<Role> = logical::load(change, &format!("{kind}/role/{name}"))?;
            let role = role.filter(|role| role.subjects.contains(&born.subject));
            let role = role.ok_or_else(|| fault(400, "no role of this name is open to this caller"))?;
            let meta = BTreeMap::from([
                ("role".to_owned(), name.clone()),
                ("subject".to_owned(), born.subject.clone()),
            ]);
            let mut draft = role.tokens.draft(&path, format!("{kind}-{}", born.subject), meta)?;
            draft.born = Some(born);
            token::create(change, &keys, draft, now)
        })?;
        self.figures.tokens.inc();
        Ok(Answer::auth(row.auth(&token, now)))
    }
}

fn role_of(ask: &Ask, name: &str) -> Result<Role, VaultError> {
    let fields = &ask.call.fields;
    let mut role = Role::default();
    role.tokens.take(fields)?;
    for word in SUBJECTS {
        role.subjects.extend(fields.words(word)?.unwrap_or_default());
    }
    for unsupported in
        ["bound_claims", "bound_audiences", "certificate", "allowed_dns_sans", "allowed_uri_sans"]
    {
        if fields.raw(unsupported).is_some_and(|raw| !["[]", "{}", "\"\""].contains(&raw.get())) {
            return Err(fault(
                400,
                format!("{unsupported} is not supported: name the services in bound_subject"),
            ));
        }
    }
    if role.subjects.is_empty() {
        role.subjects.push(name.to_owned());
    }
    Ok(role)
}
