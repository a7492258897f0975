//! What can go wrong, as one type.

use core::fmt;

use embedded_io_async::ErrorKind;

/// Why an operation of the stack failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The port (or address and port) is in use by another listener or socket of this stack.
    AddressInUse,
    /// The address is not one of the stack's own, or there is none of its family, or no route to the peer.
    AddressNotAvailable,
    /// An address, port, name or setting that can never be right: port 0 as a destination, a multicast source,
    /// a prefix longer than its address, more addresses than the stack holds.
    InvalidInput,
    /// The peer refused the connection.
    ConnectionRefused,
    /// The peer reset the connection, or the connection was aborted by a time limit.
    ConnectionReset,
    /// The connection is closed for this direction: writing after `shutdown`, or after the peer is gone.
    NotConnected,
    /// Nobody answered in time.
    TimedOut,
    /// A limit of the stack ([`Limits`](crate::Limits)) or the heap is exhausted.
    OutOfMemory,
    /// The datagram is larger than the socket's buffer, or can never be sent.
    DatagramTooLarge,
    /// The name is not a valid domain name.
    InvalidName,
    /// The name server says that the name does not exist, or that it has no address (RFC 1035, RFC 2308).
    NameNotFound,
    /// The name server failed or refused, or answered nonsense.
    NameServerFailure,
    /// No name server is configured.
    NoNameServer,
    /// The runner of this stack was dropped: nothing will ever happen again.
    Stopped,
    /// The device's address is not a unicast Ethernet address, or its MTU is too small for IP (RFC 791: 68 bytes).
    BadDevice,
}

impl Error {
    /// The error in a few words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddressInUse => "address in use",
            Self::AddressNotAvailable => "address not available or no route",
            Self::InvalidInput => "invalid address or setting",
            Self::ConnectionRefused => "connection refused",
            Self::ConnectionReset => "connection reset",
            Self::NotConnected => "not connected",
            Self::TimedOut => "timed out",
            Self::OutOfMemory => "out of memory or over a limit",
            Self::DatagramTooLarge => "datagram too large",
            Self::InvalidName => "invalid domain name",
            Self::NameNotFound => "name not found",
            Self::NameServerFailure => "name server failure",
            Self::NoNameServer => "no name server configured",
            Self::Stopped => "network stack stopped",
            Self::BadDevice => "unusable network device",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for Error {}

impl embedded_io_async::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::AddressInUse => ErrorKind::AddrInUse,
            Self::AddressNotAvailable => ErrorKind::AddrNotAvailable,
            Self::InvalidInput | Self::InvalidName | Self::DatagramTooLarge => ErrorKind::InvalidInput,
            Self::ConnectionRefused => ErrorKind::ConnectionRefused,
            Self::ConnectionReset => ErrorKind::ConnectionReset,
            Self::NotConnected => ErrorKind::NotConnected,
            Self::TimedOut => ErrorKind::TimedOut,
            Self::OutOfMemory => ErrorKind::OutOfMemory,
            Self::NameNotFound => ErrorKind::NotFound,
            Self::NameServerFailure | Self::NoNameServer | Self::Stopped | Self::BadDevice => ErrorKind::Other,
        }
    }
}

/// This crate's results.
pub type Result<T> = core::result::Result<T, Error>;
