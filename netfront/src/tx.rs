//! The transmit ring.

use alloc::vec::Vec;

use fata_grant::{FrontRing, ReadWrite, Shared, Table};
use fata_hypercall::{DomId, GrantRef, Hypervisor};

use crate::abi::{
    ETHERNET_HEADER, ExtraInfo, Gso, RING_SLOTS, RSP_NULL, RSP_OKAY, TxFlags, TxRequest, TxResponse, TxSlot,
};
use crate::pool::{Pool, Slot};
use crate::split::Layout;
use crate::stats::Counters;
use crate::{Error, Fault, Identity, Options};

/// Whether the TCP or UDP checksum of a frame to send is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TxChecksum {
    /// It is complete, or the frame has none.
    #[default]
    Complete,
    /// The field holds the sum of the pseudo-header only; whoever needs the checksum completes it. Only for IP
    /// versions of which the backend says so: [`Offload`](crate::Offload).
    Blank,
}

/// What goes beside the bytes of a frame to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxMeta {
    /// Whether the checksum is complete.
    pub checksum: TxChecksum,
    /// The segments of which it is made, if it is more than one. Its checksum must be blank then. Not told to a backend that
    /// [takes no such frames](crate::Segmentation).
    pub gso: Option<Gso>,
}

impl From<TxChecksum> for TxMeta {
    fn from(checksum: TxChecksum) -> Self {
        Self { checksum, gso: None }
    }
}

/// The transmit half of a connection.
pub(crate) struct Tx<H: Hypervisor> {
    ring: FrontRing<Shared<H, ReadWrite>, TxSlot, TxResponse>,
    /// For frames as long as the MTU says. Their ids come first.
    frames: Pool<H>,
    /// For frames of many segments.
    segments: Option<Pool<H>>,
    /// Slots in flight that hold an extra. Their responses say no more than that.
    extras: u16,
    /// The most of them.
    most_extras: u16,
    /// The multicast groups that the backend lets pass, or will when it has got that far; `None` if it lets pass all.
    groups: Option<Vec<[u8; 6]>>,
}

impl<H: Hypervisor> Tx<H> {
    /// A ring and its buffers. There are slots for all of them.
    pub(crate) fn new(
        table: &Table<H>,
        backend: DomId,
        options: &Options,
        identity: &Identity,
        filters_multicast: bool,
    ) -> Result<Self, Error> {
        let ring = FrontRing::new(table.share_zeroed(1, backend, ReadWrite)?);
        // Groups are told of one at a time.
        let mut most_extras = usize::from(filters_multicast);
        let mut slots = RING_SLOTS - most_extras;
        let mut segments = None;
        if identity.segmentation.longest > 0 {
            let count = usize::from(options.segment_buffers);
            let layout = Layout::new(identity.segmentation.longest.into(), count, slots);
            // Each frame has an extra.
            slots -= layout.count * (layout.slots + 1);
            most_extras += layout.count;
            segments = Some(Pool::new(table, backend, layout)?);
        }
        let longest = ETHERNET_HEADER + usize::from(identity.mtu);
        let layout = Layout::new(longest, options.tx_buffers.into(), slots);
        Ok(Self {
            ring,
            frames: Pool::new(table, backend, layout)?,
            segments,
            extras: 0,
            most_extras: most_extras as u16,
            groups: filters_multicast.then(Vec::new),
        })
    }

    pub(crate) fn ring_reference(&self) -> GrantRef {
        self.ring.page().reference(0)
    }

    /// Whether there is room for a frame, of whatever length; looks for responses if there seems to be none.
    pub(crate) fn room(&mut self, counters: &Counters) -> Result<bool, Fault> {
        if !self.has_room() {
            self.reap(counters)?;
        }
        Ok(self.has_room())
    }

    /// Whether there is room for a frame, as far as responses have been taken.
    pub(crate) fn has_room(&self) -> bool {
        let segments = self.segments.as_ref();
        self.frames.has_room() && segments.is_none_or(|pool| pool.has_room() && self.has_extra())
    }

    /// Whether there is room for an extra. A backend that answers to everything but extras would have the ring full of them.
    fn has_extra(&self) -> bool {
        self.extras < self.most_extras
    }

    /// Has `f` write a frame of `len` bytes, and queues it. There must be [`room`](Self::room).
    ///
    /// # Panics
    /// If `len` is more than the longest frame.
    #[allow(clippy::indexing_slicing, reason = "documented: the length is the caller's own")]
    pub(crate) fn send<R>(&mut self, counters: &Counters, len: usize, f: impl FnOnce(&mut [u8]) -> (R, TxMeta)) -> R {
        // Without buffers for them there are no slots for their extras either.
        let takes_segments = self.segments.is_some();
        let (pool, first_id) = match &mut self.segments {
            Some(pool) if len > self.frames.longest() => (pool, self.frames.ids()),
            _ => (&mut self.frames, 0),
        };
        let (buffer, bytes) = pool.take();
        let (result, meta) = f(&mut bytes[..len]);
        if len < ETHERNET_HEADER {
            // The backend would drop it.
            pool.put_back(buffer);
            counters.count(|stats| stats.tx_dropped += 1);
            return result;
        }
        let mut flags = match meta.checksum {
            TxChecksum::Complete => TxFlags::empty(),
            TxChecksum::Blank => TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED,
        };
        let mut extra = meta.gso.filter(|_| takes_segments).map(ExtraInfo::gso);
        flags.set(TxFlags::EXTRA_INFO, extra.is_some());
        for slot in pool.send(buffer, len) {
            flags.set(TxFlags::MORE_DATA, slot.piece.more);
            let request = TxRequest {
                gref: slot.gref.0,
                offset: slot.piece.offset,
                flags,
                id: first_id + slot.id,
                size: slot.piece.size,
            };
            // There are slots for all buffers.
            let _ = self.ring.push(&request.into());
            if let Some(extra) = extra.take() {
                let _ = self.ring.push(&extra.into());
                self.extras += 1;
            }
            flags = TxFlags::empty();
        }
        counters.count(|stats| {
            stats.tx_frames += 1;
            stats.tx_bytes += len as u64;
        });
        result
    }

    /// Has the backend let pass what is for these multicast groups and no others, as far as there is room to tell it.
    /// `false`: there was not.
    pub(crate) fn tell_groups(&mut self, wanted: &[[u8; 6]]) -> bool {
        loop {
            let has_room = self.frames.has_room() && self.has_extra();
            let Some(told) = &mut self.groups else { return true };
            let new = wanted.iter().find(|group| !told.contains(group));
            let old = told.iter().position(|group| !wanted.contains(group));
            let extra = match (new, old) {
                (None, None) => return true,
                _ if !has_room => return false,
                (Some(&group), _) => {
                    told.push(group);
                    ExtraInfo::multicast(ExtraInfo::TYPE_MULTICAST_ADD, group)
                }
                (None, Some(old)) => ExtraInfo::multicast(ExtraInfo::TYPE_MULTICAST_DEL, told.swap_remove(old)),
            };
            // A request for nothing, only for its extra.
            let (buffer, _) = self.frames.take();
            for Slot { gref, id, piece } in self.frames.send(buffer, 1) {
                let request = TxRequest {
                    gref: gref.0,
                    offset: piece.offset,
                    flags: TxFlags::EXTRA_INFO,
                    id,
                    size: 0,
                };
                let _ = self.ring.push(&request.into());
            }
            let _ = self.ring.push(&extra.into());
            self.extras += 1;
        }
    }

    /// Takes the responses that are there.
    pub(crate) fn reap(&mut self, counters: &Counters) -> Result<(), Fault> {
        while let Some(TxResponse { id, status }) = self.ring.pop().map_err(Fault::TxRing)? {
            if status == RSP_NULL {
                // Of no use is its id: an extra has none.
                self.extras = self.extras.checked_sub(1).ok_or(Fault::TxStatus(status))?;
                continue;
            }
            if status > RSP_OKAY {
                return Err(Fault::TxStatus(status));
            }
            let frames = self.frames.ids();
            let was_in_flight = match (&mut self.segments, id.checked_sub(frames)) {
                (Some(pool), Some(id)) => pool.done(id),
                _ => self.frames.done(id),
            };
            if !was_in_flight {
                return Err(Fault::TxId(id));
            }
            if status < RSP_OKAY {
                counters.count(|stats| stats.tx_dropped += 1);
            }
        }
        Ok(())
    }

    /// Responses that have been taken, modulo 2^32.
    pub(crate) fn consumed(&self) -> u32 {
        self.ring.consumed()
    }

    /// Shows queued frames to the backend; `true` if it wants to be notified.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Asks for an event when half of what is in flight has been sent. `true` if it has been already.
    pub(crate) fn enable_events(&mut self) -> Result<bool, Fault> {
        let half = self.ring.outstanding().div_ceil(2);
        self.ring.enable_events(half).map_err(Fault::TxRing)
    }
}
