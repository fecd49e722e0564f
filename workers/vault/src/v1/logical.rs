//! What the API keeps by path, and what of it ends by itself.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{fault, token};
use crate::error::VaultError;
use crate::store::{Change, Range, SWEEP_MAX, Table, View};

/// LIMIT: rows under one prefix: policies, roles, users, keys.
pub(super) const NAMES_MAX: usize = 10_000;
/// LIMIT: rows that end, of all kinds.
const ENDING_MAX: u64 = 200_000;
/// LIMIT: bytes of a name.
const NAME_BYTES_MAX: usize = 128;

/// A row.
pub(super) fn load<T: DeserializeOwned>(view: &impl View, key: &str) -> Result<Option<T>, VaultError> {
    view.load(Table::Logical, key.as_bytes())
}

/// Writes a row; a new one only while its folder has room.
pub(super) fn save(change: &mut Change<'_>, key: &str, row: &impl Serialize) -> Result<(), VaultError> {
    if change.raw(Table::Logical, key.as_bytes())?.is_none() {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let range = Range::prefix(format!("{folder}/").as_bytes(), NAMES_MAX);
        if change.keys(Table::Logical, &range)?.len() >= NAMES_MAX {
            return Err(fault(429, format!("at most {NAMES_MAX} entries are kept below {folder}")));
        }
    }
    change.save(Table::Logical, key.as_bytes(), row);
    Ok(())
}

/// Writes a row that ends.
pub(super) fn save_until(
    change: &mut Change<'_>,
    key: &str,
    row: &impl Serialize,
    end_s: i64,
) -> Result<(), VaultError> {
    if change.count(Table::LogicalExpiry)? >= ENDING_MAX {
        return Err(fault(429, "too many entries that have not ended"));
    }
    change.mark(Table::LogicalExpiry, &ending(end_s, key));
    change.save(Table::Logical, key.as_bytes(), row);
    Ok(())
}

/// Removes a row that has an end.
pub(super) fn remove_ending(change: &mut Change<'_>, key: &str, end_s: i64) {
    change.remove(Table::LogicalExpiry, &ending(end_s, key));
    change.remove(Table::Logical, key.as_bytes());
}

/// Removes a row.
pub(super) fn remove(change: &mut Change<'_>, key: &str) {
    change.remove(Table::Logical, key.as_bytes());
}

/// The names directly below a folder.
pub(super) fn names(view: &impl View, folder: &str) -> Result<Vec<String>, VaultError> {
    let keys = view.keys(Table::Logical, &Range::prefix(folder.as_bytes(), NAMES_MAX))?;
    Ok(keys.iter().map(|key| String::from_utf8_lossy(&key[folder.len()..]).into_owned()).collect())
}

/// A name of something, from a path or a body.
pub(super) fn name(text: &str) -> Result<&str, VaultError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@:+-".contains(&b));
    if fits { Ok(text) } else { Err(fault(400, "a name is 1 to 128 letters, digits and ._@:+-")) }
}

fn ending(end_s: i64, key: &str) -> Vec<u8> {
    [&u64::try_from(end_s).unwrap_or(0).to_be_bytes(), key.as_bytes()].concat()
}

fn ended(now: Timestamp, limit: usize) -> Range {
    Range { from: Vec::new(), to: ending(now.as_second() + 1, ""), limit }
}

/// Whether [`sweep`] has so many tokens, or so many other rows, to remove.
pub(crate) fn have_ended(view: &impl View, now: Timestamp, least: usize) -> Result<bool, VaultError> {
    let others = view.keys(Table::LogicalExpiry, &ended(now, least))?.len();
    Ok(others >= least || token::ended(view, now, least)?.len() >= least)
}

/// Removes tokens, with what is wrapped under them, and other rows that have ended; how many.
pub(crate) fn sweep(change: &mut Change<'_>, now: Timestamp) -> Result<usize, VaultError> {
    let mut swept = 0;
    for id in token::ended(change, now, SWEEP_MAX)? {
        if swept >= SWEEP_MAX {
            break;
        }
        swept += token::remove_tree(change, &id)?;
    }
    for key in change.keys(Table::LogicalExpiry, &ended(now, SWEEP_MAX))? {
        // What is wrapped goes with its token, and is given back to whom it counts.
        let wrapped = key[8..].strip_prefix(b"wrap/").is_some_and(|id| !id.is_empty());
        if wrapped && change.raw(Table::ApiToken, &key[8 + b"wrap/".len()..])?.is_some() {
            continue;
        }
        change.remove(Table::Logical, &key[8..]);
        change.remove(Table::LogicalExpiry, &key);
        swept += 1;
    }
    Ok(swept)
}
