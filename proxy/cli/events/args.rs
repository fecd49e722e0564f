//! What `sluice events` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::args::{Common, Format};

/// LIMIT: events of one call.
pub(super) const BATCH_MAX: u16 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(subcommand)]
    pub(super) command: EventsCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// Publish events from a file or from standard input
    #[command(after_help = "Example:\n  sluice events publish signals.ndjson --key signals-2026-11-21")]
    Publish(Publish),
    /// Follow the stream as events are stored
    #[command(
        after_help = "Example:\n  sluice events tail --type trading_signal --symbol BTC/USDT --from earliest"
    )]
    Tail(Tail),
    /// Hand out stored events again: at once, at the market's speed, or into another stream
    #[command(after_help = "Example:\n  sluice events replay --start 2026-11-21T10:00:00Z --speed 10")]
    Replay(Replay),
}

/// Which event worker is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Address of the event worker or of an edge; better in EVENT_SERVICE_URL, else the one that the worker of the
    /// data directory has noted, else the configuration's
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Token; better in SLUICE_TOKEN, else it is DIR/token of the data directory
    #[arg(long, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Added to every port when the worker was started
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) port_offset: u16,
    #[command(flatten)]
    pub(super) common: Common,
    /// How to print it: JSON is an object a line
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Events as JSON: one, a list, or one a line (NDJSON) of any number; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(super) file: PathBuf,
    /// Gives events without an event_id one made of this text and their place in the input, so that the same
    /// command may be repeated; without it their ids are new each time
    #[arg(long, value_name = "TEXT")]
    pub(super) key: Option<String>,
    /// Events at the beginning of the input that are passed over: where a former run broke off
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) skip: u64,
    /// Events of one call at most
    #[arg(long, value_name = "N", default_value_t = BATCH_MAX, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(super) batch: u16,
    /// All of them or none; they must fit into one call
    #[arg(long, conflicts_with = "skip")]
    pub(super) atomic: bool,
    /// How long a call that was not answered, or put off, is repeated
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(super) retry_for: Duration,
    #[command(flatten)]
    pub(super) asked: Asked,
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// Events of this type; several by repeating it
    #[arg(long = "type", value_name = "NAME")]
    pub(super) kinds: Vec<String>,
    /// Events of this symbol; several by repeating it
    #[arg(long = "symbol", value_name = "SYMBOL")]
    pub(super) symbols: Vec<String>,
    /// Events of this source; several by repeating it
    #[arg(long = "source", value_name = "NAME")]
    pub(super) sources: Vec<String>,
    /// Where to begin: now, earliest, behind a message id, or a time
    #[arg(long, value_name = "PLACE", default_value = "now")]
    pub(super) from: String,
    /// The newest of each type and symbol where there are more than can be taken
    #[arg(long)]
    pub(super) conflate: bool,
    /// Events a second at most; with --conflate of each type and symbol
    #[arg(long, value_name = "N")]
    pub(super) max_rate: Option<f64>,
    /// Begin with the newest market data of each symbol
    #[arg(long)]
    pub(super) snapshot: bool,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    pub(super) asked: Asked,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Events of this type; several by repeating it
    #[arg(long = "type", value_name = "NAME")]
    pub(super) kinds: Vec<String>,
    /// Events of this symbol
    #[arg(long, value_name = "SYMBOL")]
    pub(super) symbol: Option<String>,
    /// Events of this source
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// Events that happened then or later: ISO 8601, or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(super) start: Option<String>,
    /// Events that happened then or before
    #[arg(long, value_name = "TIME")]
    pub(super) end: Option<String>,
    /// Market time divided by this, 0.1 to 1000, or `max`: as fast as they are read
    #[arg(long, value_name = "N", default_value = "max")]
    pub(super) speed: String,
    /// Store them in `stream:NAME` under the ids they have, or hand them out to `group:NAME` again, in place of
    /// printing them
    #[arg(long, value_name = "WHERE", conflicts_with = "speed")]
    pub(super) into: Option<String>,
    /// Count them, in place of printing them
    #[arg(long, conflicts_with_all = ["speed", "into"])]
    pub(super) count: bool,
    #[command(flatten)]
    pub(super) asked: Asked,
}

fn time(text: &str) -> Result<Duration, String> {
    sluice_schema::form::duration(text).map_err(|error| error.to_string())
}
