//! A turn of a WebSocket's subscriptions: each takes its next step.

use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;

use super::Session;
use crate::metrics::Metrics;
use crate::stream::PIECE_BYTES;
use crate::stream::feed::{Feed, Step};
use crate::stream::out::{Form, Out};
use crate::ws::credit::Credit;

/// Why a subscription ends whose events cannot be read.
const UNREADABLE: &str = "unreadable";

/// One subscription of a WebSocket.
pub(super) struct Subscription {
    /// Its name, as JSON.
    pub(super) name: Box<str>,
    pub(super) feed: Feed,
    pub(super) credit: Option<Box<Credit>>,
}

impl Subscription {
    /// What takes a step, and where it writes.
    fn parts<'a>(&'a mut self, bytes: &'a mut Vec<u8>, metrics: &'a Metrics) -> (&'a mut Feed, Out<'a>) {
        let form = Form::Socket { name: &self.name, credit: self.credit.as_deref_mut() };
        (&mut self.feed, Out::new(bytes, form, metrics))
    }
}

/// What became of a turn of all subscriptions.
pub(super) enum Turn {
    /// There may be more.
    More,
    /// The one of this name goes on from the log.
    Behind(Box<str>),
    /// Nothing, before something rings or it is so late.
    Rest(Rest),
}

/// Until when all subscriptions rest, if nothing rings before.
pub(super) type Rest = Option<Instant>;

impl Session {
    /// Each subscription's next step, until one has to read the log.
    pub(super) fn deliver(&mut self) -> Turn {
        let (mut rest, mut more): (Rest, bool) = (None, false);
        let mut over = Vec::new();
        let metrics = &*self.context.metrics;
        for (place, subscription) in self.subscriptions.iter_mut().enumerate() {
            // The last ones get their turn: who wrote much is last in the next round.
            if self.out.len() >= 4 * PIECE_BYTES {
                more = true;
                break;
            }
            let (feed, mut out) = subscription.parts(&mut self.out, metrics);
            match feed.step(&mut out) {
                Step::More => more = true,
                Step::Wait => {}
                Step::Held(until) => rest = [rest, until].into_iter().flatten().min(),
                Step::Behind => {
                    drop(out);
                    let name = subscription.name.clone();
                    self.end(over);
                    return Turn::Behind(name);
                }
                Step::Over(reason) => {
                    out.notice("disconnect", json!({ "reason": reason }), None);
                    metrics.dropped(reason, 1);
                    over.push(place);
                }
            }
        }
        self.end(over);
        if more {
            self.let_others_be_first();
            return Turn::More;
        }
        Turn::Rest(rest)
    }

    /// Goes on from the log with one subscription.
    pub(super) async fn catch_up(&mut self, name: &str) {
        let Some(place) = self.subscriptions.iter().position(|one| &*one.name == name) else { return };
        let metrics = Arc::clone(&self.context.metrics);
        let (feed, mut out) = self.subscriptions[place].parts(&mut self.out, &metrics);
        let is_over = feed.catch_up(&mut out).await.is_err();
        if is_over {
            out.notice("disconnect", json!({ "reason": UNREADABLE }), None);
            metrics.dropped(UNREADABLE, 1);
        }
        drop(out);
        if is_over {
            self.subscriptions.remove(place);
        }
        self.let_others_be_first();
    }

    fn let_others_be_first(&mut self) {
        if self.subscriptions.len() > 1 {
            self.subscriptions.rotate_left(1);
        }
    }

    /// Takes out those that are over, which are named in order.
    fn end(&mut self, over: Vec<usize>) {
        for place in over.into_iter().rev() {
            self.subscriptions.remove(place);
        }
    }
}
