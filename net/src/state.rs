//! What a stack is: smoltcp's interface and sockets, and the tables around them.
//!
//! Everything here is plain code without futures; [`runner`](crate::runner) drives it, and the handles (streams,
//! listeners, sockets) change it from their tasks.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use fata_events::{Instant, Signal};
use rand_core::CryptoRng;
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use crate::address::Lease;
use crate::agenda::Id;
use crate::announce::Announcements;
use crate::config::{Config, Ipv6Config, Limits, Status};
use crate::device::Capabilities;
use crate::egress::Stall;
use crate::listener::Listener;
use crate::names::{Names, Tuple};
use crate::options::TcpOptions;
use crate::phy::{Egress, Facts};
use crate::reassembly::Reassembly;
use crate::sockets::{Sockets, Stage};
use crate::stats::Stats;
use crate::time_wait::TimeWait;
use crate::{Error, Result};

/// First of the ports that are taken for connections and sockets that ask for none (RFC 6335).
const EPHEMERAL: u16 = 49_152;
/// Random ports tried before giving up.
const EPHEMERAL_TRIES: usize = 256;

/// Everything behind the handles of one stack.
pub(crate) struct State {
    /// On the heap, because it is large: 12 KiB.
    pub(crate) interface: Box<Interface>,
    pub(crate) sockets: Sockets,
    /// A set without sockets: for frames that are for none, and for what smoltcp sends for none.
    pub(crate) nobody: SocketSet<'static>,
    pub(crate) random: Box<dyn CryptoRng>,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) capabilities: Capabilities,
    pub(crate) status: Status,
    pub(crate) lease: Option<Lease>,
    /// When the lease ends, if the server does not renew or confirm it before.
    pub(crate) lease_ends: Option<Instant>,
    pub(crate) dhcp: Option<Id>,
    /// When to stop hoping for a router advertisement.
    pub(crate) no_router_at: Option<Instant>,
    /// What the neighbours are to be told when addresses have come, or the link.
    pub(crate) announcements: Announcements,
    pub(crate) egress: Egress,
    pub(crate) stall: Stall,
    pub(crate) stats: Stats,
    pub(crate) reassembly: Reassembly,
    pub(crate) time_wait: TimeWait,
    pub(crate) listeners: Vec<Listener>,
    /// Connections whose SYN has come, but not the acknowledgement of ours.
    pub(crate) half_open: usize,
    pub(crate) next_listener: u64,
    /// The runner is gone, or about to be: nothing new begins.
    pub(crate) stopped: bool,
    /// Raised when `status` changes.
    pub(crate) changed: Signal,
}

/// smoltcp's time.
pub(crate) fn time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

/// `len` zero bytes, or nothing when there is no memory.
pub(crate) fn buffer(len: usize) -> Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| Error::OutOfMemory)?;
    buffer.resize(len, 0);
    Ok(buffer)
}

/// An address as smoltcp writes it.
pub(crate) fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(address.ip().into(), address.port())
}

/// An address as everybody else writes it.
pub(crate) fn socket_address(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr.into(), endpoint.port)
}

/// The connection's name; `None` when there is no connection (any more).
pub(crate) fn tuple(socket: &tcp::Socket<'_>) -> Option<Tuple> {
    Some(Tuple {
        local: socket_address(socket.local_endpoint()?),
        remote: socket_address(socket.remote_endpoint()?),
    })
}

impl State {
    pub(crate) fn new(
        capabilities: Capabilities,
        mut random: Box<dyn CryptoRng>,
        config: Config,
        limits: Limits,
        now: Instant,
    ) -> Result<Self> {
        let slaac = config.ipv6 == Ipv6Config::Slaac;
        let interface = new_interface(capabilities, slaac, random.next_u64(), now)?;
        let mut state = Self {
            interface,
            sockets: Sockets::new(Names::new(&mut *random)),
            nobody: SocketSet::new(Vec::new()),
            limits,
            capabilities,
            status: Status::default(),
            lease: None,
            lease_ends: None,
            dhcp: None,
            no_router_at: None,
            announcements: Announcements::default(),
            egress: Egress::default(),
            stall: Stall::default(),
            stats: Stats::default(),
            reassembly: Reassembly::new(limits.reassembly),
            time_wait: TimeWait::new(Names::new(&mut *random), limits.time_wait, limits.time_wait_timeout),
            listeners: Vec::new(),
            half_open: 0,
            next_listener: 0,
            stopped: false,
            changed: Signal::new(),
            config,
            random,
        };
        state.start_addresses()?;
        Ok(state)
    }

    /// An interface whose only purpose is to give one connection its initial sequence number.
    ///
    /// smoltcp draws these numbers from a generator whose state two of them betray. An interface that is made for
    /// one number, from 64 bits of the random source, has nothing to betray: the number is as unpredictable as they
    /// are (RFC 6528 asks for no more).
    pub(crate) fn fresh_interface(&mut self, now: Instant) -> Result<Box<Interface>> {
        // A box cannot say that there is no memory. There is one thread, so what can be had and is given back can be
        // had again.
        let mut room = Vec::<u8>::new();
        room.try_reserve_exact(2 * size_of::<Interface>())
            .map_err(|_| Error::OutOfMemory)?;
        drop(room);
        let seed = self.random.next_u64();
        new_interface(self.capabilities, false, seed, now)
    }

    /// A connection's socket with its buffers, not yet in the table.
    pub(crate) fn new_tcp_socket(&mut self, options: &TcpOptions) -> Result<tcp::Socket<'static>> {
        if self.sockets.connections() >= self.limits.connections {
            return Err(Error::OutOfMemory);
        }
        let rx = buffer(
            options
                .rx_buffer
                .unwrap_or(self.limits.tcp_rx_buffer)
                .clamp(MIN_BUFFER, MAX_BUFFER),
        )?;
        let tx = buffer(
            options
                .tx_buffer
                .unwrap_or(self.limits.tcp_tx_buffer)
                .clamp(MIN_BUFFER, MAX_BUFFER),
        )?;
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(rx), tcp::SocketBuffer::new(tx));
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        socket.set_nagle_enabled(!options.nodelay);
        socket.set_keep_alive(options.keep_alive.map(Into::into));
        socket.set_timeout(options.idle_timeout.map(Into::into));
        Ok(socket)
    }

    /// Whether this is one of the stack's addresses.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.interface.has_ip_addr(IpAddress::from(address))
    }

    /// Whether a TCP connection can be with a host of this address.
    pub(crate) fn is_peer(&self, address: IpAddr) -> bool {
        let broadcast = match address {
            IpAddr::V4(address) => {
                address.is_broadcast()
                    || self.interface.ip_addrs().iter().any(|cidr| match cidr {
                        IpCidr::Ipv4(cidr) => cidr.broadcast() == Some(address),
                        IpCidr::Ipv6(_) => false,
                    })
            }
            IpAddr::V6(_) => false,
        };
        let special = address.is_unspecified() || address.is_multicast() || address.is_loopback();
        !(special || broadcast || self.is_own(address))
    }

    /// The address from which `remote` is reached; an error if it cannot be.
    pub(crate) fn source_for(&self, remote: IpAddr) -> Result<IpAddr> {
        let remote_address = IpAddress::from(remote);
        let routed = self
            .interface
            .ip_addrs()
            .iter()
            .any(|cidr| cidr.contains_addr(&remote_address))
            || match remote {
                IpAddr::V4(_) => self.interface.routes().get_default_ipv4_route().is_some(),
                IpAddr::V6(_) => self.interface.routes().get_default_ipv6_route().is_some(),
            };
        if !routed || remote.is_unspecified() || remote.is_multicast() || remote.is_loopback() || self.is_own(remote) {
            return Err(Error::AddressNotAvailable);
        }
        let source = self.interface.get_source_address(&remote_address).map(IpAddr::from);
        source
            .filter(|source| self.is_own(*source))
            .ok_or(Error::AddressNotAvailable)
    }

    /// A random port that nothing uses (RFC 6056, algorithm 1).
    pub(crate) fn ephemeral_port(&mut self, taken: impl Fn(&Self, u16) -> bool) -> Result<u16> {
        for _ in 0..EPHEMERAL_TRIES {
            let random = self.random.next_u32() as u16;
            let port = EPHEMERAL + random % (u16::MAX - EPHEMERAL + 1);
            if !taken(self, port) {
                return Ok(port);
            }
        }
        Err(Error::AddressInUse)
    }

    /// The counters, with the present filled in.
    pub(crate) fn stats(&mut self) -> Stats {
        let closing = self
            .sockets
            .iter()
            .filter(|(_, slot)| slot.stage == Stage::Closing)
            .count();
        Stats {
            tx_frames: self.egress.frames,
            tx_bytes: self.egress.bytes,
            tcp_connections: self.sockets.connections() as u64,
            tcp_half_open: self.half_open as u64,
            tcp_closing: closing as u64,
            tcp_time_wait: self.time_wait.len() as u64,
            udp_sockets: self.sockets.ports().len() as u64,
            ..self.stats
        }
    }
}

/// Smallest and largest buffer of a connection: below the first TCP works badly, above the second smoltcp not at all.
const MIN_BUFFER: usize = 512;
const MAX_BUFFER: usize = 1 << 24;

/// The smallest MTU that IP knows (RFC 791).
pub(crate) const MIN_MTU: u16 = 68;
/// The smallest MTU of IPv6 (RFC 8200).
pub(crate) const MIN_MTU_IPV6: u16 = 1280;

/// Makes an interface on the heap. Not inlined: on its way there it is on the stack, all 12 KiB of it.
#[inline(never)]
pub(crate) fn new_interface(
    capabilities: Capabilities,
    slaac: bool,
    seed: u64,
    now: Instant,
) -> Result<Box<Interface>> {
    let mac = EthernetAddress(capabilities.mac);
    let zero = capabilities.mac == [0; 6];
    if !mac.is_unicast() || zero || capabilities.mtu < MIN_MTU {
        return Err(Error::BadDevice);
    }
    let mut config = smoltcp::iface::Config::new(HardwareAddress::Ethernet(mac));
    config.random_seed = seed;
    config.slaac = slaac && capabilities.mtu >= MIN_MTU_IPV6;
    Ok(Box::new(Interface::new(config, &mut Facts(capabilities), time(now))))
}

/// Gives an interface exactly one address.
pub(crate) fn set_only_address(interface: &mut Interface, address: IpAddr) {
    let prefix = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        // The list has room for more than one.
        let _ = addresses.push(IpCidr::new(address.into(), prefix));
    });
}
