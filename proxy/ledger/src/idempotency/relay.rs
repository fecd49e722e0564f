//! Claims and results of a process that has handed over, on their way to its successor.
//!
//! The successor listens on a socket in the ledger's folder, mode 0600 in a folder of mode 0700; the predecessor
//! connects when it is told to retire. It says which processes it speaks for, then sends what it would have written,
//! in groups; for each claim of a group comes a verdict, in order. While the connection stands those processes'
//! requests count as under way; when it ends, what they have not finished is unknown.
//!
//! LIMIT: [`FRAME_BYTES`] a message, [`BATCH_MAX`] a group, [`COMES_WITHIN`] until the predecessor is there,
//! [`ANSWERS_WITHIN`] for a group.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use sluice_policy::idempotency::{End, Owner, Verdict};
use tokio::sync::oneshot;

use super::record::{Reader, Writer};
use super::writer::{Alive, BATCH_MAX, Op, Told};
use super::{KeysError, Wanted};

/// LIMIT: bytes of one message: an answer that is kept, with its head.
const FRAME_BYTES: usize = 1 << 20;
/// Until the predecessor has connected; it does so when it is told that its successor serves.
const COMES_WITHIN: Duration = Duration::from_secs(15);
/// For one group.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks for the predecessor, and for the successor.
const LOOK: Duration = Duration::from_millis(5);
/// LIMIT: processes that one connection speaks for.
const RUNS_MAX: usize = 64;

/// Connects to the successor and says for whom; the socket is there before this process is told to retire. `None`
/// where nobody listens.
pub(super) fn connect(socket: &Path) -> Option<UnixStream> {
    let connected = UnixStream::connect(socket).and_then(|stream| {
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
        Ok(stream)
    });
    connected.ok()
}

/// Sends a group and tells the claims in it what became of them. `Err` holds what nobody heard.
pub(super) fn pass(place: &mut Option<UnixStream>, batch: Vec<Op>) -> Result<(), Vec<Op>> {
    let Some(stream) = place else { return Err(batch) };
    let mut group = Writer::default();
    group.raw(&(batch.len() as u32).to_be_bytes());
    for op in &batch {
        frame(&mut group, &message(op));
    }
    if batch.is_empty() {
        return Ok(());
    }
    if stream.write_all(&group.0).is_err() {
        *place = None;
        return Err(batch);
    }
    let mut unwanted = Vec::new();
    let mut waiting = batch.into_iter().filter(|op| matches!(op, Op::Claim(..)));
    while let Some(Op::Claim(wanted, owner, told)) = waiting.next() {
        let Some(verdict) = read_frame(stream).ok().flatten().and_then(|bytes| read_verdict(&bytes)) else {
            *place = None;
            return Err(std::iter::once(Op::Claim(wanted, owner, told)).chain(waiting).collect());
        };
        if let Err(Ok(Verdict::Claim)) = told.send(verdict) {
            unwanted.push(Op::Finish(wanted.id, owner, End::NotSent));
        }
    }
    // Nobody waits for these claims any more: they are given back.
    if unwanted.is_empty() { Ok(()) } else { pass(place, unwanted) }
}

/// Listens for the predecessor of these processes' requests, for a bounded time.
pub(super) fn listen(socket: &Path, runs: &[u64], alive: Alive, ops: SyncSender<Box<Op>>) -> io::Result<()> {
    let runs: BTreeSet<u64> = runs.iter().copied().take(RUNS_MAX).collect();
    drop(std::fs::remove_file(socket));
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    alive.lock().unwrap_or_else(PoisonError::into_inner).extend(&runs);
    let (socket, gone) = (socket.to_owned(), alive.clone());
    let hearing = Hearing { socket, runs, alive: gone };
    std::thread::Builder::new()
        .name("sluice-keys-in".to_owned())
        .spawn(move || hearing.run(&listener, &ops))?;
    Ok(())
}

/// The successor's end. Dropped, the predecessor's requests are under way no more.
struct Hearing {
    socket: PathBuf,
    runs: BTreeSet<u64>,
    alive: Alive,
}

impl Hearing {
    fn run(self, listener: &UnixListener, ops: &SyncSender<Box<Op>>) {
        let until = Instant::now() + COMES_WITHIN;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if Instant::now() < until => std::thread::sleep(LOOK),
                Err(_) => return,
            }
        };
        // One predecessor, once; its name is free for the next handover.
        drop(std::fs::remove_file(&self.socket));
        drop(stream.set_nonblocking(false));
        drop(hear(&stream, ops));
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.socket));
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|run| !self.runs.contains(run));
    }
}

/// Takes groups until the predecessor has gone.
fn hear(stream: &UnixStream, ops: &SyncSender<Box<Op>>) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let mut count = [0; 4];
        input.read_exact(&mut count)?;
        if u32::from_be_bytes(count) as usize > BATCH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut verdicts = Vec::new();
        for _ in 0..u32::from_be_bytes(count) {
            let bytes = read_frame(&mut input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (told, verdict) = oneshot::channel();
            let op = read_message(&bytes, Told::new(told)).ok_or(io::ErrorKind::InvalidData)?;
            if matches!(op, Op::Claim(..)) {
                verdicts.push(verdict);
            }
            drop(ops.send(Box::new(op)));
        }
        let mut answers = Writer::default();
        for verdict in verdicts {
            let verdict = verdict.blocking_recv().unwrap_or(Err(KeysError::HandedOver));
            let mut answer = Writer::default();
            match verdict {
                Ok(verdict) => answer.byte(1).verdict(&verdict),
                Err(_) => answer.byte(0),
            };
            frame(&mut answers, &answer.0);
        }
        output.write_all(&answers.0)?;
    }
}

fn message(op: &Op) -> Vec<u8> {
    let mut bytes = Writer::default();
    match op {
        Op::Claim(wanted, owner, _) => {
            let ttl_ms = u64::try_from(wanted.ttl.as_millis()).unwrap_or(u64::MAX);
            bytes.byte(0).raw(&wanted.id).owner(*owner);
            bytes.raw(&wanted.fingerprint).number(wanted.until_ms).number(ttl_ms);
        }
        Op::Finish(id, owner, end) => {
            bytes.byte(1).raw(id).owner(*owner).end(end);
        }
        Op::Yield(_) | Op::Resume | Op::Relay => {}
    }
    bytes.0
}

fn read_message(bytes: &[u8], told: Told) -> Option<Op> {
    let mut reader = Reader(bytes);
    let kind = reader.byte()?;
    let (id, owner): (_, Owner) = (reader.hash()?, reader.owner()?);
    let op = match kind {
        0 => {
            let (fingerprint, until_ms) = (reader.hash()?, reader.number()?);
            let ttl = Duration::from_millis(reader.number()?);
            Op::Claim(Wanted { id, fingerprint, until_ms, ttl }, owner, told)
        }
        1 => Op::Finish(id, owner, reader.end()?),
        _ => return None,
    };
    reader.is_done().then_some(op)
}

fn read_verdict(bytes: &[u8]) -> Option<Result<Verdict, KeysError>> {
    let mut reader = Reader(bytes);
    Some(match reader.byte()? {
        1 => Ok(reader.verdict()?),
        _ => Err(KeysError::HandedOver),
    })
}

fn frame(into: &mut Writer, bytes: &[u8]) {
    into.raw(&(bytes.len() as u32).to_be_bytes()).raw(bytes);
}

fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}
