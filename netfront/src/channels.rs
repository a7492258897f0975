//! The event channels of a connection.

use core::cell::Cell;
use core::task::{Context, Poll};

use fata_events::xen::{Channel, Ports};
use fata_hypercall::{DomId, Hypervisor, Port};

use crate::Error;

/// An event channel, and what came of its events.
pub(crate) struct Line<H: Hypervisor> {
    channel: Channel<H>,
    /// How many of its events were told.
    told: Cell<u64>,
    /// What came of the last one is not known yet; and how many slots had been taken when that was asked last.
    woken: Cell<bool>,
    consumed: Cell<u32>,
}

impl<H: Hypervisor> Line<H> {
    fn alloc(ports: &Ports<H>, backend: DomId) -> Result<Self, Error> {
        let channel = ports.alloc(backend)?;
        Ok(Self {
            told: Cell::new(channel.count()),
            channel,
            woken: Cell::new(false),
            consumed: Cell::new(0),
        })
    }

    pub(crate) fn port(&self) -> Port {
        self.channel.port()
    }

    pub(crate) fn notify(&self) {
        self.channel.notify();
    }

    /// Ready once for each event. `consumed` gives the number of slots that have been taken from its rings: an event that
    /// none followed was for nothing.
    pub(crate) fn poll_event(&self, consumed: impl FnOnce() -> u32, cx: &mut Context<'_>) -> Poll<()> {
        if self.woken.take() {
            let consumed = consumed();
            self.channel.served(consumed != self.consumed.replace(consumed));
        }
        self.channel.poll_after(self.told.get(), cx).map(|count| {
            self.told.set(count);
            self.woken.set(true);
        })
    }
}

/// One event channel for both rings, or one for each.
pub(crate) struct Channels<H: Hypervisor> {
    /// The receive ring's.
    pub(crate) rx: Line<H>,
    /// The transmit ring's, if it is another one.
    pub(crate) tx: Option<Line<H>>,
}

impl<H: Hypervisor> Channels<H> {
    pub(crate) fn alloc(ports: &Ports<H>, backend: DomId, split: bool) -> Result<Self, Error> {
        Ok(Self {
            rx: Line::alloc(ports, backend)?,
            tx: split.then(|| Line::alloc(ports, backend)).transpose()?,
        })
    }

    /// The one that the transmit ring uses.
    pub(crate) fn for_tx(&self) -> &Line<H> {
        self.tx.as_ref().unwrap_or(&self.rx)
    }
}
