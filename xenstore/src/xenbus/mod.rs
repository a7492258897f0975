//! The handshake of split devices (xen/include/public/io/xenbus.h).

mod state;

pub use state::State;
