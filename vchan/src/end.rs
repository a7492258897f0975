//! One end: what it does when it is asked.

use alloc::boxed::Box;
use core::task::{Context, Poll};

use fata_events::{Signal, any};
use fata_grant::ByteRing;
use fata_hypercall::SharedPage;
use fata_hypercall::sync::{Ordering, fence};

use crate::Error;
use crate::layout::{Layout, OPEN, READ, Side, WAITING, WRITTEN};
use crate::link::Link;

/// What of the peer's words is looked at to see whether it has done anything.
type Trace = [u32; 3];

/// An end that is not closed.
pub(crate) struct End {
    pub(crate) link: Box<dyn Link>,
    ring: ByteRing,
    layout: Layout,
    side: Side,
    /// A client has come. Only then has its word that it is not there yet become a lie.
    met: bool,
    /// Events up to the last one that was judged, and what the peer had done by then.
    judged: (u64, Trace),
    /// Raised when the peer cannot be there any more, whatever its page says.
    pub(crate) lost: Signal,
}

impl End {
    /// Takes up the rings where they are.
    pub(crate) fn new(link: Box<dyn Link>, layout: Layout, side: Side) -> Result<Self, Error> {
        let ring = ByteRing::attach(layout.rings(side), link.first())?;
        Ok(Self {
            link,
            ring,
            layout,
            side,
            met: side == Side::Client,
            judged: (0, [0; 3]),
            lost: Signal::new(),
        })
    }

    fn page(&self) -> &SharedPage {
        self.link.first()
    }

    /// Whether the client has come. It may have gone again.
    pub(crate) fn is_met(&mut self) -> bool {
        self.met = self.met || self.peer_live() != WAITING;
        self.met
    }

    /// Whether there is, or may still come, a peer.
    pub(crate) fn is_open(&mut self) -> bool {
        !self.is_met() || self.peer_live() == OPEN && self.lost.count() == 0
    }

    fn peer_live(&self) -> u8 {
        self.page()
            .load_u8(self.side.peer_live(), Ordering::Acquire)
            .unwrap_or_default()
    }

    /// Reads what there is. `None`: nothing yet; 0: nothing any more.
    pub(crate) fn read(&mut self, to: &mut [u8]) -> Result<Option<usize>, Error> {
        // Before the look at the ring: what a peer wrote before it closed is there by then.
        let open = self.is_open();
        let link = &*self.link;
        let count = self.ring.read_with(link.first(), to, |at, piece| link.get(at, piece))?;
        if count > 0 {
            self.tell(READ);
        }
        Ok((count > 0 || to.is_empty() || !open).then_some(count))
    }

    /// Writes what there is room for. `None`: no room.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        if !self.is_open() {
            return Err(Error::Closed);
        }
        let link = &*self.link;
        let count = self
            .ring
            .write_with(link.first(), bytes, |at, piece| link.put(at, piece))?;
        if count > 0 {
            self.tell(WRITTEN);
        }
        Ok((count > 0 || bytes.is_empty()).then_some(count))
    }

    /// Whether the peer has read everything.
    pub(crate) fn is_flushed(&mut self) -> Result<Option<()>, Error> {
        let open = self.is_open();
        let size = self.layout.rings(self.side).output.size as usize;
        match self.ring.writable(self.page())? {
            room if room == size => Ok(Some(())),
            _ if !open => Err(Error::Closed),
            _ => Ok(None),
        }
    }

    /// Notifies the peer if it asked for it. The indices were written before, with a fence in between.
    fn tell(&self, what: u8) {
        let wishes = self.page().u8(self.side.peer_wishes());
        if wishes.is_some_and(|wishes| wishes.fetch_and(!what, Ordering::SeqCst) & what != 0) {
            self.link.notify();
        }
    }

    /// Asks the peer to tell us. What it did just before is seen by whoever looks again after this.
    pub(crate) fn ask(&self, what: u8) {
        if let Some(wishes) = self.page().u8(self.side.own_wishes()) {
            wishes.fetch_or(what, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
    }

    /// Says whether the events up to this one were about something (rule 55).
    pub(crate) fn judge(&mut self, events: u64) {
        if self.judged.0 != events {
            let trace = self.trace();
            self.link.served(trace != self.judged.1);
            self.judged = (events, trace);
        }
    }

    fn trace(&self) -> Trace {
        let rings = self.layout.rings(self.side);
        let index = |offset| self.page().load_u32(offset, Ordering::Relaxed).unwrap_or_default();
        [
            index(rings.input.prod),
            index(rings.output.cons),
            self.peer_live().into(),
        ]
    }

    /// A domain that is destroyed leaves its page as it was. But Xen has nobody at the other end of the event channel then, and
    /// says so if it is asked.
    pub(crate) fn look_after_peer(&mut self) {
        if self.is_met() && !self.link.has_peer() {
            self.lost.raise();
        }
    }

    /// Waits for something that may have changed what was seen after these events.
    pub(crate) fn poll_after(&self, events: u64, cx: &mut Context<'_>) -> Poll<u64> {
        any([self.link.poll_after(events, cx), self.lost.poll_after(0, cx)]).map(|()| events)
    }

    /// Tells the peer that this end is there, or is not.
    pub(crate) fn set_open(&self, open: bool) {
        self.page()
            .store_u8(self.side.own_live(), if open { OPEN } else { 0 }, Ordering::Release);
        self.link.notify();
    }
}
