//! Xen's event channels and clock, and the loop that lives on them.
//!
//! Events are polled, not delivered: all ports stay masked, so Xen never interrupts, never touches the selector, and
//! only sets the ports' pending bits; an idle domain sleeps in `SCHEDOP_poll`. That needs no interrupt controller, no
//! callback vector and no handler that could race with the code it interrupts.

mod clock;
mod pause;
mod pending;
mod ports;
mod run;

pub use clock::PvClock;
pub use ports::{Channel, Event, EventStats, Ports};
pub use run::XenLoop;

use core::fmt;

use fata_hypercall::{Errno, Port};

/// Why a port could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Xen refused.
    Xen(Errno),
    /// The number cannot be a port of the two-level ABI: it is 0, or above 4095.
    BadPort(Port),
    /// The port has an owner already.
    InUse(Port),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen(Errno::ENOSPC) => {
                f.write_str("no event channel is free (event_channels= in the domain's configuration)")
            }
            Self::Xen(errno) => write!(f, "event channel: {errno}"),
            Self::BadPort(port) => write!(f, "event channel {port} is out of range"),
            Self::InUse(port) => write!(f, "event channel {port} is in use"),
        }
    }
}

impl core::error::Error for Error {}
