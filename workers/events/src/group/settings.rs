//! How a group is set up: what it wants to see, how often it tries, and what it keeps in order.

use serde::{Deserialize, Serialize};

use crate::log::{Filter, Record};

/// The settings of a group, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Time a consumer has for a message before it goes to somebody else, in milliseconds.
    pub(crate) ack_wait_ms: u64,
    /// Deliveries of a message, the first one included.
    pub(crate) max_deliver: u32,
    /// Pauses before the second, third, … delivery, in milliseconds; the last one goes on.
    pub(crate) backoff_ms: Vec<u64>,
    /// What is kept in order.
    pub(crate) order_key: OrderKey,
    /// What the group wants to see.
    pub(crate) filter: Selector,
}

/// What a group keeps in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderKey {
    /// Nothing: messages are handed out as they come, several at a time.
    #[default]
    None,
    /// The events of one symbol: the next one is handed out when the one before it is settled.
    Symbol,
}

/// What a group wants to see; empty lists want everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Selector {
    /// Event types, in canonical spelling.
    pub(crate) kinds: Vec<Box<str>>,
    /// Sources.
    pub(crate) sources: Vec<Box<str>>,
    /// Symbols.
    pub(crate) symbols: Vec<Box<str>>,
    /// First event time, in microseconds since 1970.
    pub(crate) from_us: Option<i64>,
    /// Last event time, in microseconds since 1970.
    pub(crate) to_us: Option<i64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ack_wait_ms: 30_000,
            max_deliver: 5,
            backoff_ms: vec![1_000, 5_000, 30_000],
            order_key: OrderKey::None,
            filter: Selector::default(),
        }
    }
}

impl Settings {
    /// The pause after so many deliveries, in milliseconds.
    pub(crate) fn backoff_ms(&self, attempts: u32) -> u64 {
        let at = (attempts.max(1) as usize - 1).min(self.backoff_ms.len().saturating_sub(1));
        self.backoff_ms.get(at).copied().unwrap_or(0)
    }
}

impl Selector {
    /// The part that a scan can use to skip what cannot be wanted.
    pub(crate) fn scan_filter(&self) -> Filter {
        let only = |list: &[Box<str>]| if let [one] = list { Some(one.clone()) } else { None };
        Filter {
            kinds: self.kinds.clone(),
            source: only(&self.sources),
            symbol: only(&self.symbols),
            from_us: self.from_us,
            to_us: self.to_us,
            ..Filter::default()
        }
    }

    /// Whether a record that passed [`Selector::scan_filter`] is wanted.
    pub(crate) fn admits(&self, record: &Record) -> bool {
        let listed =
            |list: &[Box<str>], value: &str| list.is_empty() || list.iter().any(|one| &**one == value);
        listed(&self.sources, record.source()) && listed(&self.symbols, record.symbol())
    }

    /// Whether everything that is wanted is within what a reader may see.
    pub(crate) fn is_within(&self, readable: &Filter) -> bool {
        readable.granted.is_none()
            || (!self.kinds.is_empty() && self.kinds.iter().all(|kind| readable.admits_type(kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::record;

    #[test]
    fn the_last_pause_goes_on() {
        let settings = Settings { backoff_ms: vec![1, 5], ..Settings::default() };
        assert_eq!([1, 2, 3, 9].map(|attempts| settings.backoff_ms(attempts)), [1, 5, 5, 5]);
        assert_eq!(Settings { backoff_ms: vec![], ..settings }.backoff_ms(3), 0);
    }

    #[test]
    fn lists_are_any_of() {
        let any = Selector { symbols: vec!["ETH".into(), "BTC/USDT".into()], ..Selector::default() };
        assert!(any.admits(&record(1, "a")) && any.scan_filter().symbol.is_none());
        let one = Selector { symbols: vec!["ETH".into()], ..Selector::default() };
        assert!(!one.admits(&record(1, "a")));
        assert_eq!(one.scan_filter().symbol.as_deref(), Some("ETH"));
    }

    #[test]
    fn a_narrow_reader_needs_named_types() {
        let narrow = Filter { granted: Some(vec!["order_*".into()]), ..Filter::default() };
        let of = |kinds: &[&str]| Selector {
            kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
            ..Selector::default()
        };
        assert!(of(&["order_executed", "order_rejected"]).is_within(&narrow));
        assert!(!of(&["order_executed", "risk_alert"]).is_within(&narrow));
        assert!(!of(&[]).is_within(&narrow));
        assert!(of(&[]).is_within(&Filter::default()));
    }
}
