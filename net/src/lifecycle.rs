//! From half-open to accepted, and from dropped to gone.
//!
//! ```text
//!  SYN ──► half-open ──► ready ──► accept() ──► (a stream holds it) ──► dropped
//!              │                                                          │
//!              └── RST, or too slow: freed         closing: what is left is sent, what comes is thrown away
//!                                                     │            │              │
//!                                           TIME-WAIT: freed,   too slow:     reset, or both
//!                                           name remembered     aborted       closed: freed
//! ```

use core::time::Duration;

use fata_events::Instant;
use smoltcp::socket::{Socket, tcp};

use crate::agenda::Id;
use crate::sockets::Stage;
use crate::state::{State, tuple};

/// How long the RST of an aborted connection may wait for the device, or for the neighbour's address.
const RESET_TIME: Duration = Duration::from_secs(2);

impl State {
    /// Looks whether a socket's stage is over: called when something has come for it, when something was sent, and at
    /// its deadline. `sent` says that there is nothing left to send now. Afterwards the socket may be gone.
    pub(crate) fn advance(&mut self, now: Instant, id: Id, sent: bool) {
        let Some(slot) = self.sockets.get(id) else {
            return;
        };
        let late = slot.deadline.is_some_and(|deadline| deadline <= now);
        match slot.stage {
            Stage::HalfOpen { listener } => self.advance_half_open(now, id, listener, late),
            Stage::Closing => self.advance_closing(now, id, sent, late),
            Stage::Bound => self.advance_bound(now, id, late),
            Stage::Lingering => self.advance_lingering(id, late),
            Stage::Open | Stage::Dhcp => {}
        }
    }

    /// A connection that got its third segment goes to its listener, one that failed is freed.
    fn advance_half_open(&mut self, now: Instant, id: Id, listener: u64, late: bool) {
        let accepted = match self.sockets.tcp(id).state() {
            tcp::State::SynReceived if !late => return,
            // A RST sends smoltcp's socket back to listening, and silence lasts until the deadline.
            tcp::State::SynReceived | tcp::State::Listen | tcp::State::Closed => false,
            _ => true,
        };
        self.half_open = self.half_open.saturating_sub(1);
        let mut listener = self.listeners.iter_mut().find(|other| other.id == listener);
        if let Some(listener) = &mut listener {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
        if !accepted {
            self.stats.tcp_half_open_dropped += 1;
            return self.sockets.remove(id);
        }
        self.stats.tcp_accepted += 1;
        match listener {
            Some(listener) => {
                listener.ready.push_back(id);
                listener.signal.raise();
                let slot = self.sockets.slot(id);
                slot.stage = Stage::Open;
                slot.deadline = None;
            }
            None => self.abort(now, id),
        }
    }

    /// A connection that nobody holds is freed as soon as it needs no buffers any more.
    fn advance_closing(&mut self, now: Instant, id: Id, sent: bool, late: bool) {
        let socket = self.sockets.tcp(id);
        // Nobody will read it, and the peer may be unable to close before it has sent everything.
        while socket.can_recv() && socket.recv(|data| (data.len(), ())).is_ok() {}
        match socket.state() {
            // A connection that was aborted, or timed out, keeps its name until the RST is sent.
            tcp::State::Closed if late || socket.remote_endpoint().is_none() => self.sockets.remove(id),
            // The acknowledgement of the peer's FIN is on its way, and no buffer is needed for another one.
            tcp::State::TimeWait if late || sent => {
                if let Some(tuple) = tuple(socket) {
                    self.time_wait.insert(now, tuple);
                }
                self.sockets.remove(id);
            }
            tcp::State::Closed | tcp::State::TimeWait => {}
            _ if late => {
                self.stats.tcp_close_timeouts += 1;
                self.abort(now, id);
            }
            _ => {}
        }
    }

    /// Nobody holds this connection any more: let it end in peace.
    pub(crate) fn release(&mut self, now: Instant, id: Id) {
        let socket = self.sockets.tcp(id);
        // Its last acknowledgement shall not wait for company.
        socket.set_ack_delay(None);
        let aborted = matches!(socket.state(), tcp::State::SynSent | tcp::State::Closed);
        socket.close();
        self.close_until(id, now + if aborted { RESET_TIME } else { self.limits.close_timeout });
    }

    /// Ends this connection with a RST.
    pub(crate) fn abort(&mut self, now: Instant, id: Id) {
        self.sockets.tcp(id).abort();
        self.close_until(id, now + RESET_TIME);
    }

    fn close_until(&mut self, id: Id, deadline: Instant) {
        self.sockets.slot(id).stage = Stage::Closing;
        self.sockets.set_deadline(id, deadline);
        self.sockets.agenda.touch(id);
    }

    /// The end is near: nothing new begins, and what there is ends in peace, even if a stream still holds it.
    pub(crate) fn close_all(&mut self, now: Instant) {
        self.stopped = true;
        while let Some(listener) = self.listeners.first() {
            listener.signal.raise();
            self.unlisten(now, listener.id);
        }
        for (_, slot) in self.sockets.iter() {
            if let Socket::Tcp(socket) = slot.socket() {
                socket.set_ack_delay(None);
                socket.close();
            }
        }
        self.sockets.touch_all();
        self.changed.raise();
    }

    /// Whether nobody has to be waited for: connections are over, datagrams sent.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.sockets.iter().all(|(_, slot)| match slot.socket() {
            Socket::Tcp(socket) => socket.remote_endpoint().is_none() || socket.state() == tcp::State::TimeWait,
            Socket::Udp(socket) => socket.send_queue() == 0,
            _ => true,
        })
    }

    /// The end is here: who has not closed gets a RST.
    pub(crate) fn abort_all(&mut self) {
        for (_, slot) in self.sockets.iter() {
            if let Socket::Tcp(socket) = slot.socket()
                && socket.state() != tcp::State::TimeWait
            {
                socket.abort();
            }
        }
        self.sockets.touch_all();
    }

    /// The runner is gone: everybody who waits gets to know.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        for (_, slot) in self.sockets.iter() {
            match slot.socket() {
                Socket::Tcp(socket) => socket.abort(),
                Socket::Udp(socket) => socket.close(),
                // DHCP, and what other users of smoltcp may have switched on in it.
                _ => {}
            }
        }
        for listener in &self.listeners {
            listener.signal.raise();
        }
        self.changed.raise();
    }
}
