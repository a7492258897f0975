//! Slots of the receive ring become a packet.
//!
//! Pure: [`assemble`] sees slots and the numbers of their buffers, and neither ring nor memory.

use crate::Fault;
use crate::abi::{ETHERNET_HEADER, ExtraInfo, Gso, MAX_PACKET, RxFlags, RxResponse, RxSlot};
use fata_hypercall::PAGE_SIZE;

/// Slots with data in one packet: `XEN_NETIF_NR_SLOTS_MIN` (18), and one for the head.
pub const MAX_FRAGMENTS: usize = 19;

/// The number of a receive buffer.
pub type Buffer = u16;

/// Bytes in one buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Which buffer.
    pub buffer: Buffer,
    /// Where in it they begin.
    pub offset: u16,
    /// How many there are. With `offset` they end inside the page.
    pub len: u16,
}

/// A packet, in pieces.
#[derive(Clone, Debug)]
pub struct Packet {
    fragments: [Fragment; MAX_FRAGMENTS],
    count: usize,
    len: usize,
    flags: RxFlags,
    gso: Option<Gso>,
}

impl Packet {
    /// Its pieces, in order.
    #[must_use]
    pub fn fragments(&self) -> &[Fragment] {
        self.fragments.get(..self.count).unwrap_or_default()
    }

    /// Its length in bytes, which is that of all pieces.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it has an Ethernet header at least")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first slot's flags, which speak for the whole packet.
    #[must_use]
    pub fn flags(&self) -> RxFlags {
        self.flags
    }

    /// The segments of which it is made, if it is more than one.
    #[must_use]
    pub fn gso(&self) -> Option<Gso> {
        self.gso
    }
}

/// Why a packet was dropped, without its backend having done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The backend says that it could not deliver it; its status.
    Status(i16),
    /// More slots than a packet may have.
    TooManySlots,
    /// More than 65535 bytes.
    TooLong,
    /// Not even an Ethernet header.
    TooShort,
}

/// What became of the next slots.
#[derive(Clone, Debug)]
pub enum Assembled {
    /// There are none.
    Nothing,
    /// A packet; its buffers are the caller's now.
    Packet(Packet),
    /// A packet that is not one; its buffers are spare.
    Dropped(Dropped),
}

/// Takes the slots of one packet from `take`, each with the number of the buffer that was posted at its position, and
/// hands back through `spare` each buffer that the packet does not need: those under extras, and all of a packet that
/// is dropped. Every buffer taken is in the packet or spare.
///
/// # Errors
/// A [`Fault`] if the slots are impossible, or the one that `take` gave. Buffers are not accounted for then: the ring
/// is not used any more.
pub fn assemble(
    mut take: impl FnMut() -> Result<Option<(Buffer, RxSlot)>, Fault>,
    mut spare: impl FnMut(Buffer),
) -> Result<Assembled, Fault> {
    let Some((mut buffer, slot)) = take()? else {
        return Ok(Assembled::Nothing);
    };
    let mut response = slot.response();
    let mut packet = Packet {
        fragments: [Fragment::default(); MAX_FRAGMENTS],
        count: 0,
        len: 0,
        flags: response.flags,
        gso: None,
    };
    let mut dropped = None;

    if response.flags.contains(RxFlags::EXTRA_INFO) {
        packet.gso = extras(&mut take, &mut spare)?;
    }
    loop {
        match add(&mut packet, buffer, response)? {
            Ok(()) => {}
            Err(why) => {
                // To the end of its slots, so that the next packet begins where it begins.
                dropped = dropped.or(Some(why));
                spare(buffer);
            }
        }
        if !response.flags.contains(RxFlags::MORE_DATA) {
            break;
        }
        let (next, slot) = take()?.ok_or(Fault::RxTruncated)?;
        (buffer, response) = (next, slot.response());
    }
    if packet.len < ETHERNET_HEADER {
        dropped = dropped.or(Some(Dropped::TooShort));
    }
    Ok(match dropped {
        None => Assembled::Packet(packet),
        Some(why) => {
            packet.fragments().iter().for_each(|fragment| spare(fragment.buffer));
            Assembled::Dropped(why)
        }
    })
}

/// Takes the extras of a packet, and gives what they say of segments. Each type comes once, so there are few.
fn extras(
    take: &mut impl FnMut() -> Result<Option<(Buffer, RxSlot)>, Fault>,
    spare: &mut impl FnMut(Buffer),
) -> Result<Option<Gso>, Fault> {
    let mut seen = 0_u8;
    let mut gso = None;
    loop {
        let (buffer, slot) = take()?.ok_or(Fault::RxTruncated)?;
        spare(buffer);
        let extra = slot.extra();
        if extra.kind == 0 || extra.kind >= ExtraInfo::TYPE_MAX {
            return Err(Fault::RxExtra(extra.kind));
        }
        let bit = 1 << extra.kind;
        if seen & bit != 0 {
            return Err(Fault::RxExtraTwice(extra.kind));
        }
        seen |= bit;
        if extra.kind == ExtraInfo::TYPE_GSO {
            gso = Some(extra.as_gso().ok_or(Fault::RxGso)?);
        }
        if extra.flags & ExtraInfo::MORE == 0 {
            return Ok(gso);
        }
    }
}

/// Adds a slot to the packet. The inner error drops the packet; then the buffer is not in it.
fn add(packet: &mut Packet, buffer: Buffer, response: RxResponse) -> Result<Result<(), Dropped>, Fault> {
    let Ok(len) = u16::try_from(response.status) else {
        return Ok(Err(Dropped::Status(response.status)));
    };
    let offset = response.offset;
    if usize::from(offset) + usize::from(len) > PAGE_SIZE {
        return Err(Fault::RxBounds { offset, len });
    }
    let Some(fragment) = packet.fragments.get_mut(packet.count) else {
        return Ok(Err(Dropped::TooManySlots));
    };
    if packet.len + usize::from(len) > MAX_PACKET {
        return Ok(Err(Dropped::TooLong));
    }
    *fragment = Fragment { buffer, offset, len };
    packet.count += 1;
    packet.len += usize::from(len);
    Ok(Ok(()))
}
