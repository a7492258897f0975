//! The receive ring and its buffers.

use alloc::vec::Vec;

use fata_grant::{FrontRing, ReadWrite, Shared, Table};
use fata_hypercall::{DomId, GrantRef, Hypervisor};

use crate::abi::{Gso, RING_SLOTS, RxFlags, RxRequest, RxSlot};
use crate::assemble::{Assembled, Buffer, Fragment, Packet, assemble};
use crate::stats::Counters;
use crate::{Error, Fault};

/// What the backend says about the TCP or UDP checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxChecksum {
    /// Nothing: it must be verified.
    Unknown,
    /// The backend has verified it.
    Validated,
    /// It was never computed, as the frame never was on a wire. The field must not be looked at.
    Blank,
}

impl From<RxFlags> for RxChecksum {
    fn from(flags: RxFlags) -> Self {
        // Linux sets both on a frame from another guest.
        if flags.contains(RxFlags::CSUM_BLANK) {
            Self::Blank
        } else if flags.contains(RxFlags::DATA_VALIDATED) {
            Self::Validated
        } else {
            Self::Unknown
        }
    }
}

/// What is known of a received frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxMeta {
    /// Its length in bytes, Ethernet header included.
    pub len: usize,
    /// What the backend says about its checksum.
    pub checksum: RxChecksum,
    /// The segments of which it is made, if it is more than one.
    pub gso: Option<Gso>,
}

/// Where the bytes of the next frame are.
#[derive(Clone, Copy, Debug)]
enum Bytes {
    /// In one buffer, which was reclaimed.
    Page(Fragment),
    /// Copied together; the buffers are back in the ring.
    Linear,
}

/// The receive half of a connection.
pub(crate) struct Rx<H: Hypervisor> {
    ring: FrontRing<Shared<H, ReadWrite>, RxRequest, RxSlot>,
    pool: Shared<H, ReadWrite>,
    /// Which buffer was posted at each position of the ring: responses come in the order of the requests, so the
    /// position names the buffer even where an extra takes the place of the response with its id.
    at_slot: [Buffer; RING_SLOTS],
    /// Buffers that are in our hands.
    spare: Vec<Buffer>,
    /// A packet of several slots, in one piece.
    linear: Vec<u8>,
    next: Option<(RxMeta, Bytes)>,
}

impl<H: Hypervisor> Rx<H> {
    /// A ring with `buffers` pages to receive into, all posted.
    pub(crate) fn new(table: &Table<H>, backend: DomId, buffers: u16) -> Result<Self, Error> {
        let ring = FrontRing::new(table.share_zeroed(1, backend, ReadWrite)?);
        let pool = table.share_zeroed(buffers.into(), backend, ReadWrite)?;
        let mut rx = Self {
            ring,
            pool,
            at_slot: [0; RING_SLOTS],
            spare: (0..buffers).rev().collect(),
            linear: Vec::new(),
            next: None,
        };
        rx.post();
        Ok(rx)
    }

    pub(crate) fn ring_reference(&self) -> GrantRef {
        self.ring.page().reference(0)
    }

    /// Sees to it that the next frame is at hand, and says what it is.
    pub(crate) fn peek(&mut self, counters: &Counters) -> Result<Option<RxMeta>, Fault> {
        // Each round takes a response at least, so the ring's size is the bound.
        while self.next.is_none() {
            let Self {
                ring, at_slot, spare, ..
            } = self;
            let take = || {
                let slot = ring.response_slot();
                let buffer = at_slot.get(slot).copied().unwrap_or_default();
                let response = ring.pop().map_err(Fault::RxRing)?;
                Ok(response.map(|response| (buffer, response)))
            };
            match assemble(take, |buffer| spare.push(buffer))? {
                Assembled::Nothing => return Ok(None),
                Assembled::Dropped(_) => counters.count(|stats| stats.rx_dropped += 1),
                Assembled::Packet(packet) => self.accept(&packet, counters)?,
            }
            self.post();
        }
        Ok(self.next.map(|(meta, _)| meta))
    }

    /// Shows the next frame to `f` and gives its buffer back. `f` sees nothing if there is no frame.
    pub(crate) fn take<R>(&mut self, counters: &Counters, f: impl FnOnce(&[u8]) -> R) -> R {
        let Some((meta, bytes)) = self.next.take() else {
            return f(&[]);
        };
        counters.count(|stats| {
            stats.rx_frames += 1;
            stats.rx_bytes += meta.len as u64;
        });
        match bytes {
            Bytes::Linear => f(&self.linear),
            Bytes::Page(fragment) => {
                // It was reclaimed before, so it is not busy, and its bounds were checked.
                let page = self.pool.reclaim(fragment.buffer.into()).ok();
                let result = f(page.and_then(|page| part(page, fragment)).unwrap_or_default());
                self.give_back(fragment.buffer);
                self.post();
                result
            }
        }
    }

    /// Slots that have been taken, modulo 2^32.
    pub(crate) fn consumed(&self) -> u32 {
        self.ring.consumed()
    }

    /// Shows posted buffers to the backend; `true` if it wants to be notified.
    pub(crate) fn publish(&mut self) -> bool {
        self.ring.publish()
    }

    /// Asks for an event at the next frame. `true` if there is one already. Frames that the caller has seen and
    /// cannot take do not count if `new_only`.
    pub(crate) fn enable_events(&mut self, new_only: bool) -> Result<bool, Fault> {
        if new_only {
            let seen = self.ring.ready().map_err(Fault::RxRing)?;
            return self.ring.enable_events(seen + 1).map_err(Fault::RxRing);
        }
        Ok(self.next.is_some() || self.ring.enable_events(1).map_err(Fault::RxRing)?)
    }

    /// Makes a packet the next frame. Ends the backend's access to its pages first: only then do its bytes stay what
    /// they are.
    fn accept(&mut self, packet: &Packet, counters: &Counters) -> Result<(), Fault> {
        let meta = RxMeta {
            len: packet.len(),
            checksum: packet.flags().into(),
            gso: packet.gso(),
        };
        if let &[fragment] = packet.fragments() {
            self.pool.reclaim(fragment.buffer.into()).map_err(|_| Fault::RxBusy)?;
            self.next = Some((meta, Bytes::Page(fragment)));
            return Ok(());
        }
        self.linear.clear();
        let room = self.linear.try_reserve(meta.len).is_ok();
        for &fragment in packet.fragments() {
            let page = self.pool.reclaim(fragment.buffer.into()).map_err(|_| Fault::RxBusy)?;
            if room {
                self.linear.extend_from_slice(part(page, fragment).unwrap_or_default());
            }
            self.give_back(fragment.buffer);
        }
        if room {
            self.next = Some((meta, Bytes::Linear));
        } else {
            counters.count(|stats| stats.rx_dropped += 1);
        }
        Ok(())
    }

    fn give_back(&mut self, buffer: Buffer) {
        self.pool.regrant(buffer.into());
        self.spare.push(buffer);
    }

    /// Puts spare buffers into the ring, to be published later. There are no more buffers than slots, so all fit.
    fn post(&mut self) {
        while let Some(buffer) = self.spare.pop() {
            let slot = self.ring.request_slot();
            let gref = self.pool.reference(buffer.into()).0;
            if self
                .ring
                .push(&RxRequest {
                    id: slot as u16,
                    pad: 0,
                    gref,
                })
                .is_err()
            {
                self.spare.push(buffer);
                return;
            }
            if let Some(posted) = self.at_slot.get_mut(slot) {
                *posted = buffer;
            }
        }
    }
}

fn part(page: &[u8], fragment: Fragment) -> Option<&[u8]> {
    let start = usize::from(fragment.offset);
    page.get(start..start + usize::from(fragment.len))
}
