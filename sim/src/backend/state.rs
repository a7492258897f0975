//! Where one end of a device stands.

/// States of a device's end (xen/include/public/io/xenbus.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum XenbusState {
    /// No state, or no node.
    Unknown = 0,
    /// Just made.
    Initialising = 1,
    /// The backend waits for the frontend.
    InitWait = 2,
    /// The frontend has written its keys.
    Initialised = 3,
    /// In use.
    Connected = 4,
    /// On the way to the end.
    Closing = 5,
    /// The end, or a pause.
    Closed = 6,
}

impl XenbusState {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "1" => Self::Initialising,
            "2" => Self::InitWait,
            "3" => Self::Initialised,
            "4" => Self::Connected,
            "5" => Self::Closing,
            "6" => Self::Closed,
            _ => Self::Unknown,
        }
    }
}
