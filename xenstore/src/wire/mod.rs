//! The messages, as pure functions over bytes (`xen:docs/misc/xenstore.txt`, xen/include/public/io/xs_wire.h).
//!
//! ```text
//!  0       4        8       12      16                16 + len
//!  +-------+--------+-------+-------+------------------+
//!  | type  | req_id | tx_id |  len  | payload <= 4096  |     u32 each, little endian
//!  +-------+--------+-------+-------+------------------+
//! ```
//!
//! Two steps, as everywhere in this house: a [`Packet`] is a permissive view, a [`Request`], [`Reply`] or
//! [`WatchEvent`] is a validated value. Both directions are here for both ends, so that a server in a simulator
//! speaks through the very same code.

mod directory;
mod header;
mod path;
mod permission;
pub(crate) mod reply;
mod request;
mod stream;

pub use directory::{DirectoryParts, PartProgress};
pub use header::{Header, MessageType, Packet};
pub use path::Path;
pub use permission::{Access, Permission};
pub use reply::{Names, Reply, WatchEvent};
pub use request::Request;
pub use stream::Assembler;

/// Bytes in a header (`struct xsd_sockmsg`).
pub const HEADER_LEN: usize = 16;
/// Most bytes in a payload, in both directions (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;
/// Longest absolute path (`XENSTORE_ABS_PATH_MAX`).
pub const ABSOLUTE_PATH_MAX: usize = 3072;
/// Longest relative path (`XENSTORE_REL_PATH_MAX`).
pub const RELATIVE_PATH_MAX: usize = 2048;

/// Splits `bytes` at its first NUL: what is before it and what comes after.
fn split_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&b| b == 0)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// What stands before the one NUL at the end.
fn terminated(bytes: &[u8]) -> Option<&[u8]> {
    match split_nul(bytes)? {
        (text, []) => Some(text),
        _ => None,
    }
}
