//! How a process takes over from another one and hands over to the next.

use std::time::Duration;

use sluice_wire::start::{Order, Said};
use tokio::sync::{Mutex, mpsc};

/// Orders that wait to be looked at; more are refused to whoever gives them.
const ORDERS_MAX: usize = 8;

/// A role's side of its handovers.
#[derive(Debug)]
pub struct Handover {
    successor: bool,
    end_within: Option<Duration>,
    orders: Mutex<mpsc::Receiver<Order>>,
    listener: mpsc::Sender<Said>,
}

/// The side of whoever starts and ends the process.
#[derive(Debug)]
pub struct Giver {
    /// Tells the role what to do.
    pub orders: mpsc::Sender<Order>,
    /// What the role says.
    pub said: mpsc::Receiver<Said>,
}

impl Handover {
    /// Of a process that nobody hands over: it serves from its start to its end.
    pub fn none() -> Self {
        Self::new(false, None).0
    }

    /// Of a process that may be told to hand over. `successor`: another process plays the role now.
    /// `end_within`: time from the wish to end until it is killed.
    pub fn new(successor: bool, end_within: Option<Duration>) -> (Self, Giver) {
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (listener, said) = mpsc::channel(ORDERS_MAX);
        let handover = Self { successor, end_within, orders: Mutex::new(ordered), listener };
        (handover, Giver { orders, said })
    }

    /// Whether to get prepared and wait for the order to go.
    pub const fn is_successor(&self) -> bool {
        self.successor
    }

    /// Time from the wish to end until this process is killed; `None` where nobody kills it.
    pub const fn end_within(&self) -> Option<Duration> {
        self.end_within
    }

    /// The next order; pends for ever once nobody can give any.
    pub async fn next(&self) -> Order {
        let mut orders = self.orders.lock().await;
        match orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }

    /// Passes on what the role says; nobody may be listening.
    pub(crate) fn tell(&self, said: &Said) {
        // Whoever does not listen does not need to know.
        drop(self.listener.try_send(said.clone()));
    }
}
