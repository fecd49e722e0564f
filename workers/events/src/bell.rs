//! Who is woken by what: each subscriber stands where the events that it can want will find it.
//!
//! A subscriber hangs up one bell, in the lists of the symbols it names, else of its types, else in that of all. The
//! fan-out rings the lists that a batch is for, with the batch's first seq; a subscriber that only sleeps is woken by
//! the first ring, and knows that nothing between its place and that seq was for it. So a batch costs what it is
//! wanted by, not what is connected.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use foldhash::{HashMap, HashMapExt as _};
use futures_util::task::AtomicWaker;

use crate::log::Record;
use crate::stream::choice::Selector;

/// Not rung since it was looked at.
const QUIET: u64 = u64::MAX;

/// What one connection sleeps by.
#[derive(Debug)]
pub(crate) struct Bell {
    waker: AtomicWaker,
    /// Lowest seq it was rung for since it was looked at, or [`QUIET`].
    from: AtomicU64,
    /// Something else than an event is to be looked at.
    called: AtomicBool,
}

impl Bell {
    /// A bell that does not ring.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            waker: AtomicWaker::new(),
            from: AtomicU64::new(QUIET),
            called: AtomicBool::new(false),
        })
    }

    /// Hears it from now on; what rang before is to be asked for afterwards.
    pub(crate) fn listen(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Whether it rang since it was looked at.
    pub(crate) fn is_rung(&self) -> bool {
        self.from.load(Ordering::Acquire) != QUIET
    }

    /// Whether there was a call that nobody took.
    pub(crate) fn is_called(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }

    /// Takes a call, if there was one.
    pub(crate) fn take_call(&self) -> bool {
        self.is_called() && self.called.swap(false, Ordering::AcqRel)
    }

    /// Keeps events from waking it, until it is looked at.
    pub(crate) fn muffle(&self) {
        self.from.store(0, Ordering::Release);
    }

    /// What it was rung for since the last look; the look begins.
    fn take(&self) -> Option<u64> {
        Some(self.from.swap(QUIET, Ordering::AcqRel)).filter(|from| *from != QUIET)
    }

    /// Whoever is awake, or muffled, needs no waking.
    fn ring(&self, seq: u64) -> Option<Waker> {
        if self.from.fetch_min(seq, Ordering::AcqRel) == QUIET { self.waker.take() } else { None }
    }

    fn call(&self) -> Option<Waker> {
        self.called.store(true, Ordering::Release);
        self.waker.take()
    }
}

/// What a bell rings for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wants<'a> {
    /// Calls alone.
    Calls,
    /// Every event.
    Events,
    /// Events of any of these symbols.
    Symbols(&'a [Box<str>]),
    /// Events of any of these types.
    Types(&'a [Box<str>]),
}

impl<'a> From<&'a Selector> for Wants<'a> {
    fn from(selector: &'a Selector) -> Self {
        match (selector.symbols(), selector.filter.kinds.as_slice()) {
            ([], []) => Self::Events,
            ([], kinds) => Self::Types(kinds),
            (symbols, _) => Self::Symbols(symbols),
        }
    }
}

/// Bells that ring for the same events.
#[derive(Debug, Default)]
struct List {
    bells: Vec<Arc<Bell>>,
    /// First seq of the batch it was rung for last.
    rung_for: u64,
}

impl List {
    fn ring(&mut self, seq: u64, woken: &mut Vec<Waker>) {
        if std::mem::replace(&mut self.rung_for, seq) != seq {
            woken.extend(self.bells.iter().filter_map(|bell| bell.ring(seq)));
        }
    }

    fn remove(&mut self, bell: &Arc<Bell>) {
        if let Some(at) = self.bells.iter().position(|one| Arc::ptr_eq(one, bell)) {
            self.bells.swap_remove(at);
        }
    }
}

#[derive(Debug)]
struct Lists {
    callable: List,
    everything: List,
    symbols: HashMap<Box<str>, List>,
    types: HashMap<Box<str>, List>,
}

impl Lists {
    fn all(&mut self) -> impl Iterator<Item = &mut List> {
        let named = self.symbols.values_mut().chain(self.types.values_mut());
        [&mut self.callable, &mut self.everything].into_iter().chain(named)
    }
}

/// Every bell of a stream.
#[derive(Debug)]
pub(crate) struct Bells {
    lists: Mutex<Lists>,
    /// Everything up to this seq has been rung for.
    rung: AtomicU64,
}

impl Bells {
    /// None yet; events up to a seq have passed.
    pub(crate) fn new(rung: u64) -> Self {
        let lists = Lists {
            callable: List::default(),
            everything: List::default(),
            symbols: HashMap::new(),
            types: HashMap::new(),
        };
        Self { lists: Mutex::new(lists), rung: AtomicU64::new(rung) }
    }

    /// Hangs a bell up. Events that pass from now on ring it.
    pub(crate) fn hang(&self, bell: &Arc<Bell>, wants: Wants<'_>) {
        self.change(wants, |list| list.bells.push(Arc::clone(bell)));
    }

    /// Takes it down, from where it was hung.
    pub(crate) fn take_down(&self, bell: &Arc<Bell>, wants: Wants<'_>) {
        self.change(wants, |list| list.remove(bell));
    }

    fn change(&self, wants: Wants<'_>, change: impl Fn(&mut List)) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let (named, names) = match wants {
            Wants::Calls => return change(&mut lists.callable),
            Wants::Events => return change(&mut lists.everything),
            Wants::Symbols(names) => (&mut lists.symbols, names),
            Wants::Types(names) => (&mut lists.types, names),
        };
        for name in names {
            let list = named.entry(name.clone()).or_default();
            change(list);
            if list.bells.is_empty() {
                named.remove(name);
            }
        }
    }

    /// Rings for a batch, which can be seen already. One thread rings, batch after batch.
    pub(crate) fn ring<'r>(&self, first: u64, last: u64, records: impl Iterator<Item = &'r Record>) {
        let mut woken = Vec::new();
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.everything.ring(first, &mut woken);
        if !lists.symbols.is_empty() || !lists.types.is_empty() {
            for record in records {
                // With the first seq of the batch, not the event's own: a bell in two lists is rung twice, and may be
                // looked at in between.
                if let Some(list) = lists.symbols.get_mut(record.symbol()) {
                    list.ring(first, &mut woken);
                }
                if let Some(list) = lists.types.get_mut(record.kind()) {
                    list.ring(first, &mut woken);
                }
            }
        }
        drop(lists);
        self.rung.store(last, Ordering::Release);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Calls everybody, whatever they sleep for.
    pub(crate) fn call(&self) {
        let mut woken = Vec::new();
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        for list in lists.all() {
            woken.extend(list.bells.iter().filter_map(|bell| bell.call()));
        }
        drop(lists);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Where a bell's sleeper goes on, that had seen everything before `next` when it fell asleep.
    pub(crate) fn rouse(&self, bell: &Bell, next: u64) -> u64 {
        // Before the bell is looked at: what was rung for by now is in it.
        let rung = self.rung.load(Ordering::Acquire);
        next.max(bell.take().unwrap_or(rung + 1))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;
    use crate::log::tests::labelled;

    const NAMES: [&str; 4] = ["A", "B", "C", "D"];

    #[derive(Default)]
    struct Counted(AtomicU64);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A subscriber that looks at everything when it is woken, and at nothing else.
    struct Sleeper {
        bell: Arc<Bell>,
        symbols: Vec<Box<str>>,
        woken: Arc<Counted>,
        heard: u64,
        next: u64,
        seen: Vec<u64>,
    }

    impl Sleeper {
        fn look(&mut self, bells: &Bells, symbols: &[&str]) {
            self.next = bells.rouse(&self.bell, self.next);
            while let Some(symbol) = symbols.get(self.next as usize - 1) {
                if self.symbols.is_empty() || self.symbols.iter().any(|wanted| **wanted == **symbol) {
                    self.seen.push(self.next);
                }
                self.next += 1;
            }
        }

        /// Whether it can: nothing rang meanwhile.
        fn sleep(&self) -> bool {
            self.bell.listen(&Context::from_waker(&Waker::from(Arc::clone(&self.woken))));
            !self.bell.is_rung()
        }
    }

    fn wants(symbols: &[Box<str>]) -> Wants<'_> {
        if symbols.is_empty() { Wants::Events } else { Wants::Symbols(symbols) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Who only looks when it is woken, now and then also when it is not, misses nothing and is woken by nothing
        /// that is not for it.
        #[test]
        fn who_sleeps_misses_nothing_and_is_woken_by_its_own_events_alone(
            wanted in prop::collection::vec(prop::collection::btree_set(0_usize..4, 0..3), 1..6),
            batches in prop::collection::vec(
                (prop::collection::vec(0_usize..4, 1..6), prop::option::of(0_usize..6)), 1..30),
        ) {
            let bells = Bells::new(0);
            let mut sleepers: Vec<Sleeper> = wanted.iter().map(|wanted| {
                let symbols: Vec<Box<str>> = wanted.iter().map(|n| NAMES[*n].into()).collect();
                let bell = Bell::new();
                bells.hang(&bell, wants(&symbols));
                Sleeper { bell, symbols, woken: Arc::default(), heard: 0, next: 1, seen: Vec::new() }
            }).collect();
            for sleeper in &sleepers {
                prop_assert!(sleeper.sleep());
            }
            let mut all: Vec<&str> = Vec::new();
            for (batch, disturbed) in batches {
                let first = all.len() as u64 + 1;
                all.extend(batch.iter().map(|n| NAMES[*n]));
                let records: Vec<Record> =
                    (first..).zip(&batch).map(|(seq, n)| labelled(seq, "x", NAMES[*n])).collect();
                bells.ring(first, all.len() as u64, records.iter());
                for (n, sleeper) in sleepers.iter_mut().enumerate() {
                    let woken = sleeper.woken.0.load(Ordering::Relaxed);
                    let is_for_it = sleeper.symbols.is_empty()
                        || batch.iter().any(|n| sleeper.symbols.iter().any(|symbol| **symbol == *NAMES[*n]));
                    prop_assert_eq!(woken - sleeper.heard, u64::from(is_for_it));
                    sleeper.heard = woken;
                    // Its heartbeat is due.
                    if is_for_it || disturbed == Some(n) {
                        sleeper.look(&bells, &all);
                        prop_assert!(sleeper.sleep());
                        prop_assert_eq!(sleeper.next, all.len() as u64 + 1);
                    }
                }
            }
            for sleeper in &sleepers {
                let wanted = |symbol: &str| {
                    sleeper.symbols.is_empty() || sleeper.symbols.iter().any(|wanted| **wanted == *symbol)
                };
                let expected: Vec<u64> =
                    (1..).zip(&all).filter(|(_, symbol)| wanted(symbol)).map(|(seq, _)| seq).collect();
                prop_assert_eq!(&sleeper.seen, &expected);
                bells.take_down(&sleeper.bell, wants(&sleeper.symbols));
            }
            prop_assert_eq!(bells.lists.lock().unwrap().all().map(|list| list.bells.len()).sum::<usize>(), 0);
            prop_assert!(bells.lists.lock().unwrap().symbols.is_empty(), "an empty list makes room");
        }
    }

    #[test]
    fn a_call_is_heard_by_who_wants_no_event_and_a_muffled_bell_by_no_event() {
        let bells = Bells::new(0);
        let (idle, muffled) = (Bell::new(), Bell::new());
        bells.hang(&idle, Wants::Calls);
        bells.hang(&muffled, Wants::Events);
        let heard = Arc::<Counted>::default();
        let waker = Waker::from(Arc::clone(&heard));
        let cx = Context::from_waker(&waker);
        muffled.muffle();
        idle.listen(&cx);
        muffled.listen(&cx);
        bells.ring(1, 1, [labelled(1, "x", "A")].iter());
        assert_eq!(heard.0.load(Ordering::Relaxed), 0);
        assert!(!idle.is_rung() && !idle.is_called() && !muffled.is_called());
        bells.call();
        assert_eq!(heard.0.load(Ordering::Relaxed), 2);
        assert!(muffled.take_call() && idle.take_call() && !idle.take_call());
        assert_eq!(bells.rouse(&muffled, 1), 1, "what came meanwhile is looked at");
    }

    #[test]
    fn types_find_their_bell_too() {
        let bells = Bells::new(0);
        let bell = Bell::new();
        let kinds = ["risk_alert".into()];
        bells.hang(&bell, Wants::Types(&kinds));
        bells.ring(1, 1, [labelled(1, "market_data_update", "A")].iter());
        assert_eq!(bells.rouse(&bell, 1), 2, "nothing was for it");
        bells.ring(2, 3, [labelled(2, "x", "A"), labelled(3, "risk_alert", "A")].iter());
        assert_eq!(bells.rouse(&bell, 2), 2);
    }
}
