//! Orders, what has to be proved for them, and their certificates.

use std::sync::PoisonError;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::account::{entry_of, still};
use super::api::Answer;
use super::csr;
use super::names::{self, NAMES_MAX};
use super::order::{Authorization, LIFE, Order, Proof, Status};
use super::problem::{Refusal, Word, malformed, not_found, refused};
use super::request::Posted;
use super::rows::{self, Account};
use super::{holder, random_word};
use crate::ca::NamedRequest;
use crate::context::Vault;
use crate::error::VaultError;
use crate::falco;
use crate::request::Act;

/// LIMIT: orders of an account that have not ended.
const ORDERS_MAX: usize = 200;
/// How long a client waits before it asks again, seconds.
const AGAIN_S: u64 = 1;

/// A wish for a certificate.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    identifiers: Vec<Identifier>,
    not_before: Option<Value>,
    not_after: Option<Value>,
    replaces: Option<String>,
}

#[derive(Deserialize)]
struct Identifier {
    r#type: String,
    value: String,
}

#[derive(Deserialize)]
struct Finalize {
    csr: String,
}

#[derive(Deserialize)]
struct Update {
    status: String,
}

/// A challenge that somebody has to look up.
pub(super) struct Job {
    pub(super) order: String,
    pub(super) at: usize,
    pub(super) since: Timestamp,
    pub(super) name: String,
    pub(super) token: String,
    /// What has to be found there.
    pub(super) expected: String,
    /// Held until it is over: so many are looked up at a time.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Vault {
    /// `new-order`.
    pub(super) fn acme_new_order(&self, posted: &Posted) -> Result<Answer, VaultError> {
        let (opened, account) = self.acme_signed(posted)?;
        let entry = entry_of(posted, "order", &account);
        let now = posted.act.now;
        let planned = opened.json().and_then(|wish| self.plan_order(&account, wish, now));
        let order = planned.map_err(|error| self.acme_refuse(entry.clone(), error))?;
        let mut pace = self.acme.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = pace.take(account.id.clone(), Instant::now());
        drop(pace);
        if !granted {
            // Not recorded: a loop must not fill the log either.
            return Err(refused(Word::RateLimited, "this account has placed too many orders"));
        }
        let entry = entry.path(format!("acme/order/{}", order.id));
        let kept = order.clone();
        self.write(entry, move |change| {
            let account = still(change, &account.id)?;
            falco::check(change, &account.service, now)?;
            rows::check_room(change)?;
            if rows::order_ids(change, &account, ORDERS_MAX)?.len() >= ORDERS_MAX {
                return Err(refused(Word::RateLimited, "this account has 200 orders that have not ended"));
            }
            rows::save_order(change, &kept);
            Ok(())
        })?;
        Ok(self.shown_order(201, &order, now))
    }

    fn plan_order(&self, account: &Account, wish: NewOrder, now: Timestamp) -> Result<Order, VaultError> {
        if wish.not_before.is_some() || wish.not_after.is_some() {
            return Err(malformed("how long a certificate lives is not the client's choice"));
        }
        if wish.identifiers.is_empty() || wish.identifiers.len() > NAMES_MAX {
            return Err(malformed(format!("an order has 1 to {NAMES_MAX} identifiers")));
        }
        let allowed = self.orderable(&account.service);
        let mut authorizations: Vec<Authorization> = Vec::new();
        for identifier in wish.identifiers {
            if identifier.r#type != "dns" {
                return Err(refused(Word::UnsupportedIdentifier, "an identifier is of type dns"));
            }
            names::judge(allowed, &self.settings.trust_domain, &identifier.value)?;
            if !authorizations.iter().any(|one| one.name == identifier.value) {
                let token = URL_SAFE_NO_PAD.encode(format!("{}{}", random_word()?, random_word()?));
                authorizations.push(Authorization { name: identifier.value, token, proof: Proof::Pending });
            }
        }
        if let Some(replaces) = &wish.replaces {
            self.acme_named(replaces)?
                .filter(|known| known.holder == holder(&account.service))
                .ok_or_else(not_found)?;
        }
        Ok(Order {
            id: format!("{}.{}", account.id, random_word()?),
            account: account.id.clone(),
            service: account.service.clone(),
            expires: now + LIFE,
            authorizations,
            issued: None,
            replaces: wish.replaces,
        })
    }

    /// What a service may order.
    fn orderable(&self, service: &str) -> &[String] {
        self.settings.acme.names.get(service).map_or(&[], Vec::as_slice)
    }

    /// `order/ID`.
    pub(super) fn acme_order(&self, posted: &Posted, id: &str) -> Result<Answer, VaultError> {
        let (_, account) = self.acme_signed(posted)?;
        let order = rows::own_order(&self.store.snapshot()?, &account, id)?;
        Ok(self.shown_order(200, &order, posted.act.now))
    }

    /// `authorization/ID/N`: read, or given up.
    pub(super) fn acme_authorization(
        &self,
        posted: &Posted,
        id: &str,
        at: usize,
    ) -> Result<Answer, VaultError> {
        let (opened, account) = self.acme_signed(posted)?;
        let now = posted.act.now;
        let mut order = rows::own_order(&self.store.snapshot()?, &account, id)?;
        order.authorization(at, now).ok_or_else(not_found)?;
        if !opened.is_read() {
            let update: Update = opened.json()?;
            if update.status != "deactivated" {
                return Err(malformed("status can become `deactivated` alone"));
            }
            let entry = entry_of(posted, "give_up", &account).path(format!("acme/authorization/{id}/{at}"));
            let id = id.to_owned();
            order = self.write(entry, move |change| {
                let mut order = rows::own_order(change, &account, &id)?;
                if !order.deactivate(at, now) {
                    return Err(malformed("this authorization has ended already"));
                }
                rows::save_order(change, &order);
                Ok(order)
            })?;
        }
        let processing = order.challenge(at, now) == Some(Status::Processing);
        let answer = Answer::json(200, self.shown_authorization(&order, at, now));
        Ok(if processing { answer.again_in(AGAIN_S) } else { answer })
    }

    /// `challenge/ID/N`: read with an empty payload, begun with `{}`; then somebody has to look it up.
    pub(super) fn acme_challenge(
        &self,
        posted: &Posted,
        id: &str,
        at: usize,
    ) -> Result<(Answer, Option<Job>), VaultError> {
        let (opened, account) = self.acme_signed(posted)?;
        let now = posted.act.now;
        let mut order = rows::own_order(&self.store.snapshot()?, &account, id)?;
        let status = order.challenge(at, now).ok_or_else(not_found)?;
        let mut job = None;
        if !opened.is_read() {
            let _what_a_client_says_of_it: serde_json::Map<String, Value> = opened.json()?;
            if status == Status::Pending {
                (order, job) = self.begin_challenge(posted, account, id, at)?;
            }
        }
        let url = self.acme_url(&format!("/acme/authorization/{id}/{at}"));
        let answer = Answer::json(200, self.shown_challenge(&order, at, now)).up(url);
        Ok((answer.again_in(AGAIN_S), job))
    }

    fn begin_challenge(
        &self,
        posted: &Posted,
        account: Account,
        id: &str,
        at: usize,
    ) -> Result<(Order, Option<Job>), VaultError> {
        let busy = |_| refused(Word::RateLimited, "too many challenges are being looked up");
        let permit = std::sync::Arc::clone(&self.acme.probes).try_acquire_owned().map_err(busy)?;
        let thumbprint = account.public_key()?.thumbprint();
        let entry = entry_of(posted, "challenge", &account).path(format!("acme/challenge/{id}/{at}"));
        let (id, now) = (id.to_owned(), posted.act.now);
        let (order, begins) = self.write(entry, move |change| {
            let account = still(change, &account.id)?;
            falco::check(change, &account.service, now)?;
            let mut order = rows::own_order(change, &account, &id)?;
            let begins = order.begin(at, now);
            rows::save_order(change, &order);
            Ok((order, begins))
        })?;
        let job = begins.then(|| {
            let one = &order.authorizations[at];
            Job {
                order: order.id.clone(),
                at,
                since: now,
                name: one.name.clone(),
                token: one.token.clone(),
                expected: format!("{}.{thumbprint}", one.token),
                _permit: permit,
            }
        });
        Ok((order, job))
    }

    /// Keeps what was found at a challenge.
    pub(super) fn acme_settle(
        &self,
        order: &str,
        at: usize,
        since: Timestamp,
        outcome: Result<(), Refusal>,
        now: Timestamp,
    ) -> Result<(), VaultError> {
        let op = if outcome.is_ok() { "proved" } else { "not_proved" };
        let entry = Act::own(now).entry("acme", op, format!("acme/challenge/{order}/{at}"));
        let order = order.to_owned();
        self.write(entry, move |change| {
            if let Some(mut order) = rows::order(change, &order)?
                && order.settle(at, since, outcome, now)
            {
                rows::save_order(change, &order);
            }
            Ok(())
        })
    }

    /// `order/ID/finalize`: a certificate for exactly the names that were proved.
    pub(super) fn acme_finalize(&self, posted: &Posted, id: &str) -> Result<Answer, VaultError> {
        let (opened, account) = self.acme_signed(posted)?;
        let now = posted.act.now;
        let order = rows::own_order(&self.store.snapshot()?, &account, id)?;
        let entry = entry_of(posted, "finalize", &account).path(format!("acme/order/{id}"));
        order.may_finalize(now)?;
        let wanted = opened.json().and_then(|finalize: Finalize| {
            let der = URL_SAFE_NO_PAD.decode(&finalize.csr);
            let der = der.map_err(|_| refused(Word::BadCsr, "csr is no base64url without padding"))?;
            // What was allowed when it was ordered may not be any more.
            let allowed = self.orderable(&account.service);
            order.names().try_for_each(|name| names::judge(allowed, &self.settings.trust_domain, name))?;
            let key = csr::key_for(&der, &order, &opened.key)?;
            Ok(self.certificate_of(&account, &order, key))
        });
        let wanted = wanted.map_err(|error| self.acme_refuse(entry.clone(), error))?;
        let signed = self.sign_named(&holder(&account.service), wanted, now)?;
        let id = id.to_owned();
        let order = self.write(entry, move |change| {
            let account = still(change, &account.id)?;
            falco::check(change, &account.service, now)?;
            let mut order = rows::own_order(change, &account, &id)?;
            order.issue(&signed.named.serial, now)?;
            signed.keep(change)?;
            rows::save_order(change, &order);
            Ok(order)
        })?;
        self.figures.certificates.inc();
        Ok(self.shown_order(200, &order, now))
    }

    fn certificate_of(&self, account: &Account, order: &Order, key: crate::ca::RequestedKey) -> NamedRequest {
        let dns_names: Vec<String> = order.names().map(str::to_owned).collect();
        let spiffe_id = format!("spiffe://{}/service/{}", self.settings.trust_domain, account.service);
        NamedRequest {
            // LIMIT: a common name has 64 characters (X.520); the names that count are beside it.
            common_name: dns_names.iter().find(|name| name.len() <= 64).cloned().unwrap_or_default(),
            dns_names,
            ip_addresses: Vec::new(),
            uris: if account.identity { vec![spiffe_id] } else { Vec::new() },
            ttl: self.settings.leaf_ttl,
            server: true,
            client: account.identity,
            key: Some(key),
        }
    }

    fn shown_order(&self, status: u16, order: &Order, now: Timestamp) -> Answer {
        let url = self.acme_url(&format!("/acme/order/{}", order.id));
        let identifiers: Vec<Value> =
            order.names().map(|name| json!({ "type": "dns", "value": name })).collect();
        let authorizations: Vec<String> = (0..order.authorizations.len())
            .map(|at| self.acme_url(&format!("/acme/authorization/{}/{at}", order.id)))
            .collect();
        let mut told = json!({
            "status": order.status(now),
            "expires": order.expires,
            "identifiers": identifiers,
            "authorizations": authorizations,
            "finalize": format!("{url}/finalize"),
        });
        if let Some(serial) = &order.issued {
            told["certificate"] = self.acme_url(&format!("/acme/certificate/{serial}")).into();
        }
        if let Some(replaces) = &order.replaces {
            told["replaces"] = replaces.as_str().into();
        }
        if let Some(fault) = order.fault() {
            told["error"] = json!(fault.problem());
        }
        Answer::json(status, told).at(url)
    }

    fn shown_authorization(&self, order: &Order, at: usize, now: Timestamp) -> Value {
        json!({
            "identifier": { "type": "dns", "value": order.authorizations[at].name },
            "status": order.authorization(at, now),
            "expires": order.expires,
            "challenges": [self.shown_challenge(order, at, now)],
        })
    }

    fn shown_challenge(&self, order: &Order, at: usize, now: Timestamp) -> Value {
        let one = &order.authorizations[at];
        let mut told = json!({
            "type": "http-01",
            "url": self.acme_url(&format!("/acme/challenge/{}/{at}", order.id)),
            "token": one.token,
            "status": order.challenge(at, now),
        });
        match &one.proof {
            Proof::Valid(when) => told["validated"] = json!(when),
            Proof::Invalid(refusal) => told["error"] = json!(refusal.problem()),
            _ => {}
        }
        told
    }
}
