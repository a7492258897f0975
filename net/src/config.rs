//! What the owner of a stack decides ([`Config`], [`Limits`]), and what came out of it ([`Status`]).

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

/// An address and the length of its network's prefix, as in `10.0.0.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr<A> {
    /// The host's address.
    pub address: A,
    /// How many leading bits name the network: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub prefix: u8,
}

impl<A> Cidr<A> {
    /// `address/prefix`; the prefix is checked where the value is used.
    pub const fn new(address: A, prefix: u8) -> Self {
        Self { address, prefix }
    }
}

/// How the interface gets its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// IPv4; the default is DHCP.
    pub ipv4: Ipv4Config,
    /// IPv6; the default is stateless autoconfiguration.
    pub ipv6: Ipv6Config,
    /// Name servers, asked in this order, before those that DHCP names. The first four in all are used.
    pub dns: Vec<IpAddr>,
    /// The name sent to the DHCP server (option 12), at most 63 bytes.
    pub hostname: Option<String>,
}

/// How the interface gets its IPv4 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ipv4Config {
    /// None.
    Off,
    /// From a DHCP server (RFC 2131), for as long as the lease lasts.
    #[default]
    Dhcp,
    /// These.
    Static {
        /// The addresses; the first one in the peer's network is the source of what is sent.
        addresses: Vec<Cidr<Ipv4Addr>>,
        /// The router for all other networks.
        gateway: Option<Ipv4Addr>,
    },
}

/// How the interface gets its IPv6 addresses. Except when off, it always has its link-local address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ipv6Config {
    /// None.
    Off,
    /// From router advertisements (RFC 4862).
    #[default]
    Slaac,
    /// These, and no router advertisements.
    Static {
        /// The addresses beside the link-local one.
        addresses: Vec<Cidr<Ipv6Addr>>,
        /// The router for all other networks.
        gateway: Option<Ipv6Addr>,
    },
}

/// How much a stack may hold. The values are per stack (per interface).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections in every state that needs buffers: half-open, open, closing. Beside its buffers, which are
    /// allocated when it begins, one takes 1.3 KiB, of which 1,008 bytes are smoltcp's.
    pub connections: usize,
    /// TCP connections that are not yet established by the peer's third segment. Above it, a SYN is dropped in
    /// silence, so a flood of them costs a bounded amount of memory.
    pub half_open: usize,
    /// How long a connection may stay half-open.
    pub half_open_timeout: Duration,
    /// Remembered TIME-WAIT connections (about 100 bytes each; their buffers are free by then). Beyond it the oldest is
    /// forgotten, as Linux's `tcp_max_tw_buckets` does.
    pub time_wait: usize,
    /// How long TIME-WAIT lasts.
    pub time_wait_timeout: Duration,
    /// How long a connection whose stream was dropped may take to send what is left and to close; then it is aborted.
    pub close_timeout: Duration,
    /// How long [`Stack::connect`](crate::Stack::connect) waits for the peer.
    pub connect_timeout: Duration,
    /// Default size in bytes of a connection's receive buffer, which is the TCP window.
    pub tcp_rx_buffer: usize,
    /// Default size in bytes of a connection's transmit buffer.
    pub tcp_tx_buffer: usize,
    /// UDP sockets.
    pub udp_sockets: usize,
    /// Bytes of fragments kept for reassembly, over all packets.
    pub reassembly: usize,
    /// Frames received and sent before the loop gets its turn back.
    pub burst: usize,
}

impl Limits {
    /// Limits for a guest with this many bytes of memory for its heap: about half of it can go into connections.
    ///
    /// ```
    /// use fata_net::Limits;
    /// let tiny = Limits::for_memory(2 << 20);
    /// assert!(tiny.connections >= 64 && tiny.connections * (tiny.tcp_rx_buffer + tiny.tcp_tx_buffer) <= 1 << 20);
    /// let large = Limits::for_memory(1 << 30);
    /// assert!(large.tcp_rx_buffer >= 64 << 10 && large.connections >= 1024);
    /// ```
    pub fn for_memory(bytes: usize) -> Self {
        const KIB: usize = 1 << 10;
        const MIB: usize = 1 << 20;
        let (rx, tx) = match bytes / MIB {
            0..=3 => (4 * KIB, 4 * KIB),
            4..=15 => (8 * KIB, 8 * KIB),
            16..=63 => (16 * KIB, 16 * KIB),
            64..=255 => (32 * KIB, 32 * KIB),
            _ => (64 * KIB, 64 * KIB),
        };
        let connections = (bytes / 2 / (rx + tx)).clamp(16, 1 << 16);
        Self {
            connections,
            half_open: (connections / 2).min(512),
            time_wait: (bytes / (4 * KIB)).clamp(256, 16_384),
            tcp_rx_buffer: rx,
            tcp_tx_buffer: tx,
            udp_sockets: (bytes / (64 * KIB)).clamp(8, 256),
            reassembly: (bytes / 32).clamp(32 * KIB, MIB),
            ..Self::DEFAULT
        }
    }

    const DEFAULT: Self = Self {
        connections: 256,
        half_open: 128,
        half_open_timeout: Duration::from_secs(8),
        time_wait: 1024,
        time_wait_timeout: Duration::from_secs(30),
        close_timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        tcp_rx_buffer: 8 << 10,
        tcp_tx_buffer: 8 << 10,
        udp_sockets: 32,
        reassembly: 128 << 10,
        burst: 128,
    };
}

impl Default for Limits {
    /// What [`Limits::for_memory`] gives for about 8 MiB.
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The interface as it is now: see [`Stack::status`](crate::Stack::status).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the device can exchange frames.
    pub link_up: bool,
    /// The Ethernet address.
    pub mac: [u8; 6],
    /// The largest IP packet in bytes.
    pub mtu: usize,
    /// All addresses, the link-local ones too.
    pub addresses: Vec<Cidr<IpAddr>>,
    /// The default routers.
    pub gateways: Vec<IpAddr>,
    /// The name servers in the order in which they are asked.
    pub dns: Vec<IpAddr>,
    /// The DHCP server that gave the IPv4 address.
    pub dhcp_server: Option<Ipv4Addr>,
}

impl Status {
    /// Whether there is a link and an address that other networks can reach: IPv4 when it is configured at all
    /// (`ipv4` of [`Config`] is not off), a routable IPv6 address otherwise.
    pub(crate) fn is_up(&self, want_ipv4: bool) -> bool {
        self.link_up
            && self.addresses.iter().any(|cidr| match cidr.address {
                IpAddr::V4(_) => want_ipv4,
                IpAddr::V6(address) => !want_ipv4 && !address.is_unicast_link_local(),
            })
    }
}
