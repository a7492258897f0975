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
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{Socket, tcp};

use crate::state::{Closing, HalfOpen, Listener, State, tuple};

/// How long the RST of an aborted connection may wait for the device, or for the neighbour's address.
const RESET_TIME: Duration = Duration::from_secs(2);

impl State {
    /// Moves connections that got their third segment to their listeners, and frees those that failed.
    pub(crate) fn sweep_half_open(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(HalfOpen {
            handle,
            listener,
            deadline,
        }) = self.half_open.get(index)
        {
            let (handle, listener, late) = (*handle, *listener, *deadline <= now);
            match self.tcp(handle).state() {
                tcp::State::SynReceived if !late => {
                    index += 1;
                    continue;
                }
                // A RST sends smoltcp's socket back to listening, and silence lasts until the deadline.
                tcp::State::SynReceived | tcp::State::Listen | tcp::State::Closed => {
                    self.stats.tcp_half_open_dropped += 1;
                    self.remove_tcp_socket(handle);
                    if let Some(listener) = self.listener(listener) {
                        listener.half_open = listener.half_open.saturating_sub(1);
                    }
                }
                _ => {
                    self.stats.tcp_accepted += 1;
                    match self.listener(listener) {
                        Some(listener) => {
                            listener.half_open = listener.half_open.saturating_sub(1);
                            listener.ready.push_back(handle);
                            listener.signal.raise();
                        }
                        None => self.abort(now, handle),
                    }
                }
            }
            self.half_open.swap_remove(index);
        }
    }

    /// Nobody holds this connection any more: let it end in peace.
    pub(crate) fn release(&mut self, now: Instant, handle: SocketHandle) {
        let deadline = now + self.limits.close_timeout;
        let socket = self.tcp(handle);
        // Its last acknowledgement shall not wait for company.
        socket.set_ack_delay(None);
        let aborted = matches!(socket.state(), tcp::State::SynSent | tcp::State::Closed);
        socket.close();
        self.push_closing(Closing {
            handle,
            deadline: if aborted { now + RESET_TIME } else { deadline },
        });
    }

    /// Ends this connection with a RST.
    pub(crate) fn abort(&mut self, now: Instant, handle: SocketHandle) {
        self.tcp(handle).abort();
        self.push_closing(Closing {
            handle,
            deadline: now + RESET_TIME,
        });
    }

    fn push_closing(&mut self, closing: Closing) {
        if self.closing.try_reserve(1).is_err() {
            return self.remove_tcp_socket(closing.handle);
        }
        self.closing.push(closing);
    }

    pub(crate) fn is_closing(&self, handle: SocketHandle) -> bool {
        self.closing.iter().any(|closing| closing.handle == handle)
    }

    /// Frees a closing connection at once.
    pub(crate) fn forget_closing(&mut self, handle: SocketHandle) {
        self.closing.retain(|closing| closing.handle != handle);
        self.remove_tcp_socket(handle);
    }

    /// Looks after the connections that nobody holds. `sent` says that everything that could be sent has been.
    pub(crate) fn sweep_closing(&mut self, now: Instant, sent: bool) {
        let mut index = 0;
        while let Some(closing) = self.closing.get_mut(index) {
            let handle = closing.handle;
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
            // Nobody will read it, and the peer may be unable to close before it has sent everything.
            while socket.can_recv() && socket.recv(|data| (data.len(), ())).is_ok() {}
            let done = match socket.state() {
                // A connection that was aborted, or timed out, keeps its name until the RST is sent.
                tcp::State::Closed => socket.remote_endpoint().is_none() || closing.deadline <= now,
                // The acknowledgement of the peer's FIN is on its way, and no buffer is needed for another one.
                tcp::State::TimeWait => sent || closing.deadline <= now,
                _ => {
                    if closing.deadline <= now {
                        socket.abort();
                        closing.deadline = now + RESET_TIME;
                        self.stats.tcp_close_timeouts += 1;
                    }
                    false
                }
            };
            if !done {
                index += 1;
                continue;
            }
            if socket.state() == tcp::State::TimeWait
                && let Some(tuple) = tuple(socket)
            {
                self.time_wait.insert(now, tuple);
            }
            self.closing.swap_remove(index);
            self.remove_tcp_socket(handle);
        }
    }

    /// Ends a listener, with the connections that it has not given away.
    pub(crate) fn unlisten(&mut self, now: Instant, id: u64) {
        let Some(index) = self.listeners.iter().position(|listener| listener.id == id) else {
            return;
        };
        let Listener { ready, .. } = self.listeners.swap_remove(index);
        for handle in ready {
            self.abort(now, handle);
        }
        let mut index = 0;
        while let Some(half_open) = self.half_open.get(index) {
            if half_open.listener == id {
                let handle = half_open.handle;
                self.half_open.swap_remove(index);
                self.abort(now, handle);
            } else {
                index += 1;
            }
        }
    }

    /// When one of the tables here wants to be looked at.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let half_open = self.half_open.iter().map(|half_open| half_open.deadline);
        let closing = self.closing.iter().map(|closing| closing.deadline);
        half_open
            .chain(closing)
            .chain(self.no_router_at)
            .chain(self.next_lingering())
            .min()
    }

    /// The end is near: nothing new begins, and what there is ends in peace, even if a stream still holds it.
    pub(crate) fn close_all(&mut self, now: Instant) {
        self.stopped = true;
        while let Some(listener) = self.listeners.first() {
            listener.signal.raise();
            self.unlisten(now, listener.id);
        }
        for (_, socket) in self.sockets.iter_mut() {
            if let Socket::Tcp(socket) = socket {
                socket.set_ack_delay(None);
                socket.close();
            }
        }
        self.changed.raise();
    }

    /// Whether nobody has to be waited for: connections are over, datagrams sent.
    pub(crate) fn is_quiet(&self) -> bool {
        self.sockets.iter().all(|(_, socket)| match socket {
            Socket::Tcp(socket) => socket.remote_endpoint().is_none() || socket.state() == tcp::State::TimeWait,
            Socket::Udp(socket) => socket.send_queue() == 0,
            _ => true,
        })
    }

    /// The end is here: who has not closed gets a RST.
    pub(crate) fn abort_all(&mut self) {
        for (_, socket) in self.sockets.iter_mut() {
            if let Socket::Tcp(socket) = socket
                && socket.state() != tcp::State::TimeWait
            {
                socket.abort();
            }
        }
    }

    /// The runner is gone: everybody who waits gets to know.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        for (_, socket) in self.sockets.iter_mut() {
            match socket {
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
