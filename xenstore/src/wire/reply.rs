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
        let payload = packet.payload;
        if packet.kind == MessageType::ERROR {
            return Ok(Self::Error(parse_errno(payload)));
        }
        if packet.kind != asked {
            return Err(Error::BadMessage);
        }
        let text = || terminated(payload).ok_or(Error::BadMessage);
        Ok(match asked {
            MessageType::READ => Self::Value(payload),
            MessageType::DIRECTORY => Self::Names(Names::parse(payload)?),
            MessageType::DIRECTORY_PART => {
                let (generation, names) = split_nul(payload).ok_or(Error::BadMessage)?;
                Self::Part {
                    generation,
                    names: Names::parse(names)?,
                }
            }
            MessageType::GET_PERMS => Self::Permissions(Permission::parse_list(payload)?),
            MessageType::TRANSACTION_START => {
                let id = decimal::parse(text()?, 1..=u64::from(u32::MAX)).ok_or(Error::BadMessage)?;
                Self::Transaction(id as u32)
            }
            MessageType::GET_DOMAIN_PATH => Self::Path(Path::from_bytes(text()?).map_err(|_| Error::BadMessage)?),
            MessageType::IS_DOMAIN_INTRODUCED => Self::Flag(parse_flag(text()?)?),
            MessageType::GET_FEATURE | MessageType::GET_QUOTA => Self::Value(text()?),
            _ if text()? == b"OK" => Self::Ok,
            _ => return Err(Error::BadMessage),
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

/// The errno behind a name; `EIO` for a name that we do not know, or for no name at all.
fn parse_errno(payload: &[u8]) -> Errno {
    terminated(payload)
        .and_then(|name| core::str::from_utf8(name).ok())
        .and_then(Errno::from_name)
        .unwrap_or(Errno::EIO)
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
