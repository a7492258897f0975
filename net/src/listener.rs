//! Accepting TCP connections.

use alloc::collections::VecDeque;
use core::fmt;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::task::{Context, Poll, ready};

use fata_events::{Instant, Signal};

use crate::agenda::Id;
use crate::options::ListenOptions;
use crate::sockets::Stage;
use crate::state::State;
use crate::{Error, Result, Stack, TcpStream};

/// A TCP port that accepts connections, with a backlog.
///
/// Connections are made while nobody accepts: up to [`ListenOptions::backlog`] of them wait, and none is refused. Any
/// number of tasks may call [`accept`](Self::accept). Dropping the listener resets the connections that wait.
pub struct TcpListener {
    stack: Stack,
    id: u64,
    address: SocketAddr,
    signal: Signal,
}

impl TcpListener {
    pub(crate) fn new(stack: &Stack, address: SocketAddr, options: ListenOptions) -> Result<Self> {
        let (id, address, signal) = stack.with(|state| match state.stopped {
            true => Err(Error::Stopped),
            false => state.listen(address, options),
        })?;
        Ok(Self {
            stack: stack.clone(),
            id,
            address,
            signal,
        })
    }

    /// Waits for a connection. [`TcpStream::peer_addr`] says from where.
    ///
    /// # Errors
    /// [`Error::Stopped`], and nothing else: a connection that fails before it is accepted is not reported.
    pub fn accept(&self) -> impl Future<Output = Result<TcpStream>> {
        poll_fn(|cx| self.poll_accept(cx))
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<TcpStream>> {
        loop {
            let seen = self.signal.count();
            let ready = self.stack.with(|state| match state.stopped {
                true => Err(Error::Stopped),
                false => Ok(state.listener(self.id).and_then(|listener| listener.ready.pop_front())),
            })?;
            if let Some(id) = ready {
                return Poll::Ready(Ok(TcpStream::new(&self.stack, id)));
            }
            ready!(self.signal.poll_after(seen, cx));
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let now = self.stack.handle().now();
        self.stack.with(|state| state.unlisten(now, self.id));
        self.stack.kick();
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TcpListener").field(&self.address).finish()
    }
}

/// A port that accepts connections.
pub(crate) struct Listener {
    pub(crate) id: u64,
    /// `None`: any address of the stack.
    pub(crate) address: Option<IpAddr>,
    /// With `address` `None`: IPv6 too.
    pub(crate) both_versions: bool,
    pub(crate) port: u16,
    pub(crate) options: ListenOptions,
    /// Connections on their way to `ready`.
    pub(crate) half_open: usize,
    /// Connections that wait for `accept`.
    pub(crate) ready: VecDeque<Id>,
    /// Raised for every connection that is ready.
    pub(crate) signal: Signal,
}

impl Listener {
    pub(crate) fn takes(&self, local: SocketAddr) -> bool {
        self.port == local.port()
            && match self.address {
                Some(address) => address == local.ip(),
                None => self.both_versions || local.is_ipv4(),
            }
    }
}

impl State {
    /// Whether somebody listens at this port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        self.listeners.iter().any(|listener| listener.port == port)
    }

    pub(crate) fn listener(&mut self, id: u64) -> Option<&mut Listener> {
        self.listeners.iter_mut().find(|listener| listener.id == id)
    }

    fn listen(&mut self, address: SocketAddr, options: ListenOptions) -> Result<(u64, SocketAddr, Signal)> {
        let wanted = (!address.ip().is_unspecified()).then(|| address.ip());
        if wanted.is_some_and(|wanted| !self.is_own(wanted)) {
            return Err(Error::AddressNotAvailable);
        }
        if options.backlog == 0 {
            return Err(Error::InvalidInput);
        }
        let port = match address.port() {
            0 => self.ephemeral_port(Self::listens)?,
            port => port,
        };
        let both_versions = address.is_ipv6();
        let clash = |other: &Listener| {
            other.port == port
                && match (other.address, wanted) {
                    (None, None) => true,
                    (Some(one), Some(two)) => one == two,
                    // A listener on one address beside one on all of them is fine: the first one is more exact.
                    _ => false,
                }
        };
        if self.listeners.iter().any(clash) {
            return Err(Error::AddressInUse);
        }
        let mut ready = VecDeque::new();
        ready
            .try_reserve_exact(options.backlog)
            .map_err(|_| Error::OutOfMemory)?;
        self.listeners.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
        let (id, signal) = (self.next_listener, Signal::new());
        self.next_listener += 1;
        self.listeners.push(Listener {
            id,
            address: wanted,
            both_versions,
            port,
            options,
            half_open: 0,
            ready,
            signal: signal.clone(),
        });
        Ok((id, SocketAddr::new(address.ip(), port), signal))
    }

    /// Ends a listener, with the connections that it has not given away.
    pub(crate) fn unlisten(&mut self, now: Instant, id: u64) {
        let Some(index) = self.listeners.iter().position(|listener| listener.id == id) else {
            return;
        };
        let Listener { mut ready, .. } = self.listeners.swap_remove(index);
        let half_open = |stage| stage == Stage::HalfOpen { listener: id };
        for (id, slot) in self.sockets.iter().filter(|(_, slot)| half_open(slot.stage)) {
            self.half_open = self.half_open.saturating_sub(1);
            slot.stage = Stage::Open;
            ready.push_back(id);
        }
        for id in ready {
            self.abort(now, id);
        }
    }
}
