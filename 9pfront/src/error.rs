//! What can go wrong with a share.

use core::fmt;

use embedded_io_async::ErrorKind;
use fata_grant::RingError;
use fata_hypercall::Errno;
use fata_xenstore::xenbus::State;

/// Why something could not be done with a share, or why it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, and this is why: no such file, no permission, no space. A number of Linux's, of which
    /// [`Errno`] has names for some.
    Refused(Errno),
    /// Not a path: it has `..`, a NUL, or a name of more than 255 bytes, or it names the root where a name is wanted.
    BadPath,
    /// A position before the beginning of the file.
    BadSeek,
    /// The file has more bytes than were allowed, or than there is memory for.
    TooLarge {
        /// How many.
        limit: usize,
    },
    /// The file was opened over a connection that has ended since. Open it again.
    Stale,
    /// There is no connection with the backend, for no bad reason: not yet, not any more, or the domain was restored.
    Closed,
    /// Nobody is at the other end any more: the backend's process has died.
    Gone,
    /// The toolstack gave the domain no share with this number.
    NoDevice,
    /// The share has a backend on paper only: its directory is missing or cannot be read.
    NoBackend,
    /// The backend was silent for too long. What it was last seen in.
    TimedOut {
        /// Our state.
        own: State,
        /// The backend's.
        backend: State,
    },
    /// A key in the store is missing or makes no sense.
    BadKey(&'static str),
    /// The backend does not speak version 1 of the transport.
    NoVersion,
    /// The store cannot be used.
    Store(fata_xenstore::Error),
    /// Pages could not be shared.
    Grant(fata_grant::Error),
    /// There is no event channel.
    Event(fata_events::xen::Error),
    /// The backend broke the protocol, so the connection was closed.
    Fault(Fault),
}

impl Error {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(self) -> bool {
        self == Self::Refused(Errno::ENOENT)
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

impl From<fata_events::xen::Error> for Error {
    fn from(error: fata_events::xen::Error) -> Self {
        Self::Event(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("9pfs: ")?;
        match self {
            Self::Refused(errno) => write!(f, "the host refused: {errno}"),
            Self::BadPath => f.write_str("not a path: `..`, NUL, a name of more than 255 bytes, or no name at all"),
            Self::BadSeek => f.write_str("a position before the beginning of the file"),
            Self::TooLarge { limit } => write!(f, "the file has more than {limit} bytes; read it in pieces"),
            Self::Stale => f.write_str("the file belongs to an earlier connection; open it again"),
            Self::Closed => f.write_str("the backend is not connected"),
            Self::Gone => f.write_str("the backend is gone; look at its log on the host (/var/log/xen/qemu-*)"),
            Self::NoDevice => f.write_str("there is no such share; add one to the domain's configuration: p9=[...]"),
            Self::NoBackend => f.write_str("the share has no backend"),
            Self::TimedOut { own, backend } => {
                let (own, backend) = (own.name(), backend.name());
                write!(f, "no answer from the backend: it is {backend}, we are {own}")
            }
            Self::BadKey(key) => write!(f, "key `{key}` of the share is missing or makes no sense"),
            Self::NoVersion => f.write_str("the backend does not know version 1 of the transport"),
            Self::Store(error) => error.fmt(f),
            Self::Grant(error) => error.fmt(f),
            Self::Event(error) => error.fmt(f),
            Self::Fault(fault) => write!(f, "the backend broke the protocol: {fault}"),
        }
    }
}

impl core::error::Error for Error {}

impl embedded_io_async::Error for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(Errno::ENOENT) => ErrorKind::NotFound,
            Self::Refused(Errno::EACCES | Errno::EPERM) => ErrorKind::PermissionDenied,
            Self::Refused(Errno::EEXIST) => ErrorKind::AlreadyExists,
            Self::Refused(_) => ErrorKind::Other,
            Self::BadPath | Self::BadSeek => ErrorKind::InvalidInput,
            Self::TooLarge { .. } | Self::Grant(_) => ErrorKind::OutOfMemory,
            Self::Fault(_) | Self::BadKey(_) | Self::NoVersion => ErrorKind::InvalidData,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Stale | Self::Closed | Self::Gone | Self::NoDevice | Self::NoBackend => ErrorKind::NotConnected,
            Self::Store(_) | Self::Event(_) => ErrorKind::NotConnected,
        }
    }
}

/// What a backend did that no backend may do. It costs the backend its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Impossible index in a ring.
    Index(RingError),
    /// A message shorter than a header, or longer than was agreed.
    Size(u32),
    /// A message that began and did not come to its end.
    Truncated,
    /// An answer to a request that was not made, or had its answer.
    Tag(u16),
    /// An answer of a type that does not belong to the request's.
    Kind {
        /// The request's type.
        asked: u8,
        /// The answer's.
        answered: u8,
    },
    /// The fields of an answer to a request of this type do not make sense.
    Malformed(u8),
    /// It speaks another protocol than 9P2000.L.
    Version,
    /// The longest message that it wants is longer than what was offered, or too short to work with.
    MessageSize(u32),
    /// It does not give out the root directory.
    Attach(Errno),
    /// It has begun anew, and knows nothing of what was open, without telling.
    Forgotten,
}

impl From<RingError> for Fault {
    fn from(error: RingError) -> Self {
        Self::Index(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(error) => error.fmt(f),
            Self::Size(size) => write!(f, "a message of {size} bytes"),
            Self::Truncated => f.write_str("a message that does not come to its end"),
            Self::Tag(tag) => write!(f, "an answer to {tag}, which was not asked"),
            Self::Kind { asked, answered } => write!(f, "an answer of type {answered} to a request of type {asked}"),
            Self::Malformed(kind) => write!(f, "the fields of an answer to a request of type {kind}"),
            Self::Version => f.write_str("it does not speak 9P2000.L"),
            Self::MessageSize(size) => write!(f, "messages of {size} bytes"),
            Self::Attach(errno) => write!(f, "it refused the root directory: {errno}"),
            Self::Forgotten => f.write_str("it has forgotten what was open"),
        }
    }
}

impl core::error::Error for Fault {}
