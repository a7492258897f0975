//! What is typed, on its way out of the ring.
#![allow(clippy::indexing_slicing, reason = "no index comes from the ring's page")]

use fata_grant::RingError;

use crate::output::Ring;

/// Bytes taken from the ring that nobody has read yet: a line may end in the middle of what the ring gave.
pub(crate) struct Input {
    bytes: [u8; 64],
    start: usize,
    end: usize,
    /// Bytes taken from the ring ever.
    received: u64,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; 64],
            start: 0,
            end: 0,
            received: 0,
        }
    }

    /// Reads up to `to.len()` bytes: those left over first, then those in the ring. The second number says how many
    /// of them came out of the ring: if any did, the daemon has to be told that there is room.
    ///
    /// # Errors
    /// The ring's, if the peer broke it.
    pub(crate) fn read(&mut self, ring: &mut Ring<'_>, to: &mut [u8]) -> Result<(usize, usize), RingError> {
        let kept = &self.bytes[self.start..self.end];
        if kept.is_empty() {
            let count = ring.ring.read(ring.page, to)?;
            self.received += count as u64;
            return Ok((count, count));
        }
        let count = kept.len().min(to.len());
        to[..count].copy_from_slice(&kept[..count]);
        self.start += count;
        Ok((count, 0))
    }

    /// Keeps bytes of the last [`read`](Self::read) for the next one.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.bytes.len());
        self.bytes[..count].copy_from_slice(&bytes[..count]);
        (self.start, self.end) = (0, count);
    }

    /// Bytes taken from the ring ever.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }
}
