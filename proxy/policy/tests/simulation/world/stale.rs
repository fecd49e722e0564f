//! An older answer in place of one that failed, as the edge gives it.

use sluice_policy::fallback::{has_stand_in, is_failure};
use sluice_policy::method::Method;

use super::World;
use super::request::Told;

impl World {
    /// A whole good answer goes to its client: a reader may be given it again.
    pub(crate) fn keep_answer(&mut self, request: usize, status: u16, tag: Option<u64>) {
        let asks = &self.requests[request];
        let (Some(tag), Method::Get, 200) = (tag, asks.method, status) else { return };
        if asks.conf.services[asks.asked].fallback.stale.is_some() {
            let edge = &mut self.edges[asks.edge];
            let now = edge.clock(self.now);
            edge.shelf.keep(&[asks.account as u8, asks.asked as u8], 8, tag, now);
            self.oracle.kept(tag, self.now);
        }
    }

    /// The execution whose answer is shown once more.
    pub(crate) fn older(&self, request: usize) -> Option<u64> {
        let asks = &self.requests[request];
        let within = asks.conf.services[asks.asked].fallback.stale.filter(|_| has_stand_in(asks.method))?;
        let edge = &self.edges[asks.edge];
        let key = [asks.account as u8, asks.asked as u8];
        edge.shelf.find(&key, within, edge.clock(self.now)).map(|(tag, _)| *tag)
    }

    /// What its client is told in place of a refusal that tells of the upstream's failure.
    pub(crate) fn stand_in(&mut self, request: usize, told: Told) -> Told {
        let Told::Refused(code, _) = told else { return told };
        let older = self.older(request).filter(|_| is_failure(code));
        self.tally.stale += u64::from(older.is_some());
        older.map_or(told, Told::Stale)
    }
}
