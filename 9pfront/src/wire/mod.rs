//! The messages of 9P2000.L: pure functions over bytes.
//!
//! Sources: diod's protocol.md, the manual pages of Plan 9's section 5, and what QEMU's server does. Of the libraries that
//! know the protocol one needs no operating system (ninep-proto), and its licence is not ours; so here are just the messages
//! that a client of files needs.
//!
//! Every message is `size[4] type[1] tag[2]` and then its fields, in little endian; `size` counts all of it.

mod fields;
pub mod reply;
mod request;

pub use reply::{Attributes, Entries, Entry, Opened, Qid, Space};
pub use request::Request;

/// Bytes before a message's fields.
pub const HEADER: usize = 7;

/// The tag of a request that is made before there are any: that for the version (`P9_NOTAG`).
pub const NO_TAG: u16 = u16::MAX;

/// The version that both ends must speak.
pub const VERSION: &str = "9P2000.L";

/// The smallest `msize` that we work with, which is the smallest that QEMU accepts: whatever is not data fits.
pub const SMALLEST_MSIZE: u32 = 4096;

/// What a message with data in it has besides the data, at the most (`P9_IOHDRSZ`).
pub const AROUND_DATA: u32 = 24;

/// Names that fit into one walk of the smallest message; the protocol allows 16.
pub const WALK_NAMES: usize = 15;

/// The longest name of a file, as Linux has it.
pub const LONGEST_NAME: usize = 255;

/// The types of the requests; each answer has the next number.
pub mod kind {
    /// The answer to any request that failed.
    pub const ERROR: u8 = 7;
    /// Figures of the file system.
    pub const STATFS: u8 = 8;
    /// Open for reading or writing.
    pub const OPEN: u8 = 12;
    /// Make a file and open it.
    pub const CREATE: u8 = 14;
    /// Attributes.
    pub const GETATTR: u8 = 24;
    /// Change attributes.
    pub const SETATTR: u8 = 26;
    /// Entries of a directory.
    pub const READDIR: u8 = 40;
    /// Have everything written to the disk.
    pub const FSYNC: u8 = 50;
    /// Make a directory.
    pub const MKDIR: u8 = 72;
    /// Rename.
    pub const RENAMEAT: u8 = 74;
    /// Remove.
    pub const UNLINKAT: u8 = 76;
    /// Agree on the version and the longest message; whatever was before is forgotten.
    pub const VERSION: u8 = 100;
    /// The root directory.
    pub const ATTACH: u8 = 104;
    /// Do not answer an earlier request any more.
    pub const FLUSH: u8 = 108;
    /// Go down the tree.
    pub const WALK: u8 = 110;
    /// Bytes of a file.
    pub const READ: u8 = 116;
    /// Bytes for a file.
    pub const WRITE: u8 = 118;
    /// A file is of no interest any more.
    pub const CLUNK: u8 = 120;
}

/// How a file is opened: Linux's flags for `open`.
pub mod flags {
    /// `O_RDONLY`
    pub const READ: u32 = 0;
    /// `O_RDWR`
    pub const READ_WRITE: u32 = 2;
    /// `O_EXCL`
    pub const EXCLUSIVE: u32 = 0o200;
    /// `O_TRUNC`
    pub const TRUNCATE: u32 = 0o1000;
    /// `O_DIRECTORY`
    pub const DIRECTORY: u32 = 0o200_000;
}

/// What a message says of itself before its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes, with the header.
    pub size: u32,
    /// Its type.
    pub kind: u8,
    /// Which request it is, or which one it answers.
    pub tag: u16,
}

impl Header {
    /// Reads a header. Its size may be anything.
    #[must_use]
    pub const fn parse(bytes: &[u8; HEADER]) -> Self {
        let &[a, b, c, d, kind, low, high] = bytes;
        Self {
            size: u32::from_le_bytes([a, b, c, d]),
            kind,
            tag: u16::from_le_bytes([low, high]),
        }
    }
}
