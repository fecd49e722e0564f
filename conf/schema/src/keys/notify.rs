//! `[[notify]]`: who is told of alerts.

use schemars::{Schema, json_schema};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use super::record::Record;
use crate::code::Code;
use crate::form::{NOTIFY_URL, NotifyUrl};
use crate::kind::{Choice, Fault, Kind, Parsed, Text, Wrong};
use crate::model::{Notify, NotifyKind, NotifyLevel, Secret};
use crate::report::{Diagnostic, Place, quote};
use crate::secret;
use crate::table::Table;

/// LIMIT: targets.
const TARGETS_MAX: usize = 32;
const NAMES: [&str; 5] = ["kind", "url", "level", "from", "to"];

const KIND: Choice<NotifyKind> = Choice { words: &NotifyKind::WORDS, planned: &[] };

const LEVEL: Choice<NotifyLevel> = Choice {
    words: &[
        ("info", NotifyLevel::Info),
        ("warning", NotifyLevel::Warning),
        ("critical", NotifyLevel::Critical),
    ],
    planned: &[],
};

/// A mail address, or a chat at Telegram.
const ADDRESS: Text<String> = Text {
    what: "an address",
    code: Code::Name,
    parse: |text| {
        let fits = (1..=254).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(text.to_owned()) } else { Err(Wrong::new(format!("{} is not an address", quote(text)))) }
    },
    show: Clone::clone,
    pattern: r"^[\x21-\x7e]{1,254}$",
};

/// A target, before the reference in its address is followed.
#[derive(Clone, Debug, PartialEq)]
struct Written {
    kind: NotifyKind,
    url: NotifyUrl,
    level: NotifyLevel,
    from: Option<String>,
    to: Option<String>,
}

/// The targets: tables of `kind`, `url`, `level`, `from` and `to`.
struct Targets;

impl Kind for Targets {
    type Out = Vec<Written>;

    fn parse(&self, value: &Spanned<DeValue<'_>>) -> Parsed<Vec<Written>> {
        let Some(items) = value.get_ref().as_array() else {
            let fault = Fault::wrong_type("a list of `{ kind, url }`", value);
            return Err(vec![fault.help("write each as `[[notify]]`")]);
        };
        if items.len() > TARGETS_MAX {
            let message = format!("the list must have 0 to {TARGETS_MAX} items");
            return Err(vec![Fault::new(Code::List, message, value.span())]);
        }
        let (mut targets, mut faults) = (Vec::new(), Vec::new());
        for item in items {
            match target(item) {
                Ok(target) => targets.push(target),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(targets) } else { Err(faults) }
    }

    fn show(&self, targets: &Vec<Written>) -> Value {
        let show = |target: &Written| {
            let mut shown = json!({
                "kind": KIND.show(&target.kind), "url": (NOTIFY_URL.show)(&target.url), "level": LEVEL.show(&target.level),
            });
            for (name, value) in [("from", &target.from), ("to", &target.to)] {
                if let Some(value) = value {
                    shown[name] = value.as_str().into();
                }
            }
            shown
        };
        targets.iter().map(show).collect()
    }

    fn schema(&self) -> Schema {
        let described = |mut schema: Schema, doc: &str| {
            schema.insert("description".to_owned(), doc.into());
            schema
        };
        let target = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["kind", "url"],
            "properties": {
                "kind": described(KIND.schema(), "What it is."),
                "url": described(NOTIFY_URL.schema(), "Its address, or where the address is: env:NAME or file:PATH."),
                "level": described(LEVEL.schema(), "What it is told at least; warning when absent."),
                "from": described(ADDRESS.schema(), "Sender of mail."),
                "to": described(ADDRESS.schema(), "Receiver of mail, or the chat at Telegram."),
            },
        });
        json_schema!({ "oneOf": [{ "type": "array", "items": target, "maxItems": TARGETS_MAX }] })
    }
}

fn target(item: &Spanned<DeValue<'_>>) -> Parsed<Written> {
    let mut record = Record::of(item, "a target of alerts", &NAMES)?;
    let kind = record.needed("kind", &KIND);
    let url = record.needed("url", &NOTIFY_URL);
    let level = record.optional("level", &LEVEL).unwrap_or_default();
    let (from, to) = (record.optional("from", &ADDRESS), record.optional("to", &ADDRESS));
    match kind {
        Some(NotifyKind::Smtp) if from.is_none() || to.is_none() => {
            record.fault(Code::MissingKey, "mail needs the keys \"from\" and \"to\"".to_owned());
        }
        Some(kind)
            if kind != NotifyKind::Smtp
                && (from.is_some() || (to.is_some() && kind != NotifyKind::Telegram)) =>
        {
            record.fault(
                Code::UnknownKey,
                "only mail has the key \"from\", only mail and Telegram have \"to\"".to_owned(),
            );
        }
        _ => {}
    }
    if let (Some(kind), Some(NotifyUrl::Plain(url))) = (kind, &url)
        && let Some(why) = kind.refuses(url)
    {
        record.fault(Code::Url, why.to_owned());
    }
    record.finish(kind.zip(url).map(|(kind, url)| Written { kind, url, level, from, to }))
}

/// Reads the targets and what their addresses refer to.
pub(super) fn notify(t: &mut Table<'_, '_>, targets: &mut Vec<Notify>) {
    let mut written: Vec<Written> = targets.iter().map(Written::of).collect();
    let doc = "Who is told of alerts: tables of kind, url (or env:NAME, file:PATH), level, from and to.";
    t.key("notify", doc, Targets, &mut written);
    if t.describing() {
        return;
    }
    let place = t.place("notify");
    targets.clear();
    for Written { kind, url, level, from, to } in written {
        let (url, reference) = match url {
            NotifyUrl::Plain(url) => (Some(Secret::new(url)), None),
            NotifyUrl::Reference(reference) => {
                let found = secret::resolve(t.reader, "notify", &reference, place.clone());
                (
                    found.and_then(|found| followed(t, kind, &found, place.clone())),
                    Some((NOTIFY_URL.show)(&NotifyUrl::Reference(reference))),
                )
            }
        };
        targets.push(Notify { kind, url, reference, level, from, to });
    }
}

/// The address that a variable or a file holds, when it is one.
fn followed(t: &mut Table<'_, '_>, kind: NotifyKind, found: &Secret, place: Option<Place>) -> Option<Secret> {
    let url = std::str::from_utf8(found.expose()).unwrap_or_default().trim();
    let Some(why) = kind.refuses(url) else { return Some(Secret::new(url)) };
    t.reader.mark_failed("notify".to_owned());
    t.reader.report(Diagnostic::new(Code::Url, why).at(place));
    None
}

impl Written {
    fn of(target: &Notify) -> Self {
        let url = match (&target.reference, &target.url) {
            (Some(reference), _) => reference.clone(),
            (None, Some(url)) => shown_url(target.kind, &String::from_utf8_lossy(url.expose())),
            (None, None) => String::new(),
        };
        let (level, from, to) = (target.level, target.from.clone(), target.to.clone());
        Self { kind: target.kind, url: NotifyUrl::Plain(url), level, from, to }
    }
}

/// An address as it may be shown: of most kinds the path is the secret, and of mail the user.
fn shown_url(kind: NotifyKind, url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // Behind a password with a slash in it there is no telling what is what.
    if path.contains('@') {
        return format!("{scheme}://***");
    }
    let host = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("***@{host}"));
    let is_open = path.len() <= 1 || (kind == NotifyKind::Alertmanager && !path.contains('?'));
    let path = if is_open { path } else { "/***" };
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_an_address_is_no_secret() {
        for (kind, url, shown) in [
            (NotifyKind::Slack, "https://hooks.slack.com/services/T0/B0/x", "https://hooks.slack.com/***"),
            (NotifyKind::Webhook, "http://h:1?token=x", "http://h:1/***"),
            (NotifyKind::Webhook, "http://u:x@h/", "http://***@h/"),
            (NotifyKind::Smtp, "smtps://u:x@mail:465", "smtps://***@mail:465"),
            (NotifyKind::Smtp, "smtp://u:x/y@mail", "smtp://***"),
            (NotifyKind::Alertmanager, "http://am:9093/api/v2/alerts", "http://am:9093/api/v2/alerts"),
            (NotifyKind::Alertmanager, "http://am:9093/api/v2/alerts?key=x", "http://am:9093/***"),
        ] {
            assert_eq!(shown_url(kind, url), shown);
        }
    }
}
