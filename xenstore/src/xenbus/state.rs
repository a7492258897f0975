//! Where one end of a device stands.

use crate::{Error, decimal};

/// The state of one end of a split device (`enum xenbus_state`, xen/include/public/io/xenbus.h), as its node `state`
/// holds it in decimal.
///
/// ```
/// use fata_xenstore::xenbus::State;
/// assert_eq!(State::parse(b"4")?, State::Connected);
/// assert_eq!(State::Connected.digit(), "4");
/// assert!(State::parse(b"9").is_err());
/// # Ok::<(), fata_xenstore::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// There is no such node: the end is gone, or not there yet.
    Unknown = 0,
    /// It starts, or starts again.
    Initialising = 1,
    /// The backend has published what it can do and waits for the frontend.
    InitWait = 2,
    /// Rings and ports are published; the other end may connect.
    Initialised = 3,
    /// It works.
    Connected = 4,
    /// It is about to end: the other end shall let go.
    Closing = 5,
    /// It has ended, and holds nothing of the other end's.
    Closed = 6,
    /// The device's parameters are about to change.
    Reconfiguring = 7,
    /// They have changed.
    Reconfigured = 8,
}

impl State {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// Reads the value of a node `state`.
    ///
    /// # Errors
    /// [`Error::BadValue`] for everything but a number from 0 to 8.
    pub fn parse(value: &[u8]) -> Result<Self, Error> {
        let number = decimal::parse(value, 0..=8).ok_or(Error::BadValue)?;
        Self::ALL.get(number as usize).copied().ok_or(Error::BadValue)
    }

    /// The value to write.
    #[must_use]
    pub const fn digit(self) -> &'static str {
        match self {
            Self::Unknown => "0",
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
            Self::Reconfiguring => "7",
            Self::Reconfigured => "8",
        }
    }

    /// The name Xen's header gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Initialising => "Initialising",
            Self::InitWait => "InitWait",
            Self::Initialised => "Initialised",
            Self::Connected => "Connected",
            Self::Closing => "Closing",
            Self::Closed => "Closed",
            Self::Reconfiguring => "Reconfiguring",
            Self::Reconfigured => "Reconfigured",
        }
    }

    /// Whether this end has ended, is about to, or is not there at all.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Unknown | Self::Closing | Self::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_written_and_read() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(State::parse(state.digit().as_bytes()), Ok(state));
        }
        for junk in ["", "9", "-1", "10", "4 ", "Connected", "4\0"] {
            assert_eq!(State::parse(junk.as_bytes()), Err(Error::BadValue), "{junk:?}");
        }
    }
}
