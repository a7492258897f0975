//! Xenstore: the tree of small values in which Xen's toolstack and the two ends of every device find each other.
//!
//! * [`wire`]: the messages, as pure functions over bytes, for both ends.
//! * [`Store`] and [`Client`]: requests from many tasks over one ring, transactions, watches.
//! * [`xenbus`]: the handshake of split devices: states, the frontend's state machine as one table, and
//!   [`xenbus::Frontend`], which drives a device's nodes by it.
//! * [`control`]: what the toolstack wants of the domain: power off, reboot.
//!
//! # The way of a request
//!
//! ```text
//!  store.read("name").await                                             xenstored
//!     │                                                                    ^
//!     │ wire::Request, checked and encoded                                 │
//!     v                                                                    │
//!  queue (first in, first out; 16 under way) ──> store.run() ──> ring page + event channel
//!                                                    │                     │
//!  the caller's task is woken <── answer, by number ─┤<────────────────────┘
//!  the watch's count goes up  <── event, by token  ──┘
//! ```
//!
//! ```no_run
//! use fata_events::{Handle, xen::Ports};
//! use fata_hypercall::Hypervisor;
//! use fata_xenstore::{Error, Store};
//!
//! fn open<H: Hypervisor>(hv: H, ports: &Ports<H>, handle: &Handle) -> Result<Store<H>, Error> {
//!     let store = Store::new(hv, ports, handle.clone())?;
//!     handle.spawn(store.run()).detach();
//!     Ok(store)
//! }
//!
//! async fn greet(store: &fata_xenstore::Client) -> Result<(), Error> {
//!     let name = store.read_string("name").await?;
//!     store.write("data/greeting", &["hello from ", &name].concat()).await
//! }
//! ```
//!
//! # What it holds to
//!
//! * **The server is not trusted with our memory or our time.** Lengths are checked before memory is set aside,
//!   indices before they are used; what belongs to nothing is counted and ignored; a turn takes in a bounded number
//!   of messages. Whatever it sends can end the connection, with an error to every caller, and no more.
//! * **Dropping is safe at every await.** A request that nobody waits for keeps its number until it is answered. A
//!   transaction that it opened is closed, a watch that it set is taken back.
//! * **Watches cost what there are watches**, not what there are events.
//! * **Bytes are bytes.** Values are not text until [`read_string`](Client::read_string) says so.
//!
//! Not here: requests that only the toolstack may send, and suspend (the ring can be taken up anew by a reconnect).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

extern crate alloc;

mod client;
pub mod control;
pub mod decimal;
mod error;
mod memory;
pub mod wire;
pub mod xenbus;

pub use client::{Asked, Client, Quiet, Stats, Store, Transaction, Watch};
pub use error::Error;
