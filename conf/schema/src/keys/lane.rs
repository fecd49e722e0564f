//! Keys of a service that say how much it matters and what its instances take at once.

use schemars::{Schema, json_schema};
use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::span;
use crate::code::Code;
use crate::form::RATE_KEY;
use crate::kind::{Choice, Count, Fault, Kind, Parsed, count, did_you_mean};
use crate::model::{Concurrency, ConcurrencyLimit, Lane, Service};
use crate::report::quote;
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

/// Requests at once.
const AT_ONCE: Count<u32> = count(1..=100_000);
/// LIMIT: requests that wait in a lane. Who is next is found by looking at all of them.
const QUEUE_MAX: u64 = 1024;
const ADAPTIVE: &str = "adaptive";

pub(super) fn lane(t: &mut Table<'_, '_>, service: &mut Service) {
    let doc = "How much its requests matter: cancel, order, query or analytics.";
    t.key("lane", doc, LANE, &mut service.lane);
    let doc = "What its instances take at once; services with the same instances share the smallest limit.";
    t.table("concurrency", doc, |t| concurrency(t, &mut service.concurrency));
    let doc = "Who counts as one account where requests wait: client, ip, service, sub or header:NAME.";
    t.key("fair_key", doc, RATE_KEY, &mut service.fair_key);
}

fn concurrency(t: &mut Table<'_, '_>, concurrency: &mut Concurrency) {
    let doc = "Requests at once: \"adaptive\" follows the latency, or a number. Cancels are not held to it.";
    t.key("limit", doc, Limit, &mut concurrency.limit);
    t.key("max", "Bound of an adaptive limit.", AT_ONCE, &mut concurrency.max);
    let doc = "Requests that may wait in its lane; the others are answered 503.";
    t.key("queue", doc, count(0..=QUEUE_MAX), &mut concurrency.queue);
    t.key("queue_timeout", "How long one waits.", span(1, 10_000), &mut concurrency.queue_timeout);
}

/// `"adaptive"` or a number.
struct Limit;

impl Kind for Limit {
    type Out = ConcurrencyLimit;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<ConcurrencyLimit> {
        match value.get_ref() {
            DeValue::String(word) if word.as_ref() == ADAPTIVE => Ok(ConcurrencyLimit::Adaptive),
            DeValue::String(word) => {
                let message = format!("{} is neither {} nor a whole number", quote(word), quote(ADAPTIVE));
                let mut fault = Fault::new(Code::Word, message, value.span());
                fault.help = did_you_mean(word, [ADAPTIVE]);
                Err(vec![fault])
            }
            DeValue::Integer(_) => AT_ONCE.parse(value).map(ConcurrencyLimit::Fixed),
            _ => Err(vec![Fault::wrong_type("`\"adaptive\"` or a whole number", value)]),
        }
    }

    fn show(&self, limit: &ConcurrencyLimit) -> Value {
        match limit {
            ConcurrencyLimit::Adaptive => Value::from(ADAPTIVE),
            ConcurrencyLimit::Fixed(limit) => Value::from(*limit),
        }
    }

    fn schema(&self) -> Schema {
        let number = AT_ONCE.schema();
        json_schema!({ "oneOf": [{ "type": "string", "enum": [ADAPTIVE] }, number] })
    }
}
