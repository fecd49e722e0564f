//! How a group is, in figures.

use crate::log::{Clock as _, Filter, SystemClock};

pub(super) use super::command::Report;
use super::error::GroupError;
use super::keeper::Keeper;
use super::shelf::Rack;

impl Keeper {
    /// How a group is now.
    pub(super) fn report(&mut self, name: &str) -> Result<Report, GroupError> {
        let group = self.groups.get_mut(name).ok_or(GroupError::Unknown)?;
        let state = &group.state;
        let next = state.place().max(self.source.first_seq());
        let lag_events = (self.source.durable_seq() + 1).saturating_sub(next);
        if lag_events == 0 {
            group.ahead = None;
        } else if group.ahead.is_none_or(|(seq, _)| seq != next) {
            // One event is read, and only when the place has moved.
            let found = self.source.forward(next, Filter::default()).next().ok().flatten();
            group.ahead = found.map(|record| (next, record.stamp.id.ms));
        }
        let oldest_ms = [state.oldest().map(|id| id.ms), group.ahead.map(|(_, ms)| ms)];
        let oldest_ms = oldest_ms.into_iter().flatten().min();
        let rack = self.shelf.rack(name);
        let consumers = state.consumers().iter();
        let consumers = consumers.map(|(name, one)| ((&**name).into(), one.leased, one.seen_ms)).collect();
        Ok(Report {
            group: name.into(),
            settings: state.settings().clone(),
            created_ms: state.created_ms(),
            totals: state.totals(),
            place: state.place(),
            last: state.last(),
            pending: state.pending(),
            waiting: state.waiting(),
            consumers,
            lag_events,
            lag_ms: oldest_ms.map_or(0, |ms| SystemClock.now_ms().saturating_sub(ms)),
            dead: rack.map_or(0, Rack::depth),
            dead_bytes: rack.map_or(0, Rack::bytes),
        })
    }
}
