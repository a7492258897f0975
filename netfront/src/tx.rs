//! The transmit ring and its buffers.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::iter;

use fata_grant::{FrontRing, ReadOnly, ReadWrite, Shared, Table};
use fata_hypercall::{DomId, GrantRef, Hypervisor};

use crate::abi::{ETHERNET_HEADER, RING_SLOTS, RSP_OKAY, TxFlags, TxRequest, TxResponse};
use crate::split::{Layout, split};
use crate::stats::Counters;
use crate::{Error, Fault};

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

/// The transmit half of a connection.
///
/// Buffers are granted once, read-only, for as long as the connection lasts, and hold nothing but frames for this
/// backend: sending touches no grant.
pub(crate) struct Tx<H: Hypervisor> {
    ring: FrontRing<Shared<H, ReadWrite>, TxRequest, TxResponse>,
    pool: Shared<H, ReadOnly>,
    layout: Layout,
    free: Vec<u16>,
    /// For each buffer, a bit for each slot that has no response yet.
    in_flight: Box<[u16]>,
}

impl<H: Hypervisor> Tx<H> {
    /// A ring with at most `buffers` frames in flight, of up to `mtu` bytes and an Ethernet header.
    pub(crate) fn new(table: &Table<H>, backend: DomId, buffers: u16, mtu: u16) -> Result<Self, Error> {
        let ring = FrontRing::new(table.share_zeroed(1, backend, ReadWrite)?);
        let layout = Layout::new(ETHERNET_HEADER + usize::from(mtu), buffers.into(), RING_SLOTS);
        let pool = table.share_zeroed(layout.pages(), backend, ReadOnly)?;
        let free = (0..layout.count as u16).rev().collect();
        Ok(Self {
            ring,
            pool,
            layout,
            free,
            in_flight: iter::repeat_n(0, layout.count).collect(),
        })
    }

    pub(crate) fn ring_reference(&self) -> GrantRef {
        self.ring.page().reference(0)
    }

    /// Whether there is room for a frame; looks for responses if there seems to be none.
    pub(crate) fn room(&mut self, counters: &Counters) -> Result<bool, Fault> {
        if self.free.is_empty() {
            self.reap(counters)?;
        }
        Ok(!self.free.is_empty())
    }

    /// Whether there is room for a frame, as far as responses have been taken.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Has `f` write a frame of `len` bytes, and queues it. There must be [`room`](Self::room).
    ///
    /// # Panics
    /// If `len` is more than the connection's MTU and an Ethernet header.
    #[allow(clippy::indexing_slicing, reason = "documented: the length is the caller's own")]
    pub(crate) fn send<R>(
        &mut self,
        counters: &Counters,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> (R, TxChecksum),
    ) -> R {
        let buffer = self.free.pop().unwrap_or_default();
        let start = usize::from(buffer) * self.layout.stride;
        let bytes = &mut self.pool.bytes_mut()[start..start + self.layout.stride];
        let (result, checksum) = f(&mut bytes[..len]);
        if len < ETHERNET_HEADER {
            // The backend would drop it.
            self.free.push(buffer);
            counters.count(|stats| stats.tx_dropped += 1);
            return result;
        }
        let mut flags = match checksum {
            TxChecksum::Complete => TxFlags::empty(),
            TxChecksum::Blank => TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED,
        };
        let mut slots = 0;
        for piece in split(start, len) {
            flags.set(TxFlags::MORE_DATA, piece.more);
            let request = TxRequest {
                gref: self.pool.reference(piece.page).0,
                offset: piece.offset,
                flags,
                id: buffer * self.layout.slots as u16 + slots,
                size: piece.size,
            };
            // There are slots for all buffers: see Layout.
            let _ = self.ring.push(&request);
            flags = TxFlags::empty();
            slots += 1;
        }
        if let Some(in_flight) = self.in_flight.get_mut(usize::from(buffer)) {
            *in_flight = ((1_u32 << slots) - 1) as u16;
        }
        counters.count(|stats| {
            stats.tx_frames += 1;
            stats.tx_bytes += len as u64;
        });
        result
    }

    /// Takes the responses that are there. `true` if a buffer came free.
    pub(crate) fn reap(&mut self, counters: &Counters) -> Result<bool, Fault> {
        let before = self.free.len();
        while let Some(TxResponse { id, status }) = self.ring.pop().map_err(Fault::TxRing)? {
            let slots = self.layout.slots as u16;
            let (buffer, bit) = (id / slots, 1 << (id % slots));
            let in_flight = self
                .in_flight
                .get_mut(usize::from(buffer))
                .filter(|slots| **slots & bit != 0);
            let in_flight = in_flight.ok_or(Fault::TxId(id))?;
            if status > RSP_OKAY {
                return Err(Fault::TxStatus(status));
            }
            if status < RSP_OKAY {
                counters.count(|stats| stats.tx_dropped += 1);
            }
            *in_flight &= !bit;
            if *in_flight == 0 {
                self.free.push(buffer);
            }
        }
        Ok(self.free.len() > before)
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
