//! What every port's network device offers to the stack.
//!
//! A device hands out *frames* (Ethernet, without the frame check sequence) as values that are consumed once:
//! a received frame is read in place and then recycled, a frame to send is written in place into memory that the
//! device has already reserved. Handing out a [`TxFrame`] is therefore a promise: consuming it cannot fail.
//!
//! Checksum offload is a property of *each frame*, not of the device, because that is how Xen's netif and virtio-net
//! tell it: one frame comes from a wire and was checked by the card ([`RxChecksum::Validated`]), the next comes from
//! another guest on the same host and has no checksum at all ([`RxChecksum::Blank`]).

use core::num::NonZeroU16;
use core::task::{Context, Poll};

/// A network device: Xen's netfront today, other ports' drivers later.
///
/// The stack drives it from one task, in this manner:
///
/// 1. [`receive`](Device::receive) and [`transmit`](Device::transmit) until there is nothing more to do,
/// 2. [`flush`](Device::flush) once, so that a burst costs one notification,
/// 3. [`poll_ready`](Device::poll_ready), and start over when it says so.
pub trait Device {
    /// A received frame, borrowed from the device.
    type Rx<'a>: RxFrame
    where
        Self: 'a;

    /// Room for one frame to send, reserved in the device.
    type Tx<'a>: TxFrame
    where
        Self: 'a;

    /// The address and the abilities of the device.
    ///
    /// They may change while the link is down (a backend that restarts may offer other features); the stack asks
    /// again whenever the link comes up.
    fn capabilities(&self) -> Capabilities;

    /// Whether frames can be exchanged now: the backend is connected and has carrier.
    fn link_up(&self) -> bool;

    /// Takes the next received frame, together with room for an answer to it.
    ///
    /// `None` when there is no frame *or* no room to answer. In both cases [`poll_ready`](Device::poll_ready) must
    /// become ready once a frame and room are there. Dropping either value unused is allowed: an unused `Rx` is
    /// discarded, an unused `Tx` gives its room back.
    fn receive(&mut self) -> Option<(Self::Rx<'_>, Self::Tx<'_>)>;

    /// Reserves room for one frame to send; `None` when there is none now (or the link is down).
    fn transmit(&mut self) -> Option<Self::Tx<'_>>;

    /// The multicast groups to listen to from now on, as Ethernet addresses; some may be named twice. The stack says so when they
    /// change, and each time the link comes up.
    ///
    /// Frames for other groups need not be received: whoever keeps them back spares the guest to wake up for them. A device
    /// that can do nothing of the kind receives them all.
    fn listen(&mut self, groups: &[[u8; 6]]) {
        let _ = groups;
    }

    /// Makes everything consumed since the last call visible to the peer: publishes requests, gives receive buffers
    /// back, and notifies at most once.
    fn flush(&mut self);

    /// Becomes ready when, since the last time it was ready, there may be new frames, new room, or a change of the
    /// link.
    ///
    /// It may be ready without a cause, but it never loses one: what happens between a [`receive`](Device::receive)
    /// that gave `None` and this call makes this call ready.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// The address and the abilities of a [`Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The Ethernet address; it must be a unicast address.
    pub mac: [u8; 6],
    /// The largest IP packet in bytes, without the Ethernet header (Xen's and Linux's meaning of "mtu").
    pub mtu: u16,
    /// For which IP versions the device completes the checksum of a TCP segment that is sent
    /// [`TxChecksum::Blank`].
    pub tx_checksum: ChecksumOffload,
    /// In which frames the device takes many TCP segments at once. Only for IP versions of which it completes
    /// checksums.
    pub tx_segmentation: SegmentationOffload,
}

/// For which IP versions a peer accepts TCP and UDP without a complete checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumOffload {
    /// Over IPv4.
    pub ipv4: bool,
    /// Over IPv6.
    pub ipv6: bool,
}

impl ChecksumOffload {
    /// No offload: every checksum is computed in software.
    pub const NONE: Self = Self {
        ipv4: false,
        ipv6: false,
    };
    /// Offload for both IP versions.
    pub const ALL: Self = Self { ipv4: true, ipv6: true };
}

/// For which IP versions a peer cuts a long TCP segment into as many as the wire needs, and how long it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentationOffload {
    /// Over IPv4.
    pub ipv4: bool,
    /// Over IPv6.
    pub ipv6: bool,
    /// The longest such frame in bytes, Ethernet header included; more than the MTU and a header.
    pub longest: u16,
}

impl SegmentationOffload {
    /// No offload: no frame is longer than the MTU and a header.
    pub const NONE: Self = Self {
        ipv4: false,
        ipv6: false,
        longest: 0,
    };
}

/// What the peer says about the TCP or UDP checksum of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxChecksum {
    /// Nothing: the stack verifies it (netif: no flag).
    #[default]
    Unknown,
    /// The peer has verified it (netif: `NETRXF_data_validated`).
    Validated,
    /// The field holds at most the pseudo-header's sum, as the data never was on a wire (netif: `NETRXF_csum_blank`).
    /// There is nothing to verify, and the field must not be looked at.
    Blank,
}

/// A received frame.
pub trait RxFrame {
    /// What the peer says about the checksum.
    fn checksum(&self) -> RxChecksum;

    /// Reads the frame in place, then gives its memory back to the device.
    ///
    /// The bytes must not change while `f` runs: a device whose peer can still write them has to end that first, or
    /// to copy.
    fn consume<R>(self, f: impl FnOnce(&[u8]) -> R) -> R;
}

/// Whether the TCP or UDP checksum of a frame to send is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TxChecksum {
    /// It is complete, or the frame has none.
    #[default]
    Complete,
    /// The field holds the sum of the pseudo-header only (not complemented); the peer completes it, or passes it on
    /// as it is (netif: `NETTXF_csum_blank`).
    Blank,
}

/// What a frame is made of that is many TCP segments in one. The number is the payload of each in bytes, except of the
/// last one, which may have less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// TCP over IPv4.
    Ipv4(NonZeroU16),
    /// TCP over IPv6.
    Ipv6(NonZeroU16),
}

/// What goes beside the bytes of a frame to send.
///
/// `#[non_exhaustive]`: offloads to come will add their fields. Build it with [`TxMeta::new`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TxMeta {
    /// Whether the checksum is complete.
    pub checksum: TxChecksum,
    /// Set if the peer is to cut the frame. Its checksum is blank then, over all of it.
    pub segments: Option<Segments>,
}

impl TxMeta {
    /// A frame with this kind of checksum, which is one segment or no TCP.
    pub const fn new(checksum: TxChecksum) -> Self {
        Self {
            checksum,
            segments: None,
        }
    }
}

/// Room for one frame to send.
pub trait TxFrame {
    /// Has `f` write a frame of exactly `len` bytes (Ethernet header included) and queues it.
    ///
    /// `len` is at most the device's MTU plus the 14 bytes of the header, or, for many segments in one,
    /// [`SegmentationOffload::longest`]. The memory that `f` gets may hold earlier
    /// content of the guest's own; `f` writes all of it.
    fn consume<R>(self, len: usize, f: impl FnOnce(&mut [u8]) -> (R, TxMeta)) -> R;
}
