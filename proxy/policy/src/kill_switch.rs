//! What is stopped by hand.
//!
//! Purpose: an operator stops trading, all of it or that of one service, account or symbol, at once.
//!
//! Exact conditions: a request is stopped when any switch covers it: the one over everything, its
//! service's, its account's or one of a symbol it names. The cancel lane stays open, unless the switch
//! closes it too. While any symbol is stopped, a request of the order lane that names no symbol is refused:
//! nobody can tell that it is not for the stopped one.
//!
//! Symbols and accounts are compared as they are written, symbols without regard to case, as venues do. A
//! request may name several symbols, in several fields or separated by commas.
//!
//! What wins: of several switches the widest is named. Recovery: by an operator alone; time changes nothing.
//! Cost: nothing while no switch is on; one look-up for each name a request is about else, no allocation.
//! How switches come to be on, at this edge and at others, is [`book`].

pub mod book;

use std::collections::BTreeMap;

use sluice_schema::Lane;
use sluice_wire::kill::{Change, NAME_BYTES_MAX, is_target};

/// LIMIT: switches at once.
pub const SWITCHES_MAX: usize = 10_000;

/// What a switch stops, the widest first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    All,
    /// One service, by its name.
    Service(String),
    /// One account: claim `account`, else `sub`.
    Account(String),
    /// One symbol, in upper case.
    Symbol(String),
}

/// A switch that is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Whether cancels pass.
    pub cancel_lane_open: bool,
}

/// No switch can be made of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeFault {
    /// `scope` is none of the four words.
    #[error("`scope` is one of all, service, account, symbol")]
    Scope,
    /// `all` with a target.
    #[error("scope `all` has no `target`")]
    Targeted,
    /// Another scope without one, or one that is too long or not printable ASCII.
    #[error("`target` names what is stopped: 1 to 256 printable ASCII characters, no comma for a symbol")]
    Target,
}

/// [`SWITCHES_MAX`] are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{SWITCHES_MAX} switches are on; switch one off, or stop everything")]
pub struct TooMany;

/// What a request is about, as far as it is known before its caller is.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a, S> {
    /// Its service.
    pub service: &'a str,
    /// Its lane.
    pub lane: Lane,
    /// Values of the symbol header.
    pub symbols: S,
}

/// Why a request does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A switch of this scope covers it.
    By(&'static str),
    /// It is an order for no named symbol while a symbol is stopped.
    SymbolRequired,
}

/// All switches that are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    all: Option<Switch>,
    services: Named,
    accounts: Named,
    symbols: Named,
}

type Named = BTreeMap<String, Switch>;

impl Stopped {
    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::By(scope) => scope,
            Self::SymbolRequired => "symbol_required",
        }
    }
}

impl Scope {
    /// The scope of a switch call: `scope` and, but for `all`, `target`.
    pub fn parse(scope: &str, target: Option<&str>) -> Result<Self, ScopeFault> {
        let name = || {
            let name = target.unwrap_or_default();
            if is_target(scope, name) { Ok(name) } else { Err(ScopeFault::Target) }
        };
        match scope {
            "all" if target.is_some() => Err(ScopeFault::Targeted),
            "all" => Ok(Self::All),
            "service" => Ok(Self::Service(name()?.to_owned())),
            "account" => Ok(Self::Account(name()?.to_owned())),
            "symbol" => Ok(Self::Symbol(name()?.to_ascii_uppercase())),
            _ => Err(ScopeFault::Scope),
        }
    }

    /// What a change is about.
    ///
    /// # Errors
    /// Texts that are no scope.
    pub fn of(change: &Change) -> Result<Self, ScopeFault> {
        Self::parse(&change.scope, change.target.as_deref())
    }

    /// The word of the scope.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Service(_) => "service",
            Self::Account(_) => "account",
            Self::Symbol(_) => "symbol",
        }
    }

    /// The name it is about.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Service(name) | Self::Account(name) | Self::Symbol(name) => Some(name),
        }
    }
}

impl Switches {
    /// Switches on; what was on under this scope is replaced. Whose book it is bounds how many there are.
    pub fn put(&mut self, scope: Scope, switch: Switch) {
        match scope {
            Scope::All => self.all = Some(switch),
            Scope::Service(name) => drop(self.services.insert(name, switch)),
            Scope::Account(name) => drop(self.accounts.insert(name, switch)),
            Scope::Symbol(name) => drop(self.symbols.insert(name, switch)),
        }
    }

    /// How many are on.
    pub fn len(&self) -> usize {
        usize::from(self.all.is_some()) + self.services.len() + self.accounts.len() + self.symbols.len()
    }

    /// Nothing is stopped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Judges a request before its caller is known.
    pub fn check<'v>(&self, ask: Ask<'_, impl Iterator<Item = &'v [u8]>>) -> Result<(), Stopped> {
        pass("all", self.all.as_ref(), ask.lane)?;
        pass("service", self.services.get(ask.service), ask.lane)?;
        if self.symbols.is_empty() {
            return Ok(());
        }
        let mut named = false;
        for symbol in ask.symbols.flat_map(|value| value.split(|byte| *byte == b',')) {
            let symbol = symbol.trim_ascii();
            named |= !symbol.is_empty();
            pass("symbol", self.symbol(symbol), ask.lane)?;
        }
        if !named && ask.lane == Lane::Order { Err(Stopped::SymbolRequired) } else { Ok(()) }
    }

    /// How many are on, by the word of their scope.
    pub fn counts(&self) -> [(&'static str, usize); 4] {
        let all = usize::from(self.all.is_some());
        let named = [("service", &self.services), ("account", &self.accounts), ("symbol", &self.symbols)];
        let [services, accounts, symbols] = named.map(|(scope, names)| (scope, names.len()));
        [("all", all), services, accounts, symbols]
    }

    /// Judges a request of a known account.
    pub fn check_account(&self, lane: Lane, account: &str) -> Result<(), Stopped> {
        pass("account", self.accounts.get(account), lane)
    }

    fn symbol(&self, symbol: &[u8]) -> Option<&Switch> {
        let mut upper = [0; NAME_BYTES_MAX];
        let upper = upper.get_mut(..symbol.len())?;
        upper.copy_from_slice(symbol);
        upper.make_ascii_uppercase();
        self.symbols.get(std::str::from_utf8(upper).ok()?)
    }
}

fn pass(scope: &'static str, switch: Option<&Switch>, lane: Lane) -> Result<(), Stopped> {
    match switch {
        Some(switch) if !(lane == Lane::Cancel && switch.cancel_lane_open) => Err(Stopped::By(scope)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPEN: Switch = Switch { cancel_lane_open: true };
    const LANES: [Lane; 4] = [Lane::Cancel, Lane::Order, Lane::Query, Lane::Analytics];

    fn check(switches: &Switches, service: &str, lane: Lane, symbols: &[&str]) -> Result<(), Stopped> {
        switches.check(Ask { service, lane, symbols: symbols.iter().map(|symbol| symbol.as_bytes()) })
    }

    fn with(scope: &str, target: Option<&str>, switch: Switch) -> Switches {
        let mut switches = Switches::default();
        switches.put(Scope::parse(scope, target).unwrap(), switch);
        switches
    }

    #[test]
    fn everything_stops_but_cancels() {
        let mut switches = with("all", None, OPEN);
        for lane in LANES {
            let stopped = check(&switches, "orders", lane, &[]).is_err();
            assert_eq!(stopped, lane != Lane::Cancel, "{lane:?}");
        }
        switches.put(Scope::All, Switch { cancel_lane_open: false });
        assert_eq!(check(&switches, "orders", Lane::Cancel, &[]), Err(Stopped::By("all")));
        assert_eq!(check(&Switches::default(), "orders", Lane::Order, &[]), Ok(()));
    }

    #[test]
    fn a_symbol_stops_who_names_it_and_orders_that_name_none() {
        let switches = with("symbol", Some("btc/usdt"), OPEN);
        let order = |symbols: &[&str]| check(&switches, "orders", Lane::Order, symbols);
        assert_eq!(order(&["BTC/USDT"]), Err(Stopped::By("symbol")));
        assert_eq!(order(&["ETH/USDT, Btc/Usdt"]), Err(Stopped::By("symbol")));
        assert_eq!(order(&["ETH/USDT", "BTC/USDT"]), Err(Stopped::By("symbol")));
        assert_eq!(order(&["ETH/USDT"]), Ok(()));
        assert_eq!(order(&[]), Err(Stopped::SymbolRequired));
        assert_eq!(order(&[" , "]), Err(Stopped::SymbolRequired));
        assert_eq!(order(&["x".repeat(300).as_str()]), Ok(()), "longer than any name");
        assert_eq!(check(&switches, "orders", Lane::Query, &[]), Ok(()));
        assert_eq!(check(&switches, "orders", Lane::Cancel, &["BTC/USDT"]), Ok(()));
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(Scope::parse("everything", None), Err(ScopeFault::Scope));
        assert_eq!(Scope::parse("all", Some("x")), Err(ScopeFault::Targeted));
        for bad in [None, Some(""), Some(" x"), Some("a\nb"), Some("ä")] {
            assert_eq!(Scope::parse("account", bad), Err(ScopeFault::Target), "{bad:?}");
        }
        assert_eq!(Scope::parse("symbol", Some("A,B")), Err(ScopeFault::Target));
        assert_eq!(Scope::parse("account", Some(&"x".repeat(257))), Err(ScopeFault::Target));
    }

    #[test]
    fn what_is_on_is_counted() {
        let mut switches = with("account", Some("alice"), OPEN);
        switches.put(Scope::Symbol("BTC/USDT".into()), OPEN);
        switches.put(Scope::All, OPEN);
        assert_eq!(switches.len(), 3);
        assert_eq!(switches.counts(), [("all", 1), ("service", 0), ("account", 1), ("symbol", 1)]);
    }

    fn scope() -> impl Strategy<Value = Scope> {
        (0_u8..4, 0_u8..3).prop_map(|(kind, name)| match (kind, ["A", "B", "C"][name as usize].to_owned()) {
            (0, _) => Scope::All,
            (1, name) => Scope::Service(name),
            (2, name) => Scope::Account(name),
            (_, name) => Scope::Symbol(name),
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_what_is_on(
            changes in proptest::collection::vec((scope(), any::<bool>()), 0..20),
            service in 0_usize..3, account in 0_usize..3, symbols in proptest::collection::vec(0_usize..3, 0..3), lane in 0_usize..4,
        ) {
            let (mut switches, mut list) = (Switches::default(), Vec::<(Scope, bool)>::new());
            for (scope, cancel_lane_open) in changes {
                list.retain(|(known, _)| *known != scope);
                list.push((scope.clone(), cancel_lane_open));
                switches.put(scope, Switch { cancel_lane_open });
            }
            let (names, lane) = (["A", "B", "C"], LANES[lane]);
            let symbols: Vec<&str> = symbols.into_iter().map(|symbol| names[symbol]).collect();
            let stops = |scope: &Scope| list.iter().any(|(on, open)| on == scope && !(lane == Lane::Cancel && *open));
            let by_symbol = symbols.iter().any(|symbol| stops(&Scope::Symbol((*symbol).into())));
            let nameless = lane == Lane::Order
                && symbols.is_empty()
                && list.iter().any(|(scope, _)| matches!(scope, Scope::Symbol(_)));
            let model = stops(&Scope::All) || stops(&Scope::Service(names[service].into())) || by_symbol || nameless;
            prop_assert_eq!(check(&switches, names[service], lane, &symbols).is_err(), model);
            let by_account = stops(&Scope::Account(names[account].into()));
            prop_assert_eq!(switches.check_account(lane, names[account]).is_err(), by_account);
            prop_assert_eq!(switches.len(), list.len());
        }
    }
}
