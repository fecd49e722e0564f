//! Who may do what. Pure: a caller and a wish in, a verdict out.
//!
//! What is not allowed here is denied. An administrator may do everything. A service (the subject of a
//! token) may act for itself and see its own part of the tree. Roles speaking for themselves have no
//! business with secrets, tokens or certificates: nothing here is open to them.

use std::collections::BTreeMap;

use sluice_identity::caller::{Caller, Via};
use sluice_identity::grants::{ADMIN, Grants};

use crate::error::VaultError;
use crate::path::{SecretPath, ServiceName};

/// What is wanted of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Its value, its history or the names below it.
    Read,
    /// A new version, a deletion, an undeletion, a destruction.
    Write,
}

/// The one text for every path a caller may not touch, whether or not something is there.
const NOT_YOURS: &str = "this path is not open to the caller";
const NOT_SELF: &str = "only the service itself or a holder of the permission may do this";

/// The caller, or 401.
pub(crate) fn known(caller: Option<&Caller>) -> Result<&Caller, VaultError> {
    caller.ok_or(VaultError::Anonymous)
}

/// Whether `caller` may do `wish` at `path`; `None` is the root of the tree.
pub(crate) fn secret(
    caller: Option<&Caller>,
    path: Option<&SecretPath>,
    wish: Wish,
) -> Result<(), VaultError> {
    let caller = known(caller)?;
    if caller.grants.covers("secrets:admin") {
        return Ok(());
    }
    let own = path.and_then(SecretPath::tenant).is_some_and(|tenant| is_service(caller, tenant));
    let word = match wish {
        Wish::Read => "read",
        Wish::Write => "write",
    };
    if own && caller.grants.covers(word) { Ok(()) } else { Err(VaultError::Forbidden(NOT_YOURS)) }
}

/// What a token for `service` may carry when `caller` asks for `wanted` (or names nothing).
///
/// The ceiling is the caller's own grants; a holder of `tokens:mint` may also give what `[auth.roles]`
/// lists for the service. `admin` is only given by an administrator, whatever a role lists.
pub(crate) fn mint(
    caller: Option<&Caller>,
    service: &ServiceName,
    wanted: Option<Grants>,
    roles: &BTreeMap<String, Grants>,
) -> Result<Grants, VaultError> {
    let caller = known(caller)?;
    let minter = caller.grants.covers("tokens:mint");
    if caller.via == Via::LegacyToken || !(minter || is_service(caller, service.as_str())) {
        return Err(VaultError::Lacking("tokens:mint"));
    }
    let role = roles.get(service.as_str()).filter(|_| minter);
    let allowed = |word: &str| {
        caller.grants.covers(word) || (word != ADMIN && role.is_some_and(|role| role.covers(word)))
    };
    match wanted {
        Some(wanted) if wanted.iter().all(allowed) => Ok(wanted),
        Some(_) => Err(VaultError::Forbidden("a token may not carry more than its issuer may give")),
        None => {
            let default = role.cloned().unwrap_or_else(|| ["read"].into_iter().collect());
            Ok(default.iter().filter(|word| allowed(word)).collect())
        }
    }
}

/// Whether `caller` may have a certificate for `service`, see it and revoke it.
pub(crate) fn credential(caller: Option<&Caller>, service: &str) -> Result<(), VaultError> {
    let caller = known(caller)?;
    if caller.grants.covers("credentials:issue") || is_service(caller, service) {
        return Ok(());
    }
    Err(VaultError::Lacking("credentials:issue"))
}

/// Whether `caller` may touch the certificates of a role: never as a service that happens to bear its name (an
/// old token may), and never as a role, which gets its certificate on a path of its own.
pub(crate) fn role_credential(caller: Option<&Caller>, needed: &'static str) -> Result<(), VaultError> {
    let caller = known(caller)?;
    if caller.as_role().is_none() && caller.grants.covers(needed) {
        return Ok(());
    }
    Err(VaultError::Lacking(needed))
}

/// Whether `caller` may end the tokens of `subject`.
pub(crate) fn revoke(caller: Option<&Caller>, subject: &str) -> Result<(), VaultError> {
    let caller = known(caller)?;
    if caller.grants.is_admin() || is_service(caller, subject) {
        Ok(())
    } else {
        Err(VaultError::Forbidden(NOT_SELF))
    }
}

/// Whether `caller` is the service `name` itself.
pub(crate) fn is_service(caller: &Caller, name: &str) -> bool {
    service(caller) == Some(name)
}

/// The service that `caller` is: the subject of its token, or the name in its certificate, which the edge hands
/// on as the account because the subject is the whole SPIFFE id. A role is none, and nor is whoever shows an old
/// token: each service that knows the shared secret can write any name into one.
pub(crate) fn service(caller: &Caller) -> Option<&str> {
    match caller.via {
        Via::Role(_) | Via::LegacyToken => None,
        Via::Certificate => Some(&caller.account),
        Via::Token | Via::Edge | Via::ApiKey => Some(&caller.subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sluice_wire::role::Role;

    fn caller(subject: &str, grants: &str) -> Caller {
        let grants = grants.parse().unwrap();
        Caller {
            subject: subject.into(),
            account: subject.into(),
            grants,
            via: Via::Token,
            jti: None,
            serial: None,
            issued_at_s: None,
            expires_at_s: None,
        }
    }

    fn path(text: &str) -> SecretPath {
        SecretPath::parse(text).unwrap()
    }

    fn may(caller: &Caller, at: &str, wish: Wish) -> bool {
        secret(Some(caller), Some(&path(at)), wish).is_ok()
    }

    #[test]
    fn services_see_their_own_part_only() {
        let bot = caller("bot", "read write");
        assert!(may(&bot, "services/bot/db", Wish::Read) && may(&bot, "services/bot/db", Wish::Write));
        for other in ["services/bot2/db", "services/bo", "services", "bot/db", "services/data/services/bot"] {
            assert!(!may(&bot, other, Wish::Read), "{other}");
        }
        assert!(!may(&caller("bot", "read"), "services/bot/db", Wish::Write));
        assert!(!may(&caller("bot", "secrets:read"), "services/bot/db", Wish::Read));
        assert!(secret(Some(&bot), None, Wish::Read).is_err());
        assert!(matches!(secret(None, None, Wish::Read), Err(VaultError::Anonymous)));
    }

    #[test]
    fn certificate_and_token_of_a_service_open_the_same_doors() {
        let mut bot = caller("spiffe://sluice.internal/service/bot", "read");
        "bot".clone_into(&mut bot.account);
        assert!(!may(&bot, "services/bot/db", Wish::Read), "an account alone is no identity");
        bot.via = Via::Certificate;
        assert!(may(&bot, "services/bot/db", Wish::Read) && !may(&bot, "services/data/db", Wish::Read));
        let name = |text| ServiceName::parse(text).unwrap();
        assert!(mint(Some(&bot), &name("bot"), Some("read".parse().unwrap()), &BTreeMap::new()).is_ok());
        assert!(mint(Some(&bot), &name("data"), None, &BTreeMap::new()).is_err());
        assert!(credential(Some(&bot), "bot").is_ok() && credential(Some(&bot), "data").is_err());
        assert!(revoke(Some(&bot), "bot").is_ok() && revoke(Some(&bot), "data").is_err());
        for role in Role::ALL {
            let old = caller(role.as_str(), "read write");
            assert!(role_credential(Some(&old), "credentials:issue").is_err(), "a name is no office");
        }
    }

    #[test]
    fn administrators_see_all_and_roles_nothing() {
        assert!(may(&caller("a", "admin"), "x/y", Wish::Write));
        assert!(may(&caller("a", "secrets:admin"), "services/bot/db", Wish::Read));
        for role in Role::ALL {
            let role = Caller::role(role);
            assert!(!may(&role, "services/role/demo", Wish::Read));
            assert!(mint(Some(&role), &ServiceName::parse("bot").unwrap(), None, &BTreeMap::new()).is_err());
            assert!(credential(Some(&role), "bot").is_err());
            assert!(revoke(Some(&role), &role.subject).is_err());
        }
    }

    #[test]
    fn minting_needs_the_permission_or_the_service_itself() {
        let bot = ServiceName::parse("bot").unwrap();
        let none = BTreeMap::new();
        let grants = |text: &str| Some(text.parse::<Grants>().unwrap());
        assert!(matches!(mint(None, &bot, None, &none), Err(VaultError::Anonymous)));
        assert!(mint(Some(&caller("other", "read write")), &bot, grants("read"), &none).is_err());
        assert!(mint(Some(&caller("bot", "read")), &bot, grants("read"), &none).is_ok());
        assert!(mint(Some(&caller("bot", "read")), &bot, grants("write"), &none).is_err());
        assert!(mint(Some(&caller("ci", "tokens:mint read")), &bot, grants("read"), &none).is_ok());
        assert!(mint(Some(&caller("ci", "tokens:mint read")), &bot, grants("admin"), &none).is_err());
        assert!(mint(Some(&caller("root", "admin")), &bot, grants("admin trade"), &none).is_ok());
        let mut legacy = caller("bot", "read");
        legacy.via = Via::LegacyToken;
        assert!(mint(Some(&legacy), &bot, grants("read"), &none).is_err());
    }

    #[test]
    fn an_old_token_is_no_service_whatever_name_it_bears() {
        let mut legacy = caller("bot", "read write");
        legacy.via = Via::LegacyToken;
        assert!(credential(Some(&legacy), "bot").is_err() && revoke(Some(&legacy), "bot").is_err());
        assert!(
            !may(&legacy, "services/bot/db", Wish::Read) && !may(&legacy, "services/bot/db", Wish::Write)
        );
    }

    #[test]
    fn a_role_widens_what_a_minter_may_give_but_never_to_admin() {
        let bot = ServiceName::parse("bot").unwrap();
        let roles = BTreeMap::from([("bot".to_owned(), "read trade admin".parse().unwrap())]);
        let ci = caller("ci", "tokens:mint");
        assert!(mint(Some(&ci), &bot, Some("trade".parse().unwrap()), &roles).is_ok());
        assert!(mint(Some(&ci), &bot, Some("admin".parse().unwrap()), &roles).is_err());
        let default = mint(Some(&ci), &bot, None, &roles).unwrap();
        assert_eq!(default.to_header(), "read trade");
        assert!(
            mint(Some(&caller("bot", "read")), &bot, Some("trade".parse().unwrap()), &roles).is_err(),
            "a service does not widen itself"
        );
    }

    proptest! {
        #[test]
        fn nothing_is_minted_that_neither_caller_nor_role_holds(
            held in "(read|write|trade|tokens:mint|admin)( (read|write|events:publish))?",
            wanted in "(read|write|trade|admin|events:publish:x)( (read|trade))?",
            role in "(read|trade|admin)?",
        ) {
            let bot = ServiceName::parse("bot").unwrap();
            let caller = caller("ci", &held);
            let roles = BTreeMap::from([("bot".to_owned(), role.parse::<Grants>().unwrap())]);
            if let Ok(given) = mint(Some(&caller), &bot, Some(wanted.parse().unwrap()), &roles) {
                for word in given.iter() {
                    prop_assert!(caller.grants.covers(word) || (word != "admin" && roles["bot"].covers(word)));
                }
                prop_assert!(!given.is_admin() || caller.grants.is_admin());
            }
        }
    }
}
