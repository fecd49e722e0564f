//! An edge that runs alone is its own little supervisor: SIGUSR2 starts a successor from the binary at its
//! path, hands it the sockets, and leaves when that one serves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use sluice_http::{Giver, Listener, Start, Stop};
use sluice_wire::role::Role;
use sluice_wire::start::{HANDOFF_VERSION, Handoff, Order, Said};
use tokio::signal::unix::{SignalKind, signal};

use crate::up::{Bound, Image, Recipe, Report, Serving, Socket, hand_over, own_path};
use crate::{load, notify};

/// Environment of this process's own sockets: a successor gets its own.
const OWN: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// What a successor of this process needs.
pub(crate) struct Seat {
    recipe: Recipe,
    program: PathBuf,
    this: This,
    drain: std::time::Duration,
    stop: Stop,
}

/// This process, in the place of the one that hands over.
struct This(Giver);

impl Serving for This {
    async fn tell(&mut self, order: Order) -> bool {
        self.0.orders.send(order).await.is_ok()
    }

    async fn hear(&mut self) -> Option<Said> {
        self.0.said.recv().await
    }
}

impl Seat {
    /// The seat of an edge about to start.
    pub(crate) fn of(start: &Start, giver: Giver) -> anyhow::Result<Self> {
        let mut sockets = Vec::new();
        let duplicates = start.doors().duplicates().context("cannot duplicate the sockets")?;
        for (name, listener) in duplicates {
            let listener = match listener {
                Listener::Tcp(tcp) => Bound::Tcp(tcp),
                Listener::Unix(unix) => Bound::Unix(unix),
            };
            sockets.push(Socket { name, address: None, listener });
        }
        let program = own_path();
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        if !arguments.iter().any(|argument| argument == "--supervised") {
            arguments.push("--supervised".to_owned());
        }
        let mut environment = load::environment();
        environment.retain(|name, _| !OWN.contains(&name.as_str()));
        let handoff = Handoff {
            version: HANDOFF_VERSION,
            role: Role::Edge,
            key: String::new(),
            peers: BTreeMap::new(),
            sockets: BTreeMap::new(),
            listeners: sockets.iter().map(|socket| socket.name.clone()).collect(),
            end_within_ms: 0,
            secrets: BTreeMap::new(),
            successor: true,
            detached: true,
        };
        let image = Image::own(&program).context("cannot open this program")?;
        let recipe = Recipe { role: Role::Edge, image, arguments, environment, sockets, handoff };
        Ok(Self {
            recipe,
            program,
            this: This(giver),
            drain: start.config.drain.deadline,
            stop: start.stop.clone(),
        })
    }

    /// Listens for the signal until this process has a successor or is to end.
    pub(crate) fn keep(mut self) -> anyhow::Result<()> {
        let mut upgrade = signal(SignalKind::user_defined2())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Its sockets close with this one's.
                    () = self.stop.wait() => return,
                    said = self.this.0.said.recv() => match said {
                        Some(Said::Ready(_)) => notify::ready(),
                        Some(_) => {}
                        None => return,
                    },
                    _ = upgrade.recv() => {
                        let stop = self.stop.clone();
                        tokio::select! {
                            // The wish to end is meant for whoever serves: a successor half-way ends too.
                            () = stop.wait() => return,
                            done = self.hand_over() => if done {
                                return;
                            }
                        }
                    }
                }
            }
        });
        Ok(())
    }

    async fn hand_over(&mut self) -> bool {
        let report = Report::to_log();
        let handed = hand_over(&mut self.this, &self.recipe, &self.program, self.drain, &report).await;
        match handed {
            Ok((successor, ready)) => {
                notify::main_pid(ready.pid);
                // It outlives this process, as its own master.
                drop(successor.part());
                report.close(Ok(format!("pid {} serves", ready.pid)));
                true
            }
            Err(refused) => {
                report.close(Err(refused.to_string()));
                false
            }
        }
    }
}
