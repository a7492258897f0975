//! The sixteen bytes in front of every message.

use alloc::vec::Vec;

use super::{HEADER_LEN, PAYLOAD_MAX};
use crate::Error;

/// What a message is (`enum xsd_sockmsg_type`, xen/include/public/io/xs_wire.h).
///
/// A number rather than an `enum`: a newer peer may send one that is not listed, and that is counted, not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageType(pub u32);

macro_rules! message_types {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl MessageType {
            $($(#[$doc])* pub const $name: Self = Self($value);)*
        }
    };
}

message_types! {
    /// A command to the daemon itself; privileged.
    CONTROL = 0,
    /// The names of a node's children.
    DIRECTORY = 1,
    /// A node's value.
    READ = 2,
    /// A node's permissions.
    GET_PERMS = 3,
    /// Tell me when something changes at or below a path.
    WATCH = 4,
    /// Stop telling me.
    UNWATCH = 5,
    /// Open a snapshot.
    TRANSACTION_START = 6,
    /// Commit or discard it.
    TRANSACTION_END = 7,
    /// A new domain, from the toolstack.
    INTRODUCE = 8,
    /// A domain that ended, from the toolstack.
    RELEASE = 9,
    /// Where a domain's relative paths begin.
    GET_DOMAIN_PATH = 10,
    /// Set a value, and make what is missing on the way.
    WRITE = 11,
    /// Make a node if there is none.
    MKDIR = 12,
    /// Remove a node and everything below.
    RM = 13,
    /// Set a node's permissions.
    SET_PERMS = 14,
    /// Something changed; sent without being asked for.
    WATCH_EVENT = 15,
    /// The answer to any request that failed.
    ERROR = 16,
    /// Whether the server knows a domain.
    IS_DOMAIN_INTRODUCED = 17,
    /// From the toolstack, after a domain's resume.
    RESUME = 18,
    /// From the toolstack: one domain may act for another.
    SET_TARGET = 19,
    /// Drop all watches and transactions of the caller.
    RESET_WATCHES = 21,
    /// A piece of a list of children that is too long for one message.
    DIRECTORY_PART = 22,
    /// What the server can do; newer servers only.
    GET_FEATURE = 23,
    /// Limits what the server offers a domain; privileged.
    SET_FEATURE = 24,
    /// A quota's value; newer servers only.
    GET_QUOTA = 25,
    /// Sets a quota; privileged.
    SET_QUOTA = 26,
    /// Never valid, by promise.
    INVALID = 0xffff,
}

/// A header, as found: nothing in it is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub kind: MessageType,
    /// Chosen by who asks, copied by who answers; 0 in a watch event.
    pub req_id: u32,
    /// The transaction; 0 outside of any.
    pub tx_id: u32,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl Header {
    /// Reads a header.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let word = |i: usize| {
            let mut word = [0; 4];
            word.iter_mut()
                .zip(bytes.iter().skip(i * 4))
                .for_each(|(to, from)| *to = *from);
            u32::from_le_bytes(word)
        };
        Self {
            kind: MessageType(word(0)),
            req_id: word(1),
            tx_id: word(2),
            len: word(3),
        }
    }

    /// The header as it travels.
    ///
    /// ```
    /// use fata_xenstore::wire::{Header, MessageType};
    /// let header = Header { kind: MessageType::READ, req_id: 7, tx_id: 0, len: 5 };
    /// let bytes = header.encode();
    /// assert_eq!(bytes, [2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    /// assert_eq!(Header::decode(&bytes), header);
    /// ```
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let words = [self.kind.0, self.req_id, self.tx_id, self.len];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The length of the payload, if it is one that may be: the check to make before memory is set aside.
    ///
    /// # Errors
    /// [`Error::TooLong`] above [`PAYLOAD_MAX`].
    pub fn payload_len(self) -> Result<usize, Error> {
        usize::try_from(self.len)
            .ok()
            .filter(|&len| len <= PAYLOAD_MAX)
            .ok_or(Error::TooLong)
    }
}

/// A whole message, seen but not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What the message is.
    pub kind: MessageType,
    /// Chosen by who asks.
    pub req_id: u32,
    /// The transaction.
    pub tx_id: u32,
    /// The rest; 4096 bytes at most.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Looks for a message at the start of `bytes`, and gives what comes after it too; `Ok(None)` while there are
    /// too few bytes.
    ///
    /// # Errors
    /// [`Error::TooLong`] if the header announces more than a payload may have.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Error> {
        let Some((header, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let header = Header::decode(header);
        let Some((payload, rest)) = rest.split_at_checked(header.payload_len()?) else {
            return Ok(None);
        };
        let Header {
            kind, req_id, tx_id, ..
        } = header;
        Ok(Some((
            Self {
                kind,
                req_id,
                tx_id,
                payload,
            },
            rest,
        )))
    }

    /// Appends the message.
    ///
    /// # Errors
    /// [`Error::TooLong`], and nothing appended, if the payload is longer than may be.
    pub fn encode(&self, to: &mut Vec<u8>) -> Result<(), Error> {
        if self.payload.len() > PAYLOAD_MAX {
            return Err(Error::TooLong);
        }
        let len = self.payload.len() as u32;
        to.extend_from_slice(
            &Header {
                kind: self.kind,
                req_id: self.req_id,
                tx_id: self.tx_id,
                len,
            }
            .encode(),
        );
        to.extend_from_slice(self.payload);
        Ok(())
    }
}
