//! `[falco]`: alerts of Falco, and what is done about them.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};
use sluice_wire::kill::is_target;
use toml::Spanned;
use toml::de::DeValue;

use super::record::Record;
use super::{secret, span};
use crate::code::Code;
use crate::kind::{Choice, Count, Duration, Fault, Flag, Kind, Parsed, Text, Wrong, count};
use crate::model::{Falco, FalcoAction, FalcoPriority, FalcoResponse, KillScope};
use crate::report::quote;
use crate::table::Table;

/// LIMIT: rules of response.
const RESPONSES_MAX: usize = 64;
const NAMES: [&str; 9] =
    ["rule", "priority", "action", "identity", "scope", "target", "ttl", "quorum", "dry_run"];
/// How many hosts it takes to stop trading where nothing is said; anything else takes one.
const KILL_QUORUM: u64 = 2;
/// How long a response lasts where nothing is said, seconds.
const TTL_S: u64 = 900;

const PRIORITY: Choice<FalcoPriority> = Choice { words: &FalcoPriority::WORDS, planned: &[] };
const ACTION: Choice<FalcoAction> = Choice {
    words: &[
        ("notify", FalcoAction::Notify),
        ("quarantine", FalcoAction::Quarantine),
        ("kill_switch", FalcoAction::KillSwitch),
    ],
    planned: &[],
};
const SCOPE: Choice<KillScope> = Choice { words: &KillScope::WORDS, planned: &[] };
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

/// What a kill switch may name.
const TARGET: Text<String> = Text {
    what: "the name of a service, account or symbol",
    code: Code::Name,
    parse: |text| {
        if is_target("", text) {
            Ok(text.to_owned())
        } else {
            Err(Wrong::new(format!("{} names no service, account or symbol", quote(text))))
        }
    },
    show: Clone::clone,
    pattern: r"^[!-~]([ -~]{0,254}[!-~])?$",
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
            if let Some(scope) = &response.scope {
                shown["scope"] = SCOPE.show(scope);
            }
            if let Some(target) = &response.target {
                shown["target"] = target.as_str().into();
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
                "identity": described(IDENTITY.schema(), "The service a quarantine is about."),
                "scope": described(SCOPE.schema(), "What a kill switch stops."),
                "target": described(TARGET.schema(), "Which service, account or symbol a kill switch stops."),
                "ttl": described(TTL.schema(), "How long it lasts; 15m when absent."),
                "quorum": described(QUORUM.schema(), "How many hosts it takes; when absent 1, and 2 for a kill switch."),
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
    let scope = record.optional("scope", &SCOPE);
    let target = record.optional("target", &TARGET);
    let ttl = record.optional("ttl", &TTL).unwrap_or(std::time::Duration::from_secs(TTL_S));
    let usual = if action == Some(FalcoAction::KillSwitch) { KILL_QUORUM } else { 1 };
    let quorum = record.optional("quorum", &QUORUM).unwrap_or(usual);
    // What acts on its own says so.
    let dry_run = record.optional("dry_run", &Flag).unwrap_or(true);
    if let Some(action) = action {
        let about = About { action, identity: identity.is_some(), scope, target: target.as_deref() };
        about.faults().into_iter().for_each(|(code, message)| record.fault(code, message.to_owned()));
    }
    let read = rule.zip(action);
    record.finish(read.map(|(rule, action)| FalcoResponse {
        rule,
        priority,
        action,
        identity,
        scope,
        target,
        ttl,
        quorum,
        dry_run,
    }))
}

/// What an action is about: a quarantine a service, a kill switch a scope, and neither what the other is.
struct About<'a> {
    action: FalcoAction,
    identity: bool,
    scope: Option<KillScope>,
    target: Option<&'a str>,
}

impl About<'_> {
    fn faults(&self) -> Vec<(Code, &'static str)> {
        let mut faults = Vec::new();
        match (self.action, self.identity) {
            (FalcoAction::Quarantine, false) => {
                faults.push((Code::MissingKey, "a quarantine needs the key \"identity\""));
            }
            (FalcoAction::Notify | FalcoAction::KillSwitch, true) => {
                faults.push((Code::UnknownKey, "only a quarantine has the key \"identity\""));
            }
            _ => {}
        }
        match (self.action, self.scope, self.target) {
            (FalcoAction::KillSwitch, None, _) => {
                faults.push((Code::MissingKey, "a kill switch needs the key \"scope\""));
            }
            (FalcoAction::KillSwitch, Some(KillScope::All), Some(_)) => {
                faults.push((Code::UnknownKey, "a kill switch of scope \"all\" has no \"target\""));
            }
            (FalcoAction::KillSwitch, Some(KillScope::All), None) => {}
            (FalcoAction::KillSwitch, Some(_), None) => {
                faults.push((Code::MissingKey, "a kill switch of this scope needs the key \"target\""));
            }
            (FalcoAction::KillSwitch, Some(scope), Some(target)) if !is_target(scope.as_str(), target) => {
                faults.push((Code::Name, "one symbol is named without a comma"));
            }
            (FalcoAction::KillSwitch, ..) | (_, None, None) => {}
            _ => faults.push((Code::UnknownKey, "only a kill switch has the keys \"scope\" and \"target\"")),
        }
        faults
    }
}

pub(super) fn falco(t: &mut Table<'_, '_>, falco: &mut Falco) {
    t.table("falco", "Alerts of Falco, taken at the vault's port.", |t| {
        let doc = "Where the end of the path is that Falco on this machine sends to: env:NAME or file:PATH.";
        secret(t, "falco", "secret", doc, &mut falco.secret);
        let doc = "Time in which a repeated alert is counted and not told again.";
        t.key("dedup_window", doc, span(1_000, 86_400_000), &mut falco.dedup_window);
        let doc = "New alerts a second at most, a second's worth at once.";
        t.key("rate", doc, count(1..=10_000), &mut falco.rate);
        let doc = "What is done for which alerts: tables of rule, priority, action, identity, scope, target, ttl, quorum and dry_run.";
        t.key("responses", doc, Responses, &mut falco.responses);
    });
}
