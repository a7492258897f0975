//! What can go wrong between us and the store.

use core::fmt;

use fata_hypercall::Errno;

use crate::xenbus::State;

/// Why a request, a watch or a handshake did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The toolstack gave this domain no store: neither page nor port.
    NoRing,
    /// The store's port could not be opened.
    Port,
    /// The server refused, and this is why. A name that the protocol does not list counts as `EIO`.
    Refused(Errno),
    /// Not a path: empty, too long, a doubled or trailing slash, or a character other than `A-Za-z0-9-/_@`.
    BadPath,
    /// The message would be larger than the 4096 bytes that Xenstore allows; it was not sent, for the server would
    /// have closed the connection. Or a list is longer than what is set aside for one.
    TooLong,
    /// There is no memory for what the server says.
    NoMemory,
    /// A message breaks the protocol. From the server: it answered something else than was asked.
    BadMessage,
    /// A node holds something else than it should: not a number, out of range, not text.
    BadValue,
    /// The server's indices are impossible: more bytes than the ring holds.
    BadRing,
    /// The server stopped and said so, with this code in the ring's `error` field (1 communication, 2 ring index,
    /// 3 protocol; xen/include/public/io/xs_wire.h).
    ServerStopped(u32),
    /// The connection was lost and is being made anew. What belonged to the old one is gone: the transaction, and
    /// the answer to the request, which may have been carried out or not. The next request waits for the new one.
    Disconnected,
    /// The domain was restored, and what was asked, or was to be asked, may tell of grants, ports or paths of its former life.
    /// Who has none to tell of may simply ask again.
    Restored,
    /// Nothing serves requests any more: the future [`run`](crate::Store::run) ended or was dropped.
    Stopped,
    /// A transaction met other writers on each of its attempts.
    Contended,
    /// The time limit passed.
    TimedOut,
    /// The backend went into this state while another was waited for. [`State::Unknown`]: it is gone.
    Backend(State),
}

impl Error {
    /// Whether the server said that there is no such node.
    #[must_use]
    pub fn is_missing(self) -> bool {
        self == Self::Refused(Errno::ENOENT)
    }

    /// Whether the server said that we may not.
    #[must_use]
    pub fn is_denied(self) -> bool {
        self == Self::Refused(Errno::EACCES) || self == Self::Refused(Errno::EPERM)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NoRing => "this domain has no xenstore",
            Self::Port => "xenstore's event channel cannot be used",
            Self::Refused(errno) => return write!(f, "xenstored refused: {errno}"),
            Self::BadPath => "not a xenstore path",
            Self::TooLong => "too long for a xenstore message",
            Self::NoMemory => "no memory for the answer",
            Self::BadMessage => "a message breaks the xenstore protocol",
            Self::BadValue => "a node holds something unexpected",
            Self::BadRing => "impossible indices in the xenstore ring",
            Self::ServerStopped(code) => return write!(f, "xenstored stopped with error {code}"),
            Self::Disconnected => "the connection to xenstored was lost and is made anew",
            Self::Restored => "the domain was restored meanwhile",
            Self::Stopped => "the xenstore client has stopped",
            Self::Contended => "the transaction met other writers each time",
            Self::TimedOut => "the time limit passed",
            Self::Backend(state) => return write!(f, "the backend went to {}", state.name()),
        };
        f.write_str(text)
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_denied_are_three_errnos_and_no_more() {
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::EPERM, Errno::EIO, Errno::EAGAIN] {
            let error = Error::Refused(errno);
            assert_eq!(error.is_missing(), errno == Errno::ENOENT);
            assert_eq!(error.is_denied(), matches!(errno, Errno::EACCES | Errno::EPERM));
        }
        assert!(!Error::Disconnected.is_missing() && !Error::Disconnected.is_denied());
    }
}
