//! What a role keeps of the feed on its disk: the snapshot it was told, and a line for each change since.
//!
//! A change costs its own line, however much is revoked. Once the lines are as long as the snapshot before them, or
//! the file would be longer than it is read, it is written anew: so all that is ever written is a small multiple of
//! what is kept. A line that was torn by a crash ends the file; the vault tells everything again at the next connection.

use sluice_client::feed::{from_file, to_file};
use sluice_wire::feed::{Change, Delta, Message, Snapshot};

/// LIMIT: the kept file, bytes: two million revocations of about 40 bytes fit.
pub(super) const FILE_BYTES: usize = 128 << 20;
/// Bytes of lines that are not worth another snapshot.
const LINES_MIN: usize = 64 << 10;

/// What is kept, and what of it is not on the disk yet.
#[derive(Default)]
pub(super) struct Kept {
    snapshot: Option<Snapshot>,
    /// Changes that wait.
    lines: Vec<u8>,
    /// Whether the file is to be written anew, which has the waiting changes in it.
    anew: bool,
    /// Bytes of the file's snapshot and of its lines.
    base: usize,
    added: usize,
}

/// What is to be done with the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is replaced by this one.
    Anew(Snapshot),
    /// This goes behind what it has.
    Append(Vec<u8>),
}

impl Kept {
    /// Takes a message that trust has taken.
    pub(super) fn take(&mut self, message: &Message) {
        match (message, &mut self.snapshot) {
            (Message::Snapshot(whole), kept) => {
                *kept = Some(whole.clone());
                self.write_anew();
            }
            (Message::Delta(delta), Some(kept)) => {
                bring_up(kept, delta);
                if self.anew {
                    return;
                }
                self.lines.extend(line(delta));
                let lines = self.added + self.lines.len();
                if lines > self.base.max(LINES_MIN) || self.base + lines > FILE_BYTES {
                    self.write_anew();
                }
            }
            _ => {}
        }
    }

    /// What is to be done next; `None`: the disk has everything.
    pub(super) fn step(&mut self) -> Option<Step> {
        if std::mem::take(&mut self.anew) {
            return self.snapshot.clone().map(Step::Anew);
        }
        self.added += self.lines.len();
        (!self.lines.is_empty()).then(|| Step::Append(std::mem::take(&mut self.lines)))
    }

    /// The file was written anew, with so many bytes.
    pub(super) const fn is_anew(&mut self, bytes: usize) {
        self.base = bytes;
        self.added = 0;
    }

    /// What is in the file is not known: the next change writes it anew.
    pub(super) fn write_anew(&mut self) {
        self.anew = true;
        self.lines.clear();
    }
}

/// The text of a file that begins with this snapshot.
pub(super) fn beginning(snapshot: &Snapshot) -> Vec<u8> {
    let mut text = to_file(snapshot);
    text.push(b'\n');
    text
}

/// Reads a file: the snapshot, and the changes behind it up to the first that is torn or not the next; `None` where it
/// does not begin with a snapshot.
pub(super) fn read(text: &[u8]) -> Option<Snapshot> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut snapshot = from_file(lines.next()?)?;
    for line in lines {
        match serde_json::from_slice::<Delta>(line) {
            Ok(delta) if delta.epoch == snapshot.epoch && delta.seq == snapshot.seq + 1 => {
                bring_up(&mut snapshot, &delta);
            }
            _ => break,
        }
    }
    Some(snapshot)
}

fn line(delta: &Delta) -> Vec<u8> {
    let mut line = serde_json::to_vec(delta).expect("strings and numbers always serialize");
    line.push(b'\n');
    line
}

/// Brings a snapshot up to the change after it.
fn bring_up(kept: &mut Snapshot, delta: &Delta) {
    kept.seq = delta.seq;
    match &delta.change {
        Change::Jti { jti } => kept.revoked.jti.push(jti.clone()),
        Change::Sub(revoked) => {
            kept.revoked.sub.retain(|known| known.sub != revoked.sub);
            kept.revoked.sub.push(revoked.clone());
        }
        Change::Serial { serial } => kept.revoked.serial.push(serial.clone()),
        Change::Identity(revoked) => {
            kept.revoked.identity.retain(|known| known.id != revoked.id);
            kept.revoked.identity.push(revoked.clone());
        }
        Change::Keys { jwks } => kept.jwks.clone_from(jwks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_wire::feed::{Revoked, RevokedIdentity, RevokedSubject};

    fn empty(seq: u64) -> Snapshot {
        Snapshot { epoch: "e1".into(), seq, jwks: Vec::new(), revoked: Revoked::default() }
    }

    /// A change of each kind in turn; names come again.
    fn change(seq: u64) -> Message {
        let change = match seq % 4 {
            0 => Change::Jti { jti: format!("0198f000-0000-7000-8000-{seq:012}") },
            1 => Change::Serial { serial: format!("{seq:038x}") },
            2 => Change::Sub(RevokedSubject { sub: format!("s{}", seq % 5), issued_until: seq as i64 }),
            _ => Change::Identity(RevokedIdentity {
                id: format!("spiffe://d/service/{}", seq % 3),
                valid_from: 1,
            }),
        };
        Message::Delta(Delta { epoch: "e1".into(), seq, change })
    }

    /// A file in memory.
    fn perform(kept: &mut Kept, file: &mut Vec<u8>) -> usize {
        let Some(step) = kept.step() else { return 0 };
        match step {
            Step::Anew(snapshot) => {
                *file = beginning(&snapshot);
                kept.is_anew(file.len());
                file.len()
            }
            Step::Append(lines) => {
                file.extend(&lines);
                lines.len()
            }
        }
    }

    #[test]
    fn whatever_was_written_comes_back_and_a_torn_line_ends_it() {
        let (mut kept, mut file, mut model) = (Kept::default(), Vec::new(), empty(7));
        kept.take(&change(3));
        assert_eq!(kept.step(), None, "before the first snapshot there is nothing to keep");
        kept.take(&Message::Snapshot(model.clone()));
        for seq in 8..40 {
            kept.take(&change(seq));
            let Message::Delta(delta) = change(seq) else { unreachable!() };
            bring_up(&mut model, &delta);
            // Several changes at a time now and then, and a write that failed.
            if seq % 7 != 0 {
                perform(&mut kept, &mut file);
                assert_eq!(read(&file).as_ref(), Some(&model), "{seq}");
            }
            if seq == 20 {
                kept.write_anew();
            }
        }
        let ends: Vec<usize> = (0..file.len()).filter(|at| file[*at] == b'\n').collect();
        for cut in 0..=file.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
            let found = read(&file[..cut]).map(|snapshot| snapshot.seq);
            assert_eq!(
                found,
                (whole > 0).then(|| read(&file).unwrap().seq + whole - ends.len() as u64),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_change_costs_its_line_and_not_what_was_revoked_before() {
        let (mut kept, mut file, mut written, mut anew) = (Kept::default(), Vec::new(), 0, 0);
        kept.take(&Message::Snapshot(empty(0)));
        for seq in 1..=20_000 {
            kept.take(&change(seq * 4));
            let before = file.len();
            written += perform(&mut kept, &mut file);
            anew += usize::from(file.len() < before);
        }
        let all = beginning(kept.snapshot.as_ref().unwrap()).len();
        assert!(written < 10 * all && file.len() < 4 * all && anew < 20, "{written} {all} {anew}");
    }

    #[test]
    fn what_does_not_follow_is_not_taken() {
        let mut file = beginning(&empty(7));
        for seq in [8, 10, 9] {
            let Message::Delta(delta) = change(seq) else { unreachable!() };
            file.extend(line(&delta));
        }
        assert_eq!(read(&file).unwrap().seq, 8);
        assert_eq!(read(&to_file(&empty(7))), Some(empty(7)), "as it was kept before there were lines");
        assert_eq!((read(b""), read(b"not json\n")), (None, None));
    }
}
