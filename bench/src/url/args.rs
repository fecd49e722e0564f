//! Arguments of `load`, and the scenario that they make.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;

use super::Trust;
use crate::question::Question;
use crate::scenario::{Placing, RATE_PER_S_MAX, Scenario};
use crate::sweep::Sweep;
use crate::transport::Transport;
use crate::work::Work;

/// LIMIT: URLs of one run.
const URLS_MAX: usize = 16;

/// Arguments of `load`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// What to ask, as `URL` or `NAME=URL`; several are measured in interleaved rounds
    #[arg(required = true, num_args = 1..)]
    pub urls: Vec<String>,
    /// Open loop: requests a second, one pass for each
    #[arg(long, value_delimiter = ',')]
    pub rate: Vec<u32>,
    /// Closed loop: as fast as answers come; the default without --rate and --sweep
    #[arg(long)]
    pub closed: bool,
    /// Open loop, faster and faster until it does not keep up: `FROM..TO` a second, e.g. `1000..50000`
    #[arg(long, value_name = "FROM..TO")]
    pub sweep: Option<String>,
    /// Rates on the way up
    #[arg(long, default_value_t = 10)]
    pub sweep_steps: u32,
    /// A rate with a 99th percentile above so many milliseconds is not held
    #[arg(long, default_value_t = 50.0, value_name = "MS")]
    pub sweep_p99_max: f64,
    /// Connections, kept open
    #[arg(short, long, default_value_t = 32)]
    pub connections: u32,
    /// HTTP/2: negotiated under https, assumed under http
    #[arg(long)]
    pub http2: bool,
    /// Requests in flight on each connection of HTTP/2
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub streams: u32,
    /// Seconds measured in each round
    #[arg(short, long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 1.0)]
    pub warmup_seconds: f64,
    /// Rounds (1 to 50); tables show the median
    #[arg(long, default_value_t = 1)]
    pub repeats: u32,
    /// Method; POST when there is a body, else GET
    #[arg(short = 'X', long)]
    pub method: Option<String>,
    /// A header as `Name: value`; may be given again
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// Body, or `@FILE`; `{{at}}` in it becomes the intended time of the send
    #[arg(short = 'd', long = "body", value_name = "TEXT|@FILE")]
    pub body: Option<String>,
    /// Tokens sent in turn as `Authorization: Bearer`, one a line; a status behind one is its right answer
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// The right status; every 2xx without it
    #[arg(long)]
    pub status: Option<u16>,
    /// Bytes of the right answer's body; any without it
    #[arg(long)]
    pub expect_bytes: Option<usize>,
    /// Authorities to trust, PEM; the system's without it
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// The client's own certificate chain, PEM
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Process whose CPU time and memory count, with all below it; one for each URL
    #[arg(long = "pid", value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// In each round: so many seconds after its beginning, run a command, e.g. `--at '2 kill -9 4711'`
    #[arg(long = "at", value_name = "SECONDS COMMAND")]
    pub at: Vec<String>,
    /// Where subscribers listen: https for Server-Sent Events, wss for a WebSocket; latency is that of deliveries
    #[arg(long, value_name = "URL")]
    pub listen: Option<String>,
    /// Text sent to a WebSocket of --listen; its first answer is awaited
    #[arg(long, value_name = "TEXT", requires = "listen")]
    pub subscribe: Option<String>,
    /// How many of them
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pub subscribers: u32,
    /// Milliseconds that the generator may be late by, 99th percentile; above it the run fails
    #[arg(long, default_value_t = 1.0, value_name = "MS")]
    pub send_lag_max: f64,
    /// Directory for NAME.json, NAME.md and NAME.html
    #[arg(long, default_value = "bench/out")]
    pub out: PathBuf,
    /// Name of the report
    #[arg(long, default_value = "load")]
    pub name: String,
    /// An older NAME.json: exit 3 when a subject named `sluice…` got worse by more than the noise
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
}

impl LoadArgs {
    /// The scenario that they describe.
    pub(super) fn scenario(&self) -> anyhow::Result<Scenario> {
        ensure!(self.urls.len() <= URLS_MAX, "more than {URLS_MAX} URLs");
        let ms = |what: &str, seconds: f64| {
            let sane = (0.0..=86_400.0).contains(&seconds);
            ensure!(sane, "--{what} {seconds} is no time");
            Ok((seconds * 1000.0) as u64)
        };
        let scenario = Scenario {
            name: self.name.clone(),
            quick: false,
            repeats: self.repeats,
            connections: self.connections,
            body_bytes: 0,
            request: Question::default(),
            work: Work::Forward,
            cores: Placing::Shared,
            transport: Transport::Plain,
            origins: 1,
            tokens: 1,
            faults: Vec::new(),
            subjects: self.urls.clone(),
            warmup_ms: ms("warmup-seconds", self.warmup_seconds)?,
            window_ms: ms("seconds", self.seconds)?,
            rates_per_s: self.rate.clone(),
            closed: self.closed || (self.rate.is_empty() && self.sweep.is_none()),
            sweep: self.sweep.as_deref().map(|range| self.read_sweep(range)).transpose()?,
            growth: None,
            words: Some(self.words()),
            send_lag_p99_ms_max: self.send_lag_max,
            may_saturate: Vec::new(),
            may_fail: if self.at.is_empty() {
                Vec::new()
            } else {
                self.urls.iter().map(|url| super::named(url).0).collect()
            },
            thresholds: Vec::new(),
        };
        scenario.check_timing(1).map_err(anyhow::Error::msg)?;
        Ok(scenario)
    }

    fn read_sweep(&self, range: &str) -> anyhow::Result<Sweep> {
        let wrong = || format!("--sweep `{range}` is not FROM..TO, each at most {RATE_PER_S_MAX}");
        let (from, to) = range.split_once("..").with_context(wrong)?;
        let rate = |word: &str| word.trim().parse::<u32>().with_context(wrong);
        let (from_per_s, to_per_s) = (rate(from)?, rate(to)?);
        Ok(Sweep { from_per_s, to_per_s, steps: self.sweep_steps, p99_ms_max: self.sweep_p99_max })
    }

    /// What is asked, in words.
    fn words(&self) -> String {
        let protocol =
            if self.http2 { format!("HTTP/2 with {} streams each", self.streams) } else { "HTTP/1.1".into() };
        let listening = match &self.listen {
            Some(url) => format!("; what counts are deliveries to {} subscribers at {url}", self.subscribers),
            None => String::new(),
        };
        let meanwhile =
            if self.at.is_empty() { String::new() } else { format!("; meanwhile: {}", self.at.join(", ")) };
        format!("{protocol}, {} as given{listening}{meanwhile}", self.method())
    }

    pub(super) fn method(&self) -> &str {
        match (&self.method, &self.body) {
            (Some(method), _) => method,
            (None, Some(_)) => "POST",
            (None, None) => "GET",
        }
    }

    pub(super) fn body(&self) -> anyhow::Result<String> {
        match self.body.as_deref().map(|body| (body, body.strip_prefix('@'))) {
            None => Ok(String::new()),
            Some((_, Some(path))) => std::fs::read_to_string(path).with_context(|| format!("read {path}")),
            Some((text, None)) => Ok(text.to_owned()),
        }
    }

    /// Times after the window's beginning, and commands.
    pub(super) fn acts(&self) -> anyhow::Result<Vec<(Duration, String)>> {
        let read = |text: &String| {
            let wrong = || format!("--at `{text}` is not `SECONDS COMMAND` within the {} s", self.seconds);
            let (seconds, command) = text.trim().split_once(' ').with_context(wrong)?;
            let seconds: f64 = seconds.parse().with_context(wrong)?;
            ensure!((0.0..self.seconds).contains(&seconds), wrong());
            Ok((Duration::from_secs_f64(seconds), command.trim().to_owned()))
        };
        self.at.iter().map(read).collect()
    }

    pub(super) fn trust(&self) -> Trust {
        let own = self.cert.clone().zip(self.key.clone());
        Trust { ca: self.ca.clone(), insecure: self.insecure, own }
    }
}
