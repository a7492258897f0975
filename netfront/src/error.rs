//! What can go wrong with an interface.

use core::fmt;

use fata_grant::RingError;
use fata_xenstore::xenbus::State;

/// Why an interface does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The toolstack gave the domain no interface with this number.
    NoDevice,
    /// The interface has a backend on paper only: its directory is missing or cannot be read.
    NoBackend,
    /// The backend's host could not set it up: the hotplug script failed, for instance because there is no such
    /// bridge.
    Hotplug,
    /// The backend was silent for too long. What it was last seen in.
    TimedOut {
        /// Our state.
        own: State,
        /// The backend's.
        backend: State,
    },
    /// A key in the store is missing or makes no sense.
    BadKey(&'static str),
    /// The store cannot be used.
    Store(fata_xenstore::Error),
    /// Pages could not be shared.
    Grant(fata_grant::Error),
    /// There is no event channel.
    Event(fata_events::xen::Error),
    /// The backend broke the protocol, so the interface was closed.
    Fault(Fault),
}

impl From<fata_xenstore::Error> for Error {
    fn from(error: fata_xenstore::Error) -> Self {
        Self::Store(error)
    }
}

impl From<fata_grant::Error> for Error {
    fn from(error: fata_grant::Error) -> Self {
        Self::Grant(error)
    }
}

impl From<fata_events::xen::Error> for Error {
    fn from(error: fata_events::xen::Error) -> Self {
        Self::Event(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("there is no such network interface"),
            Self::NoBackend => f.write_str("the network interface has no backend"),
            Self::Hotplug => f.write_str("the backend's host could not set the network interface up (hotplug script)"),
            Self::TimedOut { own, backend } => {
                write!(
                    f,
                    "no answer from the network backend: it is {}, we are {}",
                    backend.name(),
                    own.name()
                )
            }
            Self::BadKey(key) => write!(f, "key `{key}` of the network interface is missing or makes no sense"),
            Self::Store(error) => error.fmt(f),
            Self::Grant(error) => error.fmt(f),
            Self::Event(error) => error.fmt(f),
            Self::Fault(fault) => write!(f, "the network backend broke the protocol: {fault}"),
        }
    }
}

impl core::error::Error for Error {}

/// What a backend did that no backend may do. It costs the backend its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Impossible index in the receive ring.
    RxRing(RingError),
    /// Impossible index in the transmit ring.
    TxRing(RingError),
    /// A slot announced another, and there was none.
    RxTruncated,
    /// Received bytes would leave their page.
    RxBounds {
        /// Where they begin.
        offset: u16,
        /// How many there are.
        len: u16,
    },
    /// An extra of an unknown type.
    RxExtra(u8),
    /// Two extras of one type in a packet.
    RxExtraTwice(u8),
    /// Segments of no size, or of no known type.
    RxGso,
    /// A page was received into and is still mapped.
    RxBusy,
    /// A response to a request that was not made, or had its response.
    TxId(u16),
    /// A response with a status that there is not, or that none of the requests can have.
    TxStatus(i16),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RxRing(error) => write!(f, "receive {error}"),
            Self::TxRing(error) => write!(f, "transmit {error}"),
            Self::RxTruncated => f.write_str("received packet ends in the middle"),
            Self::RxBounds { offset, len } => write!(f, "received {len} bytes at {offset} leave their page"),
            Self::RxExtra(kind) => write!(f, "unknown extra {kind}"),
            Self::RxExtraTwice(kind) => write!(f, "extra {kind} twice"),
            Self::RxGso => f.write_str("received segments of no size or type"),
            Self::RxBusy => f.write_str("page received into is still mapped"),
            Self::TxId(id) => write!(f, "response to {id}, which was not sent"),
            Self::TxStatus(status) => write!(f, "transmit status {status}"),
        }
    }
}

impl core::error::Error for Fault {}
