//! Opening a directory: lock, check, repair what a crash left, start the threads.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;

use super::archive::Archive;
use super::dedup::{Dedup, IDS_MAX};
use super::filter::Filter;
use super::form::{FORMAT_VERSION, Form, HeaderFault, Style};
use super::frame::Sealer;
use super::housekeeping::{Housekeeper, JOBS_MAX};
use super::id::MessageId;
use super::pack::Packing;
use super::pages::IndexFile;
use super::partition::{self, Heads, Partitions};
use super::plan::Scratch;
use super::reader::{ReadError, Reader};
use super::recovery::{self, ScanError};
use super::segment::{self, Segment};
use super::sidecar;
use super::spares::Spares;
use super::store::Store;
use super::writer::{Bounds, Writer};
use super::{Ground, Inner, Log, Options, QUEUE_SUBMISSIONS_MAX};

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused.
    #[error("cannot open {}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the event log in {} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// Damage that no crash leaves.
    #[error(
        "{} is damaged: {why}. Nothing was changed; restore the file from a copy, or move it and all later \
         segments away to go on without their events",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
    /// Written by a newer version.
    #[error("{} has format version {found}; this version reads up to {FORMAT_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// Encrypted with a key that is not there, or with another key of its number.
    #[error(
        "{} is encrypted with key {id}, {}. Nothing was changed; give the vault that it was written with",
        path.display(),
        if *other { "and the key of that number is another one" } else { "which is not known" }
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// Number of the key.
        id: u32,
        /// There is a key of that number, and it is not the one.
        other: bool,
    },
    /// The archive is the log's own folder: copies there would go with the originals.
    #[error("the archive of the event log in {} must be another folder", .0.display())]
    Archive(PathBuf),
    /// Its events are numbered in other partitions than is asked for.
    #[error(
        "the events in {} are divided into partitions as {found}, and {asked} is configured. A stream keeps its \
         partitions: set events.partitions as it was, or begin another events.stream",
        dir.display()
    )]
    Partitions {
        /// The directory.
        dir: PathBuf,
        /// How they are divided: `symbol:4`, or `none`.
        found: String,
        /// How they are to be.
        asked: String,
    },
    /// The tail could not be read for the dedup window.
    #[error("cannot read the events of the dedup window")]
    Tail(#[source] ReadError),
}

/// What was found when a log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes of an unfinished commit that were cut off.
    pub torn_bytes: u64,
    /// Segments whose index was made again.
    pub reindexed: u64,
    /// Event ids of the dedup window that were read back.
    pub remembered: u64,
}

pub(crate) fn open(dir: &Path, options: &Options, ground: Ground) -> Result<Log, OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
    let lock = lock(dir)?;
    if ground.at_rest.archive.as_deref().is_some_and(|archive| is_same(archive, dir)) {
        return Err(OpenError::Archive(dir.to_owned()));
    }
    let mut recovered = Recovered::default();
    let (mut segments, last_id) = load(dir, &ground, &mut recovered)?;
    let partitions = options.partitions;
    divided_as(dir, &segments, partitions)?;
    let log_id = segments.iter().find_map(|segment| segment.form.log_id());
    let style = Style::new(&ground.at_rest, log_id, partitions);
    let active = active(dir, &ground, &style, &mut segments, last_id)?;
    let next_seq = active.with_summary(|summary| active.base_seq + summary.records);
    let written = active.with_summary(|summary| summary.end);
    let store = Arc::new(Store::new(dir.to_owned(), segments, next_seq - 1));
    let reader = Reader { store: Arc::clone(&store) };
    let mut dedup = Dedup::new(options.dedup_window_ms, IDS_MAX);
    remember_tail(&reader, &mut dedup, last_id, &mut recovered).map_err(OpenError::Tail)?;
    let heads = heads(dir, &reader, partitions, &ground)?;

    let (jobs, job_queue) = sync_channel(JOBS_MAX);
    let (queue, submissions) = sync_channel(QUEUE_SUBMISSIONS_MAX);
    let queued = Arc::new(AtomicUsize::new(0));
    let housekeeper = Arc::new(Housekeeper {
        store: Arc::clone(&store),
        medium: Arc::clone(&ground.medium),
        clock: Arc::clone(&ground.clock),
        observer: Arc::clone(&ground.observer),
        retention: options.retention,
        compress: ground.at_rest.compress,
        archive: ground.at_rest.archive.clone().map(Archive::new),
        turn: Mutex::new(()),
        packing: Mutex::new(Packing::default()),
    });
    let writer = Writer {
        store,
        medium: ground.medium,
        clock: ground.clock,
        observer: ground.observer,
        fsync: options.fsync,
        bounds: Bounds {
            bytes: options.retention.segment_bytes(options.segment_bytes),
            records: options.retention.segment_records(),
            age_ms: options.retention.segment_age_ms(),
        },
        dedup,
        sealer: Sealer::begin(Arc::clone(&active.form)),
        style,
        housekeeper: jobs,
        queued: Arc::clone(&queued),
        active,
        written,
        reserved: written,
        next_seq,
        last_id,
        heads,
        unsynced: None,
        scratch: Scratch::default(),
        spares: Spares::default(),
    };
    let (keeper, packer) = (Arc::clone(&housekeeper), Arc::clone(&housekeeper));
    let (wake, wakes) = sync_channel(1);
    let mut threads = vec![
        spawn("events-log", dir, move || writer.run(&submissions))?,
        spawn("events-keep", dir, move || keeper.run(&job_queue, &wake))?,
    ];
    if packer.compress {
        threads.push(spawn("events-pack", dir, move || packer.run_packer(&wakes))?);
    }
    Ok(Log {
        inner: Arc::new(Inner {
            reader,
            housekeeper,
            queue: Some(queue),
            queued,
            threads,
            recovered,
            _lock: lock,
        }),
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    // A folder that is not there yet is another one.
    fs::canonicalize(one).ok().is_some_and(|one| fs::canonicalize(other).ok() == Some(one))
}

fn spawn(
    name: &str,
    dir: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(at(dir))
}

/// One process a directory: two writers would tear each other's commits.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // By name, not by closing: a child that is just being started may still hold a copy of the descriptor.
        drop(self.0.unlock());
    }
}

fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

/// All segments, checked, the last one cut to its last whole commit; and the newest message id.
fn load(
    dir: &Path,
    ground: &Ground,
    recovered: &mut Recovered,
) -> Result<(Vec<Arc<Segment>>, MessageId), OpenError> {
    let bases = list(dir)?;
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(bases.len() + 1);
    let mut last_id = MessageId::default();
    let mut expected = None;
    for (i, base_seq) in bases.iter().enumerate() {
        let path = dir.join(segment::file_name(*base_seq));
        if expected.is_some_and(|expected| expected != *base_seq) {
            let why = format!("it does not follow the segment before it, which ends at {expected:?}");
            return Err(OpenError::Corrupt { path, why });
        }
        let last = i + 1 == bases.len();
        let (segment, before) = load_segment(path, *base_seq, last, ground, recovered)?;
        let (records, newest) = segment.with_summary(|summary| (summary.records, summary.last));
        last_id = last_id.max(before).max(if records > 0 { newest } else { before });
        expected = Some(base_seq + records);
        segments.push(Arc::new(segment));
    }
    let mut ids = segments.iter().filter_map(|segment| Some((segment, segment.form.log_id()?)));
    if let Some((_, first)) = ids.next()
        && let Some((stranger, _)) = ids.find(|(_, id)| *id != first)
    {
        let why = "it belongs to another log than the segments before it".to_owned();
        return Err(OpenError::Corrupt { path: stranger.path.clone(), why });
    }
    Ok((segments, last_id))
}

/// Refuses a log whose events are divided in another way.
fn divided_as(dir: &Path, segments: &[Arc<Segment>], asked: Option<Partitions>) -> Result<(), OpenError> {
    let is_other = |segment: &&Arc<Segment>| {
        segment.form.partitions() != asked && segment.with_summary(|summary| summary.records > 0)
    };
    match segments.iter().find(is_other) {
        None => Ok(()),
        Some(other) => Err(OpenError::Partitions {
            dir: dir.to_owned(),
            found: partition::word(other.form.partitions()),
            asked: partition::word(asked),
        }),
    }
}

/// The numbers given last in each partition: as written down, and what came behind that.
fn heads(
    dir: &Path,
    reader: &Reader,
    partitions: Option<Partitions>,
    ground: &Ground,
) -> Result<Heads, OpenError> {
    let Some(own) = partitions else { return Ok(Heads::default()) };
    let (first, newest) = (reader.first_seq(), reader.durable_seq());
    let saved = Heads::load(dir, own).map_err(at(dir))?;
    let saved = saved.filter(|(seq, _)| (first.saturating_sub(1)..=newest).contains(seq));
    let is_saved = saved.is_some();
    // No number in a partition is above the seq: behind what retention took, they go on from there.
    let (from, mut heads) = saved.unwrap_or_else(|| (first - 1, Heads::behind(partitions, first - 1)));
    let mut scan = reader.forward(from + 1, Filter::default());
    while let Some(record) = scan.next().map_err(OpenError::Tail)? {
        heads.note(record.lane);
    }
    if !is_saved && let Err(error) = heads.save(&*ground.medium, dir, newest) {
        ground.observer.trouble("the numbers of the partitions could not be written down", &error);
    }
    Ok(heads)
}

/// The segment to write to: the last one where it may go on, else a new one.
fn active(
    dir: &Path,
    ground: &Ground,
    style: &Style,
    segments: &mut Vec<Arc<Segment>>,
    last_id: MessageId,
) -> Result<Arc<Segment>, OpenError> {
    let mut next_seq = 1;
    if let Some(last) = segments.last() {
        if style.continues(&last.form) {
            return Ok(Arc::clone(last));
        }
        let records = last.with_summary(|summary| summary.records);
        next_seq = last.base_seq + records;
        if records == 0 {
            // The new one gets its name.
            segments.pop();
        }
    }
    let form = style.form(next_seq, last_id);
    let first = Segment::create(&*ground.medium, dir, next_seq, form).map_err(at(dir))?;
    segments.push(Arc::new(first));
    Ok(Arc::clone(&segments[segments.len() - 1]))
}

/// Seqs with which the segments begin; what an interrupted step left behind is removed.
fn list(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut bases = Vec::new();
    let mut indexes = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(base) = segment::parse_file_name(name) {
            bases.push(base);
            continue;
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") => fs::remove_file(&path).map_err(at(&path))?,
            Some("idx") => indexes.push(path),
            _ => {}
        }
    }
    for path in indexes.iter().filter(|path| !path.with_extension("seg").exists()) {
        fs::remove_file(path).map_err(at(path))?;
    }
    bases.sort_unstable();
    Ok(bases)
}

/// One segment, and the message id before its first record.
fn load_segment(
    path: PathBuf,
    base_seq: u64,
    last: bool,
    ground: &Ground,
    recovered: &mut Recovered,
) -> Result<(Segment, MessageId), OpenError> {
    let file = segment::open_file(&path, true).map_err(at(&path))?;
    let form = match Form::read(&file, base_seq, ground.at_rest.keys.as_ref()).map_err(at(&path))? {
        Ok(form) => Arc::new(form),
        Err(fault) => return Err(refused(path, fault)),
    };
    let before = form.before();
    if !last && let Some(index) = indexed(&path, &file, &form, base_seq).map_err(at(&path))? {
        return Ok((Segment::sealed(base_seq, path, file, form, index), before));
    }
    let verdict = recovery::scan(&file, &form, base_seq, last).map_err(|error| match error {
        ScanError::Read(source) => OpenError::Io { path: path.clone(), source },
        corrupt @ ScanError::Corrupt { .. } => {
            OpenError::Corrupt { path: path.clone(), why: corrupt.to_string() }
        }
    })?;
    if let Some(torn) = verdict.torn {
        recovered.torn_bytes += torn;
    }
    let end = verdict.index.summary.end;
    let segment = Segment::growing(base_seq, path.clone(), file, form, verdict.index);
    if last {
        // Cut also when nothing was torn: what was reserved must read as zeros, and is reserved again.
        ground.medium.truncate(&segment.file, end).map_err(at(&path))?;
        ground.medium.sync(&segment.file).map_err(at(&path))?;
    } else {
        recovered.reindexed += 1;
        if let Err(error) = segment.seal(&*ground.medium) {
            ground.observer.trouble("the index of a segment could not be written", &error);
        }
    }
    Ok((segment, before))
}

fn refused(path: PathBuf, fault: HeaderFault) -> OpenError {
    match fault {
        HeaderFault::Version(found) => OpenError::Version { path, found },
        HeaderFault::Damaged(why) => OpenError::Corrupt { path, why: why.to_owned() },
        HeaderFault::NoKey(id) => OpenError::Key { path, id, other: false },
        HeaderFault::OtherKey(id) => OpenError::Key { path, id, other: true },
    }
}

/// The index beside a sealed segment, when it is whole and fits.
fn indexed(
    path: &Path,
    file: &File,
    form: &Form,
    base_seq: u64,
) -> io::Result<Option<(sidecar::Head, IndexFile)>> {
    let index = match segment::open_file(&segment::index_path(path), false) {
        Ok(index) => index,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(index) = IndexFile::open(index, form, base_seq)? else { return Ok(None) };
    let Some(head) = sidecar::read_head(&index, base_seq)? else { return Ok(None) };
    Ok((head.summary.records > 0 && file.metadata()?.len() >= head.summary.end).then_some((head, index)))
}

/// Reads the dedup window back. It ends with the last message and not now: a clock that is set back after the
/// start must not find ids forgotten.
fn remember_tail(
    reader: &Reader,
    dedup: &mut Dedup,
    last_id: MessageId,
    recovered: &mut Recovered,
) -> Result<(), ReadError> {
    let newest = reader.durable_seq();
    let begin = MessageId { ms: dedup.begin_ms(last_id.ms), n: 0 };
    let oldest = (newest + 1).saturating_sub(IDS_MAX as u64 / 2);
    let mut scan = reader.forward(reader.seq_at(begin)?.max(oldest), Filter::default());
    while let Some(record) = scan.next()? {
        // Who chose an id is not written down.
        dedup.remember(record.event_id, false, record.stamp.seq, record.stamp.id.ms);
        recovered.remembered += 1;
    }
    Ok(())
}

fn at(path: &Path) -> impl Fn(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}
