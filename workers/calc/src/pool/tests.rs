use std::sync::mpsc::sync_channel;

use super::*;
use proptest::prelude::*;

fn pool() -> Pool {
    let waiting = IntGauge::new("waiting", "test").unwrap();
    let cancelled = IntCounter::new("cancelled", "test").unwrap();
    Pool::start(1, waiting, cancelled, Cpu::proven().unwrap(), &Arc::default()).unwrap()
}

/// Occupies the only thread until the sender is used or dropped.
async fn hold(pool: &Pool) -> std::sync::mpsc::SyncSender<()> {
    let (hold, held) = sync_channel::<()>(0);
    let (began, begun) = oneshot::channel();
    let job = move |_: &mut Scratch| {
        began.send(()).unwrap();
        let _released = held.recv();
    };
    pool.spawn(Lane::Small, job).unwrap();
    begun.await.unwrap();
    hold
}

#[tokio::test]
async fn a_panic_is_one_lost_job() {
    let pool = pool();
    assert_eq!(pool.run(Lane::Small, |_| -> u8 { panic!("on purpose") }).await, Ok(None));
    assert_eq!(pool.run(Lane::Large, |_| 7).await, Ok(Some(7)));
}

#[tokio::test]
async fn a_full_queue_is_told_at_once_and_the_others_are_not_full() {
    let pool = pool();
    let held = hold(&pool).await;
    for _ in 0..QUEUES_MAX[0] {
        pool.spawn(Lane::Small, |_| ()).unwrap();
    }
    assert_eq!(pool.run(Lane::Small, |_| ()).await, Err(Full));
    assert_eq!(pool.shared.waiting.get(), QUEUES_MAX[0] as i64);
    pool.spawn(Lane::Large, |_| ()).unwrap();
    drop(held);
    assert_eq!(pool.run(Lane::Large, |_| 1).await, Ok(Some(1)));
}

#[tokio::test]
async fn who_leaves_frees_the_thread() {
    let pool = Arc::new(pool());
    let (began, begun) = oneshot::channel();
    let own = Arc::clone(&pool);
    let asked = tokio::spawn(async move {
        let until_left = move |scratch: &mut Scratch| {
            began.send(()).unwrap();
            while !scratch.is_left() {
                std::hint::spin_loop();
            }
        };
        own.run(Lane::Large, until_left).await
    });
    begun.await.unwrap();
    let waits = Arc::clone(&pool);
    let never = tokio::spawn(async move { waits.run(Lane::Large, |_| panic!("it is not begun")).await });
    while pool.shared.waiting.get() == 0 {
        tokio::task::yield_now().await;
    }
    never.abort();
    assert!(never.await.unwrap_err().is_cancelled());
    asked.abort();
    assert_eq!(pool.run(Lane::Small, |scratch| scratch.is_left()).await, Ok(Some(false)));
    assert_eq!(pool.cancelled.get(), 2);
}

#[test]
fn nobody_waits_for_ever() {
    let mut turns = Turns::default();
    let picked: Vec<Lane> = (0..100).filter_map(|_| turns.pick([true; 3])).collect();
    let count = |lane| picked.iter().filter(|picked| **picked == lane).count();
    assert_eq!(picked[SMALL_IN_A_ROW], Lane::Large);
    assert_eq!(picked[OTHERS_IN_A_ROW], Lane::Search);
    assert_eq!((count(Lane::Search), picked.len()), (100 / (OTHERS_IN_A_ROW + 1), 100));
    assert!(count(Lane::Large) >= 9);
}

proptest! {
    #[test]
    fn a_lane_that_waits_is_served_within_its_bound(waits in prop::collection::vec(any::<[bool; 3]>(), 1..300)) {
        let mut turns = Turns::default();
        let (mut large, mut search) = (0, 0);
        for waits in waits {
            let picked = turns.pick(waits);
            prop_assert_eq!(picked.is_some(), waits.contains(&true));
            if let Some(lane) = picked {
                prop_assert!(waits[lane as usize]);
            }
            large = if waits[1] && picked != Some(Lane::Large) { large + 1 } else { 0 };
            search = if waits[2] && picked != Some(Lane::Search) { search + 1 } else { 0 };
            // A search may come between.
            prop_assert!(large <= SMALL_IN_A_ROW + 2 && search <= OTHERS_IN_A_ROW);
        }
    }
}
