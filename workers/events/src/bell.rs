//! Who is woken by what: each subscriber stands where the events that it can want will find it.
//!
//! A subscriber hangs up one bell, in the lists of the symbols it names, else of its types, else in that of all. The
//! fan-out rings the lists that a batch is for, with the batch's first seq; a subscriber that only sleeps is woken by
//! the first ring, and knows that nothing between its place and that seq was for it. So a batch costs what it is
//! wanted by, not what is connected.
//!
//! The fan-out asks here what of a batch is wanted at all ([`Bells::sift`]) before it does anything with it, and rings
//! when that can be seen. Of what was asked about before a bell was hung up nobody knows whether its subscriber wants
//! it: each bell knows since when it counts.

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
    /// From this seq on it was asked what its subscriber wants.
    since: AtomicU64,
}

impl Bell {
    /// A bell that does not ring.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            waker: AtomicWaker::new(),
            from: AtomicU64::new(QUIET),
            called: AtomicBool::new(false),
            since: AtomicU64::new(0),
        })
    }

    /// The first seq that it counts for: what came before may have passed without it.
    pub(crate) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
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
    /// What stands up to this seq was asked about.
    sifted: u64,
    /// Bells hung up since, while it has not been rung for yet.
    late: Option<Vec<Arc<Bell>>>,
}

impl Lists {
    /// Whether no event is wanted by anybody.
    fn is_deaf(&self) -> bool {
        self.everything.bells.is_empty() && self.symbols.is_empty() && self.types.is_empty()
    }

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
            sifted: rung,
            late: None,
        };
        Self { lists: Mutex::new(lists), rung: AtomicU64::new(rung) }
    }

    /// Hangs a bell up. Events that pass from now on ring it.
    pub(crate) fn hang(&self, bell: &Arc<Bell>, wants: Wants<'_>) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        bell.since.store(lists.sifted + 1, Ordering::Relaxed);
        if let Some(late) = &mut lists.late {
            // What is on its way was sifted without it: it is to look for itself.
            late.push(Arc::clone(bell));
        }
        Self::change(&mut lists, wants, |list| list.bells.push(Arc::clone(bell)));
    }

    /// Takes it down, from where it was hung.
    pub(crate) fn take_down(&self, bell: &Arc<Bell>, wants: Wants<'_>) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        Self::change(&mut lists, wants, |list| list.remove(bell));
    }

    fn change(lists: &mut Lists, wants: Wants<'_>, change: impl Fn(&mut List)) {
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

    /// Leaves of the next events, up to a seq, those that somebody wants; whether anybody wants any events at all.
    /// One thread sifts and then rings, batch after batch.
    pub(crate) fn sift(&self, last: u64, records: &mut Vec<Record>) -> bool {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        (lists.sifted, lists.late) = (last, Some(Vec::new()));
        if lists.everything.bells.is_empty() {
            let is_wanted = |record: &Record| {
                (!lists.types.is_empty() && lists.types.contains_key(record.kind()))
                    || (!lists.symbols.is_empty() && lists.symbols.contains_key(record.symbol()))
            };
            records.retain(is_wanted);
        }
        !lists.is_deaf()
    }

    /// Rings for what was sifted, which can be seen already.
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
        let late = lists.late.take().unwrap_or_default();
        woken.extend(late.iter().filter_map(|bell| bell.ring(first)));
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
mod tests;
