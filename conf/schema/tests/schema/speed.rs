//! What loading a thousand services costs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_schema::{Config, Document, Mode, check, diff_of};

const SERVICES: usize = 1000;

fn documents(requests: u32) -> Vec<Document> {
    let service = |index: usize| {
        let text = format!(
            "[[service]]\nname = \"s{index}\"\nprefix = \"/svc/{index}\"\nrate_limit = {requests}\n\
             health = {{ path = \"/health\", interval = \"60s\" }}\n\
             [[service.instance]]\nurl = \"http://127.0.0.1:{}\"\n",
            10_000 + index
        );
        Document::new(format!("services.d/s{index}.toml"), text)
    };
    std::iter::once(Document::new("sluice.toml", "")).chain((0..SERVICES).map(service)).collect()
}

fn load(documents: &[Document]) -> Config {
    let mode = Mode { dev: true, origins: false, ..Mode::default() };
    let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    check(documents, &BTreeMap::new(), mode, &nothing).expect("it is valid").config
}

fn shortest(mut act: impl FnMut()) -> Duration {
    let timed = |_| {
        let began = Instant::now();
        act();
        began.elapsed()
    };
    (0..5).map(timed).min().expect("five of them")
}

/// The limits are for builds without optimisation on machines that are busy; what it really takes is printed.
#[test]
fn a_thousand_services_load_in_a_moment() {
    let (one, other) = (documents(100), documents(200));
    let took = shortest(|| drop(load(&one)));
    let (old, new) = (load(&one), load(&other));
    let mut changed = 0;
    let compared = shortest(|| changed = diff_of(&old, &new, 50).changed.len());
    eprintln!("{SERVICES} services: loaded in {took:?}, all of them compared in {compared:?}");
    assert_eq!(changed, SERVICES);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(compared < Duration::from_secs(5), "{compared:?}");
}

#[test]
fn of_many_changes_the_first_are_told_in_full() {
    let (old, new) = (load(&documents(100)), load(&documents(200)));
    let diff = diff_of(&old, &new, 2);
    let lines: Vec<String> = diff.to_string().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("~ service s0 rate_limit"), "{}", lines[0]);
    assert_eq!(lines.last().map(String::as_str), Some("~ service s999"));
    assert!(diff_of(&old, &old, 0).is_empty());
}
