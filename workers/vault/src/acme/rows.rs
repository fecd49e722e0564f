//! What is kept: keys by which services bind accounts, accounts, orders. One table, by the service.
//!
//! `eab/service/word`, `account/service/word`, `order/service/word/word`, `thumb/thumbprint` (the account with this
//! key), `end/‖time‖key` (an order that ends; no value). An id is the same path with dots: a service's name has none.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::key::AccountKey;
use super::order::Order;
use super::problem::{Word, not_found, refused};
use crate::error::VaultError;
use crate::path::ServiceName;
use crate::store::{Change, Range, SWEEP_MAX, Table, View};

/// LIMIT: rows of all kinds.
const ROWS_MAX: u64 = 200_000;
/// LIMIT: characters of a word of an id.
const WORD_MAX: usize = 43;
const END: &[u8] = b"end/";

/// A key that binds accounts to a service. No Debug: it holds a secret.
#[derive(Serialize, Deserialize)]
pub(super) struct Eab {
    pub(super) kid: String,
    pub(super) service: String,
    /// HMAC key, base64url.
    pub(super) secret: String,
    /// Whether certificates of its accounts name the service itself.
    pub(super) identity: bool,
    pub(super) created: Timestamp,
    /// After it, it binds no further account.
    pub(super) expires: Timestamp,
    /// Who asked for it.
    pub(super) by: String,
}

impl Drop for Eab {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// An account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Account {
    /// `service.word`.
    pub(super) id: String,
    pub(super) service: String,
    pub(super) standing: Standing,
    /// JWK in its canonical spelling.
    pub(super) key: String,
    pub(super) contact: Vec<String>,
    /// The key that bound it.
    pub(super) kid: String,
    pub(super) identity: bool,
    pub(super) created: Timestamp,
}

/// Whether an account may ask for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standing {
    Valid,
    Deactivated,
    Revoked,
}

impl Account {
    pub(super) fn public_key(&self) -> Result<AccountKey, VaultError> {
        AccountKey::from_text(&self.key).map_err(|_| VaultError::Integrity(Table::Acme.name()))
    }

    /// Itself, or why it may not ask.
    pub(super) fn in_force(self) -> Result<Self, VaultError> {
        match self.standing {
            Standing::Valid => Ok(self),
            Standing::Deactivated => Err(refused(Word::Unauthorized, "the account was deactivated")),
            Standing::Revoked => Err(refused(Word::Unauthorized, "the account was revoked")),
        }
    }
}

/// The key of a row: a kind and an id. `None`: no id has this form.
fn key(kind: &str, id: &str, words: usize) -> Option<Vec<u8>> {
    let mut parts = id.split('.');
    let service = parts.next().filter(|name| ServiceName::parse(name).is_ok())?;
    let is_word =
        |word: &&str| (1..=WORD_MAX).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric());
    let rest: Vec<&str> = parts.collect();
    let fits = rest.len() == words && rest.iter().all(is_word);
    fits.then(|| format!("{kind}/{service}/{}", rest.join("/")).into_bytes())
}

fn of_service(kind: &str, service: &str, limit: usize) -> Range {
    Range::prefix(format!("{kind}/{service}/").as_bytes(), limit)
}

fn end_key(end: Timestamp, row: &[u8]) -> Vec<u8> {
    let end = u64::try_from(end.as_second()).unwrap_or(0).to_be_bytes();
    [END, &end, row].concat()
}

/// Whether there is room for one more row.
pub(super) fn check_room(change: &Change<'_>) -> Result<(), VaultError> {
    if change.count(Table::Acme)? < ROWS_MAX {
        return Ok(());
    }
    Err(refused(Word::RateLimited, "the vault keeps no more accounts and orders"))
}

pub(super) fn eab(view: &impl View, kid: &str) -> Result<Option<Eab>, VaultError> {
    key("eab", kid, 1).map_or(Ok(None), |key| view.load(Table::Acme, &key))
}

pub(super) fn save_eab(change: &mut Change<'_>, eab: &Eab) {
    change.save(Table::Acme, &key("eab", &eab.kid, 1).expect("ids are made here"), eab);
}

pub(super) fn remove_eab(change: &mut Change<'_>, kid: &str) {
    change.remove(Table::Acme, &key("eab", kid, 1).expect("it was found by its id"));
}

/// The binding keys of a service, or of all.
pub(super) fn eabs(view: &impl View, service: Option<&str>, limit: usize) -> Result<Vec<Eab>, VaultError> {
    let range = service.map_or_else(|| Range::prefix(b"eab/", limit), |name| of_service("eab", name, limit));
    view.keys(Table::Acme, &range)?.iter().map(|key| view.require(Table::Acme, key)).collect()
}

pub(super) fn account(view: &impl View, id: &str) -> Result<Option<Account>, VaultError> {
    key("account", id, 1).map_or(Ok(None), |key| view.load(Table::Acme, &key))
}

/// The accounts of a service.
pub(super) fn accounts(view: &impl View, service: &str, limit: usize) -> Result<Vec<Account>, VaultError> {
    let keys = view.keys(Table::Acme, &of_service("account", service, limit))?;
    keys.iter().map(|key| view.require(Table::Acme, key)).collect()
}

/// The account with a key.
pub(super) fn account_of(view: &impl View, key: &AccountKey) -> Result<Option<Account>, VaultError> {
    match view.load::<String>(Table::Acme, &thumb_key(&key.thumbprint()))? {
        Some(id) => account(view, &id)?.map(Some).ok_or(VaultError::Integrity(Table::Acme.name())),
        None => Ok(None),
    }
}

fn thumb_key(thumbprint: &str) -> Vec<u8> {
    format!("thumb/{thumbprint}").into_bytes()
}

pub(super) fn save_account(change: &mut Change<'_>, account: &Account) -> Result<(), VaultError> {
    let thumbprint = account.public_key()?.thumbprint();
    change.save(Table::Acme, &thumb_key(&thumbprint), &account.id);
    change.save(Table::Acme, &key("account", &account.id, 1).expect("ids are made here"), account);
    Ok(())
}

/// Frees a key that an account no longer has.
pub(super) fn forget_key(change: &mut Change<'_>, key: &AccountKey) {
    change.remove(Table::Acme, &thumb_key(&key.thumbprint()));
}

/// Forgets an account; its orders end by themselves.
pub(super) fn remove_account(change: &mut Change<'_>, account: &Account) -> Result<(), VaultError> {
    forget_key(change, &account.public_key()?);
    change.remove(Table::Acme, &key("account", &account.id, 1).expect("it was found by its id"));
    Ok(())
}

/// An order by its id.
pub(super) fn order(view: &impl View, id: &str) -> Result<Option<Order>, VaultError> {
    key("order", id, 2).map_or(Ok(None), |key| view.load(Table::Acme, &key))
}

/// An order of this account.
pub(super) fn own_order(view: &impl View, account: &Account, id: &str) -> Result<Order, VaultError> {
    order(view, id)?.filter(|order| order.account == account.id).ok_or_else(not_found)
}

/// Ids of an account's orders that are kept.
pub(super) fn order_ids(
    view: &impl View,
    account: &Account,
    limit: usize,
) -> Result<Vec<String>, VaultError> {
    let folder = format!("order/{}/", account.id.replace('.', "/"));
    let keys = view.keys(Table::Acme, &Range::prefix(folder.as_bytes(), limit))?;
    let last = |key: &Vec<u8>| String::from_utf8_lossy(&key[folder.len()..]).into_owned();
    Ok(keys.iter().map(|key| format!("{}.{}", account.id, last(key))).collect())
}

pub(super) fn save_order(change: &mut Change<'_>, order: &Order) {
    let key = key("order", &order.id, 2).expect("ids are made here");
    change.mark(Table::Acme, &end_key(order.expires, &key));
    change.save(Table::Acme, &key, order);
}

fn ended(now: Timestamp, limit: usize) -> Range {
    Range { from: END.to_vec(), to: end_key(now, &[]), limit }
}

/// Whether [`sweep`] has so many orders to forget.
pub(crate) fn have_ended(view: &impl View, now: Timestamp, least: usize) -> Result<bool, VaultError> {
    Ok(view.keys(Table::Acme, &ended(now, least))?.len() >= least)
}

/// Forgets orders that have ended; how many. Certificates are kept elsewhere.
pub(crate) fn sweep(change: &mut Change<'_>, now: Timestamp) -> Result<usize, VaultError> {
    let ended = change.keys(Table::Acme, &ended(now, SWEEP_MAX))?;
    for key in &ended {
        change.remove(Table::Acme, &key[END.len() + 8..]);
        change.remove(Table::Acme, key);
    }
    Ok(ended.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_to_one_row_of_its_service() {
        assert_eq!(key("order", "bot.a1.b2", 2).unwrap(), b"order/bot/a1/b2");
        for bad in [
            "",
            "bot",
            "bot.a",
            "bot.a.b.c",
            "bot..b",
            "bot.a/b.c",
            "bot.a.%2e",
            ".a.b",
            "edge.a.b",
            "b/t.a.b",
        ] {
            assert_eq!(key("order", bad, 2), None, "{bad}");
        }
        assert_eq!(key("order", &format!("bot.a.{}", "b".repeat(44)), 2), None);
    }
}
