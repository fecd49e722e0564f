use super::*;
use std::collections::BTreeMap;

use proptest::prelude::*;

const NOW: u64 = 1_700_000_000_000;

fn registration(name: &str, ttl_s: Option<u64>) -> Registration {
    let ttl = ttl_s.map_or(String::new(), |ttl| format!(r#","ttl":{ttl}"#));
    let body = format!(r#"{{"name":"{name}","prefix":"/api/{name}","url":"http://127.0.0.1:9000"{ttl}}}"#);
    serde_json::from_str(&body).unwrap()
}

fn register(
    ledger: &Ledger,
    registration: &Registration,
    now_ms: u64,
) -> Result<(Effect, Entry), RegisterError> {
    ledger.register(registration, &Config::default(), "ops", now_ms)
}

fn names(ledger: &Ledger, now_ms: u64) -> Vec<String> {
    ledger.list(now_ms).unwrap().entries.into_iter().map(|entry| entry.registration.name).collect()
}

#[test]
fn what_is_registered_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.list(NOW).unwrap(), Listing::default());
    let (effect, entry) = register(&ledger, &registration("risk", Some(60)), NOW).unwrap();
    assert_eq!((effect, entry.created_at_ms, entry.expires_at_ms), (Effect::Adds, NOW, Some(NOW + 60_000)));
    register(&ledger, &registration("zeta", None), NOW).unwrap();
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    let listing = ledger.list(NOW + 1).unwrap();
    assert_eq!((listing.entries[0].clone(), listing.entries.len(), listing.unreadable.len()), (entry, 2, 0));
    assert_eq!(listing.entries[1].expires_at_ms, None);
}

#[test]
fn the_same_again_renews_and_another_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    register(&ledger, &registration("a", Some(60)), NOW).unwrap();
    let (effect, entry) = register(&ledger, &registration("a", Some(60)), NOW + 5_000).unwrap();
    assert_eq!((effect, entry.created_at_ms, entry.expires_at_ms), (Effect::Renews, NOW, Some(NOW + 65_000)));
    let (effect, entry) = register(&ledger, &registration("a", None), NOW + 6_000).unwrap();
    assert_eq!((effect, entry.created_at_ms, entry.expires_at_ms), (Effect::Replaces, NOW, None));
    let taken = Registration { name: "b".to_owned(), ..registration("a", None) };
    let refused = register(&ledger, &taken, NOW).unwrap_err();
    assert!(matches!(refused, RegisterError::Refused(RegistrationFault::PrefixTaken(_))), "{refused}");
    assert_eq!(names(&ledger, NOW), ["a"]);
}

#[test]
fn leases_end_are_renewed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let config = Config::default();
    for (name, ttl_s) in [("long", Some(100)), ("none", None), ("short", Some(10))] {
        register(&ledger, &registration(name, ttl_s), NOW).unwrap();
    }
    let beat = ledger.heartbeat("short", &config, NOW + 9_999).unwrap().unwrap();
    assert_eq!(beat.expires_at_ms, Some(NOW + 19_999));
    assert_eq!(names(&ledger, NOW + 19_998), ["long", "none", "short"]);
    assert_eq!(names(&ledger, NOW + 19_999), ["long", "none"]);
    assert_eq!(ledger.heartbeat("short", &config, NOW + 20_000).unwrap(), None, "an ended lease stays ended");
    assert_eq!(ledger.heartbeat("nobody", &config, NOW).unwrap(), None);
    assert_eq!(ledger.expire(NOW + 20_000).unwrap(), ["short"]);
    assert_eq!(ledger.expire(NOW + 20_000).unwrap(), Vec::<String>::new());
    assert!(ledger.remove("none", NOW).unwrap().is_some());
    assert!(ledger.remove("none", NOW).unwrap().is_none());
    assert_eq!(names(&ledger, NOW), ["long"]);
}

#[test]
fn an_ended_lease_makes_room_and_a_full_registry_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let mut config = Config::default();
    config.registry.max = 2;
    let register = |name, now_ms| ledger.register(&registration(name, Some(10)), &config, "ops", now_ms);
    register("a", NOW).unwrap();
    register("b", NOW + 5_000).unwrap();
    let full = register("c", NOW + 9_000).unwrap_err();
    assert!(matches!(full, RegisterError::Refused(RegistrationFault::Full(2))), "{full}");
    register("c", NOW + 10_000).unwrap();
    assert_eq!(names(&ledger, NOW + 10_000), ["b", "c"]);
}

#[test]
fn records_nobody_can_read_are_kept_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    register(&ledger, &registration("good", None), NOW).unwrap();
    let plant = |name: &str, bytes: &[u8]| {
        let planted = ledger.store.write(|transaction| {
            transaction.open_table(REGISTRY)?.insert(name, bytes)?;
            Ok(Ok::<(), ()>(()))
        });
        planted.unwrap().unwrap();
    };
    plant("garbage", b"\x00\xff");
    plant("newer", br#"{"format":2,"whatever":true}"#);
    let text = String::from_utf8(ledger.list(NOW).unwrap().entries[0].encode()).unwrap();
    plant("tampered", text.replace("/api/good", "/../etc").as_bytes());
    let listing = ledger.list(NOW).unwrap();
    assert_eq!(listing.entries.len(), 1);
    let reasons: Vec<_> =
        listing.unreadable.iter().map(|record| (record.name.as_str(), &record.reason)).collect();
    assert_eq!(reasons.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["garbage", "newer", "tampered"]);
    assert!(reasons[1].1.contains("format 2") && reasons[2].1.contains("prefix"), "{reasons:?}");
    assert_eq!(ledger.expire(u64::MAX).unwrap(), Vec::<String>::new());
    register(&ledger, &registration("garbage", None), NOW).unwrap();
    assert_eq!(ledger.list(NOW).unwrap().unreadable.len(), 2, "registering the name anew repairs its record");
}

/// A copy of the file while it is open is what a crash leaves: nothing was closed or flushed.
#[test]
fn the_file_of_a_process_that_died_opens_and_is_whole() {
    let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ledger = Ledger::open(dir.path()).unwrap();
    for n in 0..20 {
        register(&ledger, &registration(&format!("s{n:02}"), None), NOW).unwrap();
    }
    ledger.remove("s07", NOW).unwrap();
    std::fs::create_dir(after.path().join("edge")).unwrap();
    std::fs::copy(ledger.path(), after.path().join("edge/ledger.redb")).unwrap();
    let found = names(&Ledger::open(after.path()).unwrap(), NOW);
    assert_eq!(found, names(&ledger, NOW));
    assert_eq!(found.len(), 19);
}

#[derive(Clone, Debug)]
enum Step {
    Register(usize, Option<u64>),
    Heartbeat(usize),
    Remove(usize),
    Expire,
    Wait(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..4, proptest::option::of(1_u64..20)).prop_map(|(n, ttl)| Step::Register(n, ttl)),
        2 => (0_usize..4).prop_map(Step::Heartbeat),
        2 => (0_usize..4).prop_map(Step::Remove),
        1 => Just(Step::Expire),
        3 => (0_u64..8_000).prop_map(Step::Wait),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn agrees_with_a_map_in_memory(steps in proptest::collection::vec(step(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::default();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let mut model = BTreeMap::<String, (Option<u64>, Option<u64>)>::new();
        let mut now = NOW;
        for step in steps {
            model.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
            match step {
                Step::Register(n, ttl) => {
                    let name = format!("s{n}");
                    register(&ledger, &registration(&name, ttl), now).unwrap();
                    model.insert(name, (ttl, ttl.map(|ttl| now + ttl * 1000)));
                }
                Step::Heartbeat(n) => {
                    let name = format!("s{n}");
                    let beat = ledger.heartbeat(&name, &config, now).unwrap();
                    prop_assert_eq!(beat.is_some(), model.contains_key(&name));
                    if let Some((ttl, expires)) = model.get_mut(&name) {
                        *expires = ttl.map(|ttl| now + ttl * 1000);
                    }
                }
                Step::Remove(n) => {
                    let name = format!("s{n}");
                    prop_assert_eq!(ledger.remove(&name, now).unwrap().is_some(), model.remove(&name).is_some());
                }
                Step::Expire => {
                    ledger.expire(now).unwrap();
                }
                Step::Wait(ms) => now += ms,
                Step::Reopen => {
                    drop(ledger);
                    ledger = Ledger::open(dir.path()).unwrap();
                }
            }
            model.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
            let found = ledger.list(now).unwrap().entries;
            let found: Vec<_> = found.into_iter().map(|entry| (entry.registration.name, entry.expires_at_ms)).collect();
            let wanted: Vec<_> = model.iter().map(|(name, (_, expires))| (name.clone(), *expires)).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
