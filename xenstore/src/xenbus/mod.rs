//! The handshake of split devices (xen/include/public/io/xenbus.h).
//!
//! Each end of a device has a node `state` that only it writes, and watches the other's. [`State`] is its value,
//! [`action`] the whole state machine of a frontend as one table, and [`Frontend`] a device's nodes driven by it.
//! [`Devices`] is which devices there are.

mod devices;
mod frontend;
mod nodes;
mod state;
mod table;

pub use devices::Devices;
pub use frontend::{Frontend, Limits, Step};
pub use state::State;
pub use table::{Action, Event, action};
