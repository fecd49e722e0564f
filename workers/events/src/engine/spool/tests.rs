use std::path::Path;

use serde_json::json;

use super::Durability;
use super::core::Core;
use super::letter::letter;
use crate::engine::AppendError;
use crate::log::{self, Draft, Ground, Labels, Options, Retention};
use crate::redis::Trouble;

fn draft(n: u64) -> Draft {
    let labels = Labels { kind: "risk_alert", symbol: "BTC", source: "me" };
    let json = format!(r#"{{"event_type":"risk_alert","data":{{"n":{n}}},"metadata":{{}}}}"#);
    Draft::new(labels, 5, u128::from(n), n, json.as_bytes()).unwrap()
}

fn core(dir: &Path, bytes_max: u64) -> Core {
    let options = Options {
        fsync: log::Fsync::Always,
        retention: Retention::default(),
        dedup_window_ms: 1_000,
        segment_bytes: 1 << 20,
        partitions: None,
    };
    Core::open(&dir.join("s.spool.log"), options, Ground::default(), true, bytes_max).unwrap()
}

#[tokio::test]
async fn it_is_bounded_and_takes_no_atomic_batch() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = draft(0).stored_bytes() as u64;
    let core = core(dir.path(), 2 * bytes);
    let away = |answer| matches!(answer, Err(AppendError::Away(Trouble::Away(_))));
    assert!(away(core.store(vec![draft(0), draft(1)], true).await));
    assert_eq!((core.waiting(), core.has_room()), (0, true));
    for n in 0..2 {
        let receipt = core.store(vec![draft(n)], true).await.unwrap();
        assert_eq!(receipt.durability, Durability::Spooled);
    }
    assert!(away(core.store(vec![draft(2)], false).await));
    assert_eq!((core.waiting(), core.has_room()), (2, false));
    core.note(2).unwrap();
    assert_eq!(core.waiting(), 0);
}

#[tokio::test]
async fn a_place_that_is_not_that_of_the_log_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s.spool.place"), "500\n").unwrap();
    let first = core(dir.path(), 1 << 20);
    for n in 0..3 {
        first.store(vec![draft(n)], false).await.unwrap();
    }
    first.note(1).unwrap();
    drop(first);
    let again = core(dir.path(), 1 << 20);
    assert_eq!((again.waiting(), *again.spooling.read().await), (2, true));
    drop(again);
    std::fs::write(dir.path().join("s.spool.place"), "nonsense").unwrap();
    assert_eq!(core(dir.path(), 1 << 20).waiting(), 3);
}

#[test]
fn a_dead_letter_holds_the_event_and_is_the_same_each_time() {
    let [first, again] = [letter(&draft(7)).unwrap(), letter(&draft(7)).unwrap()];
    assert_eq!((first.event_id, first.fingerprint), (again.event_id, again.fingerprint));
    assert_ne!(first.event_id, letter(&draft(8)).unwrap().event_id);
    let told: serde_json::Value = serde_json::from_slice(first.json()).unwrap();
    assert_eq!(
        (&told["data"]["event"]["data"]["n"], &told["metadata"]["role"]),
        (&json!(7), &json!("events"))
    );
    assert_eq!(
        (&told["data"]["cause"], &told["event_type"]),
        (&json!("event_id_conflict"), &json!("dead_letter"))
    );
    let large = format!(r#"{{"data":"{}","metadata":{{}}}}"#, "x".repeat(327_400));
    let large = Draft::new(first.labels(), 5, 9, 9, large.as_bytes()).unwrap();
    let told: serde_json::Value = serde_json::from_slice(letter(&large).unwrap().json()).unwrap();
    assert_eq!(told["data"]["event"], json!(null));
}
