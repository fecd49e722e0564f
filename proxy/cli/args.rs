//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use sluice_wire::role::Role;

/// The gate in front of trading services.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print no results; errors are still said, the exit code tells the rest
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start every role under one supervisor
    #[command(after_help = "Example:\n  sluice up --dev --port-offset auto")]
    Up(Up),
    /// Start the edge alone
    #[command(after_help = "Example:\n  sluice proxy --conf conf/sluice.toml --data-dir /var/lib/sluice")]
    Proxy(RoleArgs),
    /// Start one worker alone
    #[command(after_help = "Example:\n  sluice worker events --data-dir /var/lib/sluice")]
    Worker(Worker),
    /// Start the stand-in services and the market tape
    #[command(after_help = "Example:\n  sluice demo --dev")]
    Demo(RoleArgs),
    /// Put the binary that now lies at the supervisor's path in force, without closing a port
    #[command(after_help = "Example:\n  sluice upgrade edge --data-dir .sluice")]
    Upgrade(Upgrade),
    /// Check a configuration and print every error at once
    #[command(after_help = "Example:\n  sluice check --strict conf/sluice.toml")]
    Check(Check),
    /// Lay out configuration files in one style; comments and order stay
    #[command(after_help = "Example:\n  sluice fmt --check conf")]
    Fmt(Fmt),
    /// Show the effective configuration or its JSON Schema
    #[command(after_help = "Example:\n  sluice config show --origin")]
    Config(Config),
    /// Show what differs between two configurations, or between files and the running edge
    #[command(after_help = "Example:\n  sluice diff --running conf/sluice.toml")]
    Diff(Diff),
    /// Tell which route takes a request, what it needs and where it goes
    #[command(after_help = "Example:\n  sluice explain GET /api/data/BTC -H 'Host: trade.example'")]
    Explain(Explain),
    /// Make the running edge read its configuration again
    #[command(after_help = "Example:\n  sluice reload --data-dir /var/lib/sluice")]
    Reload(Reload),
    /// Put an earlier good configuration back, in the files and in the running edge
    #[command(after_help = "Example:\n  sluice rollback --generation 7")]
    Rollback(Rollback),
    /// Follow the requests of the running edge as they end
    #[command(after_help = "Example:\n  sluice tap --route data_service --status 4xx,500-599")]
    Tap(Tap),
    /// Show instances, let one run empty, take it out and back
    #[command(
        after_help = "Example:\n  sluice upstream drain data_service 127.0.0.1:8001 --reason 'a new kernel'"
    )]
    Upstream(Upstream),
    /// Stop trading of everything, a service, an account or a symbol; or let it go on
    #[command(after_help = "Example:\n  sluice kill-switch on --all --reason 'flash crash'")]
    KillSwitch(KillSwitch),
    /// Publish, follow and replay events
    #[command(after_help = "Example:\n  sluice events tail --type trading_signal --format json")]
    Events(crate::events::args::Events),
    /// Put candles of files into the stored series, and list what is stored
    #[command(after_help = "Example:\n  sluice series list")]
    Series(crate::series::args::Series),
    /// Make, open and close the vault, and put new keys in it
    #[command(after_help = "Example:\n  sluice vault status")]
    Vault(crate::vault::args::Vault),
    /// Verify the audit chains of a data directory
    #[command(after_help = "Example:\n  sluice audit verify --data-dir .sluice")]
    Audit(Audit),
    /// Ask a running role whether it is ready (for container health checks)
    #[command(after_help = "Example:\n  sluice health --url http://127.0.0.1:8000/readyz")]
    Health(Health),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Common {
    /// Configuration file; services.d/ is looked for beside it
    #[arg(long, value_name = "FILE", default_value = "conf/sluice.toml")]
    pub(crate) conf: PathBuf,
    /// Where state lives (made with mode 0700)
    #[arg(long, value_name = "DIR", default_value = "./.sluice")]
    pub(crate) data_dir: PathBuf,
    /// Relaxed start-up rules for development
    #[arg(long)]
    pub(crate) dev: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Added to every port; `auto` picks free ones
    #[arg(long, value_name = "N|auto", default_value = "0", value_parser = offset)]
    pub(crate) port_offset: Offset,
    /// Do not start the demo services
    #[arg(long)]
    pub(crate) no_demo: bool,
    /// Print the banner as one JSON line
    #[arg(long)]
    pub(crate) json: bool,
    /// Read the configuration, say which handover this binary speaks, and end
    #[arg(long, hide = true)]
    pub(crate) self_test: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Upgrade {
    /// The role (edge, events, vault, calc, demo); without it the supervisor and every role
    #[arg(value_name = "ROLE")]
    pub(crate) role: Option<Role>,
    /// The data directory of the running `sluice up`
    #[arg(long, value_name = "DIR", default_value = "./.sluice")]
    pub(crate) data_dir: PathBuf,
    /// How to print what happens: JSON is an object a line
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offset {
    Auto,
    By(u16),
}

fn offset(text: &str) -> Result<Offset, String> {
    if text == "auto" {
        return Ok(Offset::Auto);
    }
    text.parse().map(Offset::By).map_err(|_| "a number from 0 to 65535, or `auto`".to_owned())
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RoleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Added to every port
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    /// Started by the supervisor: sockets and keys come from it
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Worker {
    #[command(subcommand)]
    worker: WorkerName,
}

#[derive(Debug, Subcommand)]
enum WorkerName {
    /// Event streams
    #[command(after_help = "Example:\n  sluice worker events --data-dir /var/lib/sluice")]
    Events(RoleArgs),
    /// CA, tokens, secrets, audit
    #[command(after_help = "Example:\n  sluice worker vault --data-dir /var/lib/sluice")]
    Vault(RoleArgs),
    /// Indicators, signals, risk
    #[command(after_help = "Example:\n  sluice worker calc --data-dir /var/lib/sluice")]
    Calc(CalcArgs),
}

#[derive(Debug, ClapArgs)]
struct CalcArgs {
    #[command(flatten)]
    role: RoleArgs,
    /// Say for which processors this binary was made, and end
    #[arg(long, hide = true)]
    kernels: bool,
}

impl Worker {
    pub(crate) const fn role(&self) -> Role {
        match self.worker {
            WorkerName::Events(_) => Role::Events,
            WorkerName::Vault(_) => Role::Vault,
            WorkerName::Calc(_) => Role::Calc,
        }
    }

    pub(crate) const fn args(&self) -> &RoleArgs {
        match &self.worker {
            WorkerName::Events(args) | WorkerName::Vault(args) => args,
            WorkerName::Calc(args) => &args.role,
        }
    }

    /// Asked by its twin what it is.
    pub(crate) const fn says_kernels(&self) -> bool {
        matches!(&self.worker, WorkerName::Calc(args) if args.kernels)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    /// Configuration file
    #[arg(value_name = "PATH", default_value = "conf/sluice.toml")]
    pub(crate) path: PathBuf,
    /// Treat warnings as failures (exit 3)
    #[arg(long)]
    pub(crate) strict: bool,
    /// Relaxed rules for development
    #[arg(long)]
    pub(crate) dev: bool,
    /// How to print what was found
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Fmt {
    /// Files, or folders with sluice.toml and services.d/
    #[arg(value_name = "PATH", default_value = "conf")]
    pub(crate) paths: Vec<PathBuf>,
    /// Change nothing; name what would change (exit 3)
    #[arg(long)]
    pub(crate) check: bool,
    /// How to print what was done
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every effective value
    #[command(after_help = "Example:\n  sluice config show --origin")]
    Show {
        /// Configuration file
        #[arg(long, value_name = "FILE", default_value = "conf/sluice.toml")]
        conf: PathBuf,
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
        /// Relaxed rules for development
        #[arg(long)]
        dev: bool,
        /// How to print them
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Print the JSON Schema of a configuration file
    #[command(after_help = "Example:\n  sluice config schema > sluice.schema.json")]
    Schema,
}

/// How to find the control port of a running edge, and what to show there.
#[derive(Debug, ClapArgs)]
pub(crate) struct Remote {
    /// Control address; without it the one that the edge of the data directory has noted, else the
    /// configuration's
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Token; better in SLUICE_TOKEN, else it is DIR/token of the data directory
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Added to every port when the edge was started
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) port_offset: u16,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Diff {
    /// The old and the new configuration; with --running the files alone
    #[arg(value_name = "PATH", num_args = 0..=2)]
    pub(crate) paths: Vec<PathBuf>,
    /// Compare the files with what the running edge has in force
    #[arg(long)]
    pub(crate) running: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// Method of the request
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,
    /// Its target, as it is sent
    #[arg(value_name = "PATH")]
    pub(crate) target: String,
    /// A header field, `Name: value`; Host is localhost where none is given
    #[arg(short = 'H', value_name = "FIELD")]
    pub(crate) headers: Vec<String>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "conf/sluice.toml")]
    pub(crate) conf: PathBuf,
    /// Relaxed rules for development
    #[arg(long)]
    pub(crate) dev: bool,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// How to print what changed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Rollback {
    /// The generation to go back to; without it the one before
    #[arg(long, value_name = "NUMBER")]
    pub(crate) generation: Option<u64>,
    /// Change nothing; show the generations that are kept, newest first
    #[arg(long, conflicts_with = "generation")]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// How to print what changed
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Tap {
    /// Requests of this route alone
    #[arg(long, value_name = "NAME")]
    pub(crate) route: Option<String>,
    /// Requests answered so: 200, 4xx, 500-599, several by commas
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Requests of this address or network
    #[arg(long, value_name = "CIDR")]
    pub(crate) client: Option<String>,
    /// Requests of this method
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// How to print each request
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Upstream {
    #[command(subcommand)]
    pub(crate) command: UpstreamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UpstreamCommand {
    /// Every instance, its state, and who holds it back
    #[command(after_help = "Example:\n  sluice upstream list")]
    List {
        #[command(flatten)]
        remote: Remote,
        /// How to print them
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// No new callers: what is under way and who is bound by sticky may stay
    #[command(after_help = "Example:\n  sluice upstream drain data_service 127.0.0.1:8001")]
    Drain(UpstreamHold),
    /// Nothing at all, and no probes
    #[command(after_help = "Example:\n  sluice upstream maint data_service 127.0.0.1:8001")]
    Maint(UpstreamHold),
    /// Take it back; it takes up its share over slow_start
    #[command(after_help = "Example:\n  sluice upstream ready data_service 127.0.0.1:8001")]
    Ready(UpstreamHold),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UpstreamHold {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// Address of the instance, as it is listed, or its host and port
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: String,
    /// Why, for the audit log and whoever looks
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// How to print the outcome
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KillSwitch {
    #[command(subcommand)]
    pub(crate) command: KillSwitchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KillSwitchCommand {
    /// Stop it at every edge, at once
    #[command(after_help = "Example:\n  sluice kill-switch on --symbol BTC/USDT --reason 'flash crash'")]
    On {
        #[command(flatten)]
        target: KillTarget,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Stop cancels too
        #[arg(long)]
        close_cancel_lane: bool,
        #[command(flatten)]
        asked: KillAsked,
    },
    /// Let it go on
    #[command(after_help = "Example:\n  sluice kill-switch off --symbol BTC/USDT --reason 'market is back'")]
    Off {
        #[command(flatten)]
        target: KillTarget,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        asked: KillAsked,
    },
    /// Show what is stopped
    #[command(after_help = "Example:\n  sluice kill-switch status --format json")]
    Status {
        #[command(flatten)]
        asked: KillAsked,
    },
}

/// Which edge is asked, and how its answer is shown.
#[derive(Debug, ClapArgs)]
pub(crate) struct KillAsked {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

/// What is stopped: one of them.
#[derive(Debug, Default, ClapArgs)]
#[group(required = true, multiple = false)]
pub(crate) struct KillTarget {
    /// Every service
    #[arg(long)]
    pub(crate) all: bool,
    /// One service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// One account: claim `account` of a token, else its subject
    #[arg(long, value_name = "NAME")]
    pub(crate) account: Option<String>,
    /// One symbol
    #[arg(long, value_name = "SYMBOL")]
    pub(crate) symbol: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check every chain; names the first bad record (exit 3)
    #[command(after_help = "Example:\n  sluice audit verify --data-dir .sluice")]
    Verify {
        /// Where state lives
        #[arg(long, value_name = "DIR", default_value = "./.sluice")]
        data_dir: PathBuf,
        /// The vault's audit key, as `GET /audit/key` gave it: its log must be signed with it
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// How to print what was found
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Health {
    /// What to ask
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000/readyz")]
    pub(crate) url: String,
    /// How to print the answer; as text a good one is silent
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}
