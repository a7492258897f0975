//! How an interface is made.

use fata_xenstore::xenbus::Limits;

use crate::abi::MAX_PACKET;

/// How an interface is made: how much memory it may share with its backend, and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Pages to receive into: 20 to 256. Fewer lose packets in bursts, more cost memory.
    pub rx_buffers: u16,
    /// Frames in flight: 1 to 256. Half a page each, unless the MTU is above 2034.
    pub tx_buffers: u16,
    /// Frames in flight that are many segments in one: 0 to 8, and 0 means that every segment is sent by itself.
    pub segment_buffers: u16,
    /// The longest of these frames in bytes, at most 65,535. Each has so much memory, in whole pages.
    pub segment_buffer: u16,
    /// An event channel for each of the two rings, where the backend offers that. One serves both as well, and costs less:
    /// nobody asks for events of the transmit ring while it has room, and one notification tells of both rings.
    pub split_channels: bool,
    /// Has the backend keep back frames for multicast groups, except those that were [asked for](crate::Vif::listen), where
    /// it offers that.
    pub filter_multicast: bool,
    /// How long the backend may be silent.
    pub limits: Limits,
}

impl Options {
    /// A packet of the greatest length fills this many buffers, and one more.
    pub const MIN_RX_BUFFERS: u16 = 20;
    /// As many as there are slots in the ring.
    pub const MAX_BUFFERS: u16 = 256;
    /// As many as take half of the slots in the ring.
    pub const MAX_SEGMENT_BUFFERS: u16 = 8;

    /// Options for a guest with this many bytes of memory for its heap and one interface; with several, for an equal part of
    /// it. What is shared with the backend is 384 KiB in the smallest, a tenth of the memory from 4 MiB on, and 1.6 MiB at
    /// the most.
    ///
    /// ```
    /// use fata_netfront::Options;
    /// assert_eq!(Options::for_memory(2 << 20).segment_buffers, 0);
    /// assert_eq!(Options::for_memory(100 << 20).rx_buffers, 256);
    /// ```
    #[must_use]
    pub fn for_memory(bytes: usize) -> Self {
        let (rx_buffers, segment_buffers, segment_buffer) = match bytes >> 20 {
            0..4 => (64, 0, 0),
            4..12 => (64, 4, 16 << 10),
            12..48 => (128, 6, 32 << 10),
            _ => (256, 8, MAX_PACKET as u16),
        };
        Self {
            rx_buffers,
            segment_buffers,
            segment_buffer,
            ..Self::default()
        }
    }

    /// With every number in its range.
    pub(crate) fn clamped(self) -> Self {
        Self {
            rx_buffers: self.rx_buffers.clamp(Self::MIN_RX_BUFFERS, Self::MAX_BUFFERS),
            tx_buffers: self.tx_buffers.clamp(1, Self::MAX_BUFFERS),
            segment_buffers: self.segment_buffers.min(Self::MAX_SEGMENT_BUFFERS),
            ..self
        }
    }

    /// The longest frame of many segments; 0 if there are none.
    pub(crate) fn longest(&self) -> u16 {
        if self.segment_buffers == 0 {
            0
        } else {
            self.segment_buffer
        }
    }
}

impl Default for Options {
    /// 64 buffers each way, and 4 of 16 KiB for many segments: 448 KiB. One event channel, all groups.
    fn default() -> Self {
        Self {
            rx_buffers: 64,
            tx_buffers: 64,
            segment_buffers: 4,
            segment_buffer: 16 << 10,
            split_channels: false,
            filter_multicast: false,
            limits: Limits::default(),
        }
    }
}
