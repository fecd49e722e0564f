//! `sluice upgrade`: asks the supervisor of a data directory for the binary that now lies at its path.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::json;

use crate::args::{Format, Upgrade};
use crate::exit::{self, Code, Failure};
use crate::say;
use crate::up::{Ask, Line, door};

/// Longest silence of the supervisor: a role that hangs is given up earlier.
const SILENCE: Duration = Duration::from_secs(60);

/// Runs it: 0 when done, 1 when what ran before runs on, 4 when no supervisor is there.
pub(crate) fn run(args: &Upgrade) -> Result<Code, Failure> {
    let stream = connect(args).map_err(|error| Failure { code: exit::UNREACHABLE, error })?;
    let question = serde_json::to_string(&Ask::Upgrade { role: args.role }).map_err(anyhow::Error::from)?;
    writeln!(&stream, "{question}").context("the supervisor does not listen")?;
    for line in BufReader::new(stream).lines() {
        let line = line.context("the supervisor went silent; its log says more")?;
        let answer = serde_json::from_str(&line).context("the supervisor speaks another version")?;
        let (text, done) = match answer {
            Line::Say(text) => (text, false),
            Line::Done(text) => (text, true),
            Line::Failed(why) => return Err(anyhow!("{why}; what ran before runs on").into()),
        };
        say::result(&match args.format {
            Format::Text => format!("{text}\n"),
            Format::Json => format!("{}\n", json!({if done { "done" } else { "said" }: text})),
        })?;
        if done {
            return Ok(exit::OK);
        }
    }
    Err(anyhow!("the supervisor went away before it was done; its log says more").into())
}

fn connect(args: &Upgrade) -> anyhow::Result<UnixStream> {
    let none = || format!("no `sluice up` runs on the data directory {}", args.data_dir.display());
    let data_dir = args.data_dir.canonicalize().with_context(none)?;
    let stream = UnixStream::connect(door(&data_dir)?).with_context(none)?;
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(stream)
}
