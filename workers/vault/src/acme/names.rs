//! Which names a service may order. Pure.
//!
//! What the configuration lists under the service, and nothing else: without a list, nothing. Never a name by which
//! this installation knows its own: a role's, or one of the trust domain, whatever is listed.

use super::problem::{Refusal, Word};
use crate::ca::{is_dns_name, is_ours};

/// LIMIT: names of one order.
pub(super) const NAMES_MAX: usize = 32;

/// Whether a service whose list is `allowed` may order `name`.
pub(super) fn judge(allowed: &[String], trust_domain: &str, name: &str) -> Result<(), Refusal> {
    let shown: String = name.chars().take(64).collect();
    let refused = |why: &str| Err(Refusal::new(Word::RejectedIdentifier, format!("`{shown}` {why}")));
    if name.starts_with("*.") {
        return refused("is a wildcard, which no challenge here can prove");
    }
    if !is_dns_name(name) {
        return refused("is no plain lower-case DNS name");
    }
    if is_ours(name, trust_domain) || !allowed.iter().any(|pattern| fits(pattern, name)) {
        return refused("is no name that this service may order");
    }
    Ok(())
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        // `.example.com`: whatever is below it.
        Some(domain) => name.strip_suffix(domain).is_some_and(|head| !head.is_empty()),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOMAIN: &str = "sluice.internal";

    fn may(allowed: &[&str], name: &str) -> bool {
        let allowed: Vec<String> = allowed.iter().map(|one| (*one).to_owned()).collect();
        judge(&allowed, DOMAIN, name).is_ok()
    }

    #[test]
    fn a_service_orders_what_is_listed_and_nothing_of_ours() {
        let listed = ["bot.example.com", "*.desk.example.com"];
        for good in ["bot.example.com", "a.desk.example.com", "a.b.desk.example.com"] {
            assert!(may(&listed, good), "{good}");
            assert!(!may(&[], good), "{good}");
        }
        for bad in [
            "example.com",
            "a.bot.example.com",
            "desk.example.com",
            ".desk.example.com",
            "xdesk.example.com",
            "*.desk.example.com",
            "Bot.example.com",
            "bot.example.com.",
            "bot.example.com\0",
            "127.0.0.1",
            "",
        ] {
            assert!(!may(&listed, bad), "{bad}");
        }
        for ours in ["sluice.internal", "bot.sluice.internal", "edge", "vault"] {
            assert!(!may(&[ours, "*.internal", "*.sluice.internal"], ours), "{ours}");
        }
        assert!(may(&["*.internal"], "a.xsluice.internal"));
    }

    proptest! {
        #[test]
        fn nothing_of_the_trust_domain_is_ever_allowed(
            head in "[a-z.]{0,12}", patterns in proptest::collection::vec("(\\*\\.)?[a-z]{1,6}(\\.[a-z]{1,8}){0,2}", 0..4),
        ) {
            let name = format!("{head}.{DOMAIN}");
            prop_assert!(judge(&patterns, DOMAIN, &name).is_err());
        }
    }
}
