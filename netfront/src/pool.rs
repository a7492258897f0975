//! Transmit buffers of one size.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::iter;

use fata_grant::{ReadOnly, Shared, Table};
use fata_hypercall::{DomId, GrantRef, Hypervisor};

use crate::Error;
use crate::split::{Layout, Piece, split};

/// Buffers of one size, granted once, read-only, for as long as the connection lasts. They hold nothing but frames for
/// this backend: sending touches no grant.
pub(crate) struct Pool<H: Hypervisor> {
    pages: Shared<H, ReadOnly>,
    layout: Layout,
    free: Vec<u16>,
    /// For each buffer, a bit for each slot that has no response yet.
    in_flight: Box<[u16]>,
}

/// A slot of a frame.
pub(crate) struct Slot {
    pub(crate) gref: GrantRef,
    /// Its number among all slots that the pool can have in flight.
    pub(crate) id: u16,
    pub(crate) piece: Piece,
}

impl<H: Hypervisor> Pool<H> {
    pub(crate) fn new(table: &Table<H>, backend: DomId, layout: Layout) -> Result<Self, Error> {
        Ok(Self {
            pages: table.share_zeroed(layout.pages(), backend, ReadOnly)?,
            layout,
            free: (0..layout.count as u16).rev().collect(),
            in_flight: iter::repeat_n(0, layout.count).collect(),
        })
    }

    /// The longest frame.
    pub(crate) fn longest(&self) -> usize {
        self.layout.stride
    }

    /// How many ids it has, from 0 on.
    pub(crate) fn ids(&self) -> u16 {
        (self.layout.count * self.layout.slots) as u16
    }

    /// Whether one of them is free.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// A free buffer and its bytes. There must be [room](Self::has_room).
    pub(crate) fn take(&mut self) -> (u16, &mut [u8]) {
        let buffer = self.free.pop().unwrap_or_default();
        let stride = self.layout.stride;
        let start = usize::from(buffer) * stride;
        let bytes = self.pages.bytes_mut().get_mut(start..start + stride);
        (buffer, bytes.unwrap_or_default())
    }

    /// A buffer that was taken and is not sent.
    pub(crate) fn put_back(&mut self, buffer: u16) {
        self.free.push(buffer);
    }

    /// The slots of a frame of `len` bytes in this buffer, which is in flight from now on.
    pub(crate) fn send(&mut self, buffer: u16, len: usize) -> impl Iterator<Item = Slot> {
        let Self {
            pages,
            layout,
            in_flight,
            ..
        } = self;
        let start = usize::from(buffer) * layout.stride;
        let mut slots = in_flight.get_mut(usize::from(buffer));
        let first = buffer * layout.slots as u16;
        split(start, len).zip(first..).map(move |(piece, id)| {
            if let Some(slots) = &mut slots {
                **slots |= 1 << (id - first);
            }
            Slot {
                gref: pages.reference(piece.page),
                id,
                piece,
            }
        })
    }

    /// The backend does not need the slot with this id any more. `false`: it had none with this id.
    pub(crate) fn done(&mut self, id: u16) -> bool {
        let slots = self.layout.slots as u16;
        let (buffer, bit) = (id / slots, 1 << (id % slots));
        let Some(in_flight) = self
            .in_flight
            .get_mut(usize::from(buffer))
            .filter(|slots| **slots & bit != 0)
        else {
            return false;
        };
        *in_flight &= !bit;
        if *in_flight == 0 {
            self.free.push(buffer);
        }
        true
    }
}
