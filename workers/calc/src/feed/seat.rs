//! Whose candles they are: a store of series has a consumer group of its own.
//!
//! Two workers with stores of their own must both get every candle, so they cannot share a group. The id of a store is
//! drawn when it is opened for the first time, and lies beside it (`series.id`): the same after each start, and another
//! one on each machine. Whoever copies a store to where it is used beside the first one leaves that file out.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sluice_http::InternalKeys;
use sluice_wire::event::series_group;

use crate::whole;

/// Name of the file.
const FILE: &str = "series.id";
/// Hexadecimal digits of an id: a million stores share none.
const DIGITS: usize = 16;

/// The group of a store, and the name of its only consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) group: String,
    pub(crate) consumer: String,
}

/// The id of the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// It cannot be read, or written at the first start.
    #[error("the id of the stored series, {}, cannot be read or written", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// It is none.
    #[error("{} is not {DIGITS} hexadecimal digits; remove it, and the candles are read again from the oldest one kept", .0.display())]
    Wrong(PathBuf),
}

impl Seat {
    /// That of the store below a folder of the worker, whose lock this process holds.
    pub(crate) fn open(folder: &Path) -> Result<Self, SeatError> {
        let path = folder.join(FILE);
        let id = match read(&path) {
            Ok(text) => text.strip_suffix('\n').unwrap_or(&text).to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut id = InternalKeys::mint();
                id.truncate(DIGITS);
                whole::write(&path, id.as_bytes()).map_err(|error| SeatError::Io(path.clone(), error))?;
                id
            }
            Err(error) => return Err(SeatError::Io(path, error)),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.len() != DIGITS || !id.bytes().all(is_digit) {
            return Err(SeatError::Wrong(path));
        }
        Ok(Self { group: series_group(&id), consumer: format!("calc-{id}") })
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // LIMIT: one byte more than an id and its line end.
    File::open(path)?.take(DIGITS as u64 + 2).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_its_group_and_another_one_has_another() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let seat = Seat::open(first.path()).unwrap();
        assert_eq!(seat, Seat::open(first.path()).unwrap());
        let other = Seat::open(second.path()).unwrap();
        assert!(seat.group != other.group && seat.consumer != other.consumer);
        assert!(sluice_wire::event::is_series_group(&seat.group), "{seat:?}");
    }

    #[test]
    fn what_is_no_id_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for wrong in ["", "00ff", "00112233445566778", "00112233445566GG", "0011223344556677\n\n\n\n\n"] {
            std::fs::write(dir.path().join(FILE), wrong).unwrap();
            let error = Seat::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("series.id is not 16 hexadecimal digits"), "{wrong:?}: {error}");
        }
        std::fs::write(dir.path().join(FILE), "0011223344556677\n").unwrap();
        assert_eq!(Seat::open(dir.path()).unwrap().group, "calc-series-0011223344556677");
    }
}
