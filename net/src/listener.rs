//! Accepting TCP connections.

use core::fmt;
use core::net::SocketAddr;

use fata_events::Signal;

use crate::options::ListenOptions;
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
    pub async fn accept(&self) -> Result<TcpStream> {
        loop {
            let seen = self.signal.count();
            let ready = self.stack.with(|state| match state.stopped {
                true => Err(Error::Stopped),
                false => Ok(state.listener(self.id).and_then(|listener| listener.ready.pop_front())),
            })?;
            if let Some(id) = ready {
                return Ok(TcpStream::new(&self.stack, id));
            }
            self.signal.after(seen).await;
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
