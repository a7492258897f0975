//! What an end has of Xen: memory that the peer sees too, and an event channel.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::task::{Context, Poll};

use fata_events::xen::{Channel, Ports};
use fata_grant::{Mapped, ReadWrite, Shared, Table, read_row, write_row};
use fata_hypercall::sync::Ordering;
use fata_hypercall::{DomId, GrantRef, Hypervisor, Port, SharedPage};

use crate::Error;
use crate::layout::{Layout, ORDERS};

/// An end's memory and event channel, whatever the hypervisor.
pub(crate) trait Link {
    /// The page with indices and flags.
    fn first(&self) -> &SharedPage;

    /// Copies bytes in. The first page and those with rings are one row, and what lies beyond it is nowhere.
    fn put(&self, offset: usize, from: &[u8]);

    /// Copies bytes out.
    fn get(&self, offset: usize, to: &mut [u8]);

    /// As [`Channel::count`].
    fn events(&self) -> u64;

    /// As [`Channel::poll_after`].
    fn poll_after(&self, seen: u64, cx: &mut Context<'_>) -> Poll<u64>;

    /// As [`Channel::served`].
    fn served(&self, found: bool);

    /// As [`Channel::notify`].
    fn notify(&self);

    /// As [`Channel::has_peer`].
    fn has_peer(&self) -> bool;
}

/// The two together.
struct Connection<H: Hypervisor, M> {
    /// Closed before the memory goes (rule 58).
    channel: Channel<H>,
    memory: M,
}

/// Memory of one of the two kinds.
trait Memory {
    /// The page with indices and flags.
    fn first(&self) -> &SharedPage;

    /// A page with rings, from 0 on.
    fn ring_page(&self, index: usize) -> Option<&SharedPage>;
}

impl<H: Hypervisor, M: Memory> Connection<H, M> {
    /// The first page and those with rings, as one row.
    fn page(&self, index: usize) -> Option<&SharedPage> {
        match index.checked_sub(1) {
            None => Some(self.memory.first()),
            Some(index) => self.memory.ring_page(index),
        }
    }
}

impl<H: Hypervisor, M: Memory> Link for Connection<H, M> {
    fn first(&self) -> &SharedPage {
        self.memory.first()
    }

    fn put(&self, offset: usize, from: &[u8]) {
        write_row(|index| self.page(index), offset, from);
    }

    fn get(&self, offset: usize, to: &mut [u8]) {
        read_row(|index| self.page(index), offset, to);
    }

    fn events(&self) -> u64 {
        self.channel.count()
    }

    fn poll_after(&self, seen: u64, cx: &mut Context<'_>) -> Poll<u64> {
        self.channel.poll_after(seen, cx)
    }

    fn served(&self, found: bool) {
        self.channel.served(found);
    }

    fn notify(&self) {
        self.channel.notify();
    }

    fn has_peer(&self) -> bool {
        self.channel.has_peer()
    }
}

/// A server's: one run of pages that the client may write.
impl<H: Hypervisor> Memory for Shared<H, ReadWrite> {
    fn first(&self) -> &SharedPage {
        self.page(0)
    }

    fn ring_page(&self, index: usize) -> Option<&SharedPage> {
        (index < self.len() - 1).then(|| self.page(index + 1))
    }
}

/// A client's.
struct Foreign<H: Hypervisor> {
    first: Mapped<H>,
    rings: Vec<Mapped<H>>,
}

impl<H: Hypervisor> Memory for Foreign<H> {
    fn first(&self) -> &SharedPage {
        self.first.page()
    }

    fn ring_page(&self, index: usize) -> Option<&SharedPage> {
        self.rings.get(index).map(Mapped::page)
    }
}

/// Memory that was granted to a client.
pub(crate) struct Granted {
    pub(crate) link: Box<dyn Link>,
    /// The first page's, then those of the rings.
    pub(crate) references: Vec<GrantRef>,
    /// What the client may bind to.
    pub(crate) port: Port,
}

/// Makes links, whatever the hypervisor.
pub(crate) trait Maker {
    /// Grants pages of zeroes to `client`, and opens a port for it.
    fn grant(&self, client: DomId, pages: usize) -> Result<Granted, Error>;

    /// Maps what `server` has granted, and connects to its port.
    fn map(&self, server: DomId, first: GrantRef, port: Port) -> Result<(Layout, Box<dyn Link>), Error>;
}

/// The domain's grant table and its event channels.
pub(crate) struct Domain<H: Hypervisor> {
    pub(crate) table: Table<H>,
    pub(crate) ports: Ports<H>,
}

impl<H: Hypervisor> Maker for Domain<H> {
    fn grant(&self, client: DomId, pages: usize) -> Result<Granted, Error> {
        // What it has let go meanwhile is not held against it: nobody else need have looked.
        self.table.retry_quarantine();
        self.table.check_quarantine(client)?;
        let memory = self.table.share_zeroed(pages, client, ReadWrite)?;
        let channel = self.ports.alloc(client)?;
        Ok(Granted {
            references: memory.references().to_vec(),
            port: channel.port(),
            link: Box::new(Connection { channel, memory }),
        })
    }

    fn map(&self, server: DomId, first: GrantRef, port: Port) -> Result<(Layout, Box<dyn Link>), Error> {
        let map = |reference| Mapped::map(self.table.hypervisor(), server, reference);
        let channel = self.ports.bind(server, port)?;
        let first = map(first)?;
        // All this is read once. What the server makes of it later is of no interest (rule 29).
        let word = |offset| first.page().load_u16(offset, Ordering::Acquire).unwrap_or_default();
        let [left, right] = ORDERS.map(word);
        let layout = Layout::check(left, right)?;
        let reference = |offset| GrantRef(first.page().load_u32(offset, Ordering::Acquire).unwrap_or_default());
        let rings = layout.grants().map(|offset| map(reference(offset)));
        let rings = rings.collect::<Result<_, _>>()?;
        let memory = Foreign { first, rings };
        Ok((layout, Box::new(Connection { channel, memory })))
    }
}
