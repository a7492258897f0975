//! What the tests share: a loop with a clock turned by hand, stacks on a wire, and a peer made of bare frames.
#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod peer;

use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use fata_events::{Executor, Handle, Instant, ManualClock, Turn};
use fata_net::pair::{Control, PairDevice, SeedRng, pair};
use fata_net::{Cidr, Config, Ipv4Config, Ipv6Config, Limits, RxChecksum, Stack, TxMeta};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const OURS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const THEIRS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const OUR_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xa]);
pub(crate) const THEIR_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xb]);

/// A loop, and its clock.
pub(crate) struct World {
    pub(crate) clock: Rc<ManualClock>,
    pub(crate) executor: Executor,
    pub(crate) handle: Handle,
    pub(crate) turns: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Rc::new(ManualClock::default());
        clock.set(Instant::from_nanos(1_000_000_000));
        let executor = Executor::new(clock.clone());
        let handle = executor.handle();
        Self {
            clock,
            executor,
            handle,
            turns: 0,
        }
    }

    /// Runs until the future is done; time passes when there is nothing else to do.
    pub(crate) fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(RefCell::new(None));
        let out = result.clone();
        let task = self.handle.spawn(async move { *out.borrow_mut() = Some(future.await) });
        let give_up = self.clock_now() + Duration::from_secs(3600);
        while !task.is_finished() {
            self.turns += 1;
            if let Turn::Idle { deadline } = self.executor.turn()
                && !task.is_finished()
            {
                let deadline = deadline.expect("everything waits, and nothing will happen");
                assert!(deadline < give_up, "an hour has passed");
                self.clock.set(deadline);
            }
        }
        result.take().expect("the task is finished")
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, duration: Duration) {
        let handle = self.handle.clone();
        self.run(async move { handle.sleep(duration).await });
    }

    /// Does all there is to do now.
    pub(crate) fn settle(&mut self) {
        self.executor.run_until_idle();
    }

    pub(crate) fn clock_now(&self) -> Instant {
        self.handle.now()
    }

    pub(crate) fn stack(&self, device: PairDevice, config: Config, limits: Limits, seed: u64) -> Stack {
        let (stack, runner) = Stack::new(&self.handle, device, SeedRng::new(seed), config, limits).expect("a stack");
        self.handle.spawn(runner.run()).detach();
        stack
    }

    /// Two stacks on a wire, with IPv4 and IPv6 addresses.
    pub(crate) fn stacks(&self, limits: Limits) -> (Stack, Stack, Control, Control) {
        let (one, two) = pair();
        let (left, right) = (one.control(), two.control());
        let one = self.stack(one, fixed(OURS, OURS6), limits, 1);
        let two = self.stack(two, fixed(THEIRS, THEIRS6), limits, 2);
        (one, two, left, right)
    }

    /// A stack, and a peer that is not one.
    pub(crate) fn stack_and_wire(&self, limits: Limits) -> (Stack, Wire) {
        let (one, two) = pair();
        let stack = self.stack(one, fixed(OURS, OURS6), limits, 1);
        (stack, Wire(two))
    }
}

/// Static addresses.
pub(crate) fn fixed(v4: Ipv4Addr, v6: Ipv6Addr) -> Config {
    Config {
        ipv4: Ipv4Config::Static {
            addresses: vec![Cidr::new(v4, 24)],
            gateway: None,
        },
        ipv6: Ipv6Config::Static {
            addresses: vec![Cidr::new(v6, 64)],
            gateway: None,
        },
        ..Config::default()
    }
}

pub(crate) fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
}

/// The other end of the wire, spoken to in frames. It has the addresses `THEIRS` and `THEIR_MAC`.
pub(crate) struct Wire(pub(crate) PairDevice);

/// A TCP segment that came over the wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) control: TcpControl,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: Option<u32>,
    pub(crate) payload: Vec<u8>,
}

impl Wire {
    /// Everything that has arrived, ARP requests for `THEIRS` answered.
    pub(crate) fn frames(&mut self, world: &mut World) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            world.settle();
            let Some((frame, _)) = self.0.take() else {
                return frames;
            };
            if !self.answer_arp(&frame) {
                frames.push(frame);
            }
        }
    }

    fn answer_arp(&mut self, frame: &[u8]) -> bool {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        if ethernet.ethertype() != EthernetProtocol::Arp {
            return false;
        }
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap())
        else {
            return true;
        };
        if operation == ArpOperation::Request && target_protocol_addr == THEIRS {
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: THEIR_MAC,
                source_protocol_addr: THEIRS,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            let mut payload = vec![0; reply.buffer_len()];
            reply.emit(&mut ArpPacket::new_unchecked(&mut payload));
            self.0
                .send(&ethernet_frame(EthernetProtocol::Arp, &payload), TxMeta::default());
        }
        true
    }

    /// The TCP segments among what has arrived; their checksums must be right.
    pub(crate) fn segments(&mut self, world: &mut World) -> Vec<Segment> {
        self.frames(world).iter().filter_map(|frame| segment(frame)).collect()
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.0.send(frame, TxMeta::default());
    }
}

/// A frame from `THEIR_MAC` to `OUR_MAC`.
pub(crate) fn ethernet_frame(kind: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14 + payload.len()];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    ethernet.set_src_addr(THEIR_MAC);
    ethernet.set_dst_addr(OUR_MAC);
    ethernet.set_ethertype(kind);
    ethernet.payload_mut().copy_from_slice(payload);
    frame
}

/// A frame with an IP packet from `source` to `destination`.
pub(crate) fn ip_frame(source: IpAddr, destination: IpAddr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = IpRepr::new(source.into(), destination.into(), protocol, payload.len(), 64);
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet[..], &ChecksumCapabilities::default());
    packet[repr.header_len()..].copy_from_slice(payload);
    let kind = if source.is_ipv4() {
        EthernetProtocol::Ipv4
    } else {
        EthernetProtocol::Ipv6
    };
    ethernet_frame(kind, &packet)
}

/// A UDP datagram with its checksum.
pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: source.port(),
        dst_port: destination.port(),
    };
    let mut datagram = vec![0; repr.header_len() + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut datagram),
        &source.ip().into(),
        &destination.ip().into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    datagram
}

/// A TCP segment with its checksum.
pub(crate) fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    control: TcpControl,
    seq: u32,
    ack: Option<u32>,
    data: &[u8],
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: source.port(),
        dst_port: destination.port(),
        control,
        seq_number: TcpSeqNumber(seq as i32),
        ack_number: ack.map(|ack| TcpSeqNumber(ack as i32)),
        window_len: 65_000,
        window_scale: None,
        max_seg_size: (control == TcpControl::Syn).then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: data,
    };
    let mut segment = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut segment),
        &source.ip().into(),
        &destination.ip().into(),
        &ChecksumCapabilities::default(),
    );
    segment
}

/// The same as a frame.
pub(crate) fn tcp_frame(
    source: SocketAddr,
    destination: SocketAddr,
    control: TcpControl,
    seq: u32,
    ack: Option<u32>,
    data: &[u8],
) -> Vec<u8> {
    ip_frame(
        source.ip(),
        destination.ip(),
        IpProtocol::Tcp,
        &tcp(source, destination, control, seq, ack, data),
    )
}

/// The segment in a frame, its checksum verified by smoltcp.
pub(crate) fn segment(frame: &[u8]) -> Option<Segment> {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    let (source, destination, payload): (IpAddress, IpAddress, &[u8]) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = smoltcp::wire::Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            assert!(packet.verify_checksum());
            if packet.next_header() != IpProtocol::Tcp {
                return None;
            }
            (packet.src_addr().into(), packet.dst_addr().into(), packet.payload())
        }
        EthernetProtocol::Ipv6 => {
            let packet = smoltcp::wire::Ipv6Packet::new_checked(ethernet.payload()).unwrap();
            if packet.next_header() != IpProtocol::Tcp {
                return None;
            }
            (packet.src_addr().into(), packet.dst_addr().into(), packet.payload())
        }
        _ => return None,
    };
    let packet = TcpPacket::new_checked(payload).unwrap();
    let repr =
        TcpRepr::parse(&packet, &source, &destination, &ChecksumCapabilities::default()).expect("a right segment");
    Some(Segment {
        source: at(IpAddr::from(source), repr.src_port),
        destination: at(IpAddr::from(destination), repr.dst_port),
        control: repr.control,
        sequence: repr.seq_number.0 as u32,
        acknowledgement: repr.ack_number.map(|ack| ack.0 as u32),
        payload: repr.payload.to_vec(),
    })
}

/// How the wire marks frames sent by hand.
pub(crate) fn mark(wire: &Wire, flag: RxChecksum) {
    wire.0.control().set_complete_means(flag);
}
