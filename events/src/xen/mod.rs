//! Xen's event channels and clock, and the loop that lives on them.
//!
//! Events are polled, not delivered: Xen sets the ports' pending bits and has no vector to interrupt us by; an idle domain sleeps
//! in `SCHEDOP_poll`. That needs no interrupt controller, no callback and no handler that could race with the code it
//! interrupts.
//!
//! Pending bits come in two forms. A domain begins with the two-level one, a bit for each of 4096 ports, all of them masked.
//! With its 1024th port, which is one more than a domain may have unless its configuration says otherwise, it changes over to
//! the FIFO form for good: up to 131,072 ports, and a list of those that have fired, so that a turn of the loop costs the
//! same however many there are. A program that never has so many is 2 KiB smaller without it (feature `fifo` of
//! `fata-hypercall`).

mod awaited;
mod channel;
mod clock;
mod fifo;
mod pause;
mod ports;
mod run;
mod two_level;

pub use channel::{Channel, Event};
pub use clock::PvClock;
pub use ports::{EventStats, Ports};
pub use run::XenLoop;

use core::fmt;

use fata_hypercall::{Errno, Port};

/// Why a port could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Xen refused.
    Xen(Errno),
    /// The number cannot be a port: it is 0, or above 131,071.
    BadPort(Port),
    /// The port needs the FIFO form, which cannot be had.
    NoFifo(Port, Errno),
    /// The port has an owner already.
    InUse(Port),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen(Errno::ENOSPC) => {
                f.write_str("no event channel is free (max_event_channels= in the domain's configuration)")
            }
            Self::Xen(errno) => write!(f, "event channel: {errno}"),
            Self::BadPort(port) => write!(f, "event channel {port} is out of range"),
            Self::NoFifo(port, Errno::ENOMEM) => {
                write!(
                    f,
                    "no memory for event channel {port} (memory= in the domain's configuration)"
                )
            }
            Self::NoFifo(port, errno) => write!(
                f,
                "event channel {port}: there are 4095, and no FIFO form (feature `fifo` of the program, or Xen's: {errno})"
            ),
            Self::InUse(port) => write!(f, "event channel {port} is in use"),
        }
    }
}

impl core::error::Error for Error {}
