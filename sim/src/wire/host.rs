//! A host on the bridge, outside of any domain: the client of a test, on smoltcp itself and the real sockets' terms.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::rc::Rc;

use fata_hypercall::SystemTime;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::dhcp::{DhcpConfig, DhcpServer};
use super::packet::Packet;
use super::ping::Pinger;
use super::sockets::{Connection, Ping, Stream, Udp, UdpState};
use super::switch::{Plug, Switch};
use crate::machine::Machine;
use crate::sim::{Next, Sim, Waker};

/// The longest frame of many segments.
const LONGEST: usize = 65_535;
/// Bytes in a TCP connection's buffers.
const TCP_BUFFER: usize = 64 * 1024;

/// What a host is called and how it is reached.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Its name in messages.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its addresses and the bits of their networks.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The router for everything else.
    pub gateway: Option<Ipv4Addr>,
    /// Largest packet without the Ethernet header.
    pub mtu: usize,
    /// Whether it leaves it to others to cut long TCP segments over IPv4, as Linux does on a bridge.
    pub gso: bool,
    /// Hand out addresses. Needs an IPv4 address of its own.
    pub dhcp: Option<DhcpConfig>,
}

impl Default for HostConfig {
    /// `host`, 10.0.0.1/24 and fd00::1/64, with segmentation offload, without DHCP.
    fn default() -> Self {
        Self {
            name: "host".to_owned(),
            mac: [0x02, 0, 0, 0, 0, 1],
            addresses: vec![
                (Ipv4Addr::new(10, 0, 0, 1).into(), 24),
                (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(), 64),
            ],
            gateway: None,
            mtu: 1500,
            gso: true,
            dhcp: None,
        }
    }
}

/// The plug, as smoltcp sees a network card.
struct Card {
    plug: Plug,
    mtu: usize,
    gso: bool,
    machine: Rc<Machine>,
    name: String,
    pinger: Pinger,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a Plug, Option<NonZeroU16>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        let mut packet = Packet::new(bytes);
        if let Some(size) = self.1 {
            packet.aggregate(size);
        } else {
            // The card leaves TCP's checksum to us, as one that cuts segments does.
            packet.fill();
        }
        self.0.send(packet);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.1 = meta.segmentation_offload_size;
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let mut packet = self.plug.receive()?;
        if !packet.complete() {
            let name = &self.name;
            self.machine.violation(format!(
                "{name} got a blank checksum that is not the pseudo-header's sum"
            ));
        }
        self.pinger.look(&packet.bytes);
        Some((Received(packet.bytes), Sending(&self.plug, None)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&self.plug, None))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        // smoltcp fills no checksum where it leaves segments uncut.
        capabilities.checksum.tcp = smoltcp::phy::Checksum::Rx;
        if self.gso {
            // smoltcp 0.14 drops them over IPv6.
            capabilities.segmentation.tcpv4 = NonZeroUsize::new(LONGEST);
        }
        capabilities
    }
}

/// Connections that a listening port has accepted, the oldest first.
pub type Accepted = Rc<RefCell<VecDeque<Connection>>>;

struct State {
    interface: Interface,
    card: Card,
    waker: Waker,
    sockets: SocketSet<'static>,
    streams: Vec<Rc<RefCell<Stream>>>,
    listeners: Vec<(u16, SocketHandle, Accepted)>,
    udps: Vec<Rc<RefCell<UdpState>>>,
    dhcp: Option<(DhcpServer, SocketHandle)>,
    next_port: u16,
}

/// A host on a bridge. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    state: Rc<RefCell<State>>,
    waker: Waker,
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_congestion_control(tcp::CongestionControl::Reno);
    socket
}

fn udp_socket(port: u16) -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 128 * 1024]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a port that is not 0, of a new socket");
    socket
}

impl Host {
    /// Plugs a host into a bridge.
    #[must_use]
    pub fn start(sim: &Sim, switch: &Switch, config: HostConfig) -> Self {
        let mut built = None;
        let waker = sim.add_service(&config.name.clone(), |waker| {
            let state = Rc::new(RefCell::new(State::new(sim, switch.plug(&waker), waker, config)));
            built = Some(Rc::clone(&state));
            move || state.borrow_mut().step()
        });
        Self {
            state: built.expect("made above"),
            waker,
        }
    }

    /// Opens a TCP connection.
    #[must_use]
    pub fn connect(&self, to: SocketAddr) -> Connection {
        let state = &mut *self.state.borrow_mut();
        state.next_port = state.next_port.checked_add(1).unwrap_or(49152);
        let mut socket = tcp_socket();
        let connecting = socket.connect(state.interface.context(), to, state.next_port);
        let stream = Rc::new(RefCell::new(Stream {
            over: connecting.is_err(),
            ..Stream::default()
        }));
        if connecting.is_ok() {
            stream.borrow_mut().socket = Some(state.sockets.add(socket));
            state.streams.push(Rc::clone(&stream));
        }
        self.waker.wake();
        Connection::new(stream, self.waker.clone())
    }

    /// Accepts TCP connections on a port. They appear in the queue, the oldest first.
    ///
    /// # Panics
    /// If `port` is 0.
    #[must_use]
    pub fn listen(&self, port: u16) -> Accepted {
        let state = &mut *self.state.borrow_mut();
        let mut socket = tcp_socket();
        socket.listen(port).expect("a port that is not 0");
        let accepted = Rc::default();
        let handle = state.sockets.add(socket);
        state.listeners.push((port, handle, Rc::clone(&accepted)));
        accepted
    }

    /// Sends and receives datagrams on a port.
    ///
    /// # Panics
    /// If `port` is 0.
    #[must_use]
    pub fn udp(&self, port: u16) -> Udp {
        let state = &mut *self.state.borrow_mut();
        let socket = Some(state.sockets.add(udp_socket(port)));
        let udp = Rc::new(RefCell::new(UdpState {
            socket,
            ..UdpState::default()
        }));
        state.udps.push(Rc::clone(&udp));
        Udp::new(udp, self.waker.clone())
    }

    /// Sends an ICMP echo request with so many bytes of payload.
    #[must_use]
    pub fn ping(&self, to: IpAddr, payload: usize) -> Ping {
        let ping = self.state.borrow_mut().card.pinger.ping(to, payload);
        self.waker.wake();
        Ping::new(ping)
    }

    /// Opens a connection, sends a GET request that asks for the connection to be closed, and collects the answer.
    #[must_use]
    pub fn http_get(&self, to: SocketAddr, path: &str) -> Connection {
        let connection = self.connect(to);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").as_bytes());
        connection
    }
}

impl State {
    fn new(sim: &Sim, plug: Plug, waker: Waker, config: HostConfig) -> Self {
        let mut card = Card {
            plug,
            pinger: Pinger::new(config.mac, &config.addresses, config.mtu),
            mtu: config.mtu,
            gso: config.gso,
            machine: Rc::clone(&sim.machine),
            name: config.name,
        };
        let mut settings = Config::new(HardwareAddress::Ethernet(EthernetAddress(config.mac)));
        settings.random_seed = sim.random(u64::MAX);
        let mut interface = Interface::new(settings, &mut card, instant(sim.now()));
        interface.update_ip_addrs(|addresses| {
            for (address, prefix) in &config.addresses {
                let _ = addresses.push(IpCidr::new((*address).into(), *prefix));
            }
        });
        if let Some(gateway) = config.gateway {
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        let mut sockets = SocketSet::new(Vec::new());
        let own = interface.ipv4_addr();
        let dhcp = config
            .dhcp
            .zip(own)
            .map(|(dhcp, own)| (DhcpServer::new(dhcp, own), sockets.add(udp_socket(67))));
        Self {
            interface,
            card,
            waker,
            sockets,
            streams: Vec::new(),
            listeners: Vec::new(),
            udps: Vec::new(),
            dhcp,
            next_port: 49152 + sim.random(16000) as u16,
        }
    }

    fn step(&mut self) -> Next {
        let now = instant(SystemTime(self.card.machine.now.get()));
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        self.serve_listeners();
        self.serve_streams();
        self.serve_udp();
        self.serve_dhcp();
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        for frame in self.card.pinger.frames(self.card.machine.now.get()) {
            self.card.plug.send(Packet::new(frame));
        }
        let stack = self.interface.poll_at(now, &self.sockets);
        if stack.is_some_and(|at| at <= now) {
            return Next::Again;
        }
        let stack = stack.map(|at| at.total_micros() as u64 * 1000);
        let next = [stack, self.card.pinger.deadline()].into_iter().flatten().min();
        next.map_or(Next::Sleep, |at| Next::Until(SystemTime(at)))
    }

    fn serve_listeners(&mut self) {
        for (port, handle, accepted) in &mut self.listeners {
            let socket = self.sockets.get::<tcp::Socket<'_>>(*handle);
            if !matches!(socket.state(), tcp::State::Listen | tcp::State::SynReceived) {
                let stream = Stream {
                    socket: Some(*handle),
                    ..Stream::default()
                };
                let stream = Rc::new(RefCell::new(stream));
                self.streams.push(Rc::clone(&stream));
                accepted
                    .borrow_mut()
                    .push_back(Connection::new(stream, self.waker.clone()));
                let mut next = tcp_socket();
                let _ = next.listen(*port);
                *handle = self.sockets.add(next);
            }
        }
    }

    fn serve_streams(&mut self) {
        let sockets = &mut self.sockets;
        self.streams.retain(|stream| {
            let stream = &mut *stream.borrow_mut();
            let Some(handle) = stream.socket else { return false };
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            stream.connected |= socket.may_send();
            while socket.can_recv() {
                let _ = socket.recv(|bytes| {
                    stream.received.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
            }
            while socket.can_send() && !stream.to_send.is_empty() {
                let (head, _) = stream.to_send.as_slices();
                let Ok(sent) = socket.send_slice(head) else { break };
                stream.to_send.drain(..sent);
            }
            stream.peer_closed |= stream.connected && !socket.may_recv();
            if stream.aborting {
                socket.abort();
            }
            if stream.closing && stream.to_send.is_empty() && socket.may_send() {
                socket.close();
            }
            // In TIME-WAIT it is over for the application, but the socket still answers a repeated FIN.
            stream.over |= matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
            let keep = socket.state() != tcp::State::Closed;
            if !keep {
                stream.socket = None;
                sockets.remove(handle);
            }
            keep
        });
    }

    fn serve_udp(&mut self) {
        for udp in &self.udps {
            let udp = &mut *udp.borrow_mut();
            let Some(handle) = udp.socket else { continue };
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(handle);
            while let Ok((bytes, meta)) = socket.recv() {
                let from = SocketAddr::new(meta.endpoint.addr.into(), meta.endpoint.port);
                udp.received.push_back((from, bytes.to_vec()));
            }
            while let Some((to, bytes)) = udp.to_send.front() {
                if socket.send_slice(bytes, *to) == Err(udp::SendError::BufferFull) {
                    break;
                }
                udp.to_send.pop_front();
            }
        }
    }

    fn serve_dhcp(&mut self) {
        let Some((server, handle)) = &mut self.dhcp else { return };
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(*handle);
        let mut answers = Vec::new();
        while let Ok((request, _)) = socket.recv() {
            answers.extend(server.answer(request));
        }
        for answer in answers {
            let _ = socket.send_slice(&answer, (IpAddress::v4(255, 255, 255, 255), 68));
        }
    }
}

fn instant(time: SystemTime) -> Instant {
    Instant::from_micros((time.0 / 1000) as i64)
}
