//! `GET /series/{symbol}/{timeframe}/indicators/stream`.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::UnixStream;

use crate::world::{DEADLINE, World};

const SERIES: &str = "/series/BTC/USDT/1m";
/// Streams that a worker has at a time.
const STREAMS_MAX: usize = 256;

fn close(minute: i64) -> f64 {
    100.0 + (minute as f64 * 0.7).sin() * 5.0
}

fn rows(minutes: std::ops::Range<i64>) -> Value {
    let row = |minute: i64| {
        let close = close(minute);
        json!([minute * 60_000, close, close + 1.0, close - 1.0, close, 2.0])
    };
    minutes.map(row).collect()
}

async fn put(world: &World, minutes: std::ops::Range<i64>) {
    let body = json!({"data": rows(minutes)}).to_string();
    let answer =
        world.admin().send("PUT", SERIES, "content-type: application/json\r\n", body.as_bytes()).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn append(world: &World, minutes: std::ops::Range<i64>, open: bool) {
    let body = json!({"data": rows(minutes), "open": open});
    world.admin().post(&format!("{SERIES}/candles"), &body).await.ok();
}

/// The mean of two closes, but for the last bits: sums over a long series keep some of what has left them.
fn is_mean(values: &Value, first: i64, second: i64) {
    let (value, mean) =
        (values["sma:2"]["value"].as_f64().unwrap(), f64::midpoint(close(first), close(second)));
    assert!((value - mean).abs() < 1e-9, "{value} {mean}");
}

struct Stream(Lines<BufReader<UnixStream>>);

/// An event: its id, its name, its data.
type Event = (Option<String>, String, Value);

impl Stream {
    async fn open(world: &World, names: &str, after: Option<i64>) -> Self {
        let header = after.map(|after| format!("last-event-id: {after}\r\n")).unwrap_or_default();
        let path = format!("{SERIES}/indicators/stream?names={names}");
        let stream = world.reader().begin("GET", &path, &header, b"").await;
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next_line().await.unwrap().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        while !lines.next_line().await.unwrap().unwrap().is_empty() {}
        Self(lines)
    }

    /// The next event; `None` at the end.
    async fn try_next(&mut self) -> Option<Event> {
        let (mut id, mut name) = (None, String::new());
        let reading = async {
            while let Some(line) = self.0.next_line().await.unwrap() {
                match line.split_once(": ") {
                    Some(("id", text)) => id = Some(text.to_owned()),
                    Some(("event", text)) => text.clone_into(&mut name),
                    Some(("data", text)) => {
                        return Some((id.take(), name.clone(), serde_json::from_str(text).unwrap()));
                    }
                    _ => {}
                }
            }
            None
        };
        tokio::time::timeout(DEADLINE, reading).await.expect("an event in time")
    }

    async fn next(&mut self) -> Event {
        self.try_next().await.expect("the stream goes on")
    }

    /// The next event, which is of a closed bar.
    async fn closed(&mut self, minute: i64) -> Value {
        let (id, name, data) = self.next().await;
        assert_eq!((id, name.as_str()), (Some((minute * 60_000).to_string()), "indicator"), "{data}");
        assert_eq!((&data["timestamp"], &data["closed"]), (&json!(minute * 60_000), &json!(true)));
        data["values"].clone()
    }
}

#[tokio::test]
async fn each_bar_is_told_once_with_the_values_of_the_whole_series() {
    let world = World::new();
    put(&world, 0..50).await;
    let mut stream = Stream::open(&world, "rsi,sma:3,macd", None).await;
    let mut told = vec![stream.closed(49).await];
    append(&world, 50..52, false).await;
    told.extend([stream.closed(50).await, stream.closed(51).await]);
    // The open bar is told without an id, as often as it changes, and changes nothing for the closed one.
    append(&world, 52..53, true).await;
    let (id, name, open) = stream.next().await;
    assert_eq!((id, name.as_str(), &open["closed"]), (None, "indicator", &json!(false)));
    append(&world, 52..54, false).await;
    told.extend([stream.closed(52).await, stream.closed(53).await]);
    assert_eq!(open["values"], told[3]);
    let asked = json!({"data": rows(0..54), "output": "tail:5",
        "indicators": ["rsi", {"name": "sma", "period": 3, "id": "sma:3"}, "macd"]});
    let computed = world.reader().post("/calculations/indicators", &asked).await.ok();
    for (at, values) in told.iter().enumerate() {
        for (id, output) in [("rsi", "value"), ("sma:3", "value"), ("macd", "signal"), ("macd", "histogram")]
        {
            assert_eq!(values[id][output], computed["indicators"][id][output][at], "{id} {at}");
        }
    }
}

#[tokio::test]
async fn who_comes_back_is_told_what_came_meanwhile_or_how_much_it_was() {
    let world = World::new();
    put(&world, 0..1_200).await;
    let mut stream = Stream::open(&world, "sma:2", Some(1_196 * 60_000)).await;
    for minute in 1_197..1_200 {
        stream.closed(minute).await;
    }
    let mut stream = Stream::open(&world, "sma:2", Some(199 * 60_000)).await;
    is_mean(&stream.closed(200).await, 199, 200);
    // One more than is made up for.
    let mut stream = Stream::open(&world, "sma:2", Some(198 * 60_000)).await;
    let (_, name, gap) = stream.next().await;
    assert_eq!((name.as_str(), &gap), ("gap", &json!({"reason": "too_many", "bars": 1_001})));
    stream.closed(1_199).await;
    append(&world, 1_200..2_300, false).await;
    assert_eq!(stream.next().await.2, json!({"reason": "too_many", "bars": 1_100}));
    let newest = stream.closed(2_299).await;
    is_mean(&newest, 2_298, 2_299);
}

#[tokio::test]
async fn a_series_that_is_replaced_begins_anew_and_a_deleted_one_ends() {
    let world = World::new();
    put(&world, 0..10).await;
    let mut stream = Stream::open(&world, "sma:2", None).await;
    stream.closed(9).await;
    put(&world, 20..21).await;
    assert_eq!(stream.next().await.2["reason"], "replaced");
    assert_eq!(stream.closed(20).await["sma:2"]["value"], Value::Null);
    append(&world, 21..22, false).await;
    is_mean(&stream.closed(21).await, 20, 21);
    world.admin().send("DELETE", SERIES, "", b"").await.ok();
    assert_eq!(stream.next().await.2["reason"], "deleted");
    assert_eq!(stream.try_next().await, None);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let world = World::new();
    put(&world, 0..3).await;
    let path = |series: &str, query: &str| format!("/series/{series}/1m/indicators/stream{query}");
    let user = world.reader();
    assert_eq!(user.get(&path("NONE", "?names=sma")).await.code(404), "not_found");
    assert_eq!(user.get(&path("BTC/USDT", "?names=smaa")).await.code(422), "unknown_indicator");
    assert_eq!(user.get(&path("BTC/USDT", "")).await.code(400), "bad_query");
    let refused = user.send("GET", &path("BTC/USDT", "?names=sma"), "last-event-id: soon\r\n", b"").await;
    assert_eq!(refused.code(400), "bad_request");
    let other = world.user("alice", "events:publish");
    assert_eq!(other.get(&path("BTC/USDT", "?names=sma")).await.code(403), "insufficient_scope");
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_worker() {
    let world = World::new();
    put(&world, 0..3).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(Stream::open(&world, "sma:2", None).await);
    }
    let path = format!("{SERIES}/indicators/stream?names=sma");
    assert_eq!(world.reader().get(&path).await.code(429), "queue_full");
    // One leaves, and another may come.
    streams.pop();
    let waiting = async {
        while world.metric("sluice_calc_streams").await > STREAMS_MAX as f64 - 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    let mut last = Stream::open(&world, "sma:2", None).await;
    last.closed(2).await;
    world.stop().await;
    assert_eq!(last.try_next().await, None);
}
