//! Accounts: made, changed, given up.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_audit::Entry;

use super::api::Answer;
use super::eab::{ACCOUNTS_MAX, proven};
use super::jws::{Binding, By, Jws};
use super::key::AccountKey;
use super::problem::{Refusal, Word, malformed, not_found, refused};
use super::random_word;
use super::request::{Opened, Posted, Signer};
use super::rows::{self, Account, Standing};
use crate::context::Vault;
use crate::error::VaultError;
use crate::falco;
use crate::outbox::security_event;
use crate::store::Change;

/// LIMIT: contacts of an account, and bytes of one.
const CONTACTS_MAX: usize = 8;
const CONTACT_BYTES_MAX: usize = 256;
/// LIMIT: orders in an account's list.
const LISTED_MAX: usize = 200;

/// A wish for an account. Members that are not known are ignored, as RFC 8555, section 7.3, has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewAccount {
    #[serde(default)]
    contact: Vec<String>,
    #[serde(default)]
    only_return_existing: bool,
    external_account_binding: Option<Value>,
}

/// A change of an account.
#[derive(Deserialize)]
struct Update {
    contact: Option<Vec<String>>,
    status: Option<String>,
}

/// The inner payload of a change of key.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyChange {
    account: String,
    old_key: Value,
}

impl Vault {
    /// `new-account`: the account with this key, made where it is bound to a service.
    pub(super) fn acme_new_account(&self, posted: &Posted) -> Result<Answer, VaultError> {
        let opened = self.acme_known(posted)?;
        if !matches!(opened.signer, Signer::Bare) {
            return Err(malformed("an account is asked for with its jwk"));
        }
        let wish: NewAccount = opened.json()?;
        if let Some(account) = rows::account_of(&self.store.snapshot()?, &opened.key)? {
            return Ok(self.acme_shown(200, &account.in_force()?));
        }
        if wish.only_return_existing {
            return Err(refused(Word::AccountDoesNotExist, "there is no account with this key"));
        }
        let entry = posted.act.entry("acme", "register", "acme/account").actor("unverified");
        let account = self.plan_account(&opened, wish, posted.act.now).map_err(|error| {
            if error.is_denial() { self.refuse_unknown(entry.clone()).err().unwrap_or(error) } else { error }
        })?;
        let entry = entry.actor(&account.service).path(format!("acme/account/{}", account.id));
        let (kept, now) = (account.clone(), posted.act.now);
        self.write(entry, move |change| keep_new(change, &kept, now))?;
        Ok(self.acme_shown(201, &account))
    }

    fn plan_account(&self, opened: &Opened, wish: NewAccount, now: Timestamp) -> Result<Account, VaultError> {
        let needed = || {
            let detail = "an account belongs to a service: externalAccountBinding is needed";
            refused(Word::ExternalAccountRequired, detail)
        };
        let binding = Binding::parse(&wish.external_account_binding.ok_or_else(needed)?)?;
        if binding.url != opened.url || binding.key != opened.key {
            return Err(malformed("the binding is of another key or address than the request"));
        }
        check_contacts(&wish.contact)?;
        let eab = proven(&self.store.snapshot()?, &binding, now)?;
        Ok(Account {
            id: format!("{}.{}", eab.service, random_word()?),
            service: eab.service.clone(),
            standing: Standing::Valid,
            key: opened.key.canonical(),
            contact: wish.contact,
            kid: eab.kid.clone(),
            identity: eab.identity,
            created: now,
        })
    }

    /// `account/ID`: read, changed, given up.
    pub(super) fn acme_update_account(&self, posted: &Posted, id: &str) -> Result<Answer, VaultError> {
        let (opened, account) = self.acme_signed(posted)?;
        if account.id != id {
            return Err(not_found());
        }
        if opened.is_read() {
            return Ok(self.acme_shown(200, &account));
        }
        let update: Update = opened.json()?;
        // Any other status is what the client knows of it: ignored, as RFC 8555, section 7.3.2, has it.
        let gives_up = update.status.as_deref() == Some("deactivated");
        if let Some(contact) = &update.contact {
            check_contacts(contact)?;
        }
        let op = if gives_up { "deactivate" } else { "update" };
        let account = self.write(entry_of(posted, op, &account), move |change| {
            let mut account = still(change, &account.id)?;
            if gives_up {
                account.standing = Standing::Deactivated;
            }
            account.contact = update.contact.unwrap_or(account.contact);
            rows::save_account(change, &account)?;
            Ok(account)
        })?;
        Ok(self.acme_shown(200, &account))
    }

    /// `account/ID/orders`: those that are kept.
    pub(super) fn acme_orders(&self, posted: &Posted, id: &str) -> Result<Answer, VaultError> {
        let (_, account) = self.acme_signed(posted)?;
        if account.id != id {
            return Err(not_found());
        }
        let ids = rows::order_ids(&self.store.snapshot()?, &account, LISTED_MAX)?;
        let orders: Vec<String> = ids.iter().map(|id| self.acme_url(&format!("/acme/order/{id}"))).collect();
        Ok(Answer::json(200, json!({ "orders": orders })))
    }

    /// `key-change`: both keys sign; from then on the new one is the account's.
    pub(super) fn acme_change_key(&self, posted: &Posted) -> Result<Answer, VaultError> {
        let (opened, account) = self.acme_signed(posted)?;
        let inner = Jws::parse(&opened.payload)?;
        let By::Key(new) = &inner.by else { return Err(malformed("the inner request is signed with jwk")) };
        if inner.nonce.is_some() || inner.url != opened.url {
            return Err(malformed("the inner request has the outer one's url, and no nonce"));
        }
        inner.verify(new)?;
        let change: KeyChange = sluice_wire::json::from_slice(&inner.payload)
            .map_err(|error| malformed(format!("the inner payload does not fit: {error}")))?;
        let named = self.acme_url(&format!("/acme/account/{}", account.id));
        if change.account != named || AccountKey::parse(&change.old_key)? != opened.key {
            return Err(malformed("the inner payload names another account or key"));
        }
        let entry = entry_of(posted, "change_key", &account);
        let (new, old, taken_at) = (new.clone(), opened.key, self.acme_url("/acme/account/"));
        let account = self.write(entry, move |change| {
            let mut account = still(change, &account.id)?;
            if account.key != old.canonical() {
                return Err(refused(Word::Unauthorized, "the account has another key by now"));
            }
            if let Some(other) = rows::account_of(change, &new)? {
                let location = Some(format!("{taken_at}{}", other.id));
                let refusal = Refusal::new(Word::Malformed, "an account has the new key already");
                return Err(Refusal { status: Some(409), location, ..refusal }.into());
            }
            rows::forget_key(change, &old);
            account.key = new.canonical();
            rows::save_account(change, &account)?;
            Ok(account)
        })?;
        Ok(self.acme_shown(200, &account))
    }

    fn acme_shown(&self, status: u16, account: &Account) -> Answer {
        let url = self.acme_url(&format!("/acme/account/{}", account.id));
        let told = json!({
            "status": account.standing,
            "contact": account.contact,
            "orders": format!("{url}/orders"),
        });
        Answer::json(status, told).at(url)
    }
}

/// A record of what an account does.
pub(super) fn entry_of(posted: &Posted, op: &'static str, account: &Account) -> Entry {
    posted.act.entry("acme", op, format!("acme/account/{}", account.id)).actor(&account.service)
}

/// An account as it is within a change; it may have ended since the request was opened.
pub(super) fn still(change: &Change<'_>, id: &str) -> Result<Account, VaultError> {
    rows::account(change, id)?.ok_or_else(not_found)?.in_force()
}

fn keep_new(change: &mut Change<'_>, account: &Account, now: Timestamp) -> Result<(), VaultError> {
    falco::check(change, &account.service, now)?;
    rows::check_room(change)?;
    // Both may have gone since they were looked at.
    let is_bound = rows::eab(change, &account.kid)?.is_some();
    let key = account.public_key()?;
    if !is_bound || rows::account_of(change, &key)?.is_some() {
        return Err(refused(Word::Unauthorized, "the external account binding is not good"));
    }
    let others = rows::accounts(change, &account.service, ACCOUNTS_MAX)?;
    if others.len() >= ACCOUNTS_MAX {
        let Some(over) = others.iter().find(|other| other.standing != Standing::Valid) else {
            return Err(refused(Word::RateLimited, "this service has 32 accounts; give one up"));
        };
        rows::remove_account(change, over)?;
    }
    rows::save_account(change, account)?;
    let details = [("service", account.service.as_str()), ("account", &account.id)];
    change.emit(&security_event("acme_account_created", now, &details))
}

fn check_contacts(contacts: &[String]) -> Result<(), VaultError> {
    if contacts.len() > CONTACTS_MAX {
        return Err(refused(Word::InvalidContact, "an account has at most 8 contacts"));
    }
    for contact in contacts {
        let Some(address) = contact.strip_prefix("mailto:") else {
            return Err(refused(Word::UnsupportedContact, "a contact is a mailto: address"));
        };
        let is_plain = address.bytes().all(|b| b.is_ascii_graphic() && !b",?".contains(&b));
        let is_address =
            address.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
        if contact.len() > CONTACT_BYTES_MAX || !is_plain || !is_address {
            return Err(refused(Word::InvalidContact, "a contact is one plain mailto: address"));
        }
    }
    Ok(())
}
