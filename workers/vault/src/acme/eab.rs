//! External account bindings: the keys by which accounts belong to services, and their end.
//!
//! Whoever may have a service's certificate (the service itself, or `credentials:issue`) may make such a key: an
//! account bound by it gets no more than that, and less unless it was made with `identity`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use sluice_wire::code::Code;
use zeroize::Zeroizing;

use super::jws::Binding;
use super::problem::{Word, refused};
use super::rows::{self, Account, Eab, Standing};
use super::{holder, random_word};
use crate::access;
use crate::ca;
use crate::context::Vault;
use crate::error::VaultError;
use crate::falco;
use crate::outbox::security_event;
use crate::path::ServiceName;
use crate::request::Act;
use crate::store::{Change, View};
use crate::token::Ttl;

/// LIMIT: binding keys of a service.
const KEYS_MAX: usize = 16;
/// LIMIT: keys in one list.
const LISTED_MAX: usize = 10_000;
/// LIMIT: accounts of a service; [`super::account`] makes room by forgetting those that are not in force.
pub(super) const ACCOUNTS_MAX: usize = 32;
/// How long a key binds accounts where nothing is said, and at most.
const TTL: SignedDuration = SignedDuration::from_hours(24 * 30);
const TTL_MAX: SignedDuration = SignedDuration::from_hours(24 * 366);

/// A wish for a binding key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    service_name: String,
    ttl: Option<Ttl>,
    /// Whether certificates carry the service's SPIFFE id beside the names.
    #[serde(default)]
    identity: bool,
}

/// A binding key as it is shown. No Debug: it may hold a new secret.
#[derive(Serialize)]
pub(super) struct Shown {
    kid: String,
    service_name: String,
    identity: bool,
    created_at: Timestamp,
    expires_at: Timestamp,
    created_by: String,
    /// What this service may order.
    dns_names: Vec<String>,
    directory: String,
    /// Shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    hmac_key: Option<NewSecret>,
}

/// The keys.
#[derive(Serialize)]
pub(super) struct Page {
    external_accounts: Vec<Shown>,
    count: usize,
}

/// A secret on its only way out.
struct NewSecret(Zeroizing<String>);

impl Serialize for NewSecret {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl Vault {
    /// Makes a binding key.
    pub(super) fn make_eab(&self, act: &Act, wish: &Wish) -> Result<Shown, VaultError> {
        let shown: String = wish.service_name.chars().take(64).collect();
        let entry = act.entry("acme", "bind", format!("acme/external-accounts/{shown}"));
        let (eab, secret) = self.plan_eab(act, wish).map_err(|error| self.refuse(entry.clone(), error))?;
        let answer = self.shown(&eab, Some(secret));
        let now = act.now;
        self.write_as(act, entry, move |change| {
            falco::check(change, &eab.service, now)?;
            rows::check_room(change)?;
            if rows::eabs(change, Some(&eab.service), KEYS_MAX)?.len() >= KEYS_MAX {
                let detail = "this service has 16 binding keys; remove one";
                return Err(VaultError::invalid(Code::RateLimited, detail));
            }
            change.audit_as(format!("acme/external-accounts/{}", eab.kid));
            rows::save_eab(change, &eab);
            Ok(())
        })?;
        Ok(answer)
    }

    /// What a wish makes of a caller; the key and its secret.
    fn plan_eab(&self, act: &Act, wish: &Wish) -> Result<(Eab, Zeroizing<String>), VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        let service = ServiceName::parse(&wish.service_name)?;
        let longest = self.may_certify(caller, &service)?.unwrap_or(TTL_MAX);
        let ttl = wish.ttl.map_or(TTL.min(longest), |ttl| ttl.0);
        if ttl < SignedDuration::from_secs(1) || ttl > longest {
            let detail = format!("ttl is at least 1 and at most {} seconds", longest.as_secs());
            return Err(VaultError::invalid(Code::BadRequest, detail));
        }
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| VaultError::Crypto("random numbers"))?;
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
        let eab = Eab {
            kid: format!("{service}.{}", random_word()?),
            service: service.as_str().to_owned(),
            secret: secret.to_string(),
            identity: wish.identity,
            created: act.now,
            expires: act.now + ttl,
            by: caller.subject.clone(),
        };
        Ok((eab, secret))
    }

    fn shown(&self, eab: &Eab, secret: Option<Zeroizing<String>>) -> Shown {
        Shown {
            kid: eab.kid.clone(),
            service_name: eab.service.clone(),
            identity: eab.identity,
            created_at: eab.created,
            expires_at: eab.expires,
            created_by: eab.by.clone(),
            dns_names: self.settings.acme.names.get(&eab.service).cloned().unwrap_or_default(),
            directory: self.acme_url("/acme/directory"),
            hmac_key: secret.map(NewSecret),
        }
    }

    /// The keys of a service, or all that the caller may see.
    pub(super) fn list_eabs(&self, act: &Act, service: Option<&str>) -> Result<Page, VaultError> {
        let entry = act.entry("acme", "list", "acme/external-accounts");
        let permit = access::known(act.caller.as_ref()).and_then(|caller| match service {
            Some(name) => access::credential(Some(caller), name).map(|()| Some(name.to_owned())),
            None if caller.grants.covers("credentials:issue") => Ok(None),
            None => Ok(Some(access::service(caller).unwrap_or_default().to_owned())),
        });
        let service = permit.map_err(|error| self.refuse(entry.clone(), error))?;
        self.read(entry, || {
            let eabs = rows::eabs(&self.store.snapshot()?, service.as_deref(), LISTED_MAX)?;
            let external_accounts: Vec<Shown> = eabs.iter().map(|eab| self.shown(eab, None)).collect();
            Ok(Page { count: external_accounts.len(), external_accounts })
        })
    }

    /// Removes a key; the accounts that it bound end with it.
    pub(super) fn remove_eab(&self, act: &Act, kid: &str) -> Result<(), VaultError> {
        let shown: String = kid.chars().take(128).collect();
        let entry = act.entry("acme", "unbind", format!("acme/external-accounts/{shown}"));
        let service = kid.split('.').next().unwrap_or_default();
        let permit = access::known(act.caller.as_ref()).and_then(|caller| {
            access::credential(Some(caller), service)?;
            self.is_own_word(caller, "credentials:issue")
        });
        if let Err(error) = permit {
            return Err(self.refuse(entry, error));
        }
        let (kid, now) = (kid.to_owned(), act.now);
        self.write(entry, move |change| {
            let none = || VaultError::NotFound("there is no such binding key".into());
            let eab = rows::eab(change, &kid)?.ok_or_else(none)?;
            rows::remove_eab(change, &kid);
            let ended = end_accounts(change, &eab.service, |account| account.kid == kid)?;
            let details = [("service", eab.service.as_str()), ("accounts", &ended.to_string())];
            change.emit(&security_event("acme_binding_removed", now, &details))
        })
    }
}

/// The key that a binding was made with. One text for every reason: it tells no attacker how close a guess was.
pub(super) fn proven(view: &impl View, binding: &Binding, now: Timestamp) -> Result<Eab, VaultError> {
    let refuse = || refused(Word::Unauthorized, "the external account binding is not good");
    let eab = rows::eab(view, &binding.kid)?.filter(|eab| now < eab.expires).ok_or_else(refuse)?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(&eab.secret).map_err(|_| refuse())?);
    if binding.is_made_with(&secret) { Ok(eab) } else { Err(refuse()) }
}

fn end_accounts(
    change: &mut Change<'_>,
    service: &str,
    ends: impl Fn(&Account) -> bool,
) -> Result<usize, VaultError> {
    let mut ended = 0;
    for account in rows::accounts(change, service, ACCOUNTS_MAX)? {
        if account.standing == Standing::Valid && ends(&account) {
            rows::save_account(change, &Account { standing: Standing::Revoked, ..account })?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// Whether a service has binding keys or accounts.
pub(crate) fn has_any(view: &impl View, service: &str) -> Result<bool, VaultError> {
    Ok(!rows::eabs(view, Some(service), 1)?.is_empty() || !rows::accounts(view, service, 1)?.is_empty())
}

/// Ends everything a service has here, within the change that revokes it: binding keys, accounts, certificates.
pub(crate) fn end_service(change: &mut Change<'_>, service: &str, now: Timestamp) -> Result<(), VaultError> {
    // Tokens have subjects that are no services.
    if ServiceName::parse(service).is_err() {
        return Ok(());
    }
    for eab in rows::eabs(change, Some(service), KEYS_MAX)? {
        rows::remove_eab(change, &eab.kid);
    }
    end_accounts(change, service, |_| true)?;
    ca::revoke_all(change, &holder(service), None, now).map(drop)
}
