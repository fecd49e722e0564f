//! Keys of a service that say how much it matters.

use crate::kind::Choice;
use crate::model::{Lane, Service};
use crate::table::Table;

const LANE: Choice<Lane> = Choice {
    words: &[
        (Lane::Cancel.as_str(), Lane::Cancel),
        (Lane::Order.as_str(), Lane::Order),
        (Lane::Query.as_str(), Lane::Query),
        (Lane::Analytics.as_str(), Lane::Analytics),
    ],
    planned: &[],
};

pub(super) fn lane(t: &mut Table<'_, '_>, service: &mut Service) {
    let doc = "How much its requests matter: cancel, order, query or analytics.";
    t.key("lane", doc, LANE, &mut service.lane);
}
