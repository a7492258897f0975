//! The domain's event channels.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::time::Duration;

use fata_hypercall::abi::event_fifo::{self, ControlBlock, PRIORITY_DEFAULT, WORDS_PER_PAGE};
use fata_hypercall::abi::sched::POLL_MAX_PORTS;
use fata_hypercall::abi::shared_info::EVTCHN_PORTS;
use fata_hypercall::sync::{AtomicU32, Ordering};
use fata_hypercall::{DomId, Errno, Hypervisor, Port, SystemTime};

use super::awaited::Awaited;
use super::clock::read_time;
use super::pause::Pauses;
use super::{Channel, Error, fifo, two_level};
use crate::Signal;

/// From this port on the FIFO form is used: its first page of words is not enough any more.
const FIFO_FROM: u32 = WORDS_PER_PAGE as u32;

/// What a domain knows of its ports.
pub(super) struct Table<H> {
    pub(super) hv: H,
    /// The open ports' counters, by port. Xen gives out the lowest free number, so this is short.
    open: RefCell<Vec<Option<Signal>>>,
    awaited: Awaited,
    /// Ports that somebody waits for and that are not listened to yet.
    pauses: Pauses,
    /// Ports that had fired when somebody began to wait for them. Only in the FIFO form, where such a port is in no list. One
    /// that was closed meanwhile does no harm here.
    late: RefCell<Vec<Port>>,
    /// Where the next dispatch begins. Only in the two-level form.
    next_dispatch: Cell<u32>,
    /// How often the domain was restored: what was opened before is no port any more.
    pub(super) generation: Cell<u32>,
    stats: Cell<EventStats>,
}

/// How the domain and its peers have woken each other so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventStats {
    /// Events from peers. However often one signals before we look, it is one.
    pub received: u64,
    /// Signals to peers: one hypercall each.
    pub sent: u64,
    /// How often the domain had nothing to do: one hypercall each.
    pub sleeps: u64,
}

/// The domain's event channels: who owns which, and who waits for which.
///
/// Clones are the same table. There is one per domain.
pub struct Ports<H>(pub(super) Rc<Table<H>>);

impl<H> Clone for Ports<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<H: Hypervisor> Ports<H> {
    /// Takes charge of the domain's event channels and masks them all.
    #[must_use]
    pub fn new(hv: H) -> Self {
        two_level::mask_all(hv.shared_info());
        Self(Rc::new(Table {
            hv,
            open: RefCell::default(),
            awaited: Awaited::default(),
            pauses: Pauses::default(),
            late: RefCell::default(),
            next_dispatch: Cell::new(0),
            generation: Cell::new(0),
            stats: Cell::default(),
        }))
    }

    /// Opens a port that `remote` may bind to. Dropping the channel closes it.
    ///
    /// # Errors
    /// [`Error::Xen`] when Xen has no port for us; [`Error::NoFifo`] when we cannot listen to the one it has.
    pub fn alloc(&self, remote: DomId) -> Result<Channel<H>, Error> {
        self.own(self.0.hv.evtchn_alloc_unbound(remote))
    }

    /// Connects to a port that `remote` left unbound for us. The new port is pending at once. Dropping the channel closes it.
    ///
    /// # Errors
    /// [`Error::Xen`] when there is no such port, or Xen has none for us; [`Error::NoFifo`] when we cannot listen to it.
    pub fn bind(&self, remote: DomId, port: Port) -> Result<Channel<H>, Error> {
        self.own(self.0.hv.evtchn_bind_interdomain(remote, port))
    }

    /// Takes a port that the toolstack opened: the console's or xenstore's. Dropping the channel leaves it open.
    ///
    /// # Errors
    /// [`Error::BadPort`] if it cannot be a port; [`Error::InUse`] if somebody has it; [`Error::NoFifo`] if we cannot listen
    /// to it.
    pub fn adopt(&self, port: Port) -> Result<Channel<H>, Error> {
        self.open(port, false)
    }

    fn own(&self, made: Result<Port, Errno>) -> Result<Channel<H>, Error> {
        let port = made.map_err(Error::Xen)?;
        self.open(port, true).inspect_err(|_| {
            // Beyond what the table can hold: give it back. There is nothing to do if even that fails.
            let _ = self.0.hv.evtchn_close(port);
        })
    }

    fn open(&self, port: Port, close: bool) -> Result<Channel<H>, Error> {
        self.0.make_room(port)?;
        let index = port.0 as usize;
        let mut open = self.0.open.borrow_mut();
        if open.len() <= index {
            open.resize(index + 1, None);
        }
        let slot = open.get_mut(index).ok_or(Error::BadPort(port))?;
        if slot.is_some() {
            return Err(Error::InUse(port));
        }
        let signal = Signal::new();
        *slot = Some(signal.clone());
        Ok(Channel::new(self.clone(), port, signal, close))
    }

    /// Goes on in a new Xen domain ([`Suspended::Restored`](fata_hypercall::Suspended::Restored)): all ports are closed, and
    /// all masks are set again. It has the two-level form, as every domain at its beginning.
    ///
    /// The channels there are become useless, but harmless: they signal nobody and close nothing, though their numbers may
    /// soon be somebody else's. Each fires once more, for the last time, so that who waits for one looks for another: its
    /// owner drops it, and opens or adopts a new one.
    pub fn resume(&self) {
        let table = &*self.0;
        table.generation.set(table.generation.get().wrapping_add(1));
        table.open.take().iter().flatten().for_each(Signal::raise);
        table.awaited.clear();
        table.pauses.clear();
        two_level::mask_all(table.hv.shared_info());
    }

    /// Takes what is pending, counts it and wakes who waits. `true` if there was anything.
    ///
    /// Only ports that somebody waits for are looked at, and their bits are cleared before anybody is woken. A port
    /// that nobody waits for keeps its pending bit: Xen wakes the domain only when a bit *becomes* set, so a peer that
    /// signals again and again costs nothing until our side has taken up its last signal and waits for the next. That
    /// is what masking at dispatch and unmasking after progress gives a driver with interrupts (rule 55); and since a
    /// port counts once per dispatch however often it fired, a storm on a port that is served gets one turn of the
    /// loop per turn, like everybody else. If there is nothing behind it, the port is waited for, but not listened to,
    /// for a while: see [`Channel::served`].
    ///
    /// The cost is one step per port that fired, and in the two-level form one load per 64 ports up to the highest one that was
    /// ever waited for (rule 56).
    pub fn dispatch(&self) -> bool {
        let table = &*self.0;
        table.end_pauses();
        match table.hv.evtchn_control() {
            None => table.dispatch_two_level(),
            Some(control) => table.dispatch_fifo(control),
        }
    }

    /// How many ports somebody waits for.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.0.awaited.len()
    }

    /// When the next port is listened to again that is left alone at the moment; the loop must not sleep for longer.
    #[must_use]
    pub fn end_of_pause(&self) -> Option<SystemTime> {
        self.0.pauses.earliest()
    }

    /// How many ports are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.open.borrow().iter().flatten().count()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has come and gone.
    #[must_use]
    pub fn stats(&self) -> EventStats {
        self.0.stats.get()
    }

    /// Notes that the domain goes to sleep.
    pub(super) fn note_sleep(&self) {
        self.0.note(|stats| stats.sleeps += 1);
    }

    /// Fills in the ports that `SCHEDOP_poll` shall watch: those that somebody waits for. Says how many.
    ///
    /// It takes 128. If there are [more](Self::awaited), each call gives the next 128, and the caller must not sleep
    /// for long: see [`XenLoop::turn`](super::XenLoop::turn).
    pub fn wait_list(&self, list: &mut [Port; POLL_MAX_PORTS]) -> usize {
        self.0.awaited.list(list)
    }
}

impl<H: Hypervisor> Table<H> {
    /// Sees that there is a pending bit for `port`, which may take the FIFO form.
    fn make_room(&self, port: Port) -> Result<(), Error> {
        if port.0 == 0 || port.0 >= event_fifo::PORTS {
            return Err(Error::BadPort(port));
        }
        if port.0 < FIFO_FROM || self.word(port).is_some() {
            return Ok(());
        }
        let two_level = self.hv.evtchn_control().is_none();
        // Each open port has a bit before and a word afterwards.
        let ports = self.open.borrow().len().max(port.0 as usize + 1);
        match self.hv.evtchn_use_fifo(ports.div_ceil(WORDS_PER_PAGE)) {
            Ok(()) if two_level => self.change_over(),
            Ok(()) => {}
            Err(_) if two_level && port.0 < EVTCHN_PORTS => {}
            Err(errno) => return Err(Error::NoFifo(port, errno)),
        }
        Ok(())
    }

    /// Takes what came in the two-level form, and listens in the FIFO form to what was listened to.
    fn change_over(&self) {
        let info = self.hv.shared_info();
        for port in (0..self.open.borrow().len() as u32).map(Port) {
            // An event that came while Xen changed over may have left its bit there, and the others are here.
            let late = two_level::take_port(info, port);
            if self.take(port) || late {
                self.count(port);
            } else if self.awaited.contains(port) {
                self.listen(port);
            }
        }
    }

    /// The port's word, in the FIFO form.
    fn word(&self, port: Port) -> Option<&AtomicU32> {
        let index = port.0 as usize;
        self.hv
            .evtchn_words(index / WORDS_PER_PAGE)?
            .get(index % WORDS_PER_PAGE)
    }

    /// Somebody waits for the port: it is listened to, at once or when its pause is over.
    pub(super) fn await_port(&self, port: Port, pause: Duration) {
        if self.awaited.contains(port) || self.pauses.contains(port) {
            return;
        }
        if pause.is_zero() {
            self.listen(port);
        } else {
            let until = read_time(&self.hv).0.saturating_add(pause.as_nanos() as u64);
            self.pauses.add(SystemTime(until), port);
        }
    }

    fn listen(&self, port: Port) {
        self.awaited.insert(port);
        if let Some(word) = self.word(port)
            && !fifo::unmask(word)
        {
            self.late.borrow_mut().push(port);
        }
    }

    fn end_pauses(&self) {
        if self.pauses.is_empty() {
            return;
        }
        let now = read_time(&self.hv);
        while let Some(port) = self.pauses.pop_due(now) {
            self.listen(port);
        }
    }

    fn dispatch_two_level(&self) -> bool {
        let info = self.hv.shared_info();
        let words = self.awaited.words();
        // Each begins behind the port that was first in the last one, so that no port is first for ever.
        let start = self.next_dispatch.get();
        let start_bit = start % 64;
        let mut word = start as usize / 64;
        let mut any = false;
        for _ in 0..words {
            if word >= words {
                word = 0;
            }
            let mut fired = two_level::take(info, word, self.awaited.word(word)).rotate_right(start_bit);
            while fired != 0 {
                let bit = (fired.trailing_zeros() + start_bit) % 64;
                fired &= fired - 1;
                let port = Port(word as u32 * 64 + bit);
                if !any {
                    any = true;
                    self.next_dispatch.set(port.0 + 1);
                }
                self.count(port);
            }
            word += 1;
        }
        any
    }

    fn dispatch_fifo(&self, control: &ControlBlock) -> bool {
        let mut any = false;
        loop {
            let late = self.late.borrow_mut().pop();
            let Some(port) = late else { break };
            if self.awaited.contains(port) && self.take(port) {
                any = true;
                self.count(port);
            }
        }
        // A port that is taken is masked, and is not linked again in this round.
        while control.ready.load(Ordering::Relaxed) != 0 && control.ready.swap(0, Ordering::SeqCst) != 0 {
            let mut next = control.head[PRIORITY_DEFAULT].load(Ordering::Relaxed);
            while let Some(word) = self.word(Port(next)).filter(|_| next != 0) {
                let port = Port(next);
                let fired;
                (next, fired) = fifo::unlink(word, self.awaited.contains(port));
                if fired {
                    any = true;
                    self.count(port);
                }
            }
        }
        any
    }

    /// Takes the port's event, whether somebody waits for it or not; `true` if there was one. It is the caller's to count.
    fn take(&self, port: Port) -> bool {
        match self.word(port) {
            Some(word) => fifo::take(word),
            None => two_level::take_port(self.hv.shared_info(), port),
        }
    }

    /// Takes the port's event and counts it, if there is one.
    pub(super) fn look(&self, port: Port) {
        if self.take(port) {
            self.count(port);
        }
    }

    /// Lets go of a port, which is closed if it is ours.
    pub(super) fn release(&self, port: Port, close: bool) {
        self.awaited.remove(port);
        self.pauses.remove(port);
        if let Some(word) = self.word(port) {
            fifo::mask(word);
        }
        if let Some(slot) = self.open.borrow_mut().get_mut(port.0 as usize) {
            *slot = None;
        }
        if close {
            // It fails only for a port that is not open, and this one is.
            let _ = self.hv.evtchn_close(port);
            // Nobody sets the bit of a closed port; the next owner of the number shall not find an old event.
            self.take(port);
        }
    }

    /// Counts an event that was taken.
    fn count(&self, port: Port) {
        self.note(|stats| stats.received += 1);
        self.awaited.remove(port);
        let signal = self.open.borrow().get(port.0 as usize).cloned().flatten();
        if let Some(signal) = signal {
            signal.raise();
        }
    }
}

impl<H> Table<H> {
    pub(super) fn note(&self, change: impl FnOnce(&mut EventStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

impl<H: Hypervisor> fmt::Debug for Ports<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports")
            .field("open", &self.len())
            .field("awaited", &self.awaited())
            .finish()
    }
}
