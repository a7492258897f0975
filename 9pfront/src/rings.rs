//! Two streams of bytes in shared memory (`struct xen_9pfs_data_intf`), cut into messages.

use alloc::vec::Vec;

use fata_events::xen::{Channel, Ports};
use fata_grant::{ByteLane, ByteLayout, ByteRing, ReadWrite, Shared, Table, read_row, write_row};
use fata_hypercall::sync::Ordering;
use fata_hypercall::{DomId, GrantRef, Hypervisor, PAGE_SIZE, Port, SharedPage};

use crate::session::Session;
use crate::wire::{HEADER, Header};
use crate::{Error, Fault};

/// The largest ring that we make, as a power of two of pages: 64 KiB, a half for each direction.
pub(crate) const LARGEST_ORDER: u32 = 4;

/// Where the index page has what the backend has to know of the ring, before it is connected and never again.
const ORDER: usize = 128;
const REFERENCES: usize = 132;

/// A ring, an event channel, and what of a message has come so far.
pub(crate) struct Rings<H: Hypervisor> {
    /// Closed before the memory goes (rule 58).
    pub(crate) channel: Channel<H>,
    /// The index page, then those with the data.
    pages: Shared<H, ReadWrite>,
    ring: ByteRing,
    /// Bytes in one direction.
    half: u32,
    /// A message that may not be whole yet, and how many bytes of it there are.
    incoming: Vec<u8>,
    filled: usize,
}

impl<H: Hypervisor> Rings<H> {
    /// Shares a ring of `1 << order` pages with the backend.
    pub(crate) fn new(table: &Table<H>, ports: &Ports<H>, backend: DomId, order: u32) -> Result<Self, Error> {
        let pages = table.share_zeroed(1 + (1 << order), backend, ReadWrite)?;
        let index = pages.page(0);
        index.store_u32(ORDER, order, Ordering::Relaxed);
        for (at, reference) in pages.references().iter().skip(1).enumerate() {
            index.store_u32(REFERENCES + 4 * at, reference.0, Ordering::Relaxed);
        }
        let half = (PAGE_SIZE as u32) << (order - 1);
        let ring = ByteRing::attach(layout(half), index).map_err(Fault::from)?;
        Ok(Self {
            channel: ports.alloc(backend)?,
            pages,
            ring,
            half,
            incoming: Vec::new(),
            filled: 0,
        })
    }

    /// The reference of the page that names the others.
    pub(crate) fn reference(&self) -> GrantRef {
        self.pages.reference(0)
    }

    pub(crate) fn port(&self) -> Port {
        self.channel.port()
    }

    /// Bytes that fit into the ring in one direction.
    pub(crate) const fn half(&self) -> u32 {
        self.half
    }

    /// Whether a message has begun to come and is not whole.
    pub(crate) const fn is_partial(&self) -> bool {
        self.filled > 0
    }

    /// Takes all answers and sends what there is room for. Tells whether anything was received.
    pub(crate) fn turn(&mut self, session: &mut Session) -> Result<bool, Fault> {
        let (mut received, mut moved) = (false, false);
        while let Some((header, payload)) = self.receive(session.msize(), &mut moved)? {
            session.receive(header, payload)?;
            received = true;
        }
        // A message goes out whole or not at all: servers do not wait for the rest of one.
        while let Some(message) = session.next(self.ring.writable(self.pages.page(0))?) {
            let pages = &self.pages;
            let put = |at, piece: &[u8]| write_row(|index| page(pages, index), at, piece);
            self.ring.write_with(pages.page(0), &message, put)?;
            moved = true;
        }
        if moved {
            self.channel.notify();
        }
        Ok(received)
    }

    /// The next whole message, if there is one. `moved` is set if there is room that there was not.
    fn receive(&mut self, msize: u32, moved: &mut bool) -> Result<Option<(Header, &[u8])>, Fault> {
        if self.filled == 0 {
            self.incoming.clear();
            self.incoming.resize(HEADER, 0);
        }
        loop {
            let pages = &self.pages;
            let get = |at, piece: &mut [u8]| read_row(|index| page(pages, index), at, piece);
            let missing = self.incoming.get_mut(self.filled..).unwrap_or_default();
            let wanted = missing.len();
            let count = self.ring.read_with(pages.page(0), missing, get)?;
            self.filled += count;
            *moved |= count > 0;
            if count < wanted {
                return Ok(None);
            }
            let Some(&header) = self.incoming.first_chunk() else {
                return Ok(None);
            };
            let header = Header::parse(&header);
            if !(HEADER as u32..=msize).contains(&header.size) {
                return Err(Fault::Size(header.size));
            }
            if header.size as usize == self.incoming.len() {
                self.filled = 0;
                return Ok(Some((header, self.incoming.get(HEADER..).unwrap_or_default())));
            }
            self.incoming.resize(header.size as usize, 0);
        }
    }
}

/// Where everything is: the index page and those with the data are one row; the first half is the backend's.
fn layout(half: u32) -> ByteLayout {
    ByteLayout {
        input: ByteLane {
            data: PAGE_SIZE,
            size: half,
            cons: 0,
            prod: 4,
        },
        output: ByteLane {
            data: PAGE_SIZE + half as usize,
            size: half,
            cons: 64,
            prod: 68,
        },
    }
}

fn page<H: Hypervisor>(pages: &Shared<H, ReadWrite>, index: usize) -> Option<&SharedPage> {
    (index < pages.len()).then(|| pages.page(index))
}
