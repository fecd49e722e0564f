//! What an edge has learnt, on its way to its successor.
//!
//! Breakers that opened by themselves, instances found bad, latencies and the callers' rate limits are
//! worth more than a clean start: without them each upgrade lets a client pass its limit anew and sends full
//! load to an upstream that is known to be down. The edge that yields writes them into a file of its private
//! folder and names it by a chance word in its answer; the successor that is told this word reads them before
//! it serves, and removes the file. What cannot be read, or is of another version, counts for nothing: the
//! successor starts as any other process does.
//!
//! The file: a line of JSON ([`Head`]), then the callers, 32 bytes each. Times are lengths, as clocks differ.
//! LIMIT: [`FILE_BYTES`]; services and callers are bounded by the configuration and the limiter's table.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_policy::breaker::Opened;
use sluice_policy::limit::Keyer;
use sluice_policy::limit::table::Debt;

use crate::generation::ServiceRoute;
use crate::state::Shared;
use crate::upstream::Upstream;
use crate::{clock, ids};

/// Of the file; another one is not read.
const VERSION: u32 = 1;
/// LIMIT: the file.
const FILE_BYTES: u64 = 16 << 20;
/// Bytes of one caller.
const DEBT_BYTES: usize = 32;

/// The readable part.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    word: String,
    seed: [u64; 2],
    services: Vec<Learnt>,
}

/// What is known of one service.
#[derive(Debug, Serialize, Deserialize)]
struct Learnt {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opened: Option<OpenedMs>,
    /// Requests that its instances get at once, as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    instances: Vec<Known>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpenedMs {
    ago: u64,
    retry_in: u64,
    reopened: u32,
}

/// What is known of one instance.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) url: String,
    pub(crate) healthy: bool,
    /// Left alone for so long, milliseconds; and the ejections that still count.
    pub(crate) ejected_ms: u64,
    pub(crate) ejections: u32,
    pub(crate) ewma_us: u64,
}

/// Why nothing came over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// Its head is no such text.
    #[error("its head cannot be read")]
    Head(#[from] serde_json::Error),
    /// It is of another version or handover, or not whole.
    #[error("it is not of this handover")]
    Other,
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("edge").join("handover.state")
}

/// Writes what this edge has learnt; the word that the successor needs. `None` where that failed: a handover
/// does not wait for it.
pub(crate) fn pack(shared: &Shared, data_dir: &Path) -> Option<String> {
    let word = format!("{:016x}{:016x}", ids::random(), ids::random());
    let generation = shared.generation();
    let services = generation.services.iter().map(|route| learnt(route)).collect();
    let head = Head { version: VERSION, word: word.clone(), seed: shared.keyer().seed(), services };
    let written = encode(&head, &shared.limiter.debts(clock::now()))
        .map_err(io::Error::from)
        .and_then(|bytes| write(&path(data_dir), &bytes));
    match written {
        Ok(()) => Some(word),
        Err(error) => {
            tracing::warn!(component = "drain", %error, "the successor starts without what was learnt");
            None
        }
    }
}

fn encode(head: &Head, debts: &[Debt]) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(head)?;
    bytes.push(b'\n');
    for Debt { key, soft, hard } in debts {
        bytes.extend_from_slice(&key.to_be_bytes());
        bytes.extend_from_slice(&soft.to_be_bytes());
        bytes.extend_from_slice(&hard.to_be_bytes());
    }
    Ok(bytes)
}

/// A new private file in place of an older one; it need not survive the machine.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() as u64 > FILE_BYTES {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    drop(fs::remove_file(path));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

/// Takes what the predecessor wrote under this word, before anything is served.
pub(crate) fn unpack(shared: &Shared, data_dir: &Path, word: &str) {
    let path = path(data_dir);
    let read = read(&path, word);
    drop(fs::remove_file(&path));
    match read {
        Ok((head, debts)) => {
            if shared.adopt_keyer(Keyer::new(head.seed)) {
                shared.limiter.take(&debts, clock::now());
            }
            let generation = shared.generation();
            for learnt in &head.services {
                if let Some(route) = generation.service(&learnt.name) {
                    apply(learnt, &route.upstream);
                    learnt.limit.into_iter().for_each(|limit| route.approach.crossing.resume(limit));
                }
            }
            let (services, callers) = (head.services.len() as u64, debts.len() as u64);
            tracing::info!(
                component = "start",
                services,
                callers,
                "goes on with what the predecessor learnt"
            );
        }
        Err(error) => tracing::warn!(
            component = "start",
            error = &error as &dyn std::error::Error,
            "starts without what the predecessor learnt"
        ),
    }
}

fn read(path: &Path, word: &str) -> Result<(Head, Vec<Debt>), CarryError> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    decode(&bytes, word)
}

fn decode(bytes: &[u8], word: &str) -> Result<(Head, Vec<Debt>), CarryError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(CarryError::Other)?;
    let head: Head = serde_json::from_slice(&bytes[..end])?;
    let (debts, rest) = bytes[end + 1..].as_chunks::<DEBT_BYTES>();
    let whole = bytes.len() as u64 <= FILE_BYTES && rest.is_empty();
    if head.version != VERSION || head.word != word || !whole {
        return Err(CarryError::Other);
    }
    let debt = |bytes: &[u8; DEBT_BYTES]| {
        let (key, times) = bytes.split_first_chunk::<16>()?;
        let (soft, hard) = times.split_first_chunk::<8>()?;
        let hard = u64::from_be_bytes(hard.try_into().ok()?);
        Some(Debt { key: u128::from_be_bytes(*key), soft: u64::from_be_bytes(*soft), hard })
    };
    Ok((head, debts.iter().filter_map(debt).collect()))
}

fn learnt(route: &ServiceRoute) -> Learnt {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let opened = route.upstream.breaker().opened(clock::now());
    Learnt {
        name: route.service.name.clone(),
        opened: opened.map(|opened| OpenedMs {
            ago: ms(opened.ago),
            retry_in: ms(opened.retry_in),
            reopened: opened.reopened,
        }),
        limit: route.approach.crossing.found(),
        instances: route.upstream.known(),
    }
}

fn apply(learnt: &Learnt, upstream: &Upstream) {
    if let Some(OpenedMs { ago, retry_in, reopened }) = learnt.opened {
        upstream.reopen(&Opened {
            ago: Duration::from_millis(ago),
            retry_in: Duration::from_millis(retry_in),
            reopened,
        });
    }
    upstream.recall(&learnt.instances);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u32) -> Head {
        let known = Known {
            url: "http://127.0.0.1:1".into(),
            healthy: false,
            ejected_ms: 5,
            ejections: 2,
            ewma_us: 7,
        };
        let opened = Some(OpenedMs { ago: 1, retry_in: 2, reopened: 3 });
        let services = vec![Learnt { name: "a".into(), opened, limit: Some(40), instances: vec![known] }];
        Head { version, word: "w".into(), seed: [1, u64::MAX], services }
    }

    #[test]
    fn what_is_packed_is_unpacked_and_everything_else_refused() {
        let debts =
            [Debt { key: u128::MAX - 10, soft: 9, hard: 0 }, Debt { key: 10, soft: 0, hard: u64::MAX }];
        let bytes = encode(&head(VERSION), &debts).unwrap();
        let (read, found) = decode(&bytes, "w").unwrap();
        assert_eq!(found, debts);
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(head(VERSION)).unwrap());
        assert!(matches!(decode(&bytes, "other"), Err(CarryError::Other)));
        assert!(matches!(decode(&bytes[..bytes.len() - 1], "w"), Err(CarryError::Other)));
        assert!(matches!(decode(&encode(&head(2), &debts).unwrap(), "w"), Err(CarryError::Other)));
        assert!(matches!(decode(b"", "w"), Err(CarryError::Other)));
        assert!(matches!(decode(b"nonsense\n", "w"), Err(CarryError::Head(_))));
        assert!(matches!(decode(b"{\"version\":1}\n", "w"), Err(CarryError::Head(_))));
    }

    #[test]
    fn the_file_is_private_and_bounded() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "older").unwrap();
        write(&path, &encode(&head(VERSION), &[]).unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(read(&path, "w").unwrap().1.is_empty());
        assert!(write(&path, &vec![0; FILE_BYTES as usize + 1]).is_err());
    }
}
