//! smoltcp's view of a [`Device`].
//!
//! smoltcp is always given one frame at a time, already looked at by [`ingress`](crate::ingress), and room for its
//! answer. Only when it wants to send by itself, it gets the device.

use alloc::vec;
use core::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;

use crate::checksum;
use crate::device::{Capabilities, ChecksumOffload, Device, SegmentationOffload, TxFrame, TxMeta};
use crate::frame::{self, ETHERNET_HEADER};

/// What is known about the sending side between two frames.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    pub(crate) offload: ChecksumOffload,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// smoltcp holds the rest of one fragmented packet. It has room for one: starting a second one before the first
    /// has left would lose the rest of the first.
    pub(crate) fragmenting: bool,
    /// Only the rest of that packet may be sent.
    pub(crate) only_fragments: bool,
    /// The device had no room when smoltcp wanted to send.
    pub(crate) exhausted: bool,
    /// How often it had.
    pub(crate) attempts: u64,
}

impl Egress {
    /// Called with every frame before it leaves. `segment`: the payload of each of the segments that it is to be cut into.
    fn finish(&mut self, frame: &mut [u8], segment: Option<NonZeroU16>) -> TxMeta {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if let Some(more) = frame::more_fragments(frame) {
            self.fragmenting = more;
        }
        checksum::complete(frame, self.offload, segment)
    }
}

/// One frame for smoltcp, or the device itself.
pub(crate) struct Port<'f, 'x, D: Device> {
    frame: Option<&'f [u8]>,
    room: Room<'f, 'x, D>,
    egress: &'f mut Egress,
    capabilities: DeviceCapabilities,
}

enum Room<'f, 'x, D: Device + 'x> {
    Device(&'f mut D),
    Answer(Option<D::Tx<'x>>),
    Nowhere,
}

impl<'f, 'x, D: Device + 'x> Port<'f, 'x, D> {
    /// For what smoltcp sends by itself.
    pub(crate) fn device(device: &'f mut D, capabilities: &Capabilities, egress: &'f mut Egress) -> Self {
        Self::new(None, Room::Device(device), capabilities, egress)
    }

    /// For one received frame and its answer.
    pub(crate) fn frame(
        frame: &'f [u8],
        answer: D::Tx<'x>,
        capabilities: &Capabilities,
        egress: &'f mut Egress,
    ) -> Self {
        Self::new(Some(frame), Room::Answer(Some(answer)), capabilities, egress)
    }

    /// For one received frame that must not be answered.
    pub(crate) fn silent(frame: &'f [u8], capabilities: &Capabilities, egress: &'f mut Egress) -> Self {
        Self::new(Some(frame), Room::Nowhere, capabilities, egress)
    }

    fn new(
        frame: Option<&'f [u8]>,
        room: Room<'f, 'x, D>,
        capabilities: &Capabilities,
        egress: &'f mut Egress,
    ) -> Self {
        Self {
            frame,
            room,
            egress,
            capabilities: device_capabilities(capabilities),
        }
    }
}

/// What smoltcp is told about the device: whose checksums are its business.
fn device_capabilities(capabilities: &Capabilities) -> DeviceCapabilities {
    let mut checksum = ChecksumCapabilities::default();
    checksum.ipv4 = Checksum::Tx;
    checksum.udp = Checksum::Tx;
    checksum.tcp = Checksum::None;
    let mut device = DeviceCapabilities::default();
    device.medium = Medium::Ethernet;
    device.max_transmission_unit = usize::from(capabilities.mtu) + ETHERNET_HEADER;
    device.checksum = checksum;
    // smoltcp 0.14 makes long segments over IPv6 too, and then drops them for being longer than the MTU.
    let SegmentationOffload { ipv4, longest, .. } = capabilities.tx_segmentation;
    device.segmentation.tcpv4 = NonZeroUsize::new(longest.into()).filter(|_| ipv4);
    device
}

pub(crate) struct RxToken<'b>(&'b [u8]);

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(crate) struct TxToken<'b, 'x, D: Device> {
    room: Reserved<'b, 'x, D>,
    egress: &'b mut Egress,
    segment: Option<NonZeroU16>,
}

enum Reserved<'b, 'x, D: Device + 'b + 'x> {
    Device(D::Tx<'b>),
    Answer(D::Tx<'x>),
    Nowhere,
}

impl<'b, 'x, D: Device + 'b + 'x> phy::TxToken for TxToken<'b, 'x, D> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { room, egress, segment } = self;
        let nowhere = matches!(room, Reserved::Nowhere);
        let write = |frame: &mut [u8]| {
            let result = f(frame);
            let meta = if nowhere {
                TxMeta::default()
            } else {
                egress.finish(frame, segment)
            };
            (result, meta)
        };
        match room {
            Reserved::Device(tx) => tx.consume(len, write),
            Reserved::Answer(tx) => tx.consume(len, write),
            Reserved::Nowhere => write(&mut vec![0; len]).0,
        }
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}

impl<'x, D: Device + 'x> phy::Device for Port<'_, 'x, D> {
    type RxToken<'b>
        = RxToken<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = TxToken<'b, 'x, D>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.frame.take()?;
        let room = match &mut self.room {
            Room::Answer(tx) => Reserved::Answer(tx.take()?),
            Room::Device(_) => return None,
            Room::Nowhere => Reserved::Nowhere,
        };
        Some((
            RxToken(frame),
            TxToken {
                room,
                egress: self.egress,
                segment: None,
            },
        ))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        if self.egress.fragmenting && !self.egress.only_fragments {
            return None;
        }
        let room = match &mut self.room {
            Room::Device(device) => device.transmit(),
            Room::Answer(_) | Room::Nowhere => return None,
        };
        let Some(room) = room else {
            self.egress.exhausted = true;
            return None;
        };
        self.egress.attempts += 1;
        Some(TxToken {
            room: Reserved::Device(room),
            egress: self.egress,
            segment: None,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// No device at all, only its capabilities: to make an interface of.
pub(crate) struct Facts(pub(crate) Capabilities);

pub(crate) struct NoToken;

impl phy::RxToken for NoToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&[])
    }
}

impl phy::TxToken for NoToken {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        f(&mut vec![0; len])
    }
}

impl phy::Device for Facts {
    type RxToken<'b> = NoToken;
    type TxToken<'b> = NoToken;

    fn receive(&mut self, _: Instant) -> Option<(NoToken, NoToken)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<NoToken> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        device_capabilities(&self.0)
    }
}
