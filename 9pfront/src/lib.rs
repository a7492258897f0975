//! Xen 9pfs frontend (xen/include/public/io/9pfs.h, docs/misc/9pfs.pandoc): directories of the host that are shared with a
//! guest, by the protocol 9P2000.L.
//!
//! In an `xl` configuration: `p9 = ["tag=data,path=/srv/data,security_model=none"]`. The backend is QEMU's.
//!
//! ```no_run
//! use fata_9pfront::{Error, Share};
//!
//! /// Counts the lines of a file, and notes the number beside it.
//! async fn count(share: &Share) -> Result<(), Error> {
//!     let text = share.read("input.txt", 1 << 20).await?;
//!     let lines = text.iter().filter(|byte| **byte == b'\n').count();
//!     share.write("lines.txt", format!("{lines}\n").as_bytes()).await
//! }
//! ```
//!
//! | File | What it has |
//! |---|---|
//! | [`wire`] | the messages: pure functions |
//! | `session` | many requests at once, their tags and files: no I/O, no hypervisor |
//! | `rings` | two streams of bytes in shared memory, cut into messages |
//! | `connect` | the keys in xenstore |
//! | `life`, [`Device`] | the handshake, again and again |
//! | [`Share`], [`File`], [`ReadDir`] | what a program does with it |
//!
//! # The backend is not trusted
//!
//! The length of each message is checked before anything of it is read, tag and type before anything is done with it, and
//! every field before it is used. What breaks the protocol closes the connection with a [`Fault`] that says what it was, and
//! whoever waits is told; a new connection is made after a pause. Neither ring nor references are read back from shared
//! memory. What the files contain is the host's word: whoever must not believe it has to sign or encrypt.
//!
//! # Dropping is safe at every await
//!
//! A request that nobody waits for is taken back (Tflush), or is ignored when it is answered after all; its tag is not used
//! again before. A file that nobody has any more is given back (Tclunk) when the last request about it is over.
//!
//! # When the connection ends
//!
//! A backend that closes, dies or breaks the protocol, and a domain that is restored, end the connection: requests that wait
//! fail, files that are open are [`Stale`](Error::Stale) from then on, and the [`Share`] goes on when there is a connection
//! again. Which of the last writes have reached the host nobody knows, unless [`File::sync`] said so.
//!
//! # What it offers and what not
//!
//! One ring of up to 64 KiB, files and directories. Not here: links, locks, extended attributes, owners; several rings; the
//! older protocol that Xen's own small daemon speaks (9P2000.u).
#![no_std]
#![forbid(unsafe_code)]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

extern crate alloc;

mod common;
mod connect;
mod device;
mod error;
mod fid;
mod file;
mod life;
mod path;
mod read_dir;
mod rings;
mod session;
mod share;
pub mod wire;

pub use device::Device;
pub use error::{Error, Fault};
pub use fata_hypercall::Errno;
pub use file::File;
pub use read_dir::{Entry, ReadDir};
pub use share::{Kind, Metadata, Share, Space};
