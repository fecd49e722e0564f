//! A digest over all rows that is cheap to keep current.
//!
//! It is the sum, modulo 2^256, of HMAC-SHA256(key, table ‖ row key ‖ value) over every row: adding, changing
//! or removing a row changes the sum by one or two terms, and whoever lacks the key can neither predict nor
//! repair it. It is kept sealed in the store's head and checked against the rows when the store opens.

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::table::Table;

/// The digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowsDigest([u64; 4]);

impl RowsDigest {
    /// Counts a row in.
    pub(super) fn add(&mut self, key: &hmac::Key, table: Table, row: &[u8], value: &[u8]) {
        let mut carry = false;
        for (limb, term) in self.0.iter_mut().zip(term(key, table, row, value)) {
            let (sum, first) = limb.overflowing_add(term);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    /// Counts a row out.
    pub(super) fn remove(&mut self, key: &hmac::Key, table: Table, row: &[u8], value: &[u8]) {
        let mut borrow = false;
        for (limb, term) in self.0.iter_mut().zip(term(key, table, row, value)) {
            let (rest, first) = limb.overflowing_sub(term);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            *limb = rest;
            borrow = first || second;
        }
    }
}

fn term(key: &hmac::Key, table: Table, row: &[u8], value: &[u8]) -> [u64; 4] {
    let mut context = hmac::Context::with_key(key);
    // In as few pieces as can be: each costs a copy and a call.
    let name = table.name().as_bytes();
    let mut head = Vec::with_capacity(16 + name.len() + row.len());
    for part in [name, row] {
        head.extend_from_slice(&(part.len() as u64).to_be_bytes());
        head.extend_from_slice(part);
    }
    context.update(&head);
    context.update(value);
    let tag = context.sign();
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(tag.as_ref().chunks_exact(8)) {
        *limb = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    }
    limbs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn incremental_digest_equals_the_digest_of_what_is_there(
            ops in proptest::collection::vec((0u8..6, proptest::option::of(any::<u8>())), 0..40),
        ) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
            let mut rows = BTreeMap::new();
            let mut running = RowsDigest::default();
            for (row, value) in ops {
                let old = match value {
                    Some(value) => rows.insert(row, value),
                    None => rows.remove(&row),
                };
                if let Some(old) = old {
                    running.remove(&key, Table::Token, &[row], &[old]);
                }
                if let Some(value) = value {
                    running.add(&key, Table::Token, &[row], &[value]);
                }
            }
            let mut fresh = RowsDigest::default();
            for (row, value) in &rows {
                fresh.add(&key, Table::Token, &[*row], &[*value]);
            }
            prop_assert_eq!(running, fresh);
        }
    }
}
