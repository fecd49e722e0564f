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

use std::collections::BTreeMap;

use crate::gate::Lane;

/// LIMIT: switches at once.
pub const SWITCHES_MAX: usize = 10_000;
/// LIMIT: bytes of a name.
pub const NAME_BYTES_MAX: usize = 256;

/// What a switch stops.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Scope {
    /// The scope of a switch call: `scope` and, but for `all`, `target`.
    pub fn parse(scope: &str, target: Option<&str>) -> Result<Self, ScopeFault> {
        let name = || {
            let name = target.unwrap_or_default();
            let good = (1..=NAME_BYTES_MAX).contains(&name.len())
                && name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if good && name.trim() == name { Ok(name) } else { Err(ScopeFault::Target) }
        };
        match scope {
            "all" if target.is_some() => Err(ScopeFault::Targeted),
            "all" => Ok(Self::All),
            "service" => Ok(Self::Service(name()?.to_owned())),
            "account" => Ok(Self::Account(name()?.to_owned())),
            "symbol" if name()?.contains(',') => Err(ScopeFault::Target),
            "symbol" => Ok(Self::Symbol(name()?.to_ascii_uppercase())),
            _ => Err(ScopeFault::Scope),
        }
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
    /// Switches on; what was on under this scope is replaced.
    pub fn set(&mut self, scope: Scope, switch: Switch) -> Result<(), TooMany> {
        let full = self.len() >= SWITCHES_MAX;
        let Some((names, name)) = self.named(&scope) else {
            self.all = Some(switch);
            return Ok(());
        };
        if full && !names.contains_key(name) {
            return Err(TooMany);
        }
        names.insert(name.to_owned(), switch);
        Ok(())
    }

    /// Switches off; false where it was not on.
    pub fn clear(&mut self, scope: &Scope) -> bool {
        match self.named(scope) {
            Some((names, name)) => names.remove(name).is_some(),
            None => self.all.take().is_some(),
        }
    }

    /// What is on, the widest first.
    pub fn iter(&self) -> impl Iterator<Item = (Scope, Switch)> {
        fn each(names: &Named, scope: fn(String) -> Scope) -> impl Iterator<Item = (Scope, Switch)> {
            names.iter().map(move |(name, switch)| (scope(name.clone()), *switch))
        }
        let all = self.all.map(|switch| (Scope::All, switch)).into_iter();
        let names = each(&self.services, Scope::Service).chain(each(&self.accounts, Scope::Account));
        all.chain(names).chain(each(&self.symbols, Scope::Symbol))
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

    fn named<'s>(&mut self, scope: &'s Scope) -> Option<(&mut Named, &'s str)> {
        match scope {
            Scope::All => None,
            Scope::Service(name) => Some((&mut self.services, name)),
            Scope::Account(name) => Some((&mut self.accounts, name)),
            Scope::Symbol(name) => Some((&mut self.symbols, name)),
        }
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
        switches.set(Scope::parse(scope, target).unwrap(), switch).unwrap();
        switches
    }

    #[test]
    fn everything_stops_but_cancels() {
        let mut switches = with("all", None, OPEN);
        for lane in LANES {
            let stopped = check(&switches, "orders", lane, &[]).is_err();
            assert_eq!(stopped, lane != Lane::Cancel, "{lane:?}");
        }
        switches.set(Scope::All, Switch { cancel_lane_open: false }).unwrap();
        assert_eq!(check(&switches, "orders", Lane::Cancel, &[]), Err(Stopped::By("all")));
        assert!(switches.clear(&Scope::All) && !switches.clear(&Scope::All));
        assert_eq!(check(&switches, "orders", Lane::Order, &[]), Ok(()));
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
    fn switches_are_bounded_and_everything_can_always_be_stopped() {
        let mut switches = Switches::default();
        for account in 0..SWITCHES_MAX {
            switches.set(Scope::Account(account.to_string()), OPEN).unwrap();
        }
        assert_eq!(switches.set(Scope::Account("one more".into()), OPEN), Err(TooMany));
        assert_eq!(switches.set(Scope::Account("7".into()), OPEN), Ok(()));
        assert_eq!(switches.set(Scope::All, OPEN), Ok(()));
        assert_eq!(switches.iter().count(), SWITCHES_MAX + 1);
        assert_eq!(switches.iter().next(), Some((Scope::All, OPEN)));
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
            changes in proptest::collection::vec((scope(), any::<bool>(), any::<bool>()), 0..20),
            service in 0_usize..3, account in 0_usize..3, symbols in proptest::collection::vec(0_usize..3, 0..3), lane in 0_usize..4,
        ) {
            let (mut switches, mut list) = (Switches::default(), Vec::<(Scope, bool)>::new());
            for (scope, on, cancel_lane_open) in changes {
                list.retain(|(known, _)| *known != scope);
                if on {
                    list.push((scope.clone(), cancel_lane_open));
                    switches.set(scope, Switch { cancel_lane_open }).unwrap();
                } else {
                    switches.clear(&scope);
                }
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
