//! Buffers that answers are written into, and the bound of what they may hold together.
//!
//! An answer of a million bars is tens of megabytes. It is lent to the connection until the client has read it, and comes
//! back: fresh pages would cost more than computing what is written on them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bounds::{ANSWER_BYTES_KEPT_MAX, ANSWER_UNIT, ANSWER_UNITS_MAX, ANSWERS_KEPT_MAX};
use crate::error::Refusal;

/// What all answers share.
pub(crate) struct Answers {
    free: Mutex<Vec<Vec<u8>>>,
    room: Arc<Semaphore>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { free: Mutex::default(), room: Arc::new(Semaphore::new(ANSWER_UNITS_MAX)) }
    }
}

/// Room for an answer; kept until the client has read it.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Answers {
    /// Room for an answer of about so many bytes, and an empty buffer for it.
    pub(crate) fn take(&self, bytes: usize) -> Result<(Vec<u8>, Room), Refusal> {
        let units = bytes.div_ceil(ANSWER_UNIT).clamp(1, ANSWER_UNITS_MAX) as u32;
        let room = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(|_| Refusal::Busy)?;
        let buffer = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok((buffer.unwrap_or_default(), Room { _permit: room }))
    }

    /// An answer on its way; its buffer comes back when it is read or dropped.
    pub(crate) fn lend(self: &Arc<Self>, bytes: Vec<u8>, room: Option<Room>) -> Bytes {
        Bytes::from_owner(Lent { bytes, home: Arc::clone(self), _room: room })
    }

    fn give(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < ANSWERS_KEPT_MAX && (1..=ANSWER_BYTES_KEPT_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            free.push(buffer);
        }
    }
}

struct Lent {
    bytes: Vec<u8>,
    home: Arc<Answers>,
    _room: Option<Room>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_answer_is_read() {
        let answers = Arc::new(Answers::default());
        let (mut buffer, room) = answers.take(100).unwrap();
        buffer.extend_from_slice(&[7; 100]);
        let place = buffer.as_ptr();
        let sent = answers.lend(buffer, Some(room));
        let rest = sent.slice(1..);
        assert_eq!((rest[0], answers.room.available_permits()), (7, ANSWER_UNITS_MAX - 1));
        drop(sent);
        assert!(answers.free.lock().unwrap().is_empty(), "a part of it is still to be sent");
        drop(rest);
        let (again, _room) = answers.take(1).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn what_is_too_much_together_is_refused() {
        let answers = Arc::new(Answers::default());
        let (_, most) = answers.take(usize::MAX).unwrap();
        assert!(matches!(answers.take(1), Err(Refusal::Busy)));
        drop(most);
        assert!(answers.take(1).is_ok());
        for _ in 0..2 * ANSWERS_KEPT_MAX {
            answers.give(Vec::with_capacity(10));
        }
        answers.give(Vec::with_capacity(ANSWER_BYTES_KEPT_MAX + 1));
        assert_eq!(answers.free.lock().unwrap().len(), ANSWERS_KEPT_MAX);
    }
}
