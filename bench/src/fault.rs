//! What is done to a subject, or to what it stands before, while it is asked.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::load::Act;
use crate::process::Guarded;
use crate::subject::Running;

/// LIMIT: faults of a scenario.
const FAULTS_MAX: usize = 100;
const START_LIMIT: Duration = Duration::from_secs(10);

/// `[[fault]]` of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// After the window's beginning.
    pub at_ms: u64,
    #[serde(rename = "do")]
    pub deed: Deed,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// kill -9 of the second origin.
    KillOrigin,
    /// The second origin again, on its old port.
    StartOrigin,
    /// SIGHUP to the proxy, whose configuration has a new date.
    Reload,
    /// kill -9 of the store behind the subject.
    KillStore,
    /// The store again, with what is on its disk.
    StartStore,
}

/// A process that can be killed and started again on the same address.
pub(crate) struct Kept {
    pub address: SocketAddr,
    process: RefCell<Option<Guarded>>,
    start: Box<dyn Fn() -> anyhow::Result<Guarded>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kept at {}", self.address)
    }
}

impl Fault {
    /// Says what is wrong with a scenario's faults.
    pub(crate) fn check_all(faults: &[Self], window_ms: u64) -> Result<(), String> {
        if faults.len() > FAULTS_MAX {
            return Err(format!("more than {FAULTS_MAX} faults"));
        }
        if let Some(late) = faults.iter().find(|fault| fault.at_ms >= window_ms) {
            return Err(format!("`fault` at {} ms is not within the window of {window_ms} ms", late.at_ms));
        }
        let last = |kill: Deed, start: Deed| {
            let mut found: Vec<_> =
                faults.iter().filter(|fault| fault.deed == kill || fault.deed == start).collect();
            found.sort_by_key(|fault| fault.at_ms);
            found.last().is_none_or(|fault| fault.deed == start)
        };
        if last(Deed::KillOrigin, Deed::StartOrigin) && last(Deed::KillStore, Deed::StartStore) {
            return Ok(());
        }
        Err("`fault`: what is killed is started again, for the next round".into())
    }

    /// All of them as they are done to `running`.
    pub(crate) fn script(faults: &[Self], running: &Running) -> anyhow::Result<Vec<Act>> {
        faults.iter().map(|fault| fault.act(running)).collect()
    }

    fn act(&self, running: &Running) -> anyhow::Result<Act> {
        let at = Duration::from_millis(self.at_ms);
        let kept = match self.deed {
            Deed::Reload => {
                let pid = running.reload.context("it cannot be told to reload")?;
                return Ok(Act::new(at, "reload", move || {
                    Box::pin(async move { Ok(kill_process(pid, Signal::HUP)?) })
                }));
            }
            Deed::KillOrigin | Deed::StartOrigin => {
                running.spare.clone().context("there is no second origin")?
            }
            Deed::KillStore | Deed::StartStore => {
                running.store.clone().context("there is no store behind it")?
            }
        };
        Ok(match self.deed {
            Deed::KillOrigin | Deed::KillStore => Act::new(at, "kill -9", move || {
                let kept = Rc::clone(&kept);
                Box::pin(async move { kept.kill() })
            }),
            _ => Act::new(at, "start again", move || {
                let kept = Rc::clone(&kept);
                Box::pin(async move { kept.revive() })
            }),
        })
    }
}

impl Kept {
    /// Of a process that listens on `address`, and how it is started.
    pub(crate) fn new(
        address: SocketAddr,
        process: Guarded,
        start: impl Fn() -> anyhow::Result<Guarded> + 'static,
    ) -> Rc<Self> {
        Rc::new(Self { address, process: RefCell::new(Some(process)), start: Box::new(start) })
    }

    fn kill(&self) -> anyhow::Result<()> {
        let mut process = self.process.borrow_mut().take().context("it is killed already")?;
        process.kill()
    }

    /// Starts it; it listens soon.
    fn revive(&self) -> anyhow::Result<()> {
        ensure!(self.process.borrow().is_none(), "it runs already");
        *self.process.borrow_mut() = Some((self.start)()?);
        Ok(())
    }

    /// It runs and listens; started anew where a round that was broken off left it killed.
    pub(crate) async fn stands(&self) -> anyhow::Result<()> {
        if self.process.borrow().is_none() {
            self.revive()?;
        }
        let mut process = self.process.borrow_mut().take().context("it is not there")?;
        let open = || TcpStream::connect(self.address).ok();
        let found = process.until("an open port", START_LIMIT, open).await.map(drop);
        *self.process.borrow_mut() = Some(process);
        found
    }
}

/// The process that is told to reload.
pub(crate) fn told(pid: u32) -> Option<Pid> {
    Pid::from_raw(pid.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(list: &[(u64, Deed)]) -> Vec<Fault> {
        list.iter().map(|(at_ms, deed)| Fault { at_ms: *at_ms, deed: *deed }).collect()
    }

    #[test]
    fn what_is_killed_is_started_again() {
        use Deed::{KillOrigin, KillStore, Reload, StartOrigin, StartStore};
        for (list, good) in [
            (&[(1, KillOrigin), (2, StartOrigin), (3, Reload)][..], true),
            (&[(2, StartOrigin), (1, KillOrigin)], true),
            (&[(1, KillOrigin)], false),
            (&[(1, KillOrigin), (2, StartStore)], false),
            (&[(1, KillStore), (99, StartStore)], true),
            (&[(1, KillStore), (100, StartStore)], false),
            (&[], true),
        ] {
            assert_eq!(Fault::check_all(&faults(list), 100).is_ok(), good, "{list:?}");
        }
        assert!(Fault::check_all(&faults(&[(1, Reload); 101]), 100).is_err());
    }

    #[test]
    fn faults_are_read_as_a_scenario_has_them() {
        #[derive(Deserialize)]
        struct List {
            fault: Vec<Fault>,
        }
        let list: List = toml::from_str("[[fault]]\nat_ms = 5\ndo = \"kill_origin\"").unwrap();
        assert_eq!(list.fault, faults(&[(5, Deed::KillOrigin)]));
        assert!(toml::from_str::<List>("[[fault]]\nat_ms = 5\ndo = \"explode\"").is_err());
    }
}
