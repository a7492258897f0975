//! What a guest may ask.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use fata_hypercall::DomId;

use super::reply::parse_flag;
use super::{HEADER_LEN, Header, MessageType, PAYLOAD_MAX, Packet, Path, Permission, split_nul, terminated};
use crate::{Error, decimal};

/// A validated request. Its transaction travels in the header.
///
/// ```
/// use fata_xenstore::wire::{Packet, Path, Request};
/// let request = Request::Write { path: Path::new("data/note")?, value: b"hi" };
/// let mut bytes = Vec::new();
/// request.encode(1, 0, &mut bytes)?;
/// assert_eq!(bytes[16..], *b"data/note\0hi");
/// let (packet, _) = Packet::parse(&bytes)?.expect("a whole message");
/// assert_eq!(Request::parse(packet)?, request);
/// # Ok::<(), fata_xenstore::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The names of the children of a node.
    Directory(Path<'a>),
    /// The same in pieces, this one from byte `offset` on.
    DirectoryPart {
        /// The node.
        path: Path<'a>,
        /// Where in the whole list to begin.
        offset: u32,
    },
    /// A node's value.
    Read(Path<'a>),
    /// Sets a value; makes the node and its parents if need be.
    Write {
        /// The node.
        path: Path<'a>,
        /// Any bytes.
        value: &'a [u8],
    },
    /// Makes a node without a value, if there is none.
    Mkdir(Path<'a>),
    /// Removes a node and all below.
    Rm(Path<'a>),
    /// Who may do what with a node.
    GetPerms(Path<'a>),
    /// Sets that.
    SetPerms {
        /// The node.
        path: Path<'a>,
        /// The owner's entry first.
        permissions: Cow<'a, [Permission]>,
    },
    /// Asks for an event for each change at or below a path.
    Watch {
        /// The path, or a special one that begins with `@`.
        path: Path<'a>,
        /// Comes back with each event.
        token: &'a [u8],
        /// How many levels below the path count (only if the server has feature bit 4; else all do).
        depth: Option<u32>,
    },
    /// Takes that back.
    Unwatch {
        /// The path of the watch.
        path: Path<'a>,
        /// Its token.
        token: &'a [u8],
    },
    /// Opens a transaction.
    TransactionStart,
    /// Ends the header's transaction: `true` commits.
    TransactionEnd(bool),
    /// Where a domain's relative paths begin.
    GetDomainPath(DomId),
    /// Whether the server knows a domain.
    IsDomainIntroduced(DomId),
    /// Drops all our watches and transactions, those of a kernel before us too.
    ResetWatches,
    /// Which features the server has for us.
    GetFeature,
    /// The names of the quotas, or the value of one.
    GetQuota(Option<&'a [u8]>),
}

impl<'a> Request<'a> {
    /// The type in the header.
    #[must_use]
    pub const fn kind(&self) -> MessageType {
        match self {
            Self::Directory(_) => MessageType::DIRECTORY,
            Self::DirectoryPart { .. } => MessageType::DIRECTORY_PART,
            Self::Read(_) => MessageType::READ,
            Self::Write { .. } => MessageType::WRITE,
            Self::Mkdir(_) => MessageType::MKDIR,
            Self::Rm(_) => MessageType::RM,
            Self::GetPerms(_) => MessageType::GET_PERMS,
            Self::SetPerms { .. } => MessageType::SET_PERMS,
            Self::Watch { .. } => MessageType::WATCH,
            Self::Unwatch { .. } => MessageType::UNWATCH,
            Self::TransactionStart => MessageType::TRANSACTION_START,
            Self::TransactionEnd(_) => MessageType::TRANSACTION_END,
            Self::GetDomainPath(_) => MessageType::GET_DOMAIN_PATH,
            Self::IsDomainIntroduced(_) => MessageType::IS_DOMAIN_INTRODUCED,
            Self::ResetWatches => MessageType::RESET_WATCHES,
            Self::GetFeature => MessageType::GET_FEATURE,
            Self::GetQuota(_) => MessageType::GET_QUOTA,
        }
    }

    /// Appends the whole message, header first.
    ///
    /// # Errors
    /// [`Error::TooLong`], and nothing appended, if the payload would be larger than [`PAYLOAD_MAX`]: the server
    /// would close the connection.
    pub fn encode(&self, req_id: u32, tx_id: u32, to: &mut Vec<u8>) -> Result<(), Error> {
        let start = to.len();
        to.extend_from_slice(&[0; HEADER_LEN]);
        self.encode_payload(to);
        let len = to.len() - start - HEADER_LEN;
        if len > PAYLOAD_MAX {
            to.truncate(start);
            return Err(Error::TooLong);
        }
        let header = Header {
            kind: self.kind(),
            req_id,
            tx_id,
            len: len as u32,
        }
        .encode();
        to.iter_mut().skip(start).zip(header).for_each(|(to, byte)| *to = byte);
        Ok(())
    }

    fn encode_payload(&self, to: &mut Vec<u8>) {
        let mut text = |bytes: &[u8]| {
            to.extend_from_slice(bytes);
            to.push(0);
        };
        match self {
            Self::Directory(path) | Self::Read(path) | Self::Mkdir(path) | Self::Rm(path) | Self::GetPerms(path) => {
                text(path.as_str().as_bytes());
            }
            Self::DirectoryPart { path, offset } => {
                text(path.as_str().as_bytes());
                decimal::push(to, u64::from(*offset));
                to.push(0);
            }
            Self::Write { path, value } => {
                text(path.as_str().as_bytes());
                to.extend_from_slice(value);
            }
            Self::SetPerms { path, permissions } => {
                text(path.as_str().as_bytes());
                permissions.iter().for_each(|entry| entry.encode(to));
            }
            Self::Watch { path, token, depth } => {
                text(path.as_str().as_bytes());
                text(token);
                if let Some(depth) = depth {
                    decimal::push(to, u64::from(*depth));
                    to.push(0);
                }
            }
            Self::Unwatch { path, token } => {
                text(path.as_str().as_bytes());
                text(token);
            }
            Self::TransactionEnd(commit) => text(if *commit { b"T" } else { b"F" }),
            Self::GetDomainPath(domain) | Self::IsDomainIntroduced(domain) => {
                decimal::push(to, u64::from(domain.0));
                to.push(0);
            }
            Self::TransactionStart | Self::ResetWatches => text(b""),
            Self::GetFeature | Self::GetQuota(None) => {}
            Self::GetQuota(Some(name)) => text(name),
        }
    }

    /// Reads a request, as a server does.
    ///
    /// # Errors
    /// [`Error::BadPath`] for a path that is none; [`Error::BadMessage`] for anything else, requests that only the
    /// toolstack may send included.
    pub fn parse(packet: Packet<'a>) -> Result<Self, Error> {
        let payload = packet.payload;
        let path = || Path::from_bytes(terminated(payload).ok_or(Error::BadMessage)?);
        let path_and = || {
            let (path, rest) = split_nul(payload).ok_or(Error::BadMessage)?;
            Ok::<_, Error>((Path::from_bytes(path)?, rest))
        };
        let domain = || {
            let text = terminated(payload).ok_or(Error::BadMessage)?;
            decimal::parse(text, 0..=u64::from(u16::MAX))
                .map(|n| DomId(n as u16))
                .ok_or(Error::BadMessage)
        };
        let number = |bytes| {
            let text = terminated(bytes).ok_or(Error::BadMessage)?;
            decimal::parse(text, 0..=u64::from(u32::MAX))
                .map(|n| n as u32)
                .ok_or(Error::BadMessage)
        };
        Ok(match packet.kind {
            MessageType::DIRECTORY => Self::Directory(path()?),
            MessageType::READ => Self::Read(path()?),
            MessageType::MKDIR => Self::Mkdir(path()?),
            MessageType::RM => Self::Rm(path()?),
            MessageType::GET_PERMS => Self::GetPerms(path()?),
            MessageType::DIRECTORY_PART => {
                let (path, rest) = path_and()?;
                Self::DirectoryPart {
                    path,
                    offset: number(rest)?,
                }
            }
            MessageType::WRITE => {
                let (path, value) = path_and()?;
                Self::Write { path, value }
            }
            MessageType::SET_PERMS => {
                let (path, rest) = path_and()?;
                Self::SetPerms {
                    path,
                    permissions: Permission::parse_list(rest)?.into(),
                }
            }
            MessageType::WATCH => {
                let (path, rest) = path_and()?;
                let (token, rest) = split_nul(rest).ok_or(Error::BadMessage)?;
                let depth = if rest.is_empty() { None } else { Some(number(rest)?) };
                Self::Watch { path, token, depth }
            }
            MessageType::UNWATCH => {
                let (path, rest) = path_and()?;
                Self::Unwatch {
                    path,
                    token: terminated(rest).ok_or(Error::BadMessage)?,
                }
            }
            MessageType::TRANSACTION_START => Self::TransactionStart,
            MessageType::TRANSACTION_END => {
                Self::TransactionEnd(parse_flag(terminated(payload).ok_or(Error::BadMessage)?)?)
            }
            MessageType::GET_DOMAIN_PATH => Self::GetDomainPath(domain()?),
            MessageType::IS_DOMAIN_INTRODUCED => Self::IsDomainIntroduced(domain()?),
            MessageType::RESET_WATCHES => Self::ResetWatches,
            MessageType::GET_FEATURE if payload.is_empty() => Self::GetFeature,
            MessageType::GET_QUOTA if payload.is_empty() => Self::GetQuota(None),
            MessageType::GET_QUOTA => Self::GetQuota(Some(terminated(payload).ok_or(Error::BadMessage)?)),
            _ => return Err(Error::BadMessage),
        })
    }
}
