//! The names of rules that metrics may be labelled with: those we ship and those the configuration names.

use std::collections::BTreeSet;

use super::watch::Response;

/// The rules that Sluice ships.
const SHIPPED: &str = include_str!("../../../../conf/observe/falco/rules.yaml");
/// The label of every other rule: a sender cannot make series.
const OTHER: &str = "other";

/// Names of known rules.
#[derive(Debug)]
pub(crate) struct Rules(BTreeSet<String>);

impl Rules {
    /// The rules we ship and those that responses name.
    pub(crate) fn new(responses: &[Response]) -> Self {
        let shipped = SHIPPED.lines().filter_map(|line| line.strip_prefix("- rule: ")).map(str::to_owned);
        let named = responses.iter().map(|response| response.rule.clone()).filter(|rule| rule != "*");
        Self(shipped.chain(named).collect())
    }

    /// A rule as a label.
    pub(super) fn label<'r>(&self, rule: &'r str) -> &'r str {
        if self.0.contains(rule) { rule } else { OTHER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_rules_have_labels_and_others_share_one() {
        let rules = Rules::new(&[]);
        assert!(rules.0.len() >= 12, "{rules:?}");
        assert_eq!(rules.label("Vault files read by a stranger"), "Vault files read by a stranger");
        assert_eq!(rules.label("made up"), "other");
    }
}
