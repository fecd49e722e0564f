use proptest::prelude::*;

use super::*;
use crate::kill_switch::{SWITCHES_MAX, Scope};

fn wanted(on: bool, cancel_lane_open: bool) -> Wanted {
    Wanted { on, cancel_lane_open, reason: "because".into(), by: "ops".into(), at_ms: 1 }
}

fn edge(number: u64) -> Book {
    Book::new(EdgeId(number))
}

fn act(book: &mut Book, scope: &Scope, on: bool) -> Change {
    let change = book.make(scope, wanted(on, true), 0).unwrap();
    book.apply(scope, &change);
    change
}

fn is_on(book: &Book, scope: &Scope) -> bool {
    book.entry(scope).is_some_and(Entry::is_on)
}

#[test]
fn off_takes_back_what_it_has_seen_and_nothing_else() {
    let (mut a, mut b, scope) = (edge(1), edge(2), Scope::Service("orders".into()));
    let first = act(&mut a, &scope, true);
    b.apply(&scope, &first);
    let off = act(&mut b, &scope, false);
    // Meanwhile somebody stops it anew at the first edge.
    let again = act(&mut a, &scope, true);
    for change in [&off, &again] {
        a.apply(&scope, change);
        b.apply(&scope, change);
    }
    assert!(is_on(&a, &scope) && is_on(&b, &scope));
    let last = act(&mut b, &scope, false);
    a.apply(&scope, &last);
    for old in [&first, &again, &off] {
        assert_eq!(a.apply(&scope, old), Effect::Known, "late copies do nothing");
    }
    assert!(!is_on(&a, &scope) && !is_on(&b, &scope));
    assert_eq!((a.on(), b.on()), (0, 0));
}

#[test]
fn numbers_grow_also_when_the_clock_does_not() {
    let (mut a, scope) = (edge(1), Scope::All);
    let first = a.make(&scope, wanted(true, true), 1_000).unwrap();
    a.apply(&scope, &first);
    let off = a.make(&scope, wanted(false, true), 5).unwrap();
    a.apply(&scope, &off);
    let second = a.make(&scope, wanted(true, true), 5).unwrap();
    assert_eq!((first.epoch, off.epoch, second.epoch), (1_000, 1_001, 1_002));
    // What a record still knows counts too, also where the edge forgot its name for a moment.
    let mut later = edge(9);
    later.merge(&scope, a.entry(&scope).unwrap());
    later.rename(EdgeId(1));
    assert!(later.make(&scope, wanted(true, true), 0).unwrap().epoch > first.epoch);
}

#[test]
fn the_stricter_of_two_decides_and_the_later_replaces_what_it_knew() {
    let (mut a, mut b, scope) = (edge(1), edge(2), Scope::Account("alice".into()));
    let open = a.make(&scope, wanted(true, true), 0).unwrap();
    let closed = b.make(&scope, wanted(true, false), 0).unwrap();
    for change in [&open, &closed] {
        a.apply(&scope, change);
        b.apply(&scope, change);
    }
    assert_eq!(a.entry(&scope).unwrap().switch(), Some(Switch { cancel_lane_open: false }));
    let reopened = a.make(&scope, wanted(true, true), 0).unwrap();
    b.apply(&scope, &reopened);
    assert_eq!(b.entry(&scope).unwrap().switch(), Some(Switch { cancel_lane_open: true }));
    assert_eq!(b.entry(&scope).unwrap().holds.len(), 1);
}

#[test]
fn an_off_that_comes_before_its_on_holds() {
    let (mut a, mut b, scope) = (edge(1), edge(2), Scope::Symbol("BTC/USDT".into()));
    let on = act(&mut a, &scope, true);
    let off = act(&mut a, &scope, false);
    b.apply(&scope, &off);
    b.apply(&scope, &on);
    assert!(!is_on(&b, &scope));
}

#[test]
fn bounds_hold_and_everything_can_always_be_stopped() {
    let mut book = edge(1);
    for account in 0..SWITCHES_MAX {
        act(&mut book, &Scope::Account(account.to_string()), true);
    }
    let more = Scope::Account("one more".into());
    assert_eq!(book.make(&more, wanted(true, true), 0), Err(TooMany));
    act(&mut book, &Scope::All, true);
    assert_eq!(book.on(), SWITCHES_MAX + 1);
    assert_eq!(book.switches().len(), SWITCHES_MAX + 1);
    // What another edge stopped beside it holds as well.
    let theirs = edge(2).make(&more, wanted(true, true), 0).unwrap();
    assert_eq!(book.apply(&more, &theirs), Effect::Taken { forgotten: None });
    for account in 0..SWITCHES_MAX {
        act(&mut book, &Scope::Account(account.to_string()), false);
    }
    act(&mut book, &Scope::Account("the last".into()), true);
    let off = book.make(&Scope::Account("the last".into()), wanted(false, true), 0).unwrap();
    let forgotten = Some(Scope::Account("0".into()));
    assert_eq!(book.apply(&Scope::Account("the last".into()), &off), Effect::Taken { forgotten });
    assert_eq!(book.entries().count(), book.on() + TOMBSTONES_MAX);
}

#[test]
fn many_edges_of_one_scope_are_bounded() {
    let (mut book, scope) = (edge(0), Scope::All);
    for number in 1..=2 * EDGES_MAX as u64 {
        let on = edge(number).make(&scope, wanted(true, true), number).unwrap();
        book.apply(&scope, &on);
    }
    assert_eq!(book.entry(&scope).unwrap().holds.len(), EDGES_MAX);
    act(&mut book, &scope, false);
    assert!(!is_on(&book, &scope));
    assert!(book.entry(&scope).unwrap().undone.len() <= EDGES_MAX);
}

#[test]
fn a_change_travels_as_json_and_odd_ones_are_known() {
    let (mut a, scope) = (edge(0xab), Scope::Service("orders".into()));
    act(&mut a, &scope, true);
    let off = act(&mut a, &scope, false);
    let text = serde_json::to_string(&off).unwrap();
    assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), off);
    assert!(text.contains(r#""edge":"00000000000000ab""#), "{text}");
    assert!(off.is_sound());
    for odd in [Change { scope: "some".into(), ..off.clone() }, Change { target: None, ..off.clone() }] {
        assert!(Scope::of(&odd).is_err(), "{odd:?}");
    }
    for odd in [
        Change { reason: "x".repeat(REASON_BYTES_MAX + 1), ..off.clone() },
        Change { epoch: 0, ..off.clone() },
        Change { epoch: u64::MAX, ..off.clone() },
        Change { seen: [(EdgeId(3), u64::MAX)].into(), ..off.clone() },
    ] {
        assert!(!odd.is_sound(), "{odd:?}");
    }
    for bad in ["", "ab", "00000000000000xy", "+0000000000000ab"] {
        assert!(bad.parse::<EdgeId>().is_err(), "{bad}");
    }
}

#[test]
fn what_is_told_again_is_known() {
    let (mut a, mut b, scope) = (edge(1), edge(2), Scope::All);
    let on = act(&mut a, &scope, true);
    b.apply(&scope, &on);
    assert_eq!(b.apply(&scope, &a.own_hold(&scope).unwrap()), Effect::Known);
    assert_eq!(b.own_hold(&scope), None, "it is the other's");
}

/// One step of a world of three edges.
#[derive(Clone, Debug)]
enum Step {
    Change { edge: usize, scope: u8, on: bool, open: bool },
    Deliver { to: usize, change: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_usize..3, 0_u8..2, any::<bool>(), any::<bool>())
            .prop_map(|(edge, scope, on, open)| Step::Change { edge, scope, on, open }),
        (0_usize..3, 0_usize..40).prop_map(|(to, change)| Step::Deliver { to, change }),
    ]
}

/// What is on once all changes are known: every ON that no other change has seen.
fn model(changes: &[(Scope, Change)], scope: &Scope) -> Option<Switch> {
    let of = || changes.iter().filter(|(about, _)| about == scope).map(|(_, change)| change);
    let undone =
        |on: &Change| of().any(|other| other.seen.get(&on.edge).is_some_and(|seen| *seen >= on.epoch));
    let left: Vec<&Change> = of().filter(|change| change.on && !undone(change)).collect();
    let cancel_lane_open = left.iter().all(|change| change.cancel_lane_open);
    (!left.is_empty()).then_some(Switch { cancel_lane_open })
}

proptest! {
    #[test]
    fn edges_agree_whatever_they_hear_first(
        steps in proptest::collection::vec(step(), 0..60), seed in any::<u64>(),
    ) {
        let mut books = [edge(1), edge(2), edge(3)];
        let scopes = [Scope::All, Scope::Service("orders".into())];
        let mut changes: Vec<(Scope, Change)> = Vec::new();
        for step in steps {
            match step {
                Step::Change { edge, scope, on, open } => {
                    let scope = &scopes[usize::from(scope)];
                    let change = books[edge].make(scope, wanted(on, open), 0).unwrap();
                    books[edge].apply(scope, &change);
                    prop_assert_eq!(is_on(&books[edge], scope), on, "it holds at once where it is made");
                    changes.push((scope.clone(), change));
                }
                Step::Deliver { to, change } => {
                    if let Some((scope, change)) = changes.get(change) {
                        books[to].apply(scope, change);
                    }
                }
            }
        }
        for (number, book) in books.iter_mut().enumerate() {
            let mut order: Vec<usize> = (0..changes.len()).collect();
            order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1).rotate_left(7 * number as u32 + 3));
            for at in order {
                let (scope, change) = &changes[at];
                book.apply(scope, change);
            }
        }
        for scope in &scopes {
            let on = model(&changes, scope);
            for book in &books {
                prop_assert_eq!(book.entry(scope).and_then(Entry::switch), on);
                prop_assert_eq!(book.entry(scope), books[0].entry(scope));
            }
        }
        prop_assert_eq!(books[0].on(), books[0].entries().filter(|(_, entry)| entry.is_on()).count());
    }

    #[test]
    fn a_record_merged_is_as_good_as_the_changes(steps in proptest::collection::vec((0_usize..3, any::<bool>()), 0..30)) {
        let (mut books, scope) = ([edge(1), edge(2), edge(3)], Scope::All);
        for (at, on) in steps {
            act(&mut books[at], &scope, on);
            let entry = books[at].entry(&scope).cloned().unwrap_or_default();
            let next = (at + 1) % 3;
            let text = serde_json::to_string(&entry).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Entry>(&text).unwrap(), &entry);
            books[next].merge(&scope, &entry);
            prop_assert_eq!(books[next].merge(&scope, &entry), Effect::Known);
        }
    }
}
