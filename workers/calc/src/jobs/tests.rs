use super::record::now_ms;
use super::*;

fn record(job: &str, status: Status) -> Record {
    Record {
        job: job.to_owned(),
        kind: "search".to_owned(),
        status,
        owner: "quant".to_owned(),
        strategy: "rsi".to_owned(),
        rows: 10,
        combinations: 100,
        total: 100,
        done: 0,
        combinations_per_s: 0.0,
        seed: 7,
        created: now_ms(),
        finished: status.has_ended().then(now_ms),
        error: None,
        request: None,
        outbox: None,
    }
}

#[test]
fn the_oldest_go_when_there_are_too_many_or_too_large_ones() {
    let sizes: Vec<_> = [5, 5, 5, 5].into_iter().map(|size| (String::new(), size)).collect();
    assert_eq!(surplus(&sizes, 4, 20), 0);
    assert_eq!(surplus(&sizes, 3, 20), 1);
    assert_eq!(surplus(&sizes, 4, 19), 1);
    assert_eq!(surplus(&sizes, 4, 4), 4);
    assert_eq!(surplus(&[], 0, 0), 0);
}

#[test]
fn a_store_tells_what_was_done_and_fails_what_was_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("jobs")).unwrap();
    let done = record("a", Status::Done);
    let bytes = store.write(&done, Some("{\"top\":[]}")).unwrap();
    for (job, status) in [("b", Status::Queued), ("c", Status::Running), ("d", Status::Cancelled)] {
        store.write(&record(job, status), None).unwrap();
    }
    let mut found = store.load(99).unwrap();
    found.sort_by(|a, b| a.0.job.cmp(&b.0.job));
    assert_eq!(found[0], (done.clone(), bytes));
    assert_eq!(store.result("a").unwrap(), "{\"top\":[]}");
    for (at, job) in [(1, "b"), (2, "c")] {
        let (revived, _) = &found[at];
        assert_eq!((revived.job.as_str(), revived.status, revived.finished), (job, Status::Failed, Some(99)));
        assert_eq!(revived.error.as_ref().unwrap().code, "restarted");
    }
    assert_eq!(found[3].0.status, Status::Cancelled);
    // It is so in the files too.
    assert!(store.load(100).unwrap().iter().all(|(record, _)| record.finished != Some(100)));
    store.remove("a").unwrap();
    store.remove("a").unwrap();
    assert_eq!(store.load(0).unwrap().len(), 3);
}

#[test]
fn files_that_cannot_be_read_are_left_and_unfinished_writes_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_owned()).unwrap();
    let path = |name: &str| dir.path().join(name);
    let whole = serde_json::to_string(&record("x", Status::Done)).unwrap();
    std::fs::write(path("torn.json"), &whole[..20]).unwrap();
    std::fs::write(path("other.json"), &whole).unwrap();
    std::fs::write(path("long.json"), "x".repeat(1 << 20)).unwrap();
    std::fs::write(path("y.new"), &whole).unwrap();
    std::fs::write(path("notes.txt"), "").unwrap();
    assert!(store.load(0).unwrap().is_empty());
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["long.json", "notes.txt", "other.json", "torn.json"]);
}

#[test]
fn a_job_that_has_ended_does_not_begin() {
    let job = Job::new(record("a", Status::Queued), 0);
    assert!(job.begin());
    assert_eq!(job.record().status, Status::Running);
    assert!(!Job::new(record("a", Status::Cancelled), 0).begin());
}

#[test]
fn percent_says_a_hundred_only_of_what_is_done() {
    let running = record("a", Status::Running);
    assert_eq!([0, 1, 99, 100].map(|done| running.percent(done)), [0.0, 1.0, 99.0, 100.0]);
    let third = Record { total: 3, ..running };
    assert_eq!(third.percent(1), 33.33);
    assert_eq!(record("a", Status::Done).percent(1), 100.0);
}
