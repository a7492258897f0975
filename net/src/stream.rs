//! A TCP connection.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::future::poll_fn;
use core::net::SocketAddr;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use smoltcp::socket::tcp;

use crate::agenda::Id;
use crate::halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::names::Tuple;
use crate::options::TcpOptions;
use crate::sockets::Stage;
use crate::state::{endpoint, set_only_address};
use crate::{Error, Result, Stack};

/// A TCP connection: reads and writes bytes, both at the same time if you like ([`split`](Self::split)).
///
/// Reading gives 0 bytes when the peer has closed its side. Dropping the stream closes it in good order and in the
/// background: what was written is sent, then a FIN; after [`Limits::close_timeout`](crate::Limits::close_timeout) it
/// is aborted. One task may read and one may write at the same time, but not two of the same kind.
pub struct TcpStream {
    stack: Stack,
    id: Id,
    local: SocketAddr,
    remote: SocketAddr,
    /// The peer's end was seen. smoltcp may forget it when the connection is long over.
    eof: Cell<bool>,
}

/// What is known of a socket that is not open any more.
fn why_closed(stack: &Stack, state: tcp::State) -> Error {
    if stack.0.state.borrow().stopped {
        return Error::Stopped;
    }
    match state {
        tcp::State::Closed => Error::ConnectionReset,
        _ => Error::NotConnected,
    }
}

impl TcpStream {
    /// Takes over a connection that is established (or was, a moment ago).
    pub(crate) fn new(stack: &Stack, id: Id) -> Self {
        const NOWHERE: SocketAddr = SocketAddr::V4(core::net::SocketAddrV4::new(core::net::Ipv4Addr::UNSPECIFIED, 0));
        let tuple = stack.with(|state| crate::state::tuple(state.sockets.tcp(id)));
        // A connection that was reset while it waited has no name any more.
        let Tuple { local, remote } = tuple.unwrap_or(Tuple {
            local: NOWHERE,
            remote: NOWHERE,
        });
        Self {
            stack: stack.clone(),
            id,
            local,
            remote,
            eof: Cell::new(false),
        }
    }

    pub(crate) async fn connect(stack: &Stack, remote: SocketAddr, options: TcpOptions) -> Result<Self> {
        let deadline = stack.handle().now() + stack.limits().connect_timeout;
        let stream = Self::start(stack, remote, &options)?;
        stack.kick();
        let established = poll_fn(|cx| {
            stream.with(|socket| match socket.state() {
                tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                tcp::State::Closed => Poll::Ready(false),
                _ => Poll::Ready(true),
            })
        });
        match stack.handle().timeout_at(deadline, established).await {
            Ok(true) => {
                stack.with(|state| state.stats.tcp_connected += 1);
                Ok(stream)
            }
            Ok(false) => Err(match why_closed(stack, tcp::State::Closed) {
                Error::Stopped => Error::Stopped,
                _ => Error::ConnectionRefused,
            }),
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// A connection whose SYN is about to be sent.
    fn start(stack: &Stack, remote: SocketAddr, options: &TcpOptions) -> Result<Self> {
        let now = stack.handle().now();
        stack.with(|state| {
            if state.stopped {
                return Err(Error::Stopped);
            }
            if remote.port() == 0 {
                return Err(Error::InvalidInput);
            }
            if !state.is_peer(remote.ip()) {
                return Err(Error::AddressNotAvailable);
            }
            let address = state.source_for(remote.ip())?;
            state.time_wait.expire(now);
            let port = state.ephemeral_port(|state, port| {
                let tuple = Tuple {
                    local: SocketAddr::new(address, port),
                    remote,
                };
                state.listens(port) || state.sockets.find(&tuple).is_some() || state.time_wait.contains(&tuple)
            })?;
            let local = SocketAddr::new(address, port);
            let mut socket = state.new_tcp_socket(options)?;
            let mut fresh = state.fresh_interface(now)?;
            set_only_address(&mut fresh, address);
            // Everything that it could object to was checked.
            socket
                .connect(fresh.context(), endpoint(remote), endpoint(local))
                .map_err(|_| Error::AddressNotAvailable)?;
            let id = state
                .sockets
                .add_connection(socket, Tuple { local, remote }, Stage::Open)?;
            Ok(Self {
                stack: stack.clone(),
                id,
                local,
                remote,
                eof: Cell::new(false),
            })
        })
    }

    fn with<R>(&self, f: impl FnOnce(&mut tcp::Socket<'static>) -> R) -> R {
        self.stack.with(|state| f(state.sockets.tcp(self.id)))
    }

    /// Has the runner look at the connection.
    fn kick(&self) {
        self.stack.with(|state| state.sockets.agenda.touch(self.id));
        self.stack.kick();
    }

    /// The peer's address and port.
    pub fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    /// This side's address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for data and reads some of it. 0 means that the peer has closed its side (or that `buffer` is empty).
    ///
    /// # Errors
    /// [`Error::ConnectionReset`]: the peer, or a time limit, ended the connection. [`Error::Stopped`].
    pub fn read(&self, buffer: &mut [u8]) -> impl Future<Output = Result<usize>> {
        poll_fn(|cx| self.poll_read(cx, buffer))
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize>> {
        if buffer.is_empty() || self.eof.get() {
            return Poll::Ready(Ok(0));
        }
        let (result, state) = self.with(|socket| {
            let result = socket.recv_slice(buffer);
            if result == Ok(0) {
                socket.register_recv_waker(cx.waker());
            }
            (result, socket.state())
        });
        match result {
            Ok(0) => Poll::Pending,
            Ok(len) => {
                // The window may be open again.
                self.kick();
                Poll::Ready(Ok(len))
            }
            Err(tcp::RecvError::Finished) => {
                self.eof.set(true);
                Poll::Ready(Ok(0))
            }
            Err(tcp::RecvError::InvalidState) => Poll::Ready(Err(why_closed(&self.stack, state))),
        }
    }

    /// Reads until `buffer` is full.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`Error::NotConnected`] if the peer closes its side before that.
    pub async fn read_exact(&self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            match self.read(buffer).await? {
                0 => return Err(Error::NotConnected),
                len => buffer = buffer.get_mut(len..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Waits for room and writes some of `data`; gives how much. It is sent without further ado.
    ///
    /// # Errors
    /// [`Error::NotConnected`] after [`shutdown`](Self::shutdown), [`Error::ConnectionReset`], [`Error::Stopped`].
    pub fn write(&self, data: &[u8]) -> impl Future<Output = Result<usize>> {
        poll_fn(|cx| self.poll_write(cx, data))
    }

    fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let (result, state) = self.with(|socket| {
            let result = socket.send_slice(data);
            if result == Ok(0) {
                socket.register_send_waker(cx.waker());
            }
            (result, socket.state())
        });
        match result {
            Ok(0) => Poll::Pending,
            Ok(len) => {
                self.kick();
                Poll::Ready(Ok(len))
            }
            Err(_) => Poll::Ready(Err(why_closed(&self.stack, state))),
        }
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// As [`write`](Self::write); some of the data may have been written.
    pub fn write_all(&self, mut data: &[u8]) -> impl Future<Output = Result<()>> {
        poll_fn(move |cx| {
            while !data.is_empty() {
                let len = ready!(self.poll_write(cx, data))?;
                data = data.get(len..).unwrap_or_default();
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Waits until the peer has acknowledged everything that was written.
    ///
    /// # Errors
    /// [`Error::ConnectionReset`] if that cannot happen any more; [`Error::Stopped`].
    pub async fn acknowledged(&self) -> Result<()> {
        let state = poll_fn(|cx| {
            self.with(|socket| {
                if socket.send_queue() == 0 || socket.state() == tcp::State::Closed {
                    return Poll::Ready((socket.send_queue(), socket.state()));
                }
                socket.register_send_waker(cx.waker());
                Poll::Pending
            })
        })
        .await;
        match state {
            (0, _) => Ok(()),
            (_, state) => Err(why_closed(&self.stack, state)),
        }
    }

    /// Closes this side: what was written is still sent, then the peer reads the end. Reading goes on.
    pub fn shutdown(&self) {
        self.with(|socket| socket.close());
        self.kick();
    }

    /// Closes this side and waits until the peer has acknowledged everything.
    ///
    /// # Errors
    /// [`Error::ConnectionReset`] if the peer did not get everything, [`Error::TimedOut`] after
    /// [`Limits::close_timeout`](crate::Limits::close_timeout); then the connection is aborted.
    pub async fn close(self) -> Result<()> {
        let already = self.with(|socket| socket.state());
        if already == tcp::State::Closed && !self.eof.get() {
            return Err(why_closed(&self.stack, already));
        }
        self.shutdown();
        let done = poll_fn(|cx| {
            self.with(|socket| match socket.state() {
                tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                // Reached from LAST-ACK by its acknowledgement, or from everywhere by a RST.
                tcp::State::Closed => Poll::Ready(socket.send_queue() == 0),
                _ => Poll::Ready(true),
            })
        });
        let limit = self.stack.limits().close_timeout;
        match self.stack.handle().timeout(limit, done).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(why_closed(&self.stack, tcp::State::Closed)),
            Err(_) => {
                self.abort();
                Err(Error::TimedOut)
            }
        }
    }

    /// Ends the connection with a RST: the peer's next operation fails. What was not sent is lost.
    pub fn abort(self) {
        self.with(|socket| socket.abort());
        self.kick();
    }

    /// Whether the connection is open in at least one direction.
    pub fn is_open(&self) -> bool {
        self.with(|socket| socket.is_active())
    }

    /// Whether a read would not wait.
    pub(crate) fn read_ready(&self) -> bool {
        self.eof.get() || self.with(|socket| socket.can_recv() || !socket.may_recv())
    }

    /// Whether a write would not wait.
    pub(crate) fn write_ready(&self) -> bool {
        self.with(|socket| socket.can_send() || !socket.may_send())
    }

    /// Bytes that can be read at once.
    pub fn readable(&self) -> usize {
        self.with(|socket| socket.recv_queue())
    }

    /// Sends small segments at once (`true`), or waits for acknowledgements to gather data (Nagle's algorithm).
    pub fn set_nodelay(&self, nodelay: bool) {
        self.with(|socket| socket.set_nagle_enabled(!nodelay));
        self.kick();
    }

    /// See [`TcpOptions::keep_alive`].
    pub fn set_keep_alive(&self, interval: Option<Duration>) {
        self.with(|socket| socket.set_keep_alive(interval.map(Into::into)));
        self.kick();
    }

    /// See [`TcpOptions::idle_timeout`].
    pub fn set_idle_timeout(&self, timeout: Option<Duration>) {
        self.with(|socket| socket.set_timeout(timeout.map(Into::into)));
        self.kick();
    }

    /// Two halves that borrow the stream, for two futures of one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Two halves that own the stream, for two tasks. Dropping the writing half closes this side.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Rc::new(self);
        (OwnedReadHalf(stream.clone()), OwnedWriteHalf(stream))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let now = self.stack.handle().turn_began();
        self.stack.with(|state| state.release(now, self.id));
        self.stack.kick();
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .finish()
    }
}
