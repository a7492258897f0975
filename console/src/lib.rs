//! The domain's console: the ring that xenconsoled reads and writes (xen/include/public/io/console.h).
//!
//! **Output never blocks.** Bytes go into the ring; when that is full, into a buffer of [`BACKLOG`] bytes; when that
//! is full too, whole lines are dropped and counted, and as soon as there is room the console says
//! `[console: N bytes lost]`. A daemon that has stopped costs a guest some lines, never its life (CVE-2022-46770 was
//! a guest that waited).
//!
//! **The other end is not trusted.** Its indices are checked; an impossible one closes the ring, and output goes to
//! Xen's own log from then on, as it does in a domain that has no console ring. A release build of Xen does not take it, and
//! others leave out what is too much: so it is counted as dropped, and said to be lost where a restore brings a ring.
#![no_std]
#![forbid(unsafe_code)]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

extern crate alloc;

mod backlog;
mod console;
mod input;
mod io;
mod line;
mod output;

pub use backlog::BACKLOG;
pub use console::{Console, Stats};
pub use line::MAX_LINE;

use core::fmt;

/// Why nothing can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The domain has no console ring, or it was closed because the other end broke its rules.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the console is closed")
    }
}

impl core::error::Error for Error {}
