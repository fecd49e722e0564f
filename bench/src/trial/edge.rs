//! A trial of the edge: a reload that adds a service.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{COME_TRUE, LOOK_EVERY};
use crate::line::Line;
use crate::question::Question;
use crate::subject::Running;

thread_local! {
    /// Every trial adds a service that was not there before.
    static ADDED: Cell<u32> = const { Cell::new(0) };
}

/// The edge, and where its services lie.
pub(crate) struct Routes {
    address: SocketAddr,
    told: Pid,
    services: PathBuf,
}

impl Routes {
    pub(super) fn of(running: &Running) -> anyhow::Result<Self> {
        Ok(Self {
            address: running.address,
            told: running.reload.context("it cannot be told to reload")?,
            services: running.services.clone().context("its services are elsewhere")?,
        })
    }

    /// Puts another service in place of the last trial's and takes from the signal until it is routed. Nobody answers
    /// behind it: a bad gateway is an answer of a route.
    pub(super) async fn reloaded(&self) -> anyhow::Result<Duration> {
        let number = ADDED.replace(ADDED.get() + 1);
        let prefix = format!("/added-{number}");
        let service = format!(
            "[[service]]\nname = \"added\"\nprefix = \"{prefix}\"\nauth_required = false\n\
             health = {{ interval = \"24h\" }}\n[[service.instance]]\nurl = \"http://127.0.0.1:9\"\n"
        );
        let file = self.services.join("added.toml");
        std::fs::write(&file, service).with_context(|| format!("write {}", file.display()))?;
        let mut line = Line::open(self.address, None).await?;
        let request = Question::default().request(&self.address.to_string(), &prefix, None).fresh().to_vec();
        let before = line.ask(&request).await?.status;
        anyhow::ensure!(before == 404, "status {before} before the reload");
        let began = Instant::now();
        kill_process(self.told, Signal::HUP)?;
        loop {
            match line.ask(&request).await?.status {
                404 if began.elapsed() < COME_TRUE => tokio::time::sleep(LOOK_EVERY).await,
                404 => bail!("not routed {} s after the reload", COME_TRUE.as_secs()),
                _ => return Ok(began.elapsed()),
            }
        }
    }
}
