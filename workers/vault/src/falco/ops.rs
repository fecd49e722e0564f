//! What an alert brings about.

use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_audit::Decision;
use sluice_wire::event::{EventType, NewEvent};

use super::alert::Alert;
use super::kill;
use super::quarantine::Cause;
use super::watch::{Action, Due, Key, Priority, Stop, Verdict, Watch};
use crate::context::Vault;
use crate::error::VaultError;
use crate::outbox::security_event;
use crate::request::Act;

/// What became of a request's alerts.
#[derive(Debug, Default, Serialize)]
pub(super) struct Receipt {
    accepted: usize,
    repeated: usize,
    limited: usize,
    responses: Vec<Outcome>,
}

/// What a response did.
#[derive(Debug, Clone, Serialize)]
struct Outcome {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Stop>,
    rule: String,
    /// `done`, `dry_run` or `unknown_identity`.
    result: &'static str,
}

impl Vault {
    pub(super) fn watch(&self) -> MutexGuard<'_, Watch> {
        self.falco.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes alerts of a host whose identity was proved. Every alert is counted; new ones are told of in one commit,
    /// with one audit record; then the responses that are due are made. What could not be made stays due, and is
    /// tried again with the next alert and each second: the sender does not repeat itself.
    pub(super) fn take_alerts(
        &self,
        act: &Act,
        host: &str,
        alerts: Vec<Alert>,
    ) -> Result<Receipt, VaultError> {
        let mut receipt = Receipt::default();
        let now_ms = act.now.as_millisecond();
        let mut fresh: Vec<(Key, Alert)> = Vec::new();
        for alert in alerts {
            let labels = [alert.priority.as_str(), self.rules.label(&alert.rule)];
            self.figures.falco_alerts.with_label_values(&labels).inc();
            let key = alert.key(host);
            let verdict = self.watch().admit(now_ms, &key, alert.priority);
            if verdict != Verdict::Repeated {
                self.vote(now_ms, &key, &alert);
            }
            match verdict {
                Verdict::New => fresh.push((key, alert)),
                Verdict::Repeated => receipt.repeated += 1,
                Verdict::Limited => receipt.limited += 1,
            }
        }
        receipt.accepted = fresh.len();
        if fresh.is_empty() {
            receipt.responses = self.respond_due(act)?;
            return Ok(receipt);
        }
        let keys: Vec<Key> = fresh.iter().map(|(key, _)| key.clone()).collect();
        self.tell(act, host, &fresh).inspect_err(|_| {
            let mut watch = self.watch();
            for key in &keys {
                watch.unsee(key);
            }
        })?;
        receipt.responses = self.respond_due(act)?;
        Ok(receipt)
    }

    /// Makes the responses that are due; the first error, when all were tried.
    fn respond_due(&self, act: &Act) -> Result<Vec<Outcome>, VaultError> {
        let due = self.watch().due();
        let (mut made, mut failed) = (Vec::new(), None);
        for due in due {
            let position = due.position;
            match self.respond(act, due) {
                Ok(outcome) => {
                    self.watch().made(position);
                    made.push(outcome);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(made), Err)
    }

    /// Makes what is still due, and ends kill switches whose time is over.
    pub(crate) fn tend_responses(&self, now: Timestamp) -> Result<(), VaultError> {
        self.tend_kills(now)?;
        self.respond_due(&Act::own(now)).map(drop)
    }

    /// What is left of alerts: how much of each host was held back.
    pub(crate) fn tend_alerts(&self, now: Timestamp) -> Result<(), VaultError> {
        let act = Act::own(now);
        let held_back = self.watch().held_back();
        if held_back.is_empty() {
            return Ok(());
        }
        let sum: u64 = held_back.iter().map(|(_, many)| many).sum();
        let entry = act.entry("falco", "limited", format!("falco/{sum} more alerts"));
        self.write(entry, move |change| {
            held_back.iter().try_for_each(|(host, many)| {
                let details = [("host", host.as_str()), ("alerts", &many.to_string())];
                change.emit(&security_event("alerts_held_back", now, &details))
            })
        })
    }

    fn tell(&self, act: &Act, host: &str, fresh: &[(Key, Alert)]) -> Result<(), VaultError> {
        let entry = act.entry("falco", "alert", format!("falco/{host}/{}", fresh.len()));
        let mut events = Vec::new();
        for (_, alert) in fresh {
            events.push(event("security_alert", act, alert.data(host)));
            if alert.priority >= Priority::Critical {
                events.push(event("risk_alert", act, alert.data(host)));
            }
        }
        self.write(entry, move |change| events.iter().try_for_each(|event| change.emit(event)))
    }

    fn vote(&self, now_ms: i64, key: &Key, alert: &Alert) {
        let mut watch = self.watch();
        for (position, response) in self.settings.falco.responses.iter().enumerate() {
            if response.answers(&alert.rule, alert.priority) {
                watch.vote(now_ms, position, response, key);
            }
        }
    }

    fn respond(&self, act: &Act, due: Due) -> Result<Outcome, VaultError> {
        let Due { position, rule, host } = due;
        let response = self.settings.falco.responses[position].clone();
        let identity = response.identity.clone().unwrap_or_default();
        let about = response.stop.as_ref().map_or_else(|| identity.clone(), kill::name);
        let cause = Cause { rule: rule.clone(), host: host.clone(), ttl_ms: response.ttl_ms };
        let (action, result) = match (response.action, &response.stop) {
            (Action::Kill, _) if response.dry_run => ("kill_switch", "dry_run"),
            (Action::Quarantine, _) if response.dry_run => ("quarantine", "dry_run"),
            (Action::Notify, _) if response.dry_run => ("notify", "dry_run"),
            (Action::Kill, Some(stop)) => {
                self.kill(act, stop, cause)?;
                ("kill_switch", "done")
            }
            (Action::Quarantine, _) => {
                let is_ours = self.quarantine(act, &identity, cause)?;
                ("quarantine", if is_ours { "done" } else { "unknown_identity" })
            }
            (Action::Notify | Action::Kill, _) => ("notify", "done"),
        };
        let mut data = Map::new();
        for (name, value) in [
            ("kind", "falco_response"),
            ("action", action),
            ("result", result),
            ("rule", &rule),
            ("host", &host),
            ("service", &identity),
            ("stops", &response.stop.as_ref().map(kill::name).unwrap_or_default()),
        ] {
            if !(name == "stops" && value.is_empty()) {
                data.insert(name.to_owned(), Value::from(value));
            }
        }
        let event = event("security_alert", act, data);
        let entry = act.entry("falco", action, format!("falco/response/{about}")).decision(Decision::Allow);
        self.write(entry, move |change| change.emit(&event))?;
        Ok(Outcome { action, identity: response.identity, stop: response.stop, rule, result })
    }
}

fn event(kind: &str, act: &Act, data: Map<String, Value>) -> NewEvent {
    NewEvent {
        event_type: EventType::parse(kind).expect("the name is in the catalogue"),
        event_id: Some(uuid::Uuid::new_v4()),
        timestamp: Some(act.now),
        source: "vault".to_owned(),
        data,
        metadata: Map::new(),
    }
}
