//! UDP sockets.

use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::task::Poll;
use core::time::Duration;

use fata_events::Instant;
use smoltcp::socket::{Socket, udp};
use smoltcp::wire::{IpAddress, IpListenEndpoint};

use crate::agenda::Id;
use crate::options::UdpOptions;
use crate::sockets::Stage;
use crate::state::{State, buffer, endpoint, socket_address};
use crate::{Error, Result, Stack};

/// What smoltcp's buffer for fragments holds, less the headers of IPv4 and UDP.
const LARGEST_IPV4: usize = 8192 - 20 - 8;
/// Headers of IPv6 and UDP: larger datagrams would need fragments, which smoltcp does not make for IPv6.
const IPV6_HEADERS: usize = 40 + 8;
/// How long a neighbour that does not answer may hold up what is sent to others, or what is left of a dropped socket.
const STUCK: Duration = Duration::from_millis(1500);

/// A UDP socket.
///
/// One task may receive and one may send at the same time, but not two of the same kind. When it is dropped, what it
/// holds is still sent, unless that takes more than 1.5 seconds, or its port is bound again before.
pub struct UdpSocket {
    stack: Stack,
    id: Id,
    local: SocketAddr,
}

/// A received datagram, without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// How many bytes are in the buffer.
    pub len: usize,
    /// How many bytes it had. More than `len` if the buffer was too small.
    pub full_len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// To which of the stack's addresses, or to which group.
    pub to: IpAddr,
}

impl UdpSocket {
    pub(crate) fn new(stack: &Stack, address: SocketAddr, options: UdpOptions) -> Result<Self> {
        let (id, port) = stack.with(|state| state.bind(address, &options))?;
        Ok(Self {
            stack: stack.clone(),
            id,
            local: SocketAddr::new(address.ip(), port),
        })
    }

    fn with<R>(&self, f: impl FnOnce(&mut udp::Socket<'static>) -> R) -> R {
        self.stack.with(|state| f(state.sockets.udp(self.id)))
    }

    /// Where it is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends one datagram; waits for room in the buffer, not for the network.
    ///
    /// # Errors
    /// [`Error::DatagramTooLarge`] above 8164 bytes over IPv4, above the MTU less 48 bytes over IPv6, or above the
    /// socket's buffer; [`Error::AddressNotAvailable`] if there is no route; [`Error::InvalidInput`],
    /// [`Error::Stopped`].
    pub async fn send_to(&self, data: &[u8], to: SocketAddr) -> Result<()> {
        let largest = match to {
            SocketAddr::V4(_) => LARGEST_IPV4,
            SocketAddr::V6(_) => self.stack.with(|state| usize::from(state.capabilities.mtu)) - IPV6_HEADERS,
        };
        if data.len() > largest.min(self.with(|socket| socket.payload_send_capacity())) {
            return Err(Error::DatagramTooLarge);
        }
        if to.port() == 0 || to.ip().is_unspecified() {
            return Err(Error::InvalidInput);
        }
        self.stack.with(|state| state.check_destination(to.ip()))?;
        let meta = udp::UdpMetadata::from(endpoint(to));
        poll_fn(|cx| {
            self.with(|socket| match socket.send_slice(data, meta) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(udp::SendError::BufferFull) => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                Err(udp::SendError::Unaddressable) => Poll::Ready(Err(Error::Stopped)),
            })
        })
        .await?;
        self.stack.with(|state| state.sockets.agenda.touch(self.id));
        self.stack.kick();
        Ok(())
    }

    /// Waits for a datagram; gives its length and its sender. What does not fit into `buffer` is lost.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        let datagram = self.receive(buffer).await?;
        Ok((datagram.len, datagram.from))
    }

    /// Waits for a datagram, and gives all that is known about it.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn receive(&self, buffer: &mut [u8]) -> Result<Datagram> {
        poll_fn(|cx| {
            self.with(|socket| {
                if let Ok((data, meta)) = socket.recv() {
                    let len = data.len().min(buffer.len());
                    if let (Some(to), Some(from)) = (buffer.get_mut(..len), data.get(..len)) {
                        to.copy_from_slice(from);
                    }
                    return Poll::Ready(Ok(Datagram {
                        len,
                        full_len: data.len(),
                        from: socket_address(meta.endpoint),
                        to: meta.local_address.map_or(self.local.ip(), IpAddr::from),
                    }));
                }
                if !socket.is_open() {
                    return Poll::Ready(Err(Error::Stopped));
                }
                socket.register_recv_waker(cx.waker());
                Poll::Pending
            })
        })
        .await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let now = self.stack.handle().now();
        self.stack.with(|state| state.unbind(now, self.id));
        self.stack.kick();
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UdpSocket").field(&self.local).finish()
    }
}

impl State {
    fn bind(&mut self, address: SocketAddr, options: &UdpOptions) -> Result<(Id, u16)> {
        let wanted = (!address.ip().is_unspecified()).then(|| address.ip());
        if self.stopped {
            return Err(Error::Stopped);
        }
        if self.sockets.ports().len() >= self.limits.udp_sockets && !self.evict(None) {
            return Err(Error::OutOfMemory);
        }
        if wanted.is_some_and(|wanted| !self.is_own(wanted) && !wanted.is_multicast()) {
            return Err(Error::AddressNotAvailable);
        }
        if options.datagrams == 0 || options.rx_buffer == 0 || options.tx_buffer == 0 {
            return Err(Error::InvalidInput);
        }
        let wanted = wanted.map(IpAddress::from);
        let port = match address.port() {
            0 => self.ephemeral_port(|state, port| state.sockets.ports().iter().any(|(taken, _)| *taken == port))?,
            port => {
                while self.udp_taken(wanted, port) {
                    if !self.evict(Some(port)) {
                        return Err(Error::AddressInUse);
                    }
                }
                port
            }
        };
        let packets = |bytes| {
            let mut meta = Vec::new();
            meta.try_reserve_exact(options.datagrams)
                .map_err(|_| Error::OutOfMemory)?;
            meta.resize(options.datagrams, udp::PacketMetadata::EMPTY);
            Ok(udp::PacketBuffer::new(meta, buffer(bytes)?))
        };
        let mut socket = udp::Socket::new(packets(options.rx_buffer)?, packets(options.tx_buffer)?);
        socket
            .bind(IpListenEndpoint { addr: wanted, port })
            .map_err(|_| Error::InvalidInput)?;
        Ok((self.sockets.add_datagrams(socket)?, port))
    }

    /// Nobody holds this socket any more: it goes when what it holds is sent.
    fn unbind(&mut self, now: Instant, id: Id) {
        self.sockets.slot(id).stage = Stage::Lingering;
        self.sockets.set_deadline(id, now + STUCK);
        self.advance(now, id, false);
    }

    /// Frees a dropped socket that has sent everything, or had its time.
    pub(crate) fn advance_lingering(&mut self, id: Id, late: bool) {
        if late || self.sockets.udp(id).send_queue() == 0 {
            self.sockets.remove(id);
        }
    }

    /// Empties a socket whose first datagram is for a neighbour that does not answer.
    ///
    /// smoltcp asks for the neighbour's address once a second, for ever, and sends nothing else from that socket in
    /// the meantime. (It offers no way to take one datagram back, so all go; UDP may.)
    pub(crate) fn advance_bound(&mut self, now: Instant, id: Id, late: bool) {
        let slot = self.sockets.slot(id);
        match (slot.waiting, slot.deadline) {
            (false, _) => slot.deadline = None,
            (true, None) => self.sockets.set_deadline(id, now + STUCK),
            (true, Some(_)) if late => {
                slot.deadline = None;
                self.sockets.stop_waiting(id);
                self.stats.udp_unreachable += 1;
                let socket = self.sockets.udp(id);
                let endpoint = socket.endpoint();
                socket.close();
                // It was bound there before.
                let _ = socket.bind(endpoint);
            }
            (true, Some(_)) => {}
        }
    }

    /// Makes room: the oldest dropped socket (of this port) goes at once. Says whether there was one.
    fn evict(&mut self, wanted: Option<u16>) -> bool {
        let dropped = self.sockets.iter().filter_map(|(id, slot)| match slot.socket() {
            Socket::Udp(socket) => {
                let fits = wanted.is_none_or(|port| port == socket.endpoint().port);
                (fits && slot.stage == Stage::Lingering).then_some((slot.deadline, id))
            }
            _ => None,
        });
        let oldest = dropped.min();
        if let Some((_, id)) = oldest {
            self.sockets.remove(id);
        }
        oldest.is_some()
    }

    fn udp_taken(&mut self, wanted: Option<IpAddress>, port: u16) -> bool {
        (0..self.sockets.ports().len()).any(|index| match self.sockets.ports().get(index) {
            Some((taken, id)) if *taken == port => {
                let bound = self.sockets.udp(*id).endpoint().addr;
                bound.is_none() || wanted.is_none() || bound == wanted
            }
            _ => false,
        })
    }

    /// Whether a datagram for this address can leave. One that cannot would hold up all that come after it.
    fn check_destination(&self, to: IpAddr) -> Result<()> {
        let group = to.is_multicast() || matches!(to, IpAddr::V4(address) if address.is_broadcast());
        if !group {
            return self.source_for(to).map(drop);
        }
        let family = |cidr: &crate::Cidr<IpAddr>| cidr.address.is_ipv4() == to.is_ipv4();
        match self.status.addresses.iter().any(family) {
            true => Ok(()),
            false => Err(Error::AddressNotAvailable),
        }
    }
}
