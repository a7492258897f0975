//! Settings of listeners, connections and sockets.

use core::time::Duration;

/// Settings of one TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Bytes for what was received and not yet read; the default is that of [`Limits`](crate::Limits). At least 512.
    pub rx_buffer: Option<usize>,
    /// Bytes for what was written and not yet acknowledged; the default is that of [`Limits`](crate::Limits). At
    /// least 512.
    pub tx_buffer: Option<usize>,
    /// Send small segments at once, without waiting for acknowledgements (Nagle's algorithm off). The default is
    /// `true`: programs here write whole messages.
    pub nodelay: bool,
    /// Ask a silent peer whether it is still there, this often. The default is 75 s.
    pub keep_alive: Option<Duration>,
    /// Abort the connection when nothing at all has come from the peer for this long. An answer to a keep-alive
    /// counts. The default is 300 s, so that peers that vanish do not stay for ever.
    pub idle_timeout: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            rx_buffer: None,
            tx_buffer: None,
            nodelay: true,
            keep_alive: Some(Duration::from_secs(75)),
            idle_timeout: Some(Duration::from_secs(300)),
        }
    }
}

/// Settings of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that are half-open or wait for `accept`. When there are so many, further SYNs are dropped in
    /// silence, and the peer tries again a second later. The default is 128; the stack's limits hold as well.
    pub backlog: usize,
    /// Settings of the accepted connections.
    pub tcp: TcpOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 128,
            tcp: TcpOptions::default(),
        }
    }
}

/// Settings of a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Bytes for received datagrams; when they are full, further ones are dropped. The default is 64 KiB: a burst
    /// of 40 full frames.
    pub rx_buffer: usize,
    /// Bytes for datagrams to send. The default is 16 KiB.
    pub tx_buffer: usize,
    /// How many datagrams the buffers hold at most, each. The default is 64.
    pub datagrams: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            rx_buffer: 64 << 10,
            tx_buffer: 16 << 10,
            datagrams: 64,
        }
    }
}
