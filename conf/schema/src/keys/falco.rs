//! `[falco]`: alerts of Falco, and what is done about them.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use super::record::Record;
use super::{secret, span};
use crate::code::Code;
use crate::kind::{Choice, Count, Duration, Fault, Flag, Kind, Parsed, Text, Wrong, count};
use crate::model::{Falco, FalcoAction, FalcoPriority, FalcoResponse};
use crate::report::quote;
use crate::table::Table;

/// LIMIT: rules of response.
const RESPONSES_MAX: usize = 64;
const NAMES: [&str; 7] = ["rule", "priority", "action", "identity", "ttl", "quorum", "dry_run"];
/// How long a quarantine lasts where nothing is said, seconds.
const TTL_S: u64 = 900;

const PRIORITY: Choice<FalcoPriority> = Choice { words: &FalcoPriority::WORDS, planned: &[] };
const ACTION: Choice<FalcoAction> = Choice {
    words: &[("notify", FalcoAction::Notify), ("quarantine", FalcoAction::Quarantine)],
    planned: &["kill_switch"],
};
const TTL: Duration = span(1_000, 7 * 86_400_000);
const QUORUM: Count<u64> = count(1..=16);

/// The name of a rule of Falco.
const RULE: Text<String> = Text {
    what: "the name of a rule",
    code: Code::Name,
    parse: |text| {
        let fits = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
        if fits { Ok(text.to_owned()) } else { Err(Wrong::new(format!("{} names no rule", quote(text)))) }
    },
    show: Clone::clone,
    pattern: r"^[^\x00-\x1f\x7f]{1,256}$",
};

/// The name of a service, as the vault takes it.
pub(super) const IDENTITY: Text<String> = Text {
    what: "the name of a service",
    code: Code::Name,
    parse: |text| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let fits = bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last());
        if fits && bytes.iter().all(|byte| inner(*byte)) {
            Ok(text.to_owned())
        } else {
            Err(Wrong::new(format!("{} is not the name of a service", quote(text))))
        }
    },
    show: Clone::clone,
    pattern: "^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$",
};

/// The responses: tables of NAMES.
struct Responses;

impl Kind for Responses {
    type Out = Vec<FalcoResponse>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Self::Out> {
        let Some(items) = value.get_ref().as_array() else {
            return Err(vec![Fault::wrong_type("a list of `{ rule, action }`", value)]);
        };
        if items.len() > RESPONSES_MAX {
            let message = format!("the list must have 0 to {RESPONSES_MAX} items");
            return Err(vec![Fault::new(Code::List, message, value.span())]);
        }
        let (mut responses, mut faults) = (Vec::new(), Vec::new());
        for item in items {
            match response(item) {
                Ok(response) => responses.push(response),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(responses) } else { Err(faults) }
    }

    fn show(&self, responses: &Self::Out) -> Value {
        let show = |response: &FalcoResponse| {
            let mut shown = json!({
                "rule": response.rule,
                "priority": PRIORITY.show(&response.priority),
                "action": ACTION.show(&response.action),
                "ttl": TTL.show(&response.ttl),
                "quorum": response.quorum,
                "dry_run": response.dry_run,
            });
            if let Some(identity) = &response.identity {
                shown["identity"] = identity.as_str().into();
            }
            shown
        };
        responses.iter().map(show).collect()
    }

    fn schema(&self) -> Schema {
        let described = |mut schema: Schema, doc: &str| {
            schema.insert("description".to_owned(), doc.into());
            schema
        };
        let response = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["rule", "action"],
            "properties": {
                "rule": described(RULE.schema(), "The rule of Falco it answers to; * for every rule."),
                "priority": described(PRIORITY.schema(), "What the alert's priority is at least; critical when absent."),
                "action": described(ACTION.schema(), "What is done."),
                "identity": described(IDENTITY.schema(), "The service it is done to."),
                "ttl": described(TTL.schema(), "How long it lasts; 15m when absent."),
                "quorum": described(QUORUM.schema(), "How many different alerts it takes; 1 when absent."),
                "dry_run": described(Flag.schema(), "Whether it is only told of; true when absent."),
            },
        });
        // One key: what stands in its tables are none of their own.
        json_schema!({ "oneOf": [{ "type": "array", "items": response, "maxItems": RESPONSES_MAX }] })
    }
}

fn response(item: &Spanned<DeValue<'_>>) -> Parsed<FalcoResponse> {
    let mut record = Record::of(item, "a response", &NAMES)?;
    let rule = record.needed("rule", &RULE);
    let action = record.needed("action", &ACTION);
    let priority = record.optional("priority", &PRIORITY).unwrap_or(FalcoPriority::Critical);
    let identity = record.optional("identity", &IDENTITY);
    let ttl = record.optional("ttl", &TTL).unwrap_or(std::time::Duration::from_secs(TTL_S));
    let quorum = record.optional("quorum", &QUORUM).unwrap_or(1);
    // What acts on its own says so.
    let dry_run = record.optional("dry_run", &Flag).unwrap_or(true);
    match action {
        Some(FalcoAction::Quarantine) if identity.is_none() => {
            record.fault(Code::MissingKey, "a quarantine needs the key \"identity\"".to_owned());
        }
        Some(FalcoAction::Notify) if identity.is_some() => {
            record.fault(Code::UnknownKey, "only a quarantine has the key \"identity\"".to_owned());
        }
        _ => {}
    }
    let read = rule.zip(action);
    record.finish(read.map(|(rule, action)| FalcoResponse {
        rule,
        priority,
        action,
        identity,
        ttl,
        quorum,
        dry_run,
    }))
}

pub(super) fn falco(t: &mut Table<'_, '_>, falco: &mut Falco) {
    t.table("falco", "Alerts of Falco, taken at the vault's port.", |t| {
        let doc = "Where the end of the path is that Falco on this machine sends to: env:NAME or file:PATH.";
        secret(t, "falco", "secret", doc, &mut falco.secret);
        let doc = "Time in which a repeated alert is counted and not told again.";
        t.key("dedup_window", doc, span(1_000, 86_400_000), &mut falco.dedup_window);
        let doc = "New alerts a second at most, a second's worth at once.";
        t.key("rate", doc, count(1..=10_000), &mut falco.rate);
        let doc = "What is done for which alerts: tables of rule, priority, action, identity, ttl, quorum and dry_run.";
        t.key("responses", doc, Responses, &mut falco.responses);
    });
}
