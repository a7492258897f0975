//! From a stream of bytes, however it is cut, to messages.

use alloc::vec::Vec;

use super::{HEADER_LEN, Header, Packet};
use crate::{Error, memory};

/// Collects bytes until they are a message. Holds one message at most, so its memory is bounded.
///
/// ```
/// use fata_xenstore::wire::{Assembler, MessageType, Packet};
/// let mut bytes = Vec::new();
/// Packet { kind: MessageType::READ, req_id: 1, tx_id: 0, payload: b"name\0" }.encode(&mut bytes)?;
/// let mut assembler = Assembler::new();
/// for byte in &bytes {
///     assert!(assembler.packet().is_none());
///     assert_eq!(assembler.feed(core::slice::from_ref(byte))?, 1);
/// }
/// assert_eq!(assembler.packet().unwrap().payload, b"name\0");
/// # Ok::<(), fata_xenstore::Error>(())
/// ```
#[derive(Debug)]
pub struct Assembler {
    /// The message so far. Its memory is taken once and kept.
    bytes: Vec<u8>,
}

impl Assembler {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// How many bytes the message still wants; 0 when it is whole. Never more than a header before the header is
    /// here and checked.
    ///
    /// # Errors
    /// [`Error::TooLong`]: the header announces more than a payload may have. Nothing after it makes sense.
    pub fn wanted(&self) -> Result<usize, Error> {
        let whole = match self.header() {
            Some(header) => HEADER_LEN + header.payload_len()?,
            None => HEADER_LEN,
        };
        Ok(whole.saturating_sub(self.bytes.len()))
    }

    /// Takes bytes, as many as belong to the present message, and says how many that were.
    ///
    /// # Errors
    /// As [`wanted`](Self::wanted); [`Error::NoMemory`].
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<usize, Error> {
        let before = self.bytes.len();
        loop {
            let wanted = self.wanted()?;
            let (now, later) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            if now.is_empty() {
                return Ok(self.bytes.len() - before);
            }
            memory::extend(&mut self.bytes, now)?;
            bytes = later;
        }
    }

    /// The message, once it is whole.
    #[must_use]
    pub fn packet(&self) -> Option<Packet<'_>> {
        let Header {
            kind, req_id, tx_id, ..
        } = self.header()?;
        if self.wanted() != Ok(0) {
            return None;
        }
        Some(Packet {
            kind,
            req_id,
            tx_id,
            payload: self.bytes.get(HEADER_LEN..)?,
        })
    }

    /// Makes room for the next message.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    fn header(&self) -> Option<Header> {
        self.bytes.first_chunk().map(Header::decode)
    }
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}
