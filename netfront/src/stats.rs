//! Numbers about an interface.

use core::cell::Cell;

/// What an interface has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received and handed out.
    pub rx_frames: u64,
    /// Their bytes, Ethernet headers included.
    pub rx_bytes: u64,
    /// Frames received and dropped: the backend said so, too long, too short, or no memory to put the pieces together.
    pub rx_dropped: u64,
    /// Frames queued for sending.
    pub tx_frames: u64,
    /// Their bytes, Ethernet headers included.
    pub tx_bytes: u64,
    /// Slots of frames that the backend refused or dropped.
    pub tx_dropped: u64,
    /// How often there was no room for a frame to send.
    pub tx_full: u64,
    /// Notifications sent to the backend.
    pub notifications: u64,
    /// Events from the backend that woke us.
    pub events: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections that ended because the backend broke the protocol.
    pub faults: u64,
    /// Connections, and attempts at one, that ended because something went wrong, and were tried again after a pause.
    pub retries: u64,
}

/// The same while they change.
#[derive(Debug, Default)]
pub(crate) struct Counters(Cell<Stats>);

impl Counters {
    pub(crate) fn get(&self) -> Stats {
        self.0.get()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Stats)) {
        let mut stats = self.0.get();
        change(&mut stats);
        self.0.set(stats);
    }
}
