//! A network interface that lives as long as the domain.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell, RefMut};
use core::fmt;
use core::task::{Context, Poll};

use fata_events::xen::Ports;
use fata_events::{Handle, Signal};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
use fata_xenstore::Client;
use fata_xenstore::xenbus::Life;

use crate::channels::Channels;
use crate::frame::{RxFrame, TxFrame};
use crate::rx::{Rx, RxMeta};
use crate::stats::{Counters, Stats};
use crate::tx::Tx;
use crate::{Error, Fault, Identity, Options};

/// A network interface (`device/vif/<index>`).
///
/// Clones are the same interface. [`run`](Self::run) is its life, to be spawned once; meanwhile one task moves
/// frames, in this manner:
///
/// 1. [`receive`](Self::receive) and [`transmit`](Self::transmit) until there is nothing more to do,
/// 2. [`flush`](Self::flush) once,
/// 3. [`poll_ready`](Self::poll_ready), and start over when it says so.
///
/// ```no_run
/// # use core::future::poll_fn;
/// # use fata_hypercall::Hypervisor;
/// # use fata_netfront::{TxMeta, Vif};
/// /// Sends everything back to where it came from.
/// async fn reflect<H: Hypervisor>(vif: &Vif<H>) {
///     loop {
///         while vif.has_room() && let Some(frame) = vif.receive() {
///             let len = frame.meta().len;
///             frame.consume(|from| {
///                 let Some(answer) = vif.transmit() else { return };
///                 answer.consume(len, |to| {
///                     to.copy_from_slice(from);
///                     to[..6].copy_from_slice(&from[6..12]);
///                     to[6..12].copy_from_slice(&from[..6]);
///                     ((), TxMeta::default())
///                 });
///             });
///         }
///         vif.flush();
///         poll_fn(|cx| vif.poll_ready(cx)).await;
///     }
/// }
/// ```
pub struct Vif<H: Hypervisor>(pub(crate) Rc<Inner<H>>);

pub(crate) struct Inner<H: Hypervisor> {
    pub(crate) life: Life<H>,
    pub(crate) ports: Ports<H>,
    pub(crate) options: Options,
    // What is shared with the backend, in three cells: a frame is received while another is sent.
    pub(crate) rx: RefCell<Option<Rx<H>>>,
    pub(crate) tx: RefCell<Option<Tx<H>>>,
    pub(crate) channels: RefCell<Option<Channels<H>>>,
    pub(crate) identity: Cell<Option<Identity>>,
    /// The backend is connected, and has not broken the protocol.
    pub(crate) up: Cell<bool>,
    /// There was no room when somebody asked.
    pub(crate) starved: Cell<bool>,
    /// There was no room to tell the backend of all groups.
    pub(crate) untold: Cell<bool>,
    pub(crate) problem: Cell<Option<Error>>,
    pub(crate) fault: Cell<Option<Fault>>,
    /// Raised with it.
    pub(crate) faults: Signal,
    /// Raised for everybody: the link, or the problem, is another one.
    pub(crate) changes: Signal,
    /// How much of `changes` `poll_ready` has told of.
    pub(crate) told: Cell<u64>,
    /// The multicast groups to listen to.
    pub(crate) groups: RefCell<Vec<[u8; 6]>>,
    pub(crate) counters: Counters,
}

impl<H: Hypervisor> Vif<H> {
    /// The interface with this number. Nothing happens before [`run`](Self::run).
    #[must_use]
    pub fn new(table: Table<H>, ports: Ports<H>, client: Client, index: u32, options: Options) -> Self {
        Self(Rc::new(Inner {
            life: Life::new(table, client, index, options.limits),
            ports,
            options: options.clamped(),
            rx: RefCell::default(),
            tx: RefCell::default(),
            channels: RefCell::default(),
            identity: Cell::new(None),
            up: Cell::new(false),
            starved: Cell::new(false),
            untold: Cell::new(false),
            problem: Cell::new(None),
            fault: Cell::new(None),
            faults: Signal::new(),
            changes: Signal::new(),
            told: Cell::new(0),
            groups: RefCell::default(),
            counters: Counters::default(),
        }))
    }

    /// Its number among the domain's interfaces.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.0.life.index()
    }

    /// The loop that its life is to run on.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.0.life.handle()
    }

    /// Its address and abilities; `None` until the backend is there for the first time. They may be others after the
    /// link was down.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.0.identity.get()
    }

    /// Its Ethernet address, once known.
    #[must_use]
    pub fn mac(&self) -> Option<[u8; 6]> {
        self.identity().map(|identity| identity.mac)
    }

    /// The longest IP packet in bytes, once known.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        self.identity().map(|identity| identity.mtu)
    }

    /// Whether frames can be exchanged now.
    #[must_use]
    pub fn link_up(&self) -> bool {
        self.0.up.get()
    }

    /// What is, or was last, the matter. `None` while it is connected or the backend still has time.
    #[must_use]
    pub fn problem(&self) -> Option<Error> {
        self.0.problem.get()
    }

    /// Raised whenever [`link_up`](Self::link_up) or [`problem`](Self::problem) changes.
    #[must_use]
    pub fn changes(&self) -> &Signal {
        &self.0.changes
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            retries: self.0.life.retries(),
            ..self.0.counters.get()
        }
    }

    /// What the next received frame is, if there is one. It stays the next one until it is
    /// [received](Self::receive).
    #[must_use]
    pub fn peek(&self) -> Option<RxMeta> {
        let mut rx = self.half(&self.0.rx)?;
        let next = rx.peek(&self.0.counters);
        drop(rx);
        self.checked(next).flatten()
    }

    /// Takes the next received frame; `None` if there is none, or the one before is still alive. Dropped unused, it
    /// is discarded.
    ///
    /// Do not keep it across an await: the interface cannot end its connection meanwhile.
    #[must_use]
    pub fn receive(&self) -> Option<RxFrame<'_, H>> {
        let meta = self.peek()?;
        let rx = self.half(&self.0.rx)?;
        Some(RxFrame::new(rx, meta, &self.0.counters))
    }

    /// Whether there is room for one more frame to send. If not, [`poll_ready`](Self::poll_ready) tells when there
    /// is.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.room().is_some()
    }

    /// Room for one frame to send; `None` if there is none, or the room handed out before is not used yet. Dropped
    /// unused, it costs nothing.
    ///
    /// Do not keep it across an await: the interface cannot end its connection meanwhile.
    #[must_use]
    pub fn transmit(&self) -> Option<TxFrame<'_, H>> {
        Some(TxFrame::new(self.room()?, &self.0.counters))
    }

    fn room(&self) -> Option<RefMut<'_, Tx<H>>> {
        let mut tx = self.half(&self.0.tx)?;
        let room = tx.room(&self.0.counters);
        self.0.starved.set(room == Ok(false));
        match room {
            Ok(true) => Some(tx),
            Ok(false) => {
                self.0.counters.count(|stats| stats.tx_full += 1);
                None
            }
            Err(fault) => {
                drop(tx);
                self.fail(fault);
                None
            }
        }
    }

    /// The multicast groups to listen to, as Ethernet addresses, instead of those before. Frames for others need not come any
    /// more, if [that is wanted](Options::filter_multicast) and the backend can do it; it is told with the next
    /// [`flush`](Self::flush), and by each connection anew. Of a group that it refuses (netback takes 64, and needs memory for each) nothing
    /// comes before the next connection.
    pub fn listen(&self, groups: &[[u8; 6]]) {
        let mut listening = self.0.groups.borrow_mut();
        listening.clear();
        listening.extend_from_slice(groups);
    }

    /// Shows the backend all frames and buffers since the last call, with one notification at most; and takes back
    /// what it has sent.
    pub fn flush(&self) {
        let (mut notify_rx, mut notify_tx) = (false, false);
        if let Some(mut rx) = self.half(&self.0.rx) {
            notify_rx = rx.publish();
        }
        if let Some(mut tx) = self.half(&self.0.tx) {
            if let Err(fault) = tx.reap(&self.0.counters) {
                drop(tx);
                return self.fail(fault);
            }
            self.0.untold.set(!tx.tell_groups(&self.0.groups.borrow()));
            notify_tx = tx.publish();
        }
        self.notify(notify_rx, notify_tx);
    }

    /// Ready when there may be new frames, new room after there was none, or a change of the link. It flushes first.
    ///
    /// It may be ready without a cause, but loses none: what happens between a [`receive`](Self::receive) that gave
    /// `None` and this call makes this call ready.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &*self.0;
        self.flush();
        if let Poll::Ready(count) = inner.changes.poll_after(inner.told.get(), cx) {
            inner.told.set(count);
            return Poll::Ready(());
        }
        let channels = inner.channels.borrow();
        let Some(Channels {
            rx: rx_line,
            tx: tx_line,
        }) = channels.as_ref().filter(|_| self.link_up())
        else {
            return Poll::Pending;
        };
        let rx_consumed = || self.half(&inner.rx).map_or(0, |rx| rx.consumed());
        let tx_consumed = || self.half(&inner.tx).map_or(0, |tx| tx.consumed());
        // Slots of both rings, if the channel is for both: modulo 2^32.
        let consumed = || rx_consumed().wrapping_add(if tx_line.is_none() { tx_consumed() } else { 0 });
        let (starved, untold) = (inner.starved.get(), inner.untold.get());
        let mut ready = rx_line.poll_event(consumed, cx).is_ready();
        if (starved || untold)
            && let Some(line) = tx_line
        {
            ready |= line.poll_event(tx_consumed, cx).is_ready();
        }
        if ready {
            inner.counters.count(|stats| stats.events += 1);
            return Poll::Ready(());
        }
        // From here on an event wakes us. Ask for one, and look once more for what came before anybody asked.
        if let Some(mut rx) = self.half(&inner.rx) {
            let frames = rx.enable_events(starved);
            drop(rx);
            ready |= self.checked(frames).unwrap_or(true);
        }
        if let Some(mut tx) = self.half(&inner.tx).filter(|_| starved || untold) {
            // Room may have come since somebody asked for it: `flush` takes responses too, and no event follows those.
            let sent = if starved && tx.has_room() {
                Ok(true)
            } else {
                tx.enable_events()
            };
            drop(tx);
            ready |= self.checked(sent).unwrap_or(true);
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// One half of the connection, while the link is up.
    fn half<'a, T>(&self, cell: &'a RefCell<Option<T>>) -> Option<RefMut<'a, T>> {
        if !self.link_up() {
            return None;
        }
        RefMut::filter_map(cell.try_borrow_mut().ok()?, Option::as_mut).ok()
    }

    /// Tells the backend of one ring or of both; of both at once if they have the same event channel.
    pub(crate) fn notify(&self, rx: bool, tx: bool) {
        let channels = self.0.channels.borrow();
        let Some(Channels {
            rx: rx_line,
            tx: tx_line,
        }) = &*channels
        else {
            return;
        };
        let rx = rx || (tx && tx_line.is_none());
        for line in [Some(rx_line).filter(|_| rx), tx_line.as_ref().filter(|_| tx)]
            .into_iter()
            .flatten()
        {
            line.notify();
            self.0.counters.count(|stats| stats.notifications += 1);
        }
    }

    fn checked<T>(&self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.fail(fault)).ok()
    }

    /// The backend broke the protocol: from here on nothing of it is looked at, and `run` closes the connection.
    fn fail(&self, fault: Fault) {
        let inner = &*self.0;
        if inner.fault.get().is_none() {
            inner.fault.set(Some(fault));
            inner.counters.count(|stats| stats.faults += 1);
            self.set_state(false, Some(Error::Fault(fault)));
            inner.faults.raise();
        }
    }

    pub(crate) fn set_state(&self, up: bool, problem: Option<Error>) {
        let inner = &*self.0;
        if (inner.up.replace(up), inner.problem.replace(problem)) != (up, problem) {
            inner.changes.raise();
        }
    }

    /// Has [`run`](Self::run) close the interface and end.
    pub fn stop(&self) {
        self.0.life.stop();
    }
}

impl<H: Hypervisor> Clone for Vif<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<H: Hypervisor> fmt::Debug for Vif<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Vif({}, {})",
            self.index(),
            if self.link_up() { "up" } else { "down" }
        )
    }
}
