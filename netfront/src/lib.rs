//! Xen network frontend (xen/include/public/io/netif.h).
//!
//! [`Vif`] is a network interface that lives as long as the domain: it connects, is connected again when its backend
//! comes back, and meanwhile hands out frames. The files are the protocol's concepts:
//!
//! | File | What it has |
//! |---|---|
//! | [`abi`] | the structures in the rings |
//! | [`assemble`] | slots of the receive ring become a packet: a pure function |
//! | [`split`](mod@split) | a packet becomes slots of the transmit ring: a pure function |
//! | [`features`] | the keys in xenstore, read and written |
//! | `connect` | what the store says about an interface |
//! | `channels` | the event channels, one or two |
//! | `life` | the handshake, again and again |
//! | `retry` | how long to wait after something went wrong |
//! | `rx`, `tx`, `pool` | the two rings, and their buffers |
//! | `vif` | all of it together |
//!
//! # What it offers and what not
//!
//! Packets of several slots both ways, checksums left blank both ways, many TCP segments in one packet both ways (GSO),
//! any MTU, multicast filters, one event channel or one for each ring. One queue, also of a backend that offers several.
//! Not yet: several queues, the control ring, XDP.
//!
//! # What a packet costs
//!
//! Received: the response is copied out of the ring once and checked, the grant of its page is ended with one
//! compare-and-swap, the bytes are read in place, the page is granted again with one store. Sent: written straight
//! into memory that the backend may read for as long as the interface is connected, then one request. Neither
//! allocates, and neither makes a hypercall; a burst of any number of packets notifies the backend at most once.
//!
//! # What a hostile backend can do
//!
//! Take the interface down, with a [`Fault`] that says what it did, and again each time that it is given another chance,
//! which is less and less often. Nothing else: no panic, no loop without bound, no memory but what was shared with it.
#![no_std]
#![forbid(unsafe_code)]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

extern crate alloc;

pub mod abi;
pub mod assemble;
mod channels;
mod connect;
mod error;
pub mod features;
mod frame;
mod life;
mod options;
mod pool;
mod rx;
pub mod split;
mod stats;
mod tx;
mod vif;

pub use error::{Error, Fault};
pub use features::{Agreement, Identity, Offload, Segmentation, mac_name};
pub use frame::{RxFrame, TxFrame};
pub use options::Options;
pub use rx::{RxChecksum, RxMeta};
pub use stats::Stats;
pub use tx::{TxChecksum, TxMeta};
pub use vif::Vif;
