//! The machine a run happened on, and how much of it others used meanwhile.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use crate::account::{family_ticks, machine_busy_ticks, ticks_per_s};

/// What a reader must know to judge the figures.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub hypervisor: bool,
    pub memory_mib: u64,
    pub kernel: String,
    /// One-minute load average when the run began.
    pub load_at_start: f64,
    /// `release` or `debug`: how the generator was built.
    pub bench_build: &'static str,
}

impl Machine {
    /// Reads /proc; what it does not say is `unknown` or zero.
    pub(crate) fn describe(cores: usize) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let memory_kib = field(&meminfo, "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").into(),
            cores,
            hypervisor: field(&cpuinfo, "flags").is_some_and(|flags| flags.contains(" hypervisor")),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            load_at_start: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|v| v.parse().ok())
                .unwrap_or(0.0),
            bench_build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

/// Watches how much CPU time went to processes that are not ours.
#[derive(Debug)]
pub(crate) struct Neighbours {
    began: Instant,
    busy: u64,
    own: u64,
}

impl Neighbours {
    /// Starts watching; `None` when the kernel does not say.
    pub(crate) fn watch() -> Option<Self> {
        let own = family_ticks(std::process::id());
        Some(Self { began: Instant::now(), busy: machine_busy_ticks().ok()?, own })
    }

    /// CPU time of others since then, as a share of one core.
    pub(crate) fn cores_used(&self) -> Option<f64> {
        let busy = machine_busy_ticks().ok()?.saturating_sub(self.busy);
        let own = family_ticks(std::process::id()).saturating_sub(self.own);
        let span_ticks = self.began.elapsed().as_secs_f64() * ticks_per_s() as f64;
        (span_ticks > 0.0).then(|| busy.saturating_sub(own) as f64 / span_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "MemTotal:       1024 kB\nmodel name\t: A: B\n";
        assert_eq!(field(text, "model name"), Some("A: B"));
        assert_eq!(field(text, "MemTotal"), Some("1024 kB"));
        assert_eq!(field(text, "flags"), None);
    }

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::describe(2);
        assert!(machine.memory_mib > 0 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(Neighbours::watch().unwrap().cores_used().is_some_and(|used| used >= 0.0));
    }
}
