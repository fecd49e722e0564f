//! Who sleeps is woken by what is for it, and by nothing else.

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
