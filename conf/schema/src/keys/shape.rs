//! Keys of one `[[service]]` that shape its traffic: pages that may call it, rewriting, canaries.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::check;
use crate::code::Code;
use crate::form::{BODY, MIRROR, ORIGIN, PATTERN, REPLACEMENT, SERVICE_NAME};
use crate::kind::{Fault, Flag, Kind, List, Maybe, Parsed, count};
use crate::model::{Arm, Cors, Fallback, Rewrite, Service};
use crate::report::quote;
use crate::table::Table;

/// LIMIT: arms of one split.
const ARMS_MAX: usize = 8;

pub(super) fn shape(t: &mut Table<'_, '_>, service: &mut Service) {
    t.table("rewrite", "How the path is written for the upstream.", |t| rewrite(t, &mut service.rewrite));
    t.table("cors", "Which web pages may call it.", |t| cors(t, &mut service.cors));
    let doc = "Whether text is compressed with gzip for clients that take it.";
    t.key("compress", doc, Flag, &mut service.compress);
    let doc = "What readers get where it gave no answer.";
    t.table("fallback", doc, |t| fallback(t, &mut service.fallback));
    let doc = "The service that gets a copy of its GET requests; its answers go nowhere.";
    t.key("mirror", doc, MIRROR, &mut service.mirror);
    let doc = "Shares of the callers, in percent, that other services answer.";
    t.key("split", doc, Arms, &mut service.split);
    t.place_values("split");
}

fn rewrite(t: &mut Table<'_, '_>, rewrite: &mut Rewrite) {
    let doc = "What is replaced in the path, after the prefix was cut off: a regular expression.";
    t.key("match", doc, PATTERN, &mut rewrite.pattern);
    let doc = "What takes its place: $1 or ${name} for a group, $$ for a dollar sign.";
    t.key("replace", doc, REPLACEMENT, &mut rewrite.replace);
    if !t.describing() {
        check::rewrite(t, rewrite);
    }
}

fn cors(t: &mut Table<'_, '_>, cors: &mut Cors) {
    let doc = "Origins that may read its answers, or \"*\"; without any the upstream decides.";
    t.key("origins", doc, List::of(ORIGIN), &mut cors.origins);
    let doc = "Whether they may send cookies and credentials of the browser.";
    t.key("credentials", doc, Flag, &mut cors.credentials);
    if !t.describing() {
        check::cors(t, cors);
    }
}

fn fallback(t: &mut Table<'_, '_>, fallback: &mut Fallback) {
    t.key("status", "Status of the fixed answer.", count(200..=599), &mut fallback.status);
    let doc = "Body of the fixed answer; JSON is sent as such.";
    t.key("body", doc, Maybe(BODY), &mut fallback.body);
    let doc = "How old an answer to the same question may be that is given before the fixed one.";
    t.key("stale", doc, Maybe(super::span(1_000, 86_400_000)), &mut fallback.stale);
    if !t.describing() {
        check::fallback(t, fallback);
    }
}

/// Arms of a split: `[{ service = "data_v2", weight = 5 }]`.
struct Arms;

impl Kind for Arms {
    type Out = Vec<Arm>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Vec<Arm>> {
        let Some(items) = value.get_ref().as_array() else {
            return Err(vec![Fault::wrong_type("a list of `{ service, weight }`", value)]);
        };
        if items.len() > ARMS_MAX {
            let message = format!("the list must have 0 to {ARMS_MAX} items");
            return Err(vec![Fault::new(Code::List, message, value.span())]);
        }
        let (mut arms, mut faults) = (Vec::new(), Vec::new());
        for item in items {
            match arm(item) {
                Ok(arm) => arms.push(arm),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(arms) } else { Err(faults) }
    }

    fn show(&self, arms: &Vec<Arm>) -> Value {
        arms.iter().map(|arm| json!({ "service": arm.service, "weight": arm.weight })).collect()
    }

    fn schema(&self) -> Schema {
        let arm = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["service", "weight"],
            "properties": {
                "service": { "type": "string", "description": "The service that answers this share." },
                "weight": { "type": "integer", "minimum": 1, "maximum": 100, "description": "Percent of the callers." },
            },
        });
        json_schema!({ "oneOf": [{ "type": "array", "items": arm, "maxItems": ARMS_MAX }] })
    }
}

/// A table with `service` and `weight`, and nothing else.
fn arm(item: &Spanned<DeValue<'_>>) -> Parsed<Arm> {
    let Some(table) = item.get_ref().as_table() else {
        return Err(vec![Fault::wrong_type("`{ service, weight }`", item)]);
    };
    let mut faults = Vec::new();
    for (name, _) in
        table.iter().filter(|(name, _)| !["service", "weight"].contains(&name.get_ref().as_ref()))
    {
        let fault =
            Fault::new(Code::UnknownKey, format!("unknown key {}", quote(name.get_ref())), name.span());
        faults.push(fault.help("the keys here are service, weight"));
    }
    for name in ["service", "weight"].iter().filter(|name| table.get(**name).is_none()) {
        let message = format!("an arm needs the key {}", quote(name));
        faults.push(Fault::new(Code::MissingKey, message, item.span()));
    }
    let service = table.get("service").map(|name| SERVICE_NAME.parse(name));
    let weight = table.get("weight").map(|weight| count::<u32>(1..=100).parse(weight));
    match (service, weight) {
        (Some(Ok(service)), Some(Ok(weight))) if faults.is_empty() => Ok(Arm { service, weight }),
        (service, weight) => {
            faults.extend(service.and_then(Result::err).into_iter().flatten());
            faults.extend(weight.and_then(Result::err).into_iter().flatten());
            Err(faults)
        }
    }
}
