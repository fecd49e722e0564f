//! Another process in place of the one that plays a role.
//!
//! **Edge**: the successor is started on the same sockets and gets prepared; then the old one yields (it
//! accepts no more and closes what admits one process), the new one is told to go, and the old one retires
//! with its open connections. New connections wait in the kernel meanwhile. A successor that is not prepared
//! within [`PREPARED_WITHIN`], dies or hangs is killed, and the old one resumes: nothing was lost.
//!
//! **Workers** own stores that admit one process from its first read on, so theirs is a restart: the new one
//! starts and says that it is prepared, the old one ends, the new one is told to go; requests wait in the sockets
//! meanwhile. One that dies or hangs before is killed, and nobody waited. One that does not get ready then is
//! replaced by the binary that ran before.

use std::path::Path;
use std::time::Duration;

use sluice_wire::role::Role;
use sluice_wire::start::{Carried, Order, Ready, Said};
use tokio::time::{Instant, timeout_at};

use super::process::{Life, Recipe};
use super::report::Report;

/// From its start until a successor has said that it is prepared.
pub(crate) const PREPARED_WITHIN: Duration = Duration::from_secs(10);
/// For the old process to yield.
const YIELDED_WITHIN: Duration = Duration::from_secs(5);
/// For a prepared successor, or an old one that resumes, to serve.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// For a worker that was started anew to serve; replaying a long log takes its time.
const WORKER_WITHIN: Duration = Duration::from_secs(30);

/// Why the old process serves on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The new program could not be started.
    #[error("the new process could not be started: {0}")]
    NotStarted(String),
    /// It ended.
    #[error("the new process ended with {0} before it was {1}; its log says why")]
    Died(String, &'static str),
    /// It hangs.
    #[error("the new process was not {0} within {1:?} and was killed")]
    Late(&'static str, Duration),
    /// The old process ended before there was anything to hand over to.
    #[error("the old process ended before the new one was prepared; it is started again")]
    OldDied,
    /// The old process does not answer.
    #[error("the old process did not yield within {YIELDED_WITHIN:?}")]
    NotYielded,
}

/// The process that serves now, as the handover sees it.
pub(crate) trait Serving {
    /// Tells it what to do; false where it does not listen any more.
    fn tell(&mut self, order: Order) -> impl Future<Output = bool>;
    /// What it says next; `None` once it has ended.
    fn hear(&mut self) -> impl Future<Output = Option<Said>>;
}

impl Serving for Life {
    async fn tell(&mut self, order: Order) -> bool {
        Self::tell(self, order).await
    }

    async fn hear(&mut self) -> Option<Said> {
        self.next().await.ok()
    }
}

/// Hands an edge over to a process that runs `program`. On success the old one is retiring, to be killed
/// after `retire_within`.
pub(crate) async fn hand_over(
    old: &mut impl Serving,
    recipe: &Recipe,
    program: &Path,
    retire_within: Duration,
    report: &Report,
) -> Result<(Life, Ready), Refused> {
    let role = recipe.role;
    let deadline = Instant::now() + PREPARED_WITHIN;
    let mut new = begin(recipe, program, true).await?;
    report.say(format_args!("{role}: pid {} gets prepared", new.pid()));
    let prepared = heard(&mut new, deadline, |said| matches!(said, Said::Prepared { .. }).then_some(()));
    let prepared = tokio::select! {
        prepared = prepared => prepared,
        () = gone(old) => {
            // Nobody accepts: the binary that is known to start is back sooner than a new one is proven.
            new.kill().await;
            return Err(Refused::OldDied);
        }
    };
    if let Err(silence) = prepared {
        return Err(silence.refusal(&mut new, "prepared", PREPARED_WITHIN).await);
    }
    report.say(format_args!("{role}: pid {} is prepared", new.pid()));
    let yielding = Instant::now();
    let Some(carried) = yielded(old).await else {
        new.kill().await;
        resume(old).await;
        return Err(Refused::NotYielded);
    };
    new.tell(Order::Go(carried)).await;
    let ready = heard(&mut new, Instant::now() + READY_WITHIN, |said| match said {
        Said::Ready(ready) => Some(ready),
        _ => None,
    });
    match ready.await {
        Ok(ready) => {
            let waited = yielding.elapsed().as_millis();
            report.say(format_args!("{role}: pid {} serves; connections waited {waited} ms", new.pid()));
            let within_ms = u64::try_from(retire_within.as_millis()).unwrap_or(u64::MAX);
            // One that died meanwhile needs no word.
            old.tell(Order::Retire { within_ms }).await;
            Ok((new, ready))
        }
        Err(silence) => {
            let refusal = silence.refusal(&mut new, "serving", READY_WITHIN).await;
            resume(old).await;
            Err(refusal)
        }
    }
}

/// A worker's new process in place of the old one, which has ended when this returns. `Err` comes with the
/// process that was started from the binary that ran before, or with none where the old one runs on.
pub(crate) async fn replace(
    old: &mut Life,
    recipe: &Recipe,
    program: &Path,
    end_within: Duration,
    report: &Report,
) -> Result<(Life, Ready), (Refused, Option<Life>)> {
    let (role, before) = (recipe.role, recipe.image.program());
    // An edge comes here where none serves: what it holds has to be let go of first.
    let waits = role != Role::Edge;
    let mut prepared = None;
    if waits {
        let mut new = begin(recipe, program, true).await.map_err(|refusal| (refusal, None))?;
        let by = Instant::now() + PREPARED_WITHIN;
        if let Err(silence) =
            heard(&mut new, by, |said| matches!(said, Said::Prepared { .. }).then_some(())).await
        {
            return Err((silence.refusal(&mut new, "prepared", PREPARED_WITHIN).await, None));
        }
        prepared = Some(new);
    }
    let began = Instant::now();
    report.say(format_args!("{role}: pid {} ends; requests wait in its sockets", old.pid()));
    old.end(began + end_within).await;
    let new = match prepared {
        Some(mut new) => {
            new.tell(Order::Go(Carried::default())).await;
            Ok(new)
        }
        None => begin(recipe, program, false).await,
    };
    let refusal = match new {
        Ok(mut new) => match serving(&mut new).await {
            Ok(ready) => {
                let waited = began.elapsed().as_millis();
                report.say(format_args!("{role}: pid {} serves after {waited} ms", new.pid()));
                return Ok((new, ready));
            }
            Err(silence) => silence.refusal(&mut new, "ready", WORKER_WITHIN).await,
        },
        Err(refusal) => refusal,
    };
    report.say(format_args!("{role}: back to the binary that ran before"));
    Err((refusal, begin(recipe, &before, false).await.ok()))
}

/// Waits until a worker that was told to go serves.
async fn serving(new: &mut Life) -> Result<Ready, Silence> {
    let by = Instant::now() + WORKER_WITHIN;
    heard(new, by, |said| match said {
        Said::Ready(ready) => Some(ready),
        _ => None,
    })
    .await
}

async fn begin(recipe: &Recipe, program: &Path, successor: bool) -> Result<Life, Refused> {
    let begun = Life::begin(recipe, program, successor).await;
    begun.map_err(|error| Refused::NotStarted(format!("{error:#}")))
}

/// Why nothing was heard.
enum Silence {
    Ended,
    Late,
}

impl Silence {
    /// Ends the silent process and says what became of it.
    async fn refusal(self, life: &mut Life, wanted: &'static str, within: Duration) -> Refused {
        match self {
            Self::Ended => Refused::Died(life.ended().await, wanted),
            Self::Late => {
                // Gone when this returns: what it had opened is free again.
                life.kill().await;
                Refused::Late(wanted, within)
            }
        }
    }
}

async fn heard<T>(
    party: &mut impl Serving,
    by: Instant,
    wanted: impl Fn(Said) -> Option<T>,
) -> Result<T, Silence> {
    let hearing = async {
        while let Some(said) = party.hear().await {
            if let Some(found) = wanted(said) {
                return Ok(found);
            }
        }
        Err(Silence::Ended)
    };
    timeout_at(by, hearing).await.unwrap_or(Err(Silence::Late))
}

/// Returns when a party has ended.
async fn gone(party: &mut impl Serving) {
    while party.hear().await.is_some() {}
}

/// What the old process passes on; nothing where it is gone. `None`: it does not answer.
async fn yielded(old: &mut impl Serving) -> Option<Carried> {
    old.tell(Order::Yield).await;
    let yielded = heard(old, Instant::now() + YIELDED_WITHIN, |said| match said {
        Said::Yielded { carried, .. } => Some(carried),
        _ => None,
    });
    match yielded.await {
        Ok(carried) => Some(carried),
        Err(Silence::Ended) => Some(Carried::default()),
        Err(Silence::Late) => None,
    }
}

async fn resume(old: &mut impl Serving) {
    old.tell(Order::Resume).await;
    let by = Instant::now() + READY_WITHIN;
    let serving = heard(old, by, |said| matches!(said, Said::Ready(_)).then_some(())).await;
    if serving.is_err() {
        tracing::error!(component = "supervisor", "the old process did not say that it serves again");
    }
}

/// Whether a role is handed over without an end in between.
pub(crate) const fn has_successors(role: Role) -> bool {
    matches!(role, Role::Edge)
}
