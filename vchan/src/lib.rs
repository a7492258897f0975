//! A stream of bytes between two Xen domains, as libvchan has it (xen/include/public/io/libxenvchan.h): what is written at
//! one end is read at the other, in both directions, through memory that both see.
//!
//! One end is the *server*. It grants the memory, opens an event channel, and says in the store where both are. The other,
//! the *client*, finds them there. Then there is no difference any more. Each end may be Fata, or any program that uses Xen's
//! libxenvchan, such as `vchan-socket-proxy`.
//!
//! ```no_run
//! use fata_vchan::{DomId, Error, Sizes, Vchans};
//!
//! /// Waits for the domain 5 and sends back what it says.
//! async fn echo(vchans: &Vchans) -> Result<(), Error> {
//!     let vchan = vchans.listen(DomId(5), "data/echo", Sizes::default()).await?;
//!     let mut buffer = [0; 512];
//!     while let length @ 1.. = vchan.read(&mut buffer).await? {
//!         vchan.write_all(&buffer[..length]).await?;
//!     }
//!     Ok(())
//! }
//!
//! /// Talks to it from there.
//! async fn ask(vchans: &Vchans) -> Result<(), Error> {
//!     let vchan = vchans.connect(DomId(4), "/local/domain/4/data/echo").await?;
//!     vchan.write_all(b"hello").await?;
//!     vchan.flush().await
//! }
//! ```
//!
//! # The other end is not trusted
//!
//! The sizes of the rings and the list of grants are read once, checked, and not looked at again; indices are checked at each
//! use. Whatever makes no sense closes the vchan with an error and harms nobody else. A server's pages need room in a client, which
//! has it for 767 pages of all servers together. The largest vchan has 513: one server cannot take it all. A peer that is slow or silent is
//! waited for: set limits with a timeout.
//!
//! # When the other end goes away
//!
//! A close, and the death of a process that used libxenvchan, wake whoever waits: what was written before can still be read,
//! then reading gives 0 bytes, and writing [`Error::Closed`]. A server *domain* that is destroyed is noticed by its nodes in
//! the store, which go with it. A client domain that is destroyed has nothing of the kind: whoever waits for it asks Xen every
//! five seconds whether it is there.
//!
//! # Suspend
//!
//! Pages that another domain has granted do not come along when a domain is suspended, and those that it granted itself lose
//! their peer. So a vchan does not survive a suspend of either end, nor one that is given up: [`Vchans::close_all`] comes
//! before, and whoever waits gets [`Error::Closed`]. Make a new one when the domain goes on.
#![no_std]
#![forbid(unsafe_code)]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

extern crate alloc;

mod end;
mod error;
mod io;
mod layout;
mod link;
mod vchan;
mod vchans;

pub use error::Error;
pub use fata_hypercall::DomId;
pub use layout::Sizes;
pub use vchan::Vchan;
pub use vchans::Vchans;
