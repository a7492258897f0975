//! What can go wrong between two ends.

use core::fmt;

use embedded_io_async::ErrorKind;
use fata_grant::RingError;
use fata_hypercall::GrantError;

/// Why a vchan could not be made or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// What the store said.
    Store(fata_xenstore::Error),
    /// There are no pages or references to share with the client.
    Grant(fata_grant::Error),
    /// A page of the server's could not be mapped.
    Map(GrantError),
    /// There is no event channel.
    Port(fata_events::xen::Error),
    /// A ring of more than 1 MiB was asked for.
    TooLarge,
    /// Rings of these sizes (as powers of two) do not exist, or do not fit.
    BadOrder {
        /// Of the ring that the client writes.
        left: u16,
        /// Of the ring that the server writes.
        right: u16,
    },
    /// The peer's index is impossible.
    BadIndex(RingError),
    /// The vchan is closed, at this end or at the other.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("vchan: ")?;
        match self {
            Self::Store(error) => write!(f, "xenstore: {error}"),
            Self::Grant(error) => error.fmt(f),
            Self::Map(error) => write!(f, "the server's page cannot be mapped: {error}"),
            Self::Port(error) => error.fmt(f),
            Self::TooLarge => f.write_str("a ring has 1 MiB at the most"),
            Self::BadOrder { left, right } => write!(f, "rings of the orders {left} and {right}"),
            Self::BadIndex(error) => error.fmt(f),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl core::error::Error for Error {}

impl embedded_io_async::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(_) | Self::Port(_) | Self::Map(_) => ErrorKind::NotConnected,
            Self::Grant(_) => ErrorKind::OutOfMemory,
            Self::TooLarge => ErrorKind::InvalidInput,
            Self::BadOrder { .. } | Self::BadIndex(_) => ErrorKind::InvalidData,
            Self::Closed => ErrorKind::BrokenPipe,
        }
    }
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

impl From<GrantError> for Error {
    fn from(error: GrantError) -> Self {
        Self::Map(error)
    }
}

impl From<fata_events::xen::Error> for Error {
    fn from(error: fata_events::xen::Error) -> Self {
        Self::Port(error)
    }
}

impl From<RingError> for Error {
    fn from(error: RingError) -> Self {
        Self::BadIndex(error)
    }
}
