//! A test's ends of a [`Host`](super::Host)'s connections.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use smoltcp::iface::SocketHandle;

use crate::sim::Waker;

/// One TCP connection: what is to go out, what came in.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) socket: Option<SocketHandle>,
    pub(super) to_send: VecDeque<u8>,
    pub(super) received: Vec<u8>,
    pub(super) closing: bool,
    pub(super) aborting: bool,
    pub(super) connected: bool,
    pub(super) peer_closed: bool,
    pub(super) over: bool,
}

/// A TCP connection of a [`Host`](super::Host). Nothing blocks: what is sent waits until it can go, what arrives
/// waits until it is taken.
#[derive(Clone)]
pub struct Connection {
    stream: Rc<RefCell<Stream>>,
    waker: Waker,
}

impl Connection {
    pub(super) const fn new(stream: Rc<RefCell<Stream>>, waker: Waker) -> Self {
        Self { stream, waker }
    }

    /// Queues bytes, however many.
    pub fn send(&self, bytes: &[u8]) {
        self.stream.borrow_mut().to_send.extend(bytes);
        self.waker.wake();
    }

    /// Bytes that have not yet gone into the TCP socket.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.stream.borrow().to_send.len()
    }

    /// Takes what has arrived.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.stream.borrow_mut().received)
    }

    /// How much has arrived and was not taken.
    #[must_use]
    pub fn received(&self) -> usize {
        self.stream.borrow().received.len()
    }

    /// Sends FIN once everything queued is out.
    pub fn close(&self) {
        self.stream.borrow_mut().closing = true;
        self.waker.wake();
    }

    /// Sends RST.
    pub fn abort(&self) {
        self.stream.borrow_mut().aborting = true;
        self.waker.wake();
    }

    /// The handshake was completed, at some time.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.stream.borrow().connected
    }

    /// The peer will send no more.
    #[must_use]
    pub fn is_closed_by_peer(&self) -> bool {
        let stream = self.stream.borrow();
        stream.peer_closed || stream.over
    }

    /// Closed in both directions, reset or refused.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stream.borrow().over
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.stream.borrow();
        write!(
            f,
            "Connection(connected {}, over {}, {} bytes unsent, {} received)",
            stream.connected,
            stream.over,
            stream.to_send.len(),
            stream.received.len()
        )
    }
}

#[derive(Default)]
pub(super) struct UdpState {
    pub(super) socket: Option<SocketHandle>,
    pub(super) to_send: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(super) received: VecDeque<(SocketAddr, Vec<u8>)>,
}

/// A UDP port of a [`Host`](super::Host).
#[derive(Clone)]
pub struct Udp {
    state: Rc<RefCell<UdpState>>,
    waker: Waker,
}

impl Udp {
    pub(super) const fn new(state: Rc<RefCell<UdpState>>, waker: Waker) -> Self {
        Self { state, waker }
    }

    /// Queues a datagram.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.state.borrow_mut().to_send.push_back((to, bytes.to_vec()));
        self.waker.wake();
    }

    /// Takes the next datagram that has arrived.
    #[must_use]
    pub fn receive(&self) -> Option<(SocketAddr, Vec<u8>)> {
        self.state.borrow_mut().received.pop_front()
    }

    /// How many datagrams wait to be received.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.borrow().received.len()
    }
}

impl fmt::Debug for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Udp({} received)", self.waiting())
    }
}

pub(super) struct PingState {
    pub(super) to: IpAddr,
    pub(super) sequence: u16,
    pub(super) payload: Vec<u8>,
    pub(super) sent: bool,
    pub(super) answered: bool,
}

/// An ICMP echo request on its way.
#[derive(Clone)]
pub struct Ping(Rc<RefCell<PingState>>);

impl Ping {
    pub(super) const fn new(state: Rc<RefCell<PingState>>) -> Self {
        Self(state)
    }

    /// The reply has come, with the same payload.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.0.borrow().answered
    }
}

impl fmt::Debug for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ping(answered {})", self.is_answered())
    }
}
