//! What a role gets when it starts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use prometheus::Registry;
use sluice_schema::Config;
use sluice_telemetry::log::LogLevel;
use sluice_wire::role::Role;
use sluice_wire::start::{Carried, Ready, Said};

use crate::doors::Doors;
use crate::handover::Handover;
use crate::keys::InternalKeys;
use crate::stop::Stop;
use crate::trust::TrustCell;

/// Everything a role needs from its surroundings. Made by the binary, or by a test.
pub struct Start {
    /// The role to play.
    pub role: Role,
    /// The checked configuration, port offset applied.
    pub config: Arc<Config>,
    /// The configuration file, for roles that reload.
    pub config_path: PathBuf,
    /// State of all roles; this role's own lies in a folder of its name.
    pub data_dir: PathBuf,
    /// Relaxed start-up rules.
    pub dev: bool,
    /// Port offset in force, so that a reload applies it again.
    pub port_offset: u16,
    /// Environment overlay in force, so that a reload applies it again.
    pub environment: BTreeMap<String, String>,
    /// This role's internal key and what it needs to check others.
    pub keys: Arc<InternalKeys>,
    /// Internal doors of the other roles.
    pub sockets: BTreeMap<Role, PathBuf>,
    /// Listening sockets; taken once.
    pub doors: Mutex<Doors>,
    /// Ends the process.
    pub stop: Stop,
    /// Verification state.
    pub trust: TrustCell,
    /// Metrics of this process.
    pub registry: Registry,
    /// Log level of this process.
    pub log: LogLevel,
    /// Whether to print the ready line on standard output; tests in one process do not.
    pub announce: bool,
    /// How this process takes over and hands over.
    pub handover: Handover,
}

impl Start {
    /// This role's own folder under the data directory.
    pub fn role_dir(&self) -> PathBuf {
        self.data_dir.join(self.role.as_str())
    }

    /// The doors, locked.
    pub fn doors(&self) -> std::sync::MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Says that this role answers on every door.
    pub fn ready(&self, listeners: BTreeMap<String, String>) {
        self.say(&Said::Ready(Ready { role: self.role, pid: std::process::id(), listeners }), "ready");
    }

    /// Says that this successor waits for the order to go.
    pub fn prepared(&self) {
        self.say(&Said::Prepared { role: self.role }, "prepared");
    }

    /// Says that this role accepts no more and holds nothing that its successor needs.
    pub fn yielded(&self, carried: Carried) {
        self.say(&Said::Yielded { role: self.role, carried }, "yielded");
    }

    fn say(&self, said: &Said, word: &'static str) {
        tracing::info!(component = "start", role = self.role.as_str(), "{word}");
        self.handover.tell(said);
        if !self.announce {
            return;
        }
        let line = serde_json::to_string(said).expect("strings and numbers always serialize");
        let mut out = std::io::stdout().lock();
        // A closed standard output means nobody waits for the line.
        let _nobody_waits = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}
