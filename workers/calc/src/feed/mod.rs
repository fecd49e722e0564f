//! Candles of the event worker, into the stored series.
//!
//! `candle_closed` comes through a consumer group that is the store's own ([`seat`]): a candle is leased, stored durably,
//! and then acknowledged. What was stored and not yet acknowledged when the worker died comes again and is a repetition,
//! so each candle is applied once. A candle that other numbers are stored for already (somebody has imported them) is
//! counted as a conflict and acknowledged: what is stored stays. So is one that the limits of the store leave no room
//! for, and one that is no bar, each with a line of the log; the event worker keeps them.
//!
//! While the store cannot write for the moment, messages are kept by extending their leases. While the event worker is
//! away it is asked again after a pause. Where none is configured there is no feed. At the end, what is held and not
//! stored goes back at once. How far the series are behind is looked at every few seconds ([`pulse`]).
//!
//! Requests for discovery are leased the same way, beside them ([`crate::discover`]).
//!
//! Bars among the market data become open candles ([`open`]): nothing depends on them, so they are not acknowledged.

pub(crate) mod bar;
mod closed;
mod open;
mod pulse;
mod seat;

use std::sync::Arc;
use std::time::Duration;

use sluice_client::Client;
use sluice_http::Stop;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::discover::Asked;
use closed::Closed;
pub(crate) use pulse::Pulse;
pub(crate) use seat::Seat;
pub use seat::SeatError;

/// Pause after the event worker or the store could not be used; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Less than the group's time for a message, so that leases are extended before they end.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// LIMIT: how long giving back holds the end up.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// How often is looked how far behind the series are.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Follows the event worker for the store until dropped or asked to end.
pub(crate) struct Feed {
    tasks: JoinSet<()>,
}

impl Feed {
    /// Begins to follow.
    pub(crate) fn start(client: &Client, context: &Arc<Context>, seat: Seat, stop: Stop) -> Self {
        context.feed.begins();
        let mut tasks = JoinSet::new();
        tasks.spawn(open::run(client.clone(), Arc::clone(context), stop.clone()));
        tasks.spawn(look(client.clone(), Arc::clone(context), seat.group.clone(), stop.clone()));
        let asked = Asked::new(client.clone(), Arc::clone(context), seat.consumer.clone(), stop.clone());
        tasks.spawn(asked.run());
        let closed = Closed::new(client.clone(), Arc::clone(context), seat, stop);
        tasks.spawn(closed.run());
        Self { tasks }
    }

    /// Waits until what is held was given back; the process was asked to end before.
    pub(crate) async fn end(mut self) {
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(GIVE_BACK * 2, ended).await);
        self.tasks.shutdown().await;
    }
}

/// Looks how far behind the series are. A group that is not there yet is made by who leases from it.
async fn look(client: Client, context: Arc<Context>, group: String, stop: Stop) {
    loop {
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        context.feed.looked(client.progress(&group).await.ok());
    }
}
