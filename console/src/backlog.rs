//! Output that waits for room in the ring.
#![allow(clippy::indexing_slicing, reason = "no index comes from the ring's page")]

use alloc::boxed::Box;
use alloc::vec;

/// Bytes of output that wait in memory while the ring is full.
///
/// Four screens of text: enough for the burst of a program that starts, little enough for a guest of 2 MiB.
pub const BACKLOG: usize = 8 * 1024;

/// A first-in-first-out buffer of [`BACKLOG`] bytes. It is allocated once and up front: output is wanted most when
/// memory has run out.
pub(crate) struct Backlog {
    bytes: Box<[u8]>,
    /// Where the oldest byte is.
    start: usize,
    len: usize,
}

impl Backlog {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BACKLOG].into_boxed_slice(),
            start: 0,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn room(&self) -> usize {
        self.bytes.len() - self.len
    }

    /// Adds bytes; as many as there is room for.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().take(self.room()) {
            let end = (self.start + self.len) % self.bytes.len();
            self.bytes[end] = byte;
            self.len += 1;
        }
    }

    /// The oldest bytes, up to where the buffer wraps.
    pub(crate) fn front(&self) -> &[u8] {
        let end = self.bytes.len().min(self.start + self.len);
        &self.bytes[self.start..end]
    }

    /// Removes the `count` oldest bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(self.len);
        self.start = (self.start + count) % self.bytes.len();
        self.len -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_across_the_wrap() {
        let mut backlog = Backlog::new();
        let mut next_in = 0_u32;
        let mut next_out = 0_u32;
        for round in 0..5000 {
            let count = (round * 7) % 301;
            for _ in 0..count {
                if backlog.room() > 0 {
                    backlog.push(&[next_in as u8]);
                    next_in += 1;
                }
            }
            let front = backlog.front();
            let taken = front.len().min((round * 5) % 283);
            for &byte in &front[..taken] {
                assert_eq!(byte, next_out as u8);
                next_out += 1;
            }
            backlog.consume(taken);
            assert_eq!(backlog.len(), (next_in - next_out) as usize);
        }
        assert!(next_out > 2 * BACKLOG as u32, "it wrapped");
        backlog.push(&[0; 2 * BACKLOG]);
        assert_eq!(backlog.room(), 0, "what does not fit is left out");
    }
}
