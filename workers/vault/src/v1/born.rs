//! What a credential of Sluice made here ends with it, for good.
//!
//! A token names the Sluice token, the certificate and the subject that made it; so do its children, with or without a
//! parent. While the mark of a revocation lies in the store they are void. Marks go when what they are about would have
//! ended; what was made of it is removed before, found by its index rows:
//! `b/j/<jti>/<token>`, `b/c/<serial>/<token>`, `b/s/<subject>‖0‖<issued, s, hex>/<token>`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::token;
use crate::error::VaultError;
use crate::store::{Change, KeyBytes, Range, Table, View};

/// LIMIT: tokens, each with its tree, that one call of [`end_born`] removes.
const BORN_MAX: usize = 1_000;

/// The Sluice token or certificate that made a token: it must not have been revoked since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Born {
    /// The name of the service or user, also where a certificate with a SPIFFE id made it.
    pub(super) subject: String,
    pub(super) jti: Option<String>,
    /// Of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<String>,
    pub(super) issued_s: Option<i64>,
}

/// What was revoked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// A token, by its id.
    Token(&'a str),
    /// A certificate, by its serial.
    Certificate(&'a str),
    /// All of a subject that was issued up to a time, unix seconds.
    Subject(&'a str, i64),
}

impl Born {
    /// Of a service's certificate, used at `now`: revoking all tokens of the service ends what it made until then.
    pub(super) fn of_certificate(service: &str, serial: Option<String>, now: Timestamp) -> Self {
        Self { subject: service.to_owned(), jti: None, serial, issued_s: Some(now.as_second()) }
    }

    /// The index rows of a token.
    pub(super) fn keys(&self, id: &str) -> Vec<KeyBytes> {
        let named =
            |origin: Option<Origin<'_>>| origin.map(|origin| [&origin.range().0, id.as_bytes()].concat());
        let subject = [&of_subject(&self.subject), issued(self.issued_s).as_bytes(), id.as_bytes()].concat();
        let jti = named(self.jti.as_deref().map(Origin::Token));
        let serial = named(self.serial.as_deref().map(Origin::Certificate));
        [Some(subject), jti, serial].into_iter().flatten().collect()
    }

    /// Whether what made it has been revoked since.
    pub(super) fn is_void(&self, view: &impl View) -> Result<bool, VaultError> {
        let jti = self.jti.as_ref().map(|jti| format!("jti/{jti}"));
        let serial = self.serial.as_ref().map(|serial| format!("serial/{serial}"));
        for key in [jti, serial].into_iter().flatten() {
            if view.raw(Table::Revoked, key.as_bytes())?.is_some() {
                return Ok(true);
            }
        }
        let until = crate::token::void_until(view, &self.subject)?;
        Ok(until.is_some_and(|until| self.issued_s.is_none_or(|issued| issued <= until)))
    }
}

impl Origin<'_> {
    /// Between which keys the index rows lie.
    fn range(self) -> (KeyBytes, KeyBytes) {
        let below = |prefix: String| (prefix.clone().into_bytes(), [prefix.as_bytes(), &[0xff]].concat());
        match self {
            Self::Token(jti) => below(format!("b/j/{jti}/")),
            Self::Certificate(serial) => below(format!("b/c/{serial}/")),
            Self::Subject(subject, until_s) => {
                let from = of_subject(subject);
                let to = [from.as_slice(), issued(Some(until_s.saturating_add(1))).as_bytes()].concat();
                (from, to)
            }
        }
    }
}

fn of_subject(subject: &str) -> KeyBytes {
    [b"b/s/", subject.as_bytes(), &[0]].concat()
}

/// Of what has no time it is not known that it is newer than any revocation.
fn issued(at_s: Option<i64>) -> String {
    format!("{:016x}/", at_s.unwrap_or(0).max(0))
}

/// Removes tokens that a revoked origin made, with all below them; whether none is left.
pub(crate) fn end_born(change: &mut Change<'_>, origin: Origin<'_>) -> Result<bool, VaultError> {
    let (from, to) = origin.range();
    let keys = change.keys(Table::ApiTokenIndex, &Range { from, to, limit: BORN_MAX })?;
    for key in &keys {
        token::remove_tree(change, &token::id_of(key))?;
        change.remove(Table::ApiTokenIndex, key);
    }
    Ok(keys.len() < BORN_MAX)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::{Value, json};
    use sluice_identity::caller::Via;
    use tempfile::TempDir;
    use zeroize::Zeroizing;

    use super::super::call::{Call, Certified};
    use super::*;
    use crate::context::Vault;
    use crate::request::Act;
    use crate::seal::RootKey;
    use crate::tests::{act, done, open};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn told(vault: &Vault, call: Call) -> Result<Value, VaultError> {
        vault.v1(call).map(|answer| match answer.wire("") {
            (200, _, body) => serde_json::from_slice(&body).unwrap(),
            (status, ..) => panic!("{status}"),
        })
    }

    fn token_of(answer: &Value) -> String {
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    fn made(vault: &Vault, path: &str, body: &Value, act: &Act) -> String {
        token_of(&told(vault, Call::write(path, body, act.clone())).unwrap())
    }

    fn nobody(now: Timestamp) -> Act {
        Act { caller: None, ..act("", "", now) }
    }

    fn with(token: &str, path: &str, body: &Value, now: Timestamp) -> Call {
        let token = Some(Zeroizing::new(token.to_owned()));
        Call { token, ..Call::write(path, body, nobody(now)) }
    }

    fn is_good(vault: &Vault, token: &str, now: Timestamp) -> bool {
        vault.v1(with(token, "sys/capabilities-self", &json!({ "paths": ["a"] }), now)).is_ok()
    }

    #[test]
    fn what_a_token_made_is_gone_for_good_when_its_revocation_is_forgotten() {
        let (dir, start) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = open(&dir, &RootKey::random(), start);
        let wish = serde_json::from_value(json!({ "permissions": ["admin"] })).unwrap();
        let jwt = vault.mint(&act("root", "admin", start), "ops", &wish).unwrap();
        let mut admin = act("ops", "admin", start);
        let caller = admin.caller.as_mut().unwrap();
        (caller.jti, caller.issued_at_s) = (Some(jwt.jti.clone()), Some(start.as_second()));

        let root = made(&vault, "auth/token/create", &json!({}), &admin);
        let periodic =
            made(&vault, "auth/token/create", &json!({ "policies": ["default"], "period": "90d" }), &admin);
        let child = token_of(&told(&vault, with(&root, "auth/token/create", &json!({}), start)).unwrap());
        let orphan =
            token_of(&told(&vault, with(&root, "auth/token/create-orphan", &json!({}), start)).unwrap());
        let wrap = Call {
            wrap_s: Some(600_000),
            ..Call::write("sys/wrapping/wrap", &json!({ "a": 1 }), admin.clone())
        };
        let wrapped = told(&vault, wrap).unwrap()["wrap_info"]["token"].as_str().unwrap().to_owned();
        let all = [&root, &periodic, &child, &orphan];
        assert!(all.iter().all(|token| is_good(&vault, token, start)));

        let wish = serde_json::from_value(json!({ "jti": jwt.jti })).unwrap();
        assert_eq!(vault.revoke_tokens(&act("root", "admin", start), wish).unwrap(), 1);
        assert!(!all.iter().any(|token| is_good(&vault, token, start)));
        let later = start + DAY + DAY;
        vault.maintain(start, later).unwrap();
        assert!(vault.find_token(&jwt.jti).unwrap().is_none(), "nobody knows of the revocation");
        assert!(!all.iter().any(|token| is_good(&vault, token, later)));
        assert!(vault.v1(with(&wrapped, "sys/wrapping/unwrap", &json!({}), later)).is_err());
        let left =
            vault.store.snapshot().unwrap().keys(Table::ApiTokenIndex, &Range::prefix(b"", 10)).unwrap();
        assert_eq!(left, Vec::<KeyBytes>::new());
    }

    #[test]
    fn what_a_subject_made_is_gone_for_good_and_what_it_made_later_stays() {
        let (dir, start) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = open(&dir, &RootKey::random(), start);
        let later = start + SignedDuration::from_secs(5);
        let former = made(&vault, "auth/token/create", &json!({}), &act("ops", "admin", start));
        let wish = serde_json::from_value(json!({ "service": "ops" })).unwrap();
        vault.revoke_tokens(&act("root", "admin", start), wish).unwrap();
        let newer = made(&vault, "auth/token/create", &json!({}), &act("ops", "admin", later));
        assert!(!is_good(&vault, &former, later) && is_good(&vault, &newer, later));
        let end = start + DAY * 31;
        vault.maintain(start, end).unwrap();
        let forgotten = crate::token::void_until(&vault.store.snapshot().unwrap(), "ops").unwrap();
        assert_eq!(forgotten, None);
        assert!(!is_good(&vault, &former, end) && is_good(&vault, &newer, end));
    }

    #[test]
    fn what_a_certificate_made_ends_with_it_and_with_its_service() {
        let (dir, start) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = open(&dir, &RootKey::random(), start);
        let admin = act("root", "admin", start);
        let issued = || {
            let wish = serde_json::from_value(json!({})).unwrap();
            let given = done(vault.issue(&admin, "ops", wish)).unwrap();
            serde_json::to_value(&given).unwrap()["serial_number"].as_str().unwrap().to_owned()
        };
        let mut certified = act("spiffe://sluice.internal/service/ops", "admin", start);
        let caller = certified.caller.as_mut().unwrap();
        (caller.account, caller.via) = ("ops".to_owned(), Via::Certificate);
        let of = |serial: &str| {
            let certificate = Some(Certified { service: "ops".to_owned(), serial: serial.to_owned() });
            let create = Call::write("auth/token/create", &json!({}), certified.clone());
            let made = token_of(&told(&vault, Call { certified: certificate.clone(), ..create }).unwrap());
            let login = Call::write("auth/cert/login", &json!({ "name": "ops" }), nobody(start));
            (made, token_of(&told(&vault, Call { certified: certificate, ..login }).unwrap()))
        };
        let role = json!({ "token_policies": ["default"], "token_period": "90d" });
        vault.v1(Call::write("auth/cert/certs/ops", &role, admin.clone())).unwrap();
        let (first, second) = (issued(), issued());
        let (of_first, of_second) = (of(&first), of(&second));
        let are_good =
            |(made, login): &(String, String), now| (is_good(&vault, made, now), is_good(&vault, login, now));
        vault.revoke_credentials(&admin, "ops", Some(first)).unwrap();
        assert_eq!((are_good(&of_first, start), are_good(&of_second, start)), ((false, false), (true, true)));
        let later = start + DAY + DAY;
        vault.maintain(start, later).unwrap();
        assert_eq!((are_good(&of_first, later), are_good(&of_second, later)), ((false, false), (true, true)));
        let wish = serde_json::from_value(json!({ "service": "ops" })).unwrap();
        vault.revoke_tokens(&act("root", "admin", later), wish).unwrap();
        assert_eq!(are_good(&of_second, later), (false, false));
    }

    #[test]
    fn revocations_behind_a_thousand_live_ones_are_swept_too() {
        let (dir, start) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = open(&dir, &RootKey::random(), start);
        let entry = act("root", "admin", start).entry("test", "void", "tokens");
        vault
            .write(entry, move |change| {
                for number in 0..1_001 {
                    crate::token::void_subject(change, &format!("a{number}"), start + DAY * 10, 0)?;
                }
                crate::token::void_subject(change, "z", start, 0)
            })
            .unwrap();
        vault.maintain(start, start + DAY * 31).unwrap();
        let left =
            vault.store.snapshot().unwrap().keys(Table::Revoked, &Range::prefix(b"sub/", 2_000)).unwrap();
        assert_eq!((left.len(), left.contains(&b"sub/z".to_vec())), (1_001, false));
    }
}
