//! UDP sockets.

use alloc::vec::Vec;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::task::Poll;
use core::time::Duration;

use fata_events::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::{Socket, udp};
use smoltcp::wire::{IpAddress, IpListenEndpoint};

use crate::options::UdpOptions;
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
    handle: SocketHandle,
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
        let (handle, port) = stack.with(|state| state.bind(address, &options))?;
        Ok(Self {
            stack: stack.clone(),
            handle,
            local: SocketAddr::new(address.ip(), port),
        })
    }

    fn with<R>(&self, f: impl FnOnce(&mut udp::Socket<'static>) -> R) -> R {
        self.stack.with(|state| f(state.udp(self.handle)))
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
        self.stack.with(|state| state.unbind(now, self.handle));
        self.stack.kick();
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UdpSocket").field(&self.local).finish()
    }
}

/// A socket that may keep what it has to send until then.
pub(crate) struct Waiting {
    handle: SocketHandle,
    until: Instant,
}

impl State {
    fn bind(&mut self, address: SocketAddr, options: &UdpOptions) -> Result<(SocketHandle, u16)> {
        let wanted = (!address.ip().is_unspecified()).then(|| address.ip());
        if self.stopped {
            return Err(Error::Stopped);
        }
        if self.udp_sockets >= self.limits.udp_sockets && !self.evict(|_| true) {
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
            0 => self.ephemeral_port(|state, port| state.udp_taken(None, port))?,
            port => {
                while self.udp_taken(wanted, port) {
                    if !self.evict(|socket| socket.endpoint().port == port) {
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
        self.udp_sockets += 1;
        Ok((self.sockets.add(socket), port))
    }

    /// Nobody holds this socket any more: it goes when what it holds is sent.
    fn unbind(&mut self, now: Instant, handle: SocketHandle) {
        if self.udp(handle).send_queue() == 0 || self.lingering.try_reserve(1).is_err() {
            return self.remove_udp_socket(handle);
        }
        let until = now + STUCK;
        self.lingering.push(Waiting { handle, until });
    }

    fn remove_udp_socket(&mut self, handle: SocketHandle) {
        self.udp_sockets = self.udp_sockets.saturating_sub(1);
        self.stuck.retain(|stuck| stuck.handle != handle);
        self.sockets.remove(handle);
    }

    /// Makes room: the first lingering socket that fits goes at once. Says whether there was one.
    fn evict(&mut self, fits: impl Fn(&udp::Socket<'_>) -> bool) -> bool {
        let sockets = &self.sockets;
        let found = self.lingering.iter().position(|old| fits(sockets.get(old.handle)));
        let Some(index) = found else {
            return false;
        };
        let Waiting { handle, .. } = self.lingering.remove(index);
        self.remove_udp_socket(handle);
        true
    }

    /// Frees the dropped sockets that have sent everything, or had their time.
    pub(crate) fn sweep_lingering(&mut self, now: Instant) {
        let mut lingering = core::mem::take(&mut self.lingering);
        lingering.retain(|old| {
            let keep = old.until > now && self.udp(old.handle).send_queue() > 0;
            if !keep {
                self.remove_udp_socket(old.handle);
            }
            keep
        });
        self.lingering = lingering;
    }

    pub(crate) fn next_lingering(&self) -> Option<Instant> {
        self.lingering.iter().map(|old| old.until).min()
    }

    fn udp_taken(&self, wanted: Option<IpAddress>, port: u16) -> bool {
        self.sockets.iter().any(|(_, socket)| match socket {
            Socket::Udp(socket) => {
                let bound = socket.endpoint();
                bound.port == port && (bound.addr.is_none() || wanted.is_none() || bound.addr == wanted)
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

    /// Empties sockets whose first datagram is for a neighbour that does not answer. Called when everything that can be
    /// sent has been sent; gives the time of the next call, even if nothing happens until then.
    ///
    /// smoltcp asks for the neighbour's address once a second, for ever, and sends nothing else from that socket in
    /// the meantime. (It offers no way to take one datagram back, so all go; UDP may.)
    pub(crate) fn sweep_stuck(&mut self, now: Instant) -> Option<Instant> {
        if self.udp_sockets == 0 {
            return None;
        }
        let mut stuck = core::mem::take(&mut self.stuck);
        stuck.retain(|stuck| self.udp(stuck.handle).send_queue() > 0);
        for (handle, socket) in self.sockets.iter_mut() {
            let Socket::Udp(socket) = socket else {
                continue;
            };
            let until = stuck
                .iter()
                .find(|stuck| stuck.handle == handle)
                .map(|stuck| stuck.until);
            if until.is_some_and(|until| until <= now) {
                self.stats.udp_unreachable += 1;
                let endpoint = socket.endpoint();
                socket.close();
                // It was bound there before.
                let _ = socket.bind(endpoint);
            } else if until.is_none() && socket.send_queue() > 0 && stuck.try_reserve(1).is_ok() {
                stuck.push(Waiting {
                    handle,
                    until: now + STUCK,
                });
            }
        }
        stuck.retain(|stuck| stuck.until > now);
        self.stuck = stuck;
        self.stuck.iter().map(|stuck| stuck.until).min()
    }
}
