//! What can go wrong with pages, grants and rings.

use core::fmt;

use fata_hypercall::{DomId, Errno, Gfn, Hypervisor};

use crate::Pages;

/// Why pages could not be had or shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No contiguous run of pages of that length is free.
    NoMemory,
    /// Every reference of the grant table is in use or in quarantine, and the table may not grow any more.
    Exhausted {
        /// References asked for.
        wanted: usize,
        /// References that are free.
        free: usize,
    },
    /// Xen refused to let the grant table grow.
    Grow(Errno),
    /// The page lies above 16 TiB, which a version 1 entry cannot name.
    TooHigh(Gfn),
    /// So many pages of earlier connections are still mapped by a peer that no more are given to it.
    Quarantine {
        /// Who.
        peer: DomId,
        /// How many.
        pages: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no memory for pages to share"),
            Self::Exhausted { wanted, free } => write!(
                f,
                "grant table full: {wanted} references wanted, {free} free (max_grant_frames= in the domain's configuration)"
            ),
            Self::Grow(errno) => write!(f, "grant table cannot grow: {errno}"),
            Self::Quarantine { peer, pages } => write!(
                f,
                "domain {} still maps pages of earlier connections ({pages} are held back)",
                peer.0
            ),
            Self::TooHigh(gfn) => write!(f, "page {:#x} is out of reach of the grant table", gfn.0),
        }
    }
}

impl core::error::Error for Error {}

/// [`Table::share`](crate::Table::share) failed; the pages are still the caller's.
pub struct ShareError<H: Hypervisor> {
    /// What went wrong.
    pub error: Error,
    /// The pages, not shared with anybody.
    pub pages: Pages<H>,
}

impl<H: Hypervisor> fmt::Debug for ShareError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<H: Hypervisor> fmt::Display for ShareError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<H: Hypervisor> core::error::Error for ShareError<H> {}

impl<H: Hypervisor> From<ShareError<H>> for Error {
    /// Frees the pages.
    fn from(failed: ShareError<H>) -> Self {
        failed.error
    }
}

/// The peer still uses a page that should be ours again.
///
/// For a driver whose peer has answered the request this is a violation of the protocol: the device is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer still maps a page that it should have given back")
    }
}

impl core::error::Error for Busy {}

/// The ring has no free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ring full")
    }
}

impl core::error::Error for Full {}

/// The peer's index claims what cannot be: the ring is broken for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingError {
    /// The peer's index, as read.
    pub claimed: u32,
    /// Our index that it is counted from.
    pub own: u32,
    /// How far apart the two may be.
    pub limit: u32,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ring index {} is more than {} away from {}",
            self.claimed, self.limit, self.own
        )
    }
}

impl core::error::Error for RingError {}
