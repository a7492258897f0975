//! What the server says.

use alloc::vec::Vec;

use fata_hypercall::Errno;

use super::{MessageType, Packet, Path, Permission, split_nul, terminated};
use crate::{Error, decimal};

/// The names of a node's children, each a run of bytes that the server vouches for and we do not.
///
/// ```
/// use fata_xenstore::wire::Names;
/// let names = Names::parse(b"0\0eth-1\0\xff\0")?;
/// assert_eq!(names.iter().count(), 3);
/// assert_eq!(names.valid().collect::<Vec<_>>(), ["0", "eth-1"], "what no path can hold is left out");
/// # Ok::<(), fata_xenstore::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a>(&'a [u8]);

impl<'a> Names<'a> {
    /// Checks that each name has its NUL.
    ///
    /// # Errors
    /// [`Error::BadMessage`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes.last() {
            None | Some(0) => Ok(Self(bytes)),
            Some(_) => Err(Error::BadMessage),
        }
    }

    /// All names as they are.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (name, after) = split_nul(rest)?;
            rest = after;
            Some(name)
        })
    }

    /// The names that a path may have as a component; a server sends no others.
    pub fn valid(self) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter_map(|name| Path::from_bytes(name).ok())
            .map(Path::as_str)
            .filter(|name| !name.contains('/'))
    }

    /// The bytes: each name and its NUL.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// A validated answer. Which form it has depends on what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Done. To everything that has nothing else to say.
    Ok,
    /// READ: the node's bytes. GET_FEATURE and GET_QUOTA: their text, without its NUL.
    Value(&'a [u8]),
    /// DIRECTORY.
    Names(Names<'a>),
    /// DIRECTORY_PART.
    Part {
        /// Differs when the node has changed.
        generation: &'a [u8],
        /// The names from the offset on; after the last there is an empty one. [`DirectoryParts`] puts them together.
        ///
        /// [`DirectoryParts`]: super::DirectoryParts
        names: Names<'a>,
    },
    /// GET_PERMS.
    Permissions(Vec<Permission>),
    /// TRANSACTION_START: the number that the transaction's messages carry. Never 0.
    Transaction(u32),
    /// GET_DOMAIN_PATH.
    Path(Path<'a>),
    /// IS_DOMAIN_INTRODUCED.
    Flag(bool),
    /// The request failed.
    Error(Errno),
}

impl<'a> Reply<'a> {
    /// Reads the answer to a request of the type `asked`.
    ///
    /// ```
    /// use fata_hypercall::Errno;
    /// use fata_xenstore::wire::{MessageType, Packet, Reply};
    /// let packet = Packet { kind: MessageType::ERROR, req_id: 1, tx_id: 0, payload: b"ENOENT\0" };
    /// assert_eq!(Reply::parse(MessageType::READ, packet), Ok(Reply::Error(Errno::ENOENT)));
    /// ```
    ///
    /// # Errors
    /// [`Error::BadMessage`] if it is neither an error nor of that type, or not formed as that type is.
    pub fn parse(asked: MessageType, packet: Packet<'a>) -> Result<Self, Error> {
        let payload = match answer(asked, packet) {
            Err(Error::Refused(errno)) => return Ok(Self::Error(errno)),
            other => other?,
        };
        Ok(match asked {
            MessageType::READ => Self::Value(payload),
            MessageType::DIRECTORY => Self::Names(Names::parse(payload)?),
            MessageType::DIRECTORY_PART => {
                let (generation, names) = part(payload)?;
                Self::Part { generation, names }
            }
            MessageType::GET_PERMS => Self::Permissions(Permission::parse_list(payload)?),
            MessageType::TRANSACTION_START => Self::Transaction(transaction(payload)?),
            MessageType::GET_DOMAIN_PATH => Self::Path(path(payload)?),
            MessageType::IS_DOMAIN_INTRODUCED => Self::Flag(flag(payload)?),
            MessageType::GET_FEATURE | MessageType::GET_QUOTA => Self::Value(text(payload)?),
            _ => {
                ok(payload)?;
                Self::Ok
            }
        })
    }

    /// Appends the payload of this answer.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Ok => to.extend_from_slice(b"OK\0"),
            Self::Value(bytes) => to.extend_from_slice(bytes),
            Self::Names(names) => to.extend_from_slice(names.0),
            Self::Part { generation, names } => {
                to.extend_from_slice(generation);
                to.push(0);
                to.extend_from_slice(names.0);
            }
            Self::Permissions(list) => list.iter().for_each(|entry| entry.encode(to)),
            Self::Transaction(id) => {
                decimal::push(to, u64::from(*id));
                to.push(0);
            }
            Self::Path(path) => {
                to.extend_from_slice(path.as_str().as_bytes());
                to.push(0);
            }
            Self::Flag(flag) => to.extend_from_slice(if *flag { b"T\0" } else { b"F\0" }),
            Self::Error(errno) => {
                to.extend_from_slice(errno.name().unwrap_or("EIO").as_bytes());
                to.push(0);
            }
        }
    }
}

// The answers one by one: who knows what was asked calls these, and an image has only those it needs.

/// The payload of the answer to a request of the type `asked`; [`Error::Refused`] if the server refused.
pub(crate) fn answer(asked: MessageType, packet: Packet<'_>) -> Result<&[u8], Error> {
    match packet.kind {
        MessageType::ERROR => Err(Error::Refused(parse_errno(packet.payload))),
        kind if kind == asked => Ok(packet.payload),
        _ => Err(Error::BadMessage),
    }
}

/// One text with its NUL.
fn text(payload: &[u8]) -> Result<&[u8], Error> {
    terminated(payload).ok_or(Error::BadMessage)
}

/// `OK`, and nothing else.
pub(crate) fn ok(payload: &[u8]) -> Result<(), Error> {
    match payload {
        b"OK\0" => Ok(()),
        _ => Err(Error::BadMessage),
    }
}

/// The answer to TRANSACTION_START.
pub(crate) fn transaction(payload: &[u8]) -> Result<u32, Error> {
    let number = decimal::parse(text(payload)?, 1..=u64::from(u32::MAX));
    number.map(|number| number as u32).ok_or(Error::BadMessage)
}

/// The answer to DIRECTORY_PART: the node's generation, and names.
pub(crate) fn part(payload: &[u8]) -> Result<(&[u8], Names<'_>), Error> {
    let (generation, names) = split_nul(payload).ok_or(Error::BadMessage)?;
    Ok((generation, Names::parse(names)?))
}

/// The answer to GET_DOMAIN_PATH.
pub(crate) fn path(payload: &[u8]) -> Result<Path<'_>, Error> {
    Path::from_bytes(text(payload)?).map_err(|_| Error::BadMessage)
}

/// The answer to IS_DOMAIN_INTRODUCED.
pub(crate) fn flag(payload: &[u8]) -> Result<bool, Error> {
    parse_flag(text(payload)?)
}

/// The errno behind a name; `EIO` for a name that we do not know, or for no name at all.
fn parse_errno(payload: &[u8]) -> Errno {
    terminated(payload).and_then(Errno::from_name).unwrap_or(Errno::EIO)
}

pub(super) fn parse_flag(text: &[u8]) -> Result<bool, Error> {
    match text {
        b"T" => Ok(true),
        b"F" => Ok(false),
        _ => Err(Error::BadMessage),
    }
}

/// Something changed at or below a watched path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchEvent<'a> {
    /// What changed, as bytes of the server's.
    pub path: &'a [u8],
    /// What we named the watch.
    pub token: &'a [u8],
}

impl<'a> WatchEvent<'a> {
    /// Reads the payload of a WATCH_EVENT.
    ///
    /// ```
    /// use fata_xenstore::wire::WatchEvent;
    /// let event = WatchEvent::parse(b"device/vif/0/state\07\0")?;
    /// assert_eq!(event.token, b"7");
    /// assert!(WatchEvent::parse(b"device/vif/0/state\07").is_err());
    /// # Ok::<(), fata_xenstore::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::BadMessage`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        let (path, rest) = split_nul(payload).ok_or(Error::BadMessage)?;
        let token = terminated(rest).ok_or(Error::BadMessage)?;
        Ok(Self { path, token })
    }

    /// Appends the payload.
    pub fn encode(&self, to: &mut Vec<u8>) {
        for text in [self.path, self.token] {
            to.extend_from_slice(text);
            to.push(0);
        }
    }
}
