//! How the last reloads went. LIMIT: [`KEPT_MAX`] outcomes, [`CHANGES_MAX`] changes and the start of each text.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use crate::reload::{ReloadError, Reloaded};

/// LIMIT: outcomes remembered.
const KEPT_MAX: usize = 32;
/// LIMIT: changes of one outcome.
const CHANGES_MAX: usize = 100;
/// LIMIT: characters of one change.
const CHANGE_MAX: usize = 300;

/// The outcome of a configuration that came into force.
pub(crate) const ACCEPTED: &str = "accepted";

/// The last reload.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LastReload {
    /// When.
    pub(crate) at: Timestamp,
    /// `accepted` or `refused`.
    pub(crate) result: &'static str,
    /// What asked for it.
    pub(crate) trigger: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The same as everybody may see it.
    #[serde(skip)]
    pub(crate) for_everybody: Option<String>,
}

impl LastReload {
    /// As everybody may see it.
    pub(crate) fn public(self) -> Self {
        Self { error: self.for_everybody.clone(), ..self }
    }
}

/// One outcome.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// When, what and why.
    #[serde(flatten)]
    pub(crate) last: LastReload,
    /// The generation in force after it.
    pub(crate) generation: u64,
    /// What changed, a line each.
    pub(crate) changes: Vec<String>,
    /// Roles that take some of it only when they start again.
    pub(crate) restart: Vec<String>,
}

/// The outcomes.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<VecDeque<Outcome>>);

impl History {
    /// The configuration of the start was taken.
    pub(crate) fn started(&self, generation: u64) {
        self.push("start", None, generation, Vec::new(), Vec::new());
    }

    /// A reload ended; `generation` is in force after it.
    pub(crate) fn note(
        &self,
        trigger: &'static str,
        generation: u64,
        result: Result<&Reloaded, &ReloadError>,
    ) {
        match result {
            Ok(done) => self.push(trigger, None, generation, bounded(&done.changes), done.restart.clone()),
            Err(error) => {
                let said = (error.to_string(), error.for_everybody());
                self.push(trigger, Some(said), generation, Vec::new(), Vec::new());
            }
        }
    }

    /// The last one.
    pub(crate) fn last(&self) -> LastReload {
        match self.outcomes().back() {
            Some(outcome) => outcome.last.clone(),
            None => LastReload {
                at: Timestamp::UNIX_EPOCH,
                result: ACCEPTED,
                trigger: "start",
                error: None,
                for_everybody: None,
            },
        }
    }

    /// All of them, newest first.
    pub(crate) fn all(&self) -> Vec<Outcome> {
        self.outcomes().iter().rev().cloned().collect()
    }

    fn push(
        &self,
        trigger: &'static str,
        error: Option<(String, String)>,
        generation: u64,
        changes: Vec<String>,
        restart: Vec<String>,
    ) {
        let result = if error.is_none() { ACCEPTED } else { "refused" };
        let (error, for_everybody) = error.unzip();
        let last = LastReload { at: Timestamp::now(), result, trigger, error, for_everybody };
        let mut outcomes = self.outcomes();
        if outcomes.len() == KEPT_MAX {
            outcomes.pop_front();
        }
        outcomes.push_back(Outcome { last, generation, changes, restart });
    }

    fn outcomes(&self) -> MutexGuard<'_, VecDeque<Outcome>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(changes: &[String]) -> Vec<String> {
    let short = |change: &String| change.chars().take(CHANGE_MAX).collect();
    let mut bounded: Vec<String> = changes.iter().take(CHANGES_MAX).map(short).collect();
    if changes.len() > CHANGES_MAX {
        bounded.push(format!("and {} more", changes.len() - CHANGES_MAX));
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let history = History::default();
        history.started(1);
        let changes = (0..150).map(|n| format!("~ key{n}: {}", "x".repeat(400))).collect();
        let done = Reloaded { generation: 2, hash: String::new(), changes, restart: vec![], kept: true };
        history.note("file", 2, Ok(&done));
        history.note("admin", 2, Err(&ReloadError::NoEarlier));
        let all = history.all();
        assert_eq!((all.len(), all[0].last.result, all[1].last.trigger), (3, "refused", "file"));
        assert_eq!((all[1].changes.len(), all[1].changes[0].len()), (101, 300));
        assert_eq!(history.last().error.as_deref(), Some(ReloadError::NoEarlier.to_string().as_str()));
        for _ in 0..40 {
            history.note("file", 2, Ok(&done));
        }
        assert_eq!(history.all().len(), KEPT_MAX);
        assert!(history.all().iter().all(|outcome| outcome.last.trigger == "file"));
    }
}
