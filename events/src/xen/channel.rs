//! One event channel.

use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use fata_hypercall::{Hypervisor, Port};

use super::{Ports, pause};
use crate::{Raised, Signal};

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
    signal: Signal,
    /// Events for nothing since the last one for something.
    vain: Cell<u32>,
    /// Whether dropping closes the port.
    close: bool,
}

impl<H: Hypervisor> Channel<H> {
    /// A port of the domain's present life, whose events `signal` counts.
    pub(super) fn new(ports: Ports<H>, port: Port, signal: Signal, close: bool) -> Self {
        Self {
            generation: ports.0.generation.get(),
            ports,
            port,
            signal,
            vain: Cell::new(0),
            close,
        }
    }

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
        if self.is_open() {
            self.ports.0.look(self.port);
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
            self.ports.0.await_port(self.port, pause::after(self.vain.get()));
        }
        poll
    }
}

impl<H: Hypervisor> Drop for Channel<H> {
    fn drop(&mut self) {
        if self.is_open() {
            self.ports.0.release(self.port, self.close);
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
