//! Messages between a domain and xenstored (xen/include/public/io/xs_wire.h), read from the daemon's side.
//!
//! Deliberately not the client crate's codec: two readings of one header find each other's mistakes.

/// Longest payload in either direction (`XENSTORE_PAYLOAD_MAX`).
pub(crate) const PAYLOAD_MAX: usize = 4096;
/// Longest absolute path (`XENSTORE_ABS_PATH_MAX`).
pub(crate) const ABSOLUTE_PATH_MAX: usize = 3072;
/// Longest relative path (`XENSTORE_REL_PATH_MAX`).
pub(crate) const RELATIVE_PATH_MAX: usize = 2048;
/// Bytes in a header.
pub(crate) const HEADER: usize = 16;

macro_rules! operations {
    ($($name:ident = $number:literal,)*) => {
        /// `enum xsd_sockmsg_type`, as far as a guest may send or get it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[expect(missing_docs, reason = "the names of the protocol")]
        pub enum Operation { $($name = $number,)* }

        impl Operation {
            pub(crate) const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

operations! {
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    GetDomainPath = 10,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    WatchEvent = 15,
    Error = 16,
    IsDomainIntroduced = 17,
    ResetWatches = 21,
    DirectoryPart = 22,
}

/// `struct xsd_sockmsg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u32,
    pub(crate) request: u32,
    pub(crate) transaction: u32,
    pub(crate) len: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            kind: word(0)?,
            request: word(4)?,
            transaction: word(8)?,
            len: word(12)?,
        })
    }
}

/// A whole message.
pub(crate) fn message(kind: Operation, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    for word in [kind as u32, request, transaction, payload.len() as u32] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// The strings of a payload in which each ends in NUL; `None` if the last does not, or one is not text.
pub(crate) fn strings(payload: &[u8]) -> Option<Vec<&str>> {
    let body = payload.strip_suffix(&[0])?;
    body.split(|&byte| byte == 0)
        .map(|part| std::str::from_utf8(part).ok())
        .collect()
}

/// The first string of a payload, and what follows its NUL.
pub(crate) fn first_string(payload: &[u8]) -> Option<(&str, &[u8])> {
    let end = payload.iter().position(|&byte| byte == 0)?;
    Some((std::str::from_utf8(&payload[..end]).ok()?, &payload[end + 1..]))
}
