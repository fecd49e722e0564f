//! How tokens end before their time: one, all of a subject, all of an OAuth client.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sluice_audit::Entry;
use sluice_identity::grants::ADMIN;
use sluice_identity::token::TokenError;
use sluice_wire::code::Code;
use sluice_wire::feed::{Change as FeedChange, RevokedSubject};

use super::mint::{TTL_MAX, time};
use super::registry::{Row, descendants, is_subject_revoked, jti_of, save_void, subject_prefix, void_until};
use crate::access;
use crate::acme;
use crate::context::Vault;
use crate::error::VaultError;
use crate::feed::RevokedRow;
use crate::outbox::security_event;
use crate::request::Act;
use crate::store::{Change, Range, Table, View as _};

/// LIMIT: live tokens of a revoked subject that are counted in the answer.
const COUNTED_MAX: usize = 10_000;
/// LIMIT: tokens of a removed client that are ended one by one.
const ENDED_MAX: usize = 1_000;

/// What to revoke: exactly one of the three.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeRequest {
    token: Option<String>,
    jti: Option<String>,
    service: Option<String>,
}

impl Vault {
    /// Revokes one token, or all of a subject's tokens issued until now; how many were live. A token refreshed
    /// from a revoked one lives on, so that a client can rotate: to end a line, revoke the service.
    pub(crate) fn revoke_tokens(&self, act: &Act, request: RevokeRequest) -> Result<usize, VaultError> {
        let entry = act.entry("token", "revoke", "tokens");
        match (request.token, request.jti, request.service) {
            (Some(token), None, None) => match self.trust.verify_issued(&token) {
                // Whoever holds a token may end it, also one that is not meant for the vault.
                Ok(claims) => {
                    let jti = claims.jti.unwrap_or_default();
                    self.revoke_token(act, entry.path(format!("tokens/{}/{jti}", claims.sub)), jti)
                }
                // It opens nothing any more: there is nothing to revoke.
                Err(TokenError::Expired | TokenError::Revoked) => Ok(0),
                Err(_) => {
                    let error = VaultError::invalid(Code::BadRequest, "this is no token of this vault");
                    Err(self.refuse(entry, error))
                }
            },
            (None, Some(jti), None) => {
                let row: Option<Row> = self.store.snapshot()?.load(Table::Token, jti.as_bytes())?;
                let subject = row.as_ref().map_or("", |row| row.sub.as_str());
                let entry = entry.path(format!("tokens/{subject}/{jti}"));
                if let Err(error) = self.may_revoke(act, subject) {
                    return Err(self.refuse(entry, error));
                }
                if row.is_none() {
                    return Err(self.refuse(entry, VaultError::NotFound("there is no such token".into())));
                }
                self.revoke_token(act, entry, jti)
            }
            (None, None, Some(subject)) => {
                self.revoke_subject(act, entry.path(format!("tokens/{subject}")), subject)
            }
            _ => {
                let detail = "name exactly one of token, jti, service";
                Err(self.refuse(entry, VaultError::invalid(Code::BadRequest, detail)))
            }
        }
    }

    pub(crate) fn revoke_token(&self, act: &Act, entry: Entry, jti: String) -> Result<usize, VaultError> {
        let (now, leeway_s) = (act.now, self.settings.leeway_s);
        let ended = self.write(entry, move |change| {
            let Some(row) = change.load::<Row>(Table::Token, jti.as_bytes())? else {
                return Err(VaultError::NotFound("there is no such token".into()));
            };
            if row.revoked || row.expires_s + leeway_s <= now.as_second() {
                return Ok(false);
            }
            let line = descendants(change, &jti, &row)?;
            for (jti, row) in std::iter::once((jti, row)).chain(line) {
                if !row.revoked {
                    end(change, &jti, row, now, leeway_s)?;
                }
            }
            Ok(true)
        })?;
        self.figures.revocations.with_label_values(&["token"]).inc();
        Ok(usize::from(ended))
    }

    fn may_revoke(&self, act: &Act, subject: &str) -> Result<(), VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        access::revoke(Some(caller), subject)?;
        self.is_own_word(caller, ADMIN)
    }

    fn revoke_subject(&self, act: &Act, entry: Entry, subject: String) -> Result<usize, VaultError> {
        if let Err(error) = self.may_revoke(act, &subject) {
            return Err(self.refuse(entry, error));
        }
        if subject.len() > 128 || !subject.bytes().all(|b| b.is_ascii_graphic()) {
            let error = VaultError::invalid(
                Code::BadRequest,
                "service is a subject of at most 128 visible characters",
            );
            return Err(self.refuse(entry, error));
        }
        let (now, leeway_s, holder) = (act.now, self.settings.leeway_s, acme::holder(&subject));
        let ended = self.write(entry, move |change| {
            let live = count_live(change, &subject, now, leeway_s)?;
            void(change, &subject, now, leeway_s)?;
            acme::end_service(change, &subject, now)?;
            change.emit(&security_event("tokens_revoked", now, &[("service", &subject)]))?;
            Ok(live)
        })?;
        // No row refuses the rest of its ACME certificates meanwhile.
        self.revoke_rest(&holder, now)?;
        self.figures.revocations.with_label_values(&["subject"]).inc();
        Ok(ended)
    }
}

/// Ends one token.
fn end(
    change: &mut Change<'_>,
    jti: &str,
    row: Row,
    now: Timestamp,
    leeway_s: i64,
) -> Result<(), VaultError> {
    let until = time(row.expires_s + leeway_s);
    let revoked = RevokedRow { at: now, until, issuer: None, issued_until: None };
    change.save(Table::Revoked, format!("jti/{jti}").as_bytes(), &revoked);
    change.announce(FeedChange::Jti { jti: jti.to_owned() });
    change.emit(&security_event("token_revoked", now, &[("service", &row.sub), ("jti", jti)]))?;
    change.save(Table::Token, jti.as_bytes(), &Row { revoked: true, ..row });
    Ok(())
}

/// How many tokens of a subject are good, of the first [`COUNTED_MAX`] that have a row: those that were revoked, one by
/// one or all together, are counted no second time.
fn count_live(
    change: &Change<'_>,
    subject: &str,
    now: Timestamp,
    leeway_s: i64,
) -> Result<usize, VaultError> {
    let mut live = 0;
    for key in change.keys(Table::TokenIndex, &Range::prefix(&subject_prefix(subject), COUNTED_MAX))? {
        let row: Row = change.require(Table::Token, jti_of(&key).as_bytes())?;
        let ended = row.revoked || row.expires_s + leeway_s <= now.as_second();
        live += usize::from(!ended && !is_subject_revoked(change, &row)?);
    }
    Ok(live)
}

/// Voids every token of a subject issued until now, and those that were lifted over an earlier revocation in this
/// very second: they begin in the next one.
fn void(change: &mut Change<'_>, subject: &str, now: Timestamp, leeway_s: i64) -> Result<(), VaultError> {
    let lifted = void_until(change, subject)?.map_or(i64::MIN, |until| until + 1);
    let issued_until = now.as_second().max(lifted);
    let until = now + TTL_MAX + SignedDuration::from_secs(leeway_s);
    let row = RevokedRow { at: now, until, issuer: None, issued_until: Some(issued_until) };
    save_void(change, subject, &row)?;
    change.announce(FeedChange::Sub(RevokedSubject { sub: subject.to_owned(), issued_until }));
    Ok(())
}

/// Ends all tokens of a subject within another change.
pub(crate) fn void_subject(
    change: &mut Change<'_>,
    subject: &str,
    now: Timestamp,
    leeway_s: i64,
) -> Result<(), VaultError> {
    void(change, subject, now, leeway_s)?;
    change.emit(&security_event("tokens_revoked", now, &[("service", subject)]))
}

/// Ends the tokens that were issued to an OAuth client, and what was made of them, within another change; what its
/// service got otherwise stays.
pub(crate) fn end_of_client(
    change: &mut Change<'_>,
    id: &str,
    now: Timestamp,
    leeway_s: i64,
) -> Result<(), VaultError> {
    let keys = change.keys(Table::TokenIndex, &Range::prefix(&subject_prefix(id), COUNTED_MAX))?;
    let (mut own, mut others) = (Vec::new(), keys.len() == COUNTED_MAX);
    for key in keys {
        let jti = jti_of(&key);
        let row: Row = change.require(Table::Token, jti.as_bytes())?;
        if row.revoked || row.expires_s + leeway_s <= now.as_second() {
            continue;
        }
        if row.client.as_deref() == Some(id) { own.push((jti, row)) } else { others = true }
    }
    if !others {
        return void_subject(change, id, now, leeway_s);
    }
    if own.len() > ENDED_MAX {
        let detail = "this client has too many live tokens to end one by one: an administrator ends all of its service";
        return Err(VaultError::invalid(Code::Conflict, detail));
    }
    for (jti, row) in own {
        let line = descendants(change, &jti, &row)?;
        for (jti, row) in std::iter::once((jti, row)).chain(line) {
            if !change.require::<Row>(Table::Token, jti.as_bytes())?.revoked {
                end(change, &jti, row, now, leeway_s)?;
            }
        }
    }
    Ok(())
}
