//! The handshake of split devices (xen/include/public/io/xenbus.h).
//!
//! Each end of a device has a node `state` that only it writes, and watches the other's. [`State`] is its value,
//! [`action`] the whole state machine of a frontend as one table, and [`Frontend`] a device's nodes driven by it.
//! [`Devices`] is which devices there are, and [`Life`] what becomes of one, with a [`Driver`] for what is special about its kind.

mod devices;
mod frontend;
mod life;
mod nodes;
mod retry;
mod state;
mod table;

pub use devices::Devices;
pub use frontend::{Frontend, Limits, Step};
pub use life::{Driver, Life};
pub use state::State;
pub use table::{Action, Event, action};
