//! The domain's event channels.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use fata_hypercall::abi::sched::POLL_MAX_PORTS;
use fata_hypercall::abi::shared_info::EVTCHN_WORDS;
use fata_hypercall::{DomId, Errno, Hypervisor, Port, SystemTime};

use super::Error;
use super::clock::read_time;
use super::pause::{self, Pauses};
use super::pending::{self, PORTS_PER_WORD, Place};
use crate::{Raised, Signal};

struct Table<H> {
    hv: H,
    /// The open ports' counters, by port. Xen gives out the lowest free number, so this is short.
    open: RefCell<Vec<Option<Signal>>>,
    /// A bit per port: somebody waits for it. See [`Ports::dispatch`].
    awaited: [Cell<u64>; EVTCHN_WORDS],
    /// Ports that somebody waits for and that are not listened to yet.
    pauses: Pauses,
    /// Where the next dispatch and the next wait list begin.
    next_dispatch: Cell<u32>,
    next_list: Cell<u32>,
    /// How often the domain was restored: what was opened before is no port any more.
    generation: Cell<u32>,
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
pub struct Ports<H>(Rc<Table<H>>);

impl<H> Clone for Ports<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<H: Hypervisor> Ports<H> {
    /// Takes charge of the domain's event channels and masks them all.
    #[must_use]
    pub fn new(hv: H) -> Self {
        pending::mask_all(hv.shared_info());
        Self(Rc::new(Table {
            hv,
            open: RefCell::default(),
            awaited: [const { Cell::new(0) }; EVTCHN_WORDS],
            pauses: Pauses::default(),
            next_dispatch: Cell::new(0),
            next_list: Cell::new(0),
            generation: Cell::new(0),
            stats: Cell::default(),
        }))
    }

    /// Opens a port that `remote` may bind to. Dropping the channel closes it.
    ///
    /// # Errors
    /// [`Error::Xen`] when Xen has no port for us.
    pub fn alloc(&self, remote: DomId) -> Result<Channel<H>, Error> {
        self.own(self.0.hv.evtchn_alloc_unbound(remote))
    }

    /// Connects to a port that `remote` left unbound for us. The new port is pending at once. Dropping the channel closes it.
    ///
    /// # Errors
    /// [`Error::Xen`] when there is no such port, or Xen has none for us.
    pub fn bind(&self, remote: DomId, port: Port) -> Result<Channel<H>, Error> {
        self.own(self.0.hv.evtchn_bind_interdomain(remote, port))
    }

    /// Takes a port that the toolstack opened: the console's or xenstore's. Dropping the channel leaves it open.
    ///
    /// # Errors
    /// [`Error::BadPort`] if it cannot be a port; [`Error::InUse`] if somebody has it.
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
        let place = pending::place(port).ok_or(Error::BadPort(port))?;
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
        Ok(Channel {
            ports: self.clone(),
            port,
            generation: self.0.generation.get(),
            place,
            signal,
            vain: Cell::new(0),
            close,
        })
    }

    /// Goes on in a new Xen domain ([`Suspended::Restored`](fata_hypercall::Suspended::Restored)): all ports are closed, and
    /// all masks are set again.
    ///
    /// The channels there are become useless, but harmless: they signal nobody and close nothing, though their numbers may
    /// soon be somebody else's. Each fires once more, for the last time, so that who waits for one looks for another: its
    /// owner drops it, and opens or adopts a new one.
    pub fn resume(&self) {
        let table = &*self.0;
        table.generation.set(table.generation.get().wrapping_add(1));
        table.open.take().iter().flatten().for_each(Signal::raise);
        table.awaited.iter().for_each(|word| word.set(0));
        table.pauses.clear();
        pending::mask_all(table.hv.shared_info());
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
    /// The cost is one load per 64 ports up to the highest one open, and one step per port that fired (rule 56).
    pub fn dispatch(&self) -> bool {
        let table = &*self.0;
        table.end_pauses();
        let info = table.hv.shared_info();
        let words = table.open.borrow().len().div_ceil(PORTS_PER_WORD);
        // Each begins behind the port that was first in the last one, so that no port is first for ever.
        let start = table.next_dispatch.get();
        let start_bit = start % PORTS_PER_WORD as u32;
        let mut word = start as usize / PORTS_PER_WORD;
        let mut any = false;
        for _ in 0..words {
            if word >= words {
                word = 0;
            }
            let mut fired = pending::take(info, word, table.awaited_in(word)).rotate_right(start_bit);
            while fired != 0 {
                let bit = (fired.trailing_zeros() + start_bit) % PORTS_PER_WORD as u32;
                fired &= fired - 1;
                if !any {
                    any = true;
                    table.next_dispatch.set((word * PORTS_PER_WORD) as u32 + bit + 1);
                }
                table.count(word, bit);
            }
            word += 1;
        }
        any
    }

    /// How many ports somebody waits for.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.0.awaited.iter().map(|word| word.get().count_ones() as usize).sum()
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
        let table = &*self.0;
        let ports = table.open.borrow().len() as u32;
        if ports == 0 {
            return 0;
        }
        let words = (ports as usize).div_ceil(PORTS_PER_WORD);
        let start = table.next_list.get() % ports;
        let (start_word, start_bit) = ((start as usize) / PORTS_PER_WORD, start as usize % PORTS_PER_WORD);
        let mut len = 0;
        // The first word comes twice: its upper part first, its lower part last.
        for step in 0..=words {
            let word = (start_word + step) % words;
            let part = match step {
                0 => u64::MAX << start_bit,
                _ if step == words => !(u64::MAX << start_bit),
                _ => u64::MAX,
            };
            let mut bits = table.awaited_in(word) & part;
            while bits != 0 {
                let port = (word * PORTS_PER_WORD) as u32 + bits.trailing_zeros();
                let Some(entry) = list.get_mut(len) else {
                    table.next_list.set(port);
                    return len;
                };
                bits &= bits - 1;
                *entry = Port(port);
                len += 1;
            }
        }
        table.next_list.set(0);
        len
    }
}

impl<H: Hypervisor> Table<H> {
    /// Somebody waits for the port: it is listened to, at once or when its pause is over.
    fn listen(&self, place: Place, pause: Duration) {
        if self.awaited_in(place.word) & place.bit != 0 || self.pauses.contains(place) {
            return;
        }
        if pause.is_zero() {
            self.set_awaited(place, true);
        } else {
            let until = read_time(&self.hv).0.saturating_add(pause.as_nanos() as u64);
            self.pauses.add(SystemTime(until), place);
        }
    }

    fn end_pauses(&self) {
        if self.pauses.is_empty() {
            return;
        }
        let now = read_time(&self.hv);
        while let Some(place) = self.pauses.pop_due(now) {
            self.set_awaited(place, true);
        }
    }
}

impl<H> Table<H> {
    fn awaited_in(&self, word: usize) -> u64 {
        self.awaited.get(word).map_or(0, Cell::get)
    }

    fn set_awaited(&self, place: Place, awaited: bool) {
        if let Some(word) = self.awaited.get(place.word) {
            word.set(if awaited {
                word.get() | place.bit
            } else {
                word.get() & !place.bit
            });
        }
    }

    fn note(&self, change: impl FnOnce(&mut EventStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// Counts an event that was taken.
    fn count(&self, word: usize, bit: u32) {
        self.note(|stats| stats.received += 1);
        self.set_awaited(Place { word, bit: 1 << bit }, false);
        let port = word * PORTS_PER_WORD + bit as usize;
        let signal = self.open.borrow().get(port).cloned().flatten();
        if let Some(signal) = signal {
            signal.raise();
        }
    }
}

/// An event channel that is ours.
///
/// A port's counter never loses an event: take the [`count`](Channel::count), look at the ring, and if there was
/// nothing wait for something [`after`](Channel::after) that count. It is at least 1 after the first event, and it
/// counts wake-ups, not signals: Xen folds signals together, and so do we.
///
/// A peer may signal as often as it likes without cause: look at the ring again after each wake, say what came of it
/// ([`served`](Channel::served)), and wait again.
///
/// ```no_run
/// # use fata_events::xen::Channel;
/// # use fata_hypercall::Hypervisor;
/// # struct Ring; impl Ring { fn pop(&self) -> Option<u8> { None } }
/// async fn serve<H: Hypervisor>(channel: &Channel<H>, ring: &Ring) {
///     loop {
///         let seen = channel.count();
///         let mut found = false;
///         while let Some(_response) = ring.pop() {
///             found = true;
///         }
///         channel.served(found);
///         channel.after(seen).await;
///     }
/// }
/// ```
pub struct Channel<H: Hypervisor> {
    ports: Ports<H>,
    port: Port,
    generation: u32,
    place: Place,
    signal: Signal,
    /// Events for nothing since the last one for something.
    vain: Cell<u32>,
    /// Whether dropping closes the port.
    close: bool,
}

impl<H: Hypervisor> Channel<H> {
    /// Its number.
    #[must_use]
    pub fn port(&self) -> Port {
        self.port
    }

    /// Whether the port is still ours: not if the domain was [restored](Ports::resume) since.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.generation == self.ports.0.generation.get()
    }

    /// Signals the peer: one hypercall. A peer that has gone does not notice, and neither do we.
    pub fn notify(&self) {
        if !self.is_open() {
            return;
        }
        // It fails only for a port that is not open, and this one is.
        let _ = self.ports.0.hv.evtchn_send(self.port);
        self.ports.0.note(|stats| stats.sent += 1);
    }

    /// Whether somebody is at the other end: one hypercall. A peer that dies without a word is noticed by nothing else.
    #[must_use]
    pub fn has_peer(&self) -> bool {
        // Where Xen does not say there is no reason to think that the peer is gone.
        self.is_open() && self.ports.0.hv.evtchn_is_connected(self.port).unwrap_or(true)
    }

    /// Events so far, with one that is pending at this moment.
    #[must_use]
    pub fn count(&self) -> u64 {
        let table = &*self.ports.0;
        if self.is_open() && pending::take(table.hv.shared_info(), self.place.word, self.place.bit) != 0 {
            table.set_awaited(self.place, false);
            table.note(|stats| stats.received += 1);
            self.signal.raise();
        }
        self.signal.count()
    }

    /// Says what came of an event: whether the ring held anything new. To be called once for each wake.
    ///
    /// A peer that signals for nothing time after time is listened to after a pause, which doubles from 50 us to 10 ms
    /// (rule 55, XSA-391). Whatever it has to say is found when the pause is over, so that an answer that took `t` is
    /// seen after 2 `t` at the latest. One event for something ends this.
    pub fn served(&self, found: bool) {
        self.vain.set(if found { 0 } else { self.vain.get().saturating_add(1) });
    }

    /// Waits until the count is above `seen`; gives the new count.
    pub fn after(&self, seen: u64) -> Event<'_, H> {
        Event {
            channel: self,
            raised: self.signal.after(seen),
        }
    }

    /// The same for hand-written futures.
    ///
    /// It looks at what was counted, not at the pending bit: that is counted by the next dispatch. So a task that
    /// loops here gives way at least once per event, however fast the peer signals.
    pub fn poll_after(&self, seen: u64, cx: &mut Context<'_>) -> Poll<u64> {
        let poll = self.signal.poll_after(seen, cx);
        self.await_if(poll)
    }

    /// Has the port listened to if somebody waits for it.
    fn await_if(&self, poll: Poll<u64>) -> Poll<u64> {
        if poll.is_pending() && self.is_open() {
            self.ports.0.listen(self.place, pause::after(self.vain.get()));
        }
        poll
    }
}

impl<H: Hypervisor> Drop for Channel<H> {
    fn drop(&mut self) {
        if !self.is_open() {
            return;
        }
        let table = &*self.ports.0;
        table.set_awaited(self.place, false);
        table.pauses.remove(self.place);
        if let Some(slot) = table.open.borrow_mut().get_mut(self.port.0 as usize) {
            *slot = None;
        }
        if self.close {
            // It fails only for a port that is not open, and this one is.
            let _ = table.hv.evtchn_close(self.port);
            // Nobody sets the bit of a closed port; the next owner of the number shall not find an old event.
            pending::take(table.hv.shared_info(), self.place.word, self.place.bit);
        }
    }
}

/// The future of [`Channel::after`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct Event<'a, H: Hypervisor> {
    channel: &'a Channel<H>,
    raised: Raised,
}

impl<H: Hypervisor> Future for Event<'_, H> {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        let poll = Pin::new(&mut self.raised).poll(cx);
        self.channel.await_if(poll)
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

impl<H: Hypervisor> fmt::Debug for Channel<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("port", &self.port)
            .field("count", &self.signal.count())
            .finish()
    }
}

impl<H: Hypervisor> fmt::Debug for Event<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("port", &self.channel.port)
            .finish_non_exhaustive()
    }
}
