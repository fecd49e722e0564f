//! Alerts: who is told, in which form, how often, and what happens when a target does not take them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use sluice_schema::{Notify, NotifyKind, NotifyLevel, Secret};
use sluice_wire::role::Role;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::mail::{Secure, serve};
use crate::world::{DEADLINE, Setup, World, publish};

/// What a receiver was sent.
#[derive(Debug)]
struct Post {
    path: String,
    id: String,
    body: Value,
}

/// What a receiver answers: a status, and what stands in `Retry-After` or `Location`.
type Script = Arc<Mutex<VecDeque<(u16, &'static str)>>>;

/// A receiver over HTTP.
struct Receiver {
    address: SocketAddr,
    got: mpsc::Receiver<Post>,
    script: Script,
}

impl Receiver {
    /// Answers as told, then 200.
    async fn new(script: &[(u16, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, got) = mpsc::channel(1_000);
        let script: Script = Arc::new(Mutex::new(script.iter().copied().collect()));
        let app = Router::new().fallback(receive).with_state((sender, Arc::clone(&script)));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, got, script }
    }

    async fn next(&mut self) -> Post {
        tokio::time::timeout(DEADLINE, self.got.recv()).await.expect("an alert in time").unwrap()
    }

    /// The next one, which says this in its body.
    async fn expect(&mut self, word: &str) -> Post {
        let post = self.next().await;
        assert!(post.body.to_string().contains(word), "{word}: {post:?}");
        post
    }

    fn target(&self, kind: NotifyKind) -> Notify {
        self.at(kind, "/hook", None)
    }

    fn at(&self, kind: NotifyKind, path: &str, to: Option<&str>) -> Notify {
        notify(kind, format!("http://{}{path}", self.address), None, to)
    }
}

async fn receive(
    State((sender, script)): State<(mpsc::Sender<Post>, Script)>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let id = headers["idempotency-key"].to_str().unwrap().to_owned();
    let body = serde_json::from_str(&body).unwrap();
    drop(sender.try_send(Post { path: uri.to_string(), id, body }));
    let (status, text) = script.lock().unwrap().pop_front().unwrap_or((200, ""));
    let headers = [("retry-after", text), ("location", text)];
    (StatusCode::from_u16(status).unwrap(), headers).into_response()
}

fn notify(kind: NotifyKind, url: String, from: Option<&str>, to: Option<&str>) -> Notify {
    let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
    Notify { kind, url: Some(Secret::new(url)), reference: None, level: NotifyLevel::Warning, from, to }
}

fn told(targets: Vec<Notify>) -> World {
    World::with(|setup| setup.config.notify = targets)
}

fn breaker(service: &str, state: &str) -> Value {
    let data = json!({"service": service, "state": state, "reason": "failure_rate"});
    json!({"event_type": "circuit_breaker_state", "source": "edge", "data": data})
}

async fn move_breaker(world: &World, service: &str, state: &str) {
    let answer: Value =
        world.role(Role::Edge).json(http::Method::POST, "/events", &breaker(service, state)).await.unwrap();
    assert_eq!(answer["status"], "published");
}

/// Waits until the group has nothing more to do.
async fn settled(world: &World) -> Value {
    let waited = async {
        loop {
            let group = world.admin().get("/groups/notifications").await.ok();
            if group["pending"] == 0 && group["lag"] == 0 {
                return group;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waited).await.expect("every alert is acknowledged")
}

#[tokio::test]
async fn every_target_is_told_in_its_own_form() {
    let mut receiver = Receiver::new(&[]).await;
    let (mail, mut mails) = serve(Secure::default(), &[]).await;
    let world = told(vec![
        receiver.at(NotifyKind::Slack, "/services/T0/B0/x", None),
        receiver.at(NotifyKind::Discord, "/api/webhooks/1/x", None),
        receiver.at(NotifyKind::Telegram, "/bot1:x/sendMessage", Some("-100")),
        receiver.at(NotifyKind::Alertmanager, "/api/v2/alerts", None),
        receiver.at(NotifyKind::Webhook, "/hook?a=b", None),
        notify(
            NotifyKind::Smtp,
            format!("smtp://{mail}"),
            Some("Sluice <s@example.com>"),
            Some("d@example.com"),
        ),
    ]);
    for (state, word) in [("open", "[CRITICAL] Circuit breaker of orders is open"), ("closed", "[RESOLVED]")]
    {
        move_breaker(&world, "orders", state).await;
        let mut posts = Vec::new();
        for _ in 0..5 {
            posts.push(receiver.next().await);
        }
        posts.sort_by(|one, other| one.path.cmp(&other.path));
        let [alertmanager, discord, telegram, webhook, slack] = posts.try_into().unwrap();
        assert!(discord.body["content"].as_str().unwrap().starts_with(word), "{discord:?}");
        assert!(slack.body["text"].as_str().unwrap().starts_with(word), "{slack:?}");
        assert!(telegram.body["text"].as_str().unwrap().starts_with(word), "{telegram:?}");
        assert_eq!(
            (telegram.path.as_str(), &telegram.body["chat_id"]),
            ("/bot1:x/sendMessage", &json!("-100"))
        );
        assert_eq!(alertmanager.body[0]["labels"]["alertname"], "BreakerOpen");
        assert_eq!(webhook.path, "/hook?a=b");
        assert_eq!(webhook.body["state"], if state == "open" { "firing" } else { "resolved" });
        assert!([&slack, &telegram].iter().all(|post| post.id == webhook.body["event_id"].as_str().unwrap()));
        let mail = tokio::time::timeout(DEADLINE, mails.recv()).await.unwrap().unwrap();
        assert!(mail.text.contains(&format!("Subject: {word}")) && !mail.secure, "{}", mail.text);
    }
    assert_eq!(settled(&world).await["dlq_depth"], 0);
    let metrics = world.admin().get("/metrics").await.body;
    for line in [
        "sluice_events_notify_total{kind=\"smtp\",result=\"delivered\"} 2",
        "sluice_events_notify_following 1",
        "sluice_events_notify_waiting 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn a_target_that_fails_is_asked_again_and_one_that_refuses_is_not() {
    let mut receiver =
        Receiver::new(&[(503, ""), (429, "0.2"), (200, ""), (404, ""), (302, "/elsewhere")]).await;
    let world = told(vec![receiver.target(NotifyKind::Webhook)]);
    move_breaker(&world, "a", "open").await;
    let tries = [receiver.next().await, receiver.next().await, receiver.expect("breaker/a").await];
    assert!(tries.iter().all(|post| post.id == tries[0].id), "{tries:?}");
    // Neither of these comes a second time, nor is the other address asked.
    for service in ["b", "c", "d"] {
        move_breaker(&world, service, "open").await;
        let post = receiver.expect(&format!("breaker/{service}")).await;
        assert_eq!(post.path, "/hook");
    }
    settled(&world).await;
    assert!(receiver.got.try_recv().is_err());
}

#[tokio::test]
async fn a_target_is_told_what_is_new_to_it() {
    let mut receiver = Receiver::new(&[]).await;
    let world = told(vec![receiver.target(NotifyKind::Webhook)]);
    move_breaker(&world, "never-opened", "closed").await;
    move_breaker(&world, "orders", "open").await;
    receiver.expect("breaker/orders").await;
    move_breaker(&world, "orders", "half_open").await;
    move_breaker(&world, "orders", "open").await;
    // A client's warning is below nothing, its trifle is.
    for (kind, level) in [("late", "info"), ("drawdown", "warning")] {
        let data = json!({"type": kind, "severity": level});
        publish(&world, &json!({"event_type": "risk_alert", "data": data})).await;
    }
    receiver.expect("drawdown").await;
    move_breaker(&world, "orders", "closed").await;
    receiver.expect("resolved").await;
    settled(&world).await;
    assert!(receiver.got.try_recv().is_err());
}

#[tokio::test]
async fn a_dead_target_keeps_nobody_waiting() {
    // One is closed, one takes connections and says nothing.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut receiver = Receiver::new(&[]).await;
    let dead = |address| notify(NotifyKind::Slack, format!("http://{address}/x"), None, None);
    let world =
        told(vec![dead(closed), dead(silent.local_addr().unwrap()), receiver.target(NotifyKind::Webhook)]);
    for service in ["a", "b", "c"] {
        move_breaker(&world, service, "open").await;
        receiver.expect(&format!("breaker/{service}")).await;
    }
    let group = world.admin().get("/groups/notifications").await.ok();
    assert_eq!(
        (&group["pending"], &group["lag"]),
        (&json!(3), &json!(0)),
        "they wait for the others: {group}"
    );
    // And neither does the end of the worker.
    world.stop().await;
}

#[tokio::test]
async fn alerts_go_on_after_a_restart() {
    let away = [(503, "600"); 1];
    let mut receiver = Receiver::new(&away).await;
    let world = told(vec![receiver.target(NotifyKind::Webhook)]);
    move_breaker(&world, "late", "open").await;
    receiver.expect("breaker/late").await;
    move_breaker(&world, "waits", "open").await;
    // The target asked for ten minutes; the next process asks at once.
    let dir = world.stop().await;
    let mut setup = Setup::default();
    setup.config.notify = vec![receiver.target(NotifyKind::Webhook)];
    let world = World::start(setup, dir);
    let mut first = [receiver.next().await, receiver.next().await].map(|post| post.body["key"].to_string());
    first.sort();
    assert_eq!(first, ["\"breaker/late\"", "\"breaker/waits\""]);
    settled(&world).await;
    // What was told by the process before is known: a repeat is none, its end is.
    let dir = world.stop().await;
    let mut setup = Setup::default();
    setup.config.notify = vec![receiver.target(NotifyKind::Webhook)];
    let world = World::start(setup, dir);
    move_breaker(&world, "late", "open").await;
    move_breaker(&world, "waits", "closed").await;
    let post = receiver.expect("breaker/waits").await;
    assert_eq!(post.body["state"], "resolved");
    settled(&world).await;
    assert!(receiver.got.try_recv().is_err() && receiver.script.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_flood_of_risk_alerts_becomes_few_messages_and_hides_no_breaker() {
    let mut receiver = Receiver::new(&[]).await;
    let world = told(vec![receiver.target(NotifyKind::Webhook)]);
    let event = |n: usize| json!({"event_type": "risk_alert", "data": {"type": n.to_string()}});
    let events: Vec<Value> = (0..500).map(event).collect();
    let body = json!({ "events": events });
    let answer: Value =
        world.role(Role::Demo).json(http::Method::POST, "/events/batch", &body).await.unwrap();
    assert_eq!(answer["failed"], 0);
    let mut left_out = 0;
    for _ in 0..10 {
        left_out += receiver.expect("RiskAlert").await.body["left_out"].as_u64().unwrap();
    }
    move_breaker(&world, "orders", "open").await;
    // Its turn is the next one, though sixty others wait; on a slow machine one may have gone before.
    for turn in 0.. {
        let post = receiver.next().await;
        left_out += post.body["left_out"].as_u64().unwrap();
        if post.body["key"] == "breaker/orders" {
            break;
        }
        assert!(turn < 2, "{post:?}");
    }
    assert!((400..=500).contains(&left_out), "{left_out}");
}

#[tokio::test]
async fn a_group_that_somebody_removes_is_made_anew() {
    let mut receiver = Receiver::new(&[]).await;
    let world = told(vec![receiver.target(NotifyKind::Webhook)]);
    move_breaker(&world, "a", "open").await;
    receiver.expect("breaker/a").await;
    let removed = world.admin().send("DELETE", "/groups/notifications", "", b"").await;
    assert!(removed.status < 300, "{removed:?}");
    let again = async {
        while world.admin().get("/groups/notifications").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("the group is there again");
    move_breaker(&world, "b", "open").await;
    receiver.expect("breaker/b").await;
}
