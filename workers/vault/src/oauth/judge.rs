//! What scope a token gets. Pure.

use sluice_identity::grants::{ADMIN, GRANTS_MAX, Grants, is_grant};

use super::error::{OauthError, Word};

/// The scope of a client's own token: what it asks for, all of which it must hold. Without a wish it is all it
/// holds but `admin`, which is never given unasked.
pub(super) fn of_client(held: &Grants, wanted: Option<&str>) -> Result<Grants, OauthError> {
    match wanted {
        Some(wanted) => within(held, wanted),
        None => nonempty(held.iter().filter(|word| *word != ADMIN).collect()),
    }
}

/// The scope of a token made from another: at most what that one carries.
pub(super) fn narrowed(held: &Grants, wanted: Option<&str>) -> Result<Grants, OauthError> {
    wanted.map_or_else(|| nonempty(held.clone()), |wanted| within(held, wanted))
}

fn within(held: &Grants, wanted: &str) -> Result<Grants, OauthError> {
    let words: Vec<&str> = wanted.split(' ').filter(|word| !word.is_empty()).collect();
    if words.len() > GRANTS_MAX || !words.iter().all(|word| is_grant(word)) {
        return Err(OauthError::new(Word::InvalidScope, "the scope is malformed"));
    }
    if !words.iter().all(|word| held.covers(word)) {
        return Err(OauthError::new(Word::InvalidScope, "the scope is wider than what may be given"));
    }
    nonempty(words.into_iter().collect())
}

fn nonempty(scope: Grants) -> Result<Grants, OauthError> {
    if scope.is_empty() { Err(OauthError::new(Word::InvalidScope, "there is no scope")) } else { Ok(scope) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grants(text: &str) -> Grants {
        text.parse().unwrap()
    }

    #[test]
    fn administration_is_given_only_when_asked_for() {
        assert_eq!(of_client(&grants("admin read"), None).unwrap().to_header(), "read");
        assert_eq!(of_client(&grants("admin read"), Some("admin")).unwrap().to_header(), "admin");
        assert!(of_client(&grants("admin"), None).is_err());
        assert_eq!(narrowed(&grants("admin"), Some("trade")).unwrap().to_header(), "trade");
        for wrong in ["", " ", "a\"b", "read\tx", &"x ".repeat(200)] {
            assert!(narrowed(&grants("admin"), Some(wrong)).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_scope_is_wider_than_what_is_held(
            held in "[ab](:[ab*]){0,2}( [ab](:[ab]){0,2}){0,3}",
            wanted in proptest::option::of("[ab*](:[ab*]){0,2}( [ab](:[ab*]){0,2}){0,3}"),
        ) {
            let held = grants(&held);
            for given in [of_client(&held, wanted.as_deref()), narrowed(&held, wanted.as_deref())].into_iter().flatten() {
                prop_assert!(held.covers_all(&given), "{} of {}", given.to_header(), held.to_header());
                if let Some(wanted) = &wanted {
                    prop_assert_eq!(given, grants(wanted));
                }
            }
        }
    }
}
