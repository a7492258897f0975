//! Pages shared with another Xen domain.
//!
//! * [`Pages`]: a run of pages that is ours alone.
//! * [`Table`]: the grant table of this domain (version 1). [`Table::share`] turns pages into [`Shared`] ones.
//! * [`Shared`]: pages that a peer may read ([`ReadOnly`]) or write ([`ReadWrite`]) until they are revoked. The type
//!   follows the truth: what a peer can change is never seen as `&[u8]`, and what it still maps can neither be freed
//!   nor used again.
//! * [`FrontRing`], [`BackRing`]: the two ends of a ring of requests and responses (xen/include/public/io/ring.h).
//! * [`ByteRing`]: the byte rings of console, xenstore and vchan.
//! * [`Mapped`]: a page that another domain has granted to us.
//!
//! Everything works with a [`Hypervisor`](fata_hypercall::Hypervisor) handle; there is no global state.
#![no_std]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

extern crate alloc;

mod bytes;
mod error;
mod mapped;
mod pages;
mod ring;
mod row;
mod shared;
mod table;

pub use bytes::{ByteLane, ByteLayout, ByteRing};
pub use error::{Busy, Error, Full, RingError, ShareError};
pub use mapped::Mapped;
pub use pages::Pages;
pub use ring::{BackRing, FrontRing, slots_in_page};
pub use row::{read_row, write_row};
pub use shared::{Access, ReadOnly, ReadWrite, Shared};
pub use table::{Stats, Table, Tender};
