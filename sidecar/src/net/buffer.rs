//! Buffers that a connection has only while it has bytes in hand: taken from the thread's pool, and back there when they
//! are empty. Memory is a function of bytes in flight, not of connections.

use std::cell::RefCell;

/// Holds a head, and the whole of most small bodies.
pub const SMALL: usize = 16 * 1024;

/// For bodies that are known to be long: fewer system calls.
pub const LARGE: usize = 128 * 1024;

/// Empty buffers that one thread keeps of each size.
const KEPT_SMALL: usize = 128;
const KEPT_LARGE: usize = 8;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { small: Vec::new(), large: Vec::new() }) };
}

struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

/// Bytes between a front, where they are taken, and an end, where they are added.
#[derive(Debug)]
pub struct Buffer {
    /// All of it is initialised, so that reads need no preparation.
    bytes: Vec<u8>,
    front: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer of [`SMALL`] or [`LARGE`] bytes.
    pub fn take(size: usize) -> Self {
        let bytes = POOL.with_borrow_mut(|pool| pool.of(size).0.pop());
        Self { bytes: bytes.unwrap_or_else(|| vec![0; size]), front: 0, end: 0 }
    }

    /// Bytes that it has room for in all.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.front..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.front == self.end
    }

    /// Where the next bytes go; empty when it is full.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.is_empty() {
            (self.front, self.end) = (0, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes of the spare room are there now.
    pub fn added(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Takes bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.front = (self.front + count).min(self.end);
    }

    /// Makes room at the end, up to `most` bytes in all. False if there is none left.
    pub fn make_room(&mut self, most: usize) -> bool {
        if self.end < self.bytes.len() {
            return true;
        }
        if self.front > 0 {
            self.bytes.copy_within(self.front..self.end, 0);
            (self.front, self.end) = (0, self.end - self.front);
        } else {
            let size = (self.bytes.len() * 2).min(most).max(self.bytes.len());
            self.bytes.resize(size, 0);
        }
        self.end < self.bytes.len()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // At the end of the thread there is no pool any more.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let (kept, most) = pool.of(bytes.len());
            if matches!(bytes.len(), SMALL | LARGE) && kept.len() < most {
                kept.push(bytes);
            }
        });
    }
}

impl Pool {
    fn of(&mut self, size: usize) -> (&mut Vec<Vec<u8>>, usize) {
        if size == LARGE { (&mut self.large, KEPT_LARGE) } else { (&mut self.small, KEPT_SMALL) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.spare()[..bytes.len()].copy_from_slice(bytes);
        buffer.added(bytes.len());
    }

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut buffer = Buffer::take(SMALL);
        push(&mut buffer, b"hello");
        buffer.consume(2);
        push(&mut buffer, b" you");
        assert_eq!(buffer.filled(), b"llo you");
        buffer.consume(7);
        assert!(buffer.is_empty());
        assert_eq!(buffer.spare().len(), SMALL, "an empty buffer is all spare");
    }

    #[test]
    fn a_full_buffer_grows_to_its_limit_and_no_further() {
        let mut buffer = Buffer::take(SMALL);
        push(&mut buffer, &[1; SMALL]);
        assert!(buffer.make_room(SMALL * 2));
        push(&mut buffer, &[2; SMALL]);
        assert!(!buffer.make_room(SMALL * 2));
        assert_eq!(buffer.filled()[..SMALL], [1; SMALL]);
        buffer.consume(1);
        assert!(buffer.make_room(SMALL * 2), "what was taken is room again");
        assert_eq!(buffer.filled().len(), SMALL * 2 - 1);
    }

    #[test]
    fn a_buffer_that_was_dropped_is_used_again_and_a_grown_one_is_not() {
        let place = |buffer: &Buffer| buffer.bytes.as_ptr();
        let first = Buffer::take(SMALL);
        let expected = place(&first);
        drop(first);
        let mut again = Buffer::take(SMALL);
        assert_eq!(place(&again), expected);
        push(&mut again, &[1; SMALL]);
        again.make_room(SMALL * 4);
        drop(again);
        assert_eq!(Buffer::take(SMALL).bytes.len(), SMALL);
    }
}
