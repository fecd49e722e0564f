//! Memory of commits that nobody reads any longer, for those to come: pages that were never used are filled with zeros by
//! the system first, which costs as much as writing the records.

use std::collections::VecDeque;

/// LIMIT: bytes of memory that waits to be used again.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many pieces are looked at for one that fits.
const LOOKS: usize = 8;
/// Pieces that are larger than this and than four times what is asked for are left to those that need them.
const SMALL_BYTES: usize = 64 * 1024;

/// Empty pieces of memory, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// Memory for so many bytes, and some more: commits are of many sizes.
    pub(crate) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let fits = |piece: &Vec<u8>| (bytes..=(4 * bytes).max(SMALL_BYTES)).contains(&piece.capacity());
        let newest = self.pieces.len().saturating_sub(LOOKS);
        let found = self.pieces.range(newest..).rposition(fits);
        let Some(piece) = found.and_then(|at| self.pieces.swap_remove_back(newest + at)) else {
            return Vec::with_capacity(bytes + bytes / 4);
        };
        self.bytes -= piece.capacity();
        piece
    }

    /// Keeps a piece for later; the oldest ones, which fitted nobody, make room.
    pub(crate) fn put(&mut self, mut piece: Vec<u8>) {
        piece.clear();
        self.bytes += piece.capacity();
        self.pieces.push_back(piece);
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.bytes -= oldest.capacity();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn there_is_always_room_and_never_too_much(steps in prop::collection::vec((any::<bool>(), 1_usize..5_000_000), 1..100)) {
            let (mut spares, mut used) = (Spares::default(), Vec::new());
            for (takes, bytes) in steps {
                if takes {
                    let piece = spares.take(bytes);
                    prop_assert!(piece.is_empty() && piece.capacity() >= bytes);
                    prop_assert!(piece.capacity() <= (4 * bytes).max(SMALL_BYTES));
                    used.push(piece);
                } else if let Some(piece) = used.pop() {
                    spares.put(piece);
                }
                let held: usize = spares.pieces.iter().map(Vec::capacity).sum();
                prop_assert!(held == spares.bytes && held <= BYTES_MAX);
            }
        }
    }

    #[test]
    fn what_was_used_last_is_used_first_and_a_large_piece_is_not_spent_on_little() {
        let mut spares = Spares::default();
        let [small, large, huge] = [100, 300_000, 4_000_000].map(|bytes| spares.take(bytes));
        let places = [&small, &large, &huge].map(Vec::as_ptr);
        for mut piece in [small, large, huge] {
            piece.push(1);
            spares.put(piece);
        }
        let again = [1_000, 200_000, 60, 60].map(|bytes| spares.take(bytes));
        assert!(!places.contains(&again[0].as_ptr()) && !places.contains(&again[3].as_ptr()));
        assert_eq!([again[1].as_ptr(), again[2].as_ptr()], [places[1], places[0]]);
    }
}
