//! What `sluice series` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sluice_wire::symbol::{Symbol, Timeframe};

use crate::args::{Common, Format};

#[derive(Debug, Args)]
pub(crate) struct Series {
    #[command(subcommand)]
    pub(super) command: SeriesCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SeriesCommand {
    /// Put the candles of a file into a stored series; what is there already may come again
    #[command(after_help = "Example:\n  sluice series import btc.csv --symbol BTC/USDT --timeframe 1m")]
    Import(Import),
    /// List the stored series
    #[command(after_help = "Example:\n  sluice series list --format json")]
    List(List),
}

/// Which calculation worker is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Address of the calculation worker or of an edge; better in CALC_SERVICE_URL, else the one that the worker of
    /// the data directory has noted, else the configuration's
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
pub(super) struct Import {
    /// Candles that ascend: `.csv` with a row of names, `.arrow` (a file or a stream of Arrow's IPC, not compressed),
    /// `.parquet` (plain, Snappy or Zstandard); `-` is CSV on standard input
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The symbol, such as BTC/USDT
    #[arg(long, value_name = "SYMBOL", value_parser = symbol)]
    pub(super) symbol: Symbol,
    /// The length of a candle: 1m, 4h, 1d
    #[arg(long, value_name = "TIME", value_parser = timeframe)]
    pub(super) timeframe: Timeframe,
    /// In the place of what is stored: the first piece of the file replaces it, the others follow
    #[arg(long)]
    pub(super) replace: bool,
    /// How long a call that was not answered, or put off, is repeated
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(super) retry_for: Duration,
    #[command(flatten)]
    pub(super) asked: Asked,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) asked: Asked,
}

fn symbol(text: &str) -> Result<Symbol, String> {
    Symbol::parse(text).map_err(|error| error.to_string())
}

fn timeframe(text: &str) -> Result<Timeframe, String> {
    Timeframe::parse(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Duration, String> {
    sluice_schema::form::duration(text).map_err(|error| error.to_string())
}
