//! The other side: what upstreams may answer wrongly, as data, with an upstream that follows a script.
//!
//! A broken answer is 502, or breaks off so that no client takes it for whole; its connection is never used
//! again, and what came behind it reaches nobody.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use super::origin::{Arrived, Origin, echo};
use super::scripts::{Case, FINE, Gets, case, cases};
use super::wire::{Missing, Wire};
use crate::harness::{Edge, Setup, service};

/// An edge with a service for each case, so that no breaker sees two of them.
fn edge_for(cases: &[Case], origin: &Origin) -> Edge {
    let mut text = String::new();
    for (at, case) in cases.iter().enumerate() {
        let slow = matches!(case.gets, Gets::Problem(504, _)) || case.name.starts_with("stops");
        let times = if slow {
            "timeouts = { connect = \"300ms\", first_byte = \"400ms\", total = \"900ms\", idle = \"600ms\" }"
        } else {
            "timeouts = { connect = \"5s\", first_byte = \"15s\", total = \"30s\" }"
        };
        let more =
            format!("auth_required = false\nstrip_prefix = false\nretry = {{ attempts = 1 }}\n{times}");
        text.push_str(&service(&format!("case{at}"), &format!("/case/{at}"), &[origin.url()], &more));
    }
    text.push_str(&service(
        "after",
        "/after",
        &[origin.url()],
        "auth_required = false\nrate_limit = 1000000",
    ));
    Setup::new("[edge]\nthreads = 1\n").service("cases", &text).start()
}

fn origin_of(cases: &[Case]) -> Origin {
    let scripts: BTreeMap<String, (Vec<u8>, bool)> = cases
        .iter()
        .enumerate()
        .map(|(at, case)| (format!("/case/{at}"), (case.script.clone(), case.closes)))
        .collect();
    let scripts = Arc::new(scripts);
    Origin::start(move |arrived, socket| {
        let Some((script, closes)) = scripts.get(&arrived.request.target) else {
            return echo(arrived, socket);
        };
        // The edge may have had enough before the end.
        socket.write_all(script).is_ok() && !closes
    })
}

fn run(at: usize, case: &Case, edge: &Edge, origin: &Origin) -> Result<(), String> {
    let target = format!("/case/{at}");
    let mut client = Wire::to(edge.http);
    client.send(format!("{} {target} HTTP/1.1\r\nHost: edge\r\n\r\n", case.method).as_bytes());
    let answer = loop {
        match client.answer(case.method == "HEAD") {
            Ok(answer) if answer.status < 200 => {}
            other => break other,
        }
    };
    match (&case.gets, answer) {
        (Gets::Problem(status, code), Ok(answer))
            if (answer.status, answer.code().as_str()) == (*status, *code) => {}
        (Gets::Whole(status, body), Ok(answer))
            if (answer.status, answer.text().as_str()) == (*status, *body) =>
        {
            let odd = answer.head.bytes().filter(|byte| *byte == b'\n').count();
            if answer.head.matches("\r\n").count() != odd
                || answer.head.contains("\r\n ")
                || answer.head.contains("\r\n\t")
            {
                return Err(format!("a head that is no good: {:?}", answer.head));
            }
        }
        (Gets::Broken, Ok(answer)) if answer.status == 502 => {}
        (Gets::Broken, Err(Missing::Cut(_) | Missing::Closed)) => {}
        (gets, answer) => return Err(format!("got {answer:?}, not {gets:?}")),
    }
    drop(client);
    // Twice, as the connection may come back to the pool a moment late.
    for round in 0..2 {
        let mut next = Wire::to(edge.http);
        next.send(format!("GET /after/{at}/{round} HTTP/1.1\r\nHost: edge\r\n\r\n").as_bytes());
        let answer = next.answer(false).map_err(|missing| format!("no answer after it: {missing:?}"))?;
        if answer.text() != format!("/{at}/{round} 0") {
            return Err(format!("after it came {} {}", answer.status, answer.text()));
        }
    }
    let seen: Vec<Arrived> =
        origin.since(0).into_iter().filter(|arrived| arrived.request.target == target).collect();
    let [seen] = &seen[..] else { return Err(format!("the upstream saw it {} times", seen.len())) };
    let history = &origin.connections()[seen.connection];
    if history.requests.len() > seen.place + 1 && !case.reusable {
        return Err("its connection was used again".to_owned());
    }
    Ok(())
}

#[test]
fn broken_answers_are_never_taken_for_whole_ones() {
    let cases = cases();
    assert!(cases.len() >= 100, "{}", cases.len());
    let origin = origin_of(&cases);
    let edge = edge_for(&cases, &origin);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let faults: Vec<String> = std::thread::scope(|scope| {
        let worker = || {
            let mut faults = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(case) = cases.get(at) else { return faults };
                faults.extend(
                    run(at, case, &edge, &origin).err().map(|fault| format!("{}: {fault:.600}", case.name)),
                );
            }
        };
        let workers: Vec<_> = (0..6).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker panicked")).collect()
    });
    assert!(faults.is_empty(), "{} of {} cases fail:\n{}", faults.len(), cases.len(), faults.join("\n"));
    for history in origin.connections() {
        assert_eq!(history.wrong, None);
    }
}

#[test]
fn a_whole_connection_is_kept() {
    let all = [case("fine", FINE, Gets::Whole(200, "hello")).reusable()];
    let origin = origin_of(&all);
    let edge = edge_for(&all, &origin);
    crate::harness::eventually("an upstream connection serves two requests", || {
        run(0, &all[0], &edge, &origin).unwrap_or_else(|fault| assert!(fault.contains("times"), "{fault}"));
        origin.connections().iter().any(|history| history.requests.len() > 2).then_some(())
    });
}
