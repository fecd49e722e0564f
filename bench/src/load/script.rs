//! What happens to a subject while it is asked: at set times of the window, each time anew.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

/// What one act does.
type Doing = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// Something done at a time after the window's beginning.
#[derive(Clone)]
pub(crate) struct Act {
    pub at: Duration,
    /// In words, for reports.
    pub what: String,
    deed: Rc<dyn Fn() -> Doing>,
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", self.what, self.at)
    }
}

impl Act {
    /// A deed at a time.
    pub(crate) fn new(at: Duration, what: &str, deed: impl Fn() -> Doing + 'static) -> Self {
        Self { at, what: what.to_owned(), deed: Rc::new(deed) }
    }

    /// A command of the shell at a time; one that fails, fails the run.
    pub(crate) fn command(at: Duration, words: &str) -> Self {
        let command = words.to_owned();
        Self::new(at, words, move || {
            let command = command.clone();
            Box::pin(async move {
                let mut shell = tokio::process::Command::new("sh");
                let started = shell.arg("-c").arg(&command).process_group(0).spawn();
                let mut child = started.with_context(|| format!("start `{command}`"))?;
                let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
                let status = child.wait().await?;
                // What it left running on purpose is its caller's.
                group.0 = None;
                anyhow::ensure!(status.success(), "`{command}` ended with {status}");
                Ok(())
            })
        })
    }
}

/// The processes of a command that did not end before the run did: they end with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // They may have ended just now.
            rustix::process::kill_process_group(leader, Signal::KILL).unwrap_or_default();
        }
    }
}

/// Does all of it in the order of time, counted from `from`.
pub(super) async fn play(acts: &[Act], from: Instant) -> anyhow::Result<()> {
    let mut acts: Vec<&Act> = acts.iter().collect();
    acts.sort_by_key(|act| act.at);
    for act in acts {
        tokio::time::sleep_until((from + act.at).into()).await;
        (act.deed)().await.with_context(|| format!("while asking, at {:?}: {}", act.at, act.what))?;
    }
    Ok(())
}
