use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LEASE_MS: u64 = 20;
const TTL_MS: u64 = 100;

fn read(values: &[&str], rule: Idempotency) -> Result<Option<String>, KeyFault> {
    key(rule, values.iter().map(|value| value.as_bytes()))
}

#[test]
fn a_quoted_key_and_a_bare_one_are_the_same() {
    let optional = Idempotency::Optional;
    for (value, wanted) in [
        ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("  \"a b\\\"c\\\\\" ", "a b\"c\\"),
        ("order:7/a=b", "order:7/a=b"),
    ] {
        assert_eq!(read(&[value], optional), Ok(Some(wanted.to_owned())), "{value}");
    }
}

#[test]
fn what_is_no_key_is_told_apart() {
    let (optional, required) = (Idempotency::Optional, Idempotency::Required);
    assert_eq!(read(&[], optional), Ok(None));
    assert_eq!(read(&[], required), Err(KeyFault::Missing));
    assert_eq!(read(&["a", "a"], optional), Err(KeyFault::Repeated));
    for form in [
        "a, b", "a;b=1", "\"a\";b", "\"a", "a\"", "\"a\"b\"", "\"\\n\"", "\"a\\\"", "a b", "é", "\"\t\"",
        "\"",
    ] {
        assert_eq!(read(&[form], optional), Err(KeyFault::Form), "{form}");
    }
    for length in [String::new(), "\"\"".to_owned(), "k".repeat(256), format!("\"{}\"", "k".repeat(256))] {
        assert_eq!(read(&[&length], optional), Err(KeyFault::Length), "{length}");
    }
    assert!(read(&[&"k".repeat(255)], optional).is_ok());
}

#[test]
fn only_what_would_be_a_second_order_is_honoured() {
    for method in Method::ALL {
        let honoured = matches!(method, Method::Post | Method::Patch);
        assert_eq!(honours(Idempotency::Required, method, false), honoured, "{method}");
        assert_eq!(honours(Idempotency::Optional, method, false), honoured, "{method}");
        assert!(!honours(Idempotency::Off, method, false) && !honours(Idempotency::Required, method, true));
    }
}

#[test]
fn cookies_and_what_is_made_anew_are_not_kept() {
    for name in
        ["set-cookie", "x-request-id", "ratelimit-policy", "x-ratelimit-reset", "content-length", "date"]
    {
        assert!(!keeps_field(name), "{name}");
    }
    for name in ["content-type", "location", "etag", "x-order-id", "retry-after"] {
        assert!(keeps_field(name), "{name}");
    }
}

#[test]
fn a_record_outlives_its_time_while_its_request_is_under_way() {
    let longer = Record::claimed([1; 32], Owner { run: 1, request: 1 }, 50, 10);
    assert_eq!(judge(Some(&longer), &[1; 32], 20, |_| true), Verdict::InFlight);
    assert_eq!(judge(Some(&longer), &[1; 32], 20, |_| false), Verdict::Claim);
}

/// What a client, an upstream and a crash can do.
#[derive(Clone, Debug)]
enum Step {
    /// A copy with this key and body comes.
    Ask { key: u8, body: u8 },
    /// The nth request under way ends so.
    End { nth: usize, end: u8 },
    /// The process dies and another takes its place.
    Crash,
    /// Time passes.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3u8, 0..2u8).prop_map(|(key, body)| Step::Ask { key, body }),
        4 => (0..8usize, 0..5u8).prop_map(|(nth, end)| Step::End { nth, end }),
        1 => Just(Step::Crash),
        2 => (1..60u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..80)
}

fn answer(owner: Owner) -> Answer {
    let body = format!("{owner:?}").into_bytes();
    Answer::Whole { status: 201, fields: vec![(b"x-order".to_vec(), b"1".to_vec())], body }
}

/// What an observer who sees everything says of a key.
#[derive(Clone, Debug)]
struct Fact {
    body: u8,
    claimed_at: u64,
    sent: bool,
    answer: Option<Answer>,
    ended: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Within a key's time at most one copy is ever sent, every later copy learns what became of it, and a key
    /// of which nothing was sent is free.
    #[test]
    fn one_copy_is_sent_and_the_others_learn_what_became_of_it(steps in steps()) {
        let mut store: BTreeMap<u8, Record> = BTreeMap::new();
        let mut facts: BTreeMap<u8, Fact> = BTreeMap::new();
        let mut under_way: Vec<(u8, Owner, u64)> = Vec::new();
        let (mut now, mut run, mut request) = (1000u64, 1u64, 0u64);
        let mut alive = BTreeSet::from([run]);
        for step in steps {
            match step {
                Step::Pass(ms) => {
                    now += ms;
                    // Its own deadline ends a request before its lease is over.
                    for (key, owner, until) in under_way.extract_if(.., |one| one.2 <= now + 1) {
                        let change = conclude(store.get(&key), owner, End::Unknown);
                        apply(&mut store, key, change);
                        if let Some(fact) = facts.get_mut(&key).filter(|fact| fact.claimed_at + LEASE_MS == until) {
                            (fact.ended, fact.sent) = (true, true);
                        }
                    }
                }
                Step::Crash => {
                    alive.remove(&run);
                    run += 1;
                    alive.insert(run);
                    for (key, ..) in under_way.drain(..) {
                        // It may have been sent: nobody can say.
                        if let Some(fact) = facts.get_mut(&key) {
                            (fact.ended, fact.sent) = (true, true);
                        }
                    }
                }
                Step::End { nth, end } => {
                    if under_way.is_empty() { continue }
                    let (key, owner, _) = under_way.remove(nth % under_way.len());
                    let fact = facts.get_mut(&key).expect("it was claimed");
                    fact.ended = true;
                    let end = match end {
                        0 => End::without_answer(None, false),
                        1 => { fact.sent = true; End::without_answer(None, true) }
                        2 => {
                            (fact.sent, fact.answer) = (true, Some(Answer::Status(502)));
                            End::without_answer(Some(502), request % 2 == 0)
                        }
                        _ => { fact.sent = true; fact.answer = Some(answer(owner)); End::Answered(answer(owner)) }
                    };
                    let change = conclude(store.get(&key), owner, end);
                    apply(&mut store, key, change);
                }
                Step::Ask { key, body } => {
                    let fingerprint = [body; 32];
                    let known = facts.get(&key).filter(|fact| now < fact.claimed_at + TTL_MS || !fact.ended);
                    let wanted = match known {
                        None => Verdict::Claim,
                        Some(fact) if fact.ended && !fact.sent => Verdict::Claim,
                        Some(fact) if fact.body != body => Verdict::Mismatch,
                        Some(fact) if !fact.ended => Verdict::InFlight,
                        Some(Fact { answer: Some(answer), .. }) => Verdict::Replay(answer.clone()),
                        Some(_) => Verdict::Unknown,
                    };
                    let verdict = judge(store.get(&key), &fingerprint, now, |run| alive.contains(&run));
                    prop_assert_eq!(&verdict, &wanted);
                    if verdict == Verdict::Claim {
                        request += 1;
                        let owner = Owner { run, request };
                        store.insert(key, Record::claimed(fingerprint, owner, now + LEASE_MS, now + TTL_MS));
                        under_way.push((key, owner, now + LEASE_MS));
                        let fact = Fact { body, claimed_at: now, sent: false, answer: None, ended: false };
                        facts.insert(key, fact);
                    }
                }
            }
        }
    }

    /// Whoever does not hold a key changes nothing in it.
    #[test]
    fn a_stranger_changes_nothing(run in 0..3u64, request in 0..3u64, end in 0..3u8) {
        let holder = Owner { run: 1, request: 1 };
        let stranger = Owner { run, request };
        prop_assume!(stranger != holder);
        let end = match end { 0 => End::NotSent, 1 => End::Unknown, _ => End::Answered(Answer::Status(200)) };
        let held = Record::claimed([0; 32], holder, 5, 9);
        prop_assert_eq!(conclude(Some(&held), stranger, end.clone()), Change::Keep);
        for state in [State::Unknown, State::Done(Answer::Status(200))] {
            prop_assert_eq!(conclude(Some(&Record { state, ..held.clone() }), holder, end.clone()), Change::Keep);
        }
        prop_assert_eq!(conclude(None, holder, end), Change::Keep);
    }

    /// Any text gives a key or a fault, and what is a key reads back from its quoted form.
    #[test]
    fn keys_read_back(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(key) = parse(&value) {
            let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(parse(quoted.as_bytes()), Ok(key));
        }
    }
}

fn apply(store: &mut BTreeMap<u8, Record>, key: u8, change: Change) {
    match change {
        Change::Keep => {}
        Change::Remove => drop(store.remove(&key)),
        Change::Put(record) => drop(store.insert(key, record)),
    }
}
