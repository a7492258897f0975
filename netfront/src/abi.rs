//! What is in the rings: xen/include/public/io/netif.h.
//!
//! Flags of the two directions are different types, because two of their bits are swapped.

use core::num::NonZeroU16;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

/// Slots of both rings.
pub const RING_SLOTS: usize = 256;

/// `NETIF_RSP_OKAY`
pub const RSP_OKAY: i16 = 0;

/// `NETIF_RSP_NULL`: the response to a slot that held an [`ExtraInfo`].
pub const RSP_NULL: i16 = 1;

/// Bytes of an Ethernet header. A packet cannot be shorter.
pub const ETHERNET_HEADER: usize = 14;

/// The longest packet: sizes have 16 bits.
pub const MAX_PACKET: usize = 65535;

macro_rules! assert_layout {
    ($type:ident, $size:literal, $($field:ident @ $offset:literal),*) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}

/// `NETTXF_*`: flags of a request to transmit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct TxFlags(u16);

bitflags::bitflags! {
    impl TxFlags: u16 {
        /// The checksum field holds the sum of the pseudo-header only.
        const CSUM_BLANK = 1;
        /// The checksum need not be verified.
        const DATA_VALIDATED = 2;
        /// The packet goes on in the next request.
        const MORE_DATA = 4;
        /// The next slot is an [`ExtraInfo`].
        const EXTRA_INFO = 8;
    }
}

/// `NETRXF_*`: flags of a received slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RxFlags(u16);

bitflags::bitflags! {
    impl RxFlags: u16 {
        /// The backend has verified the checksum.
        const DATA_VALIDATED = 1;
        /// The checksum was never computed.
        const CSUM_BLANK = 2;
        /// The packet goes on in the next response.
        const MORE_DATA = 4;
        /// The next slot is an [`ExtraInfo`].
        const EXTRA_INFO = 8;
    }
}

/// `netif_tx_request`: bytes to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxRequest {
    /// The page they are in.
    pub gref: u32,
    /// Where in it they begin.
    pub offset: u16,
    /// See [`TxFlags`].
    pub flags: TxFlags,
    /// Comes back in the response.
    pub id: u16,
    /// In the first request of a packet the bytes of the whole packet, in the others those of this slot.
    pub size: u16,
}
assert_layout!(TxRequest, 12, gref @ 0, offset @ 4, flags @ 6, id @ 8, size @ 10);

/// `netif_tx_response`: the bytes of a request are not needed any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxResponse {
    /// That of the request.
    pub id: u16,
    /// 0, or negative: -1 error, -2 dropped. 1 in the slots of extras.
    pub status: i16,
}
assert_layout!(TxResponse, 4, id @ 0, status @ 2);

/// A slot of the transmit ring, as it goes to the backend: a request, or an extra of the request before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct TxSlot([u8; 12]);

impl From<TxRequest> for TxSlot {
    fn from(request: TxRequest) -> Self {
        transmute!(request)
    }
}

impl From<ExtraInfo> for TxSlot {
    fn from(extra: ExtraInfo) -> Self {
        let mut slot = Self::default();
        let bytes: [u8; 8] = transmute!(extra);
        if let Some(head) = slot.0.first_chunk_mut() {
            *head = bytes;
        }
        slot
    }
}

/// `netif_rx_request`: a page to receive into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxRequest {
    /// Comes back in the response, but not where an extra takes the response's slot.
    pub id: u16,
    /// 0.
    pub pad: u16,
    /// The page.
    pub gref: u32,
}
assert_layout!(RxRequest, 8, id @ 0, pad @ 2, gref @ 4);

/// `netif_rx_response`: received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxResponse {
    /// That of the request. The slot's position says as much, and an extra has none: not used.
    pub id: u16,
    /// Where in the page they begin.
    pub offset: u16,
    /// See [`RxFlags`].
    pub flags: RxFlags,
    /// How many there are, or a negative error.
    pub status: i16,
}
assert_layout!(RxResponse, 8, id @ 0, offset @ 2, flags @ 4, status @ 6);

/// `netif_extra_info`: something about the packet, in a slot of its own after the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtraInfo {
    /// One of the `TYPE_` constants.
    pub kind: u8,
    /// [`MORE`](Self::MORE)
    pub flags: u8,
    /// What it says.
    pub data: [u8; 6],
}
assert_layout!(ExtraInfo, 8, kind @ 0, flags @ 1, data @ 2);

impl ExtraInfo {
    /// `XEN_NETIF_EXTRA_TYPE_GSO`: the packet is many segments in one.
    pub const TYPE_GSO: u8 = 1;
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_ADD`: there is no packet, but a multicast group to hear from now on.
    pub const TYPE_MULTICAST_ADD: u8 = 2;
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_DEL`: or one not to hear any more.
    pub const TYPE_MULTICAST_DEL: u8 = 3;
    /// One above the highest type: hash 4, XDP 5.
    pub const TYPE_MAX: u8 = 6;
    /// `XEN_NETIF_EXTRA_FLAG_MORE`: another extra follows.
    pub const MORE: u8 = 1;

    /// The last extra of a packet that is many segments in one.
    #[must_use]
    pub const fn gso(gso: Gso) -> Self {
        let [low, high] = gso.size.get().to_le_bytes();
        Self {
            kind: Self::TYPE_GSO,
            flags: 0,
            // After the type a byte of padding, and features, of which there are none.
            data: [low, high, gso.kind as u8, 0, 0, 0],
        }
    }

    /// The extra that adds or deletes a multicast group, by its Ethernet address.
    #[must_use]
    pub const fn multicast(kind: u8, group: [u8; 6]) -> Self {
        Self {
            kind,
            flags: 0,
            data: group,
        }
    }

    /// What an extra of [`TYPE_GSO`](Self::TYPE_GSO) says. `None` if there is no such type, or the size is 0.
    #[must_use]
    pub fn as_gso(self) -> Option<Gso> {
        let [low, high, kind, ..] = self.data;
        let kind = match kind {
            1 => GsoType::TcpV4,
            2 => GsoType::TcpV6,
            _ => return None,
        };
        let size = NonZeroU16::new(u16::from_le_bytes([low, high]))?;
        Some(Gso { kind, size })
    }
}

/// `XEN_NETIF_GSO_TYPE_*`: what the segments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoType {
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 2,
}

/// A packet that is many TCP segments in one: whoever needs them has to cut it (generic segmentation offload).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What the segments are.
    pub kind: GsoType,
    /// Bytes of payload in each, except in the last one, which may have fewer.
    pub size: NonZeroU16,
}

/// A slot of the receive ring as it comes from the backend. What it is follows from the slots before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RxSlot([u8; 8]);

impl RxSlot {
    /// The slot as a response.
    #[must_use]
    pub fn response(self) -> RxResponse {
        transmute!(self)
    }

    /// The slot as an extra.
    #[must_use]
    pub fn extra(self) -> ExtraInfo {
        transmute!(self)
    }
}

impl From<RxResponse> for RxSlot {
    fn from(response: RxResponse) -> Self {
        transmute!(response)
    }
}

impl From<ExtraInfo> for RxSlot {
    fn from(extra: ExtraInfo) -> Self {
        transmute!(extra)
    }
}
