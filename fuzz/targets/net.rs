//! Frames into the network stack. The input is a list of frames, and of what is to be put right in each before it is
//! sent: a checksum or an acknowledgement number is nothing that a fuzzer finds by itself.
#![no_main]

#[path = "../../net/tests/world/mod.rs"]
mod world;

use std::net::IpAddr;
use std::time::Duration;

use fata_net::pair::pair;
use fata_net::{Config, Limits, RxChecksum, Stack, TcpStream};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};
use world::{OUR_MAC, OURS, OURS6, THEIRS, THEIRS6, Wire, World, at, fixed};

const ETHERNET: usize = 14;
/// The largest frame.
const LARGEST: usize = ETHERNET + 1500;

fuzz_target!(|input: &[u8]| {
    // The input has ended, that is all.
    let _ = run(&mut Unstructured::new(input));
});

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let mut world = World::new();
    let (device, peer) = pair();
    let config = if input.arbitrary::<bool>()? {
        Config::default()
    } else {
        with_dns()
    };
    let limits = Limits {
        connections: 16,
        half_open: 8,
        time_wait: 16,
        ..Limits::default()
    };
    let stack = world.stack(device, config, limits, 1);
    application(&world, &stack);
    let mut wire = Wire(peer);
    let mut last = Last::default();
    while !input.is_empty() {
        // The wire answers ARP, and insists that what comes is well-formed.
        for frame in wire.frames(&mut world) {
            assert!((ETHERNET..=LARGEST).contains(&frame.len()));
            last.see(&frame);
        }
        let how: u8 = input.arbitrary()?;
        if how & 0x80 != 0 {
            world.pass(Duration::from_millis(u64::from(input.arbitrary::<u16>()?)));
        }
        let len = usize::from(input.arbitrary::<u16>()?).min(input.len()).min(LARGEST);
        let mut frame = input.bytes(len)?.to_vec();
        last.put_right(&mut frame, how);
        let means = [RxChecksum::Unknown, RxChecksum::Validated, RxChecksum::Blank];
        wire.0
            .control()
            .set_complete_means(means[usize::from(how >> 5 & 3) % 3]);
        wire.send(&frame);
    }
    world.settle();
    // Nothing keeps an executor busy for ever, and nothing is kept for ever.
    world.pass(Duration::from_secs(600));
    Ok(())
}

fn with_dns() -> Config {
    Config {
        dns: vec![THEIRS.into()],
        ..fixed(OURS, OURS6)
    }
}

/// An echo server on TCP and UDP, a client, and somebody who asks for a name.
fn application(world: &World, stack: &Stack) {
    async fn echo(stream: TcpStream) {
        let mut bytes = [0; 100];
        while let Ok(len @ 1..) = stream.read(&mut bytes).await {
            if stream.write_all(&bytes[..len]).await.is_err() {
                return;
            }
        }
        let _ = stream.close().await;
    }
    let listener = stack.listen(80).expect("the first listener");
    let handle = world.handle.clone();
    let server = async move {
        while let Ok(stream) = listener.accept().await {
            handle.spawn(echo(stream)).detach();
        }
    };
    let socket = stack.udp(53).expect("the first socket");
    let datagrams = async move {
        let mut bytes = [0; 2000];
        while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
            let _ = socket.send_to(&bytes[..len], from).await;
        }
    };
    let client = {
        let stack = stack.clone();
        async move {
            if let Ok(stream) = stack.connect(at(THEIRS, 7)).await {
                echo(stream).await;
            }
        }
    };
    let resolver = {
        let stack = stack.clone();
        async move {
            let _ = stack.resolve("a.example").await;
        }
    };
    world.handle.spawn(server).detach();
    world.handle.spawn(datagrams).detach();
    world.handle.spawn(client).detach();
    world.handle.spawn(resolver).detach();
}

/// What the guest said last.
#[derive(Default)]
struct Last {
    /// Of a TCP segment: ports, sequence number, and the number after it.
    tcp: Option<(u16, u16, i32, i32)>,
    /// Of a datagram to a name server: its port, and the question.
    question: Option<(u16, Vec<u8>)>,
    /// Of a datagram to a DHCP server: the transaction.
    dhcp: Option<[u8; 4]>,
}

impl Last {
    fn see(&mut self, frame: &[u8]) {
        let ethernet = EthernetFrame::new_checked(frame).expect("a frame");
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return;
        }
        let packet = Ipv4Packet::new_checked(ethernet.payload()).expect("a packet");
        assert!(packet.verify_checksum());
        if packet.frag_offset() != 0 || packet.more_frags() {
            return;
        }
        match packet.next_header() {
            IpProtocol::Tcp => {
                let segment = TcpPacket::new_checked(packet.payload()).expect("a segment");
                let next = segment.seq_number() + segment.segment_len();
                self.tcp = Some((segment.src_port(), segment.dst_port(), next.0, segment.ack_number().0));
            }
            IpProtocol::Udp => {
                let datagram = UdpPacket::new_checked(packet.payload()).expect("a datagram");
                let payload = datagram.payload();
                match datagram.dst_port() {
                    53 => self.question = Some((datagram.src_port(), payload.to_vec())),
                    67 => self.dhcp = payload.get(4..8).and_then(|id| id.try_into().ok()),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Puts right what the bits of `how` say: 1 the addresses, 2 the numbers of an answer, 4 the checksums, 8 lengths.
    fn put_right(&self, frame: &mut [u8], how: u8) {
        let Some((ethernet, packet)) = frame.split_at_mut_checked(ETHERNET) else {
            return;
        };
        if how & 1 != 0 {
            ethernet[..6].copy_from_slice(OUR_MAC.as_bytes());
        }
        match [ethernet[12], ethernet[13]] {
            [8, 0] => self.put_ipv4_right(packet, how),
            [0x86, 0xdd] => Self::put_ipv6_right(packet, how),
            _ => {}
        }
    }

    fn put_ipv4_right(&self, bytes: &mut [u8], how: u8) {
        let total = bytes.len();
        let mut packet = Ipv4Packet::new_unchecked(&mut *bytes);
        if total < 20 {
            return;
        }
        if how & 1 != 0 {
            packet.set_version(4);
            packet.set_src_addr(THEIRS);
            packet.set_dst_addr(OURS);
        }
        if how & 8 != 0 {
            packet.set_total_len(total as u16);
        }
        if packet.check_len().is_ok() && usize::from(packet.header_len()) >= 20 {
            let (source, destination) = (packet.src_addr(), packet.dst_addr());
            let protocol = packet.next_header();
            self.put_transport_right(protocol, packet.payload_mut(), source.into(), destination.into(), how);
            if how & 4 != 0 {
                packet.fill_checksum();
            }
        }
    }

    fn put_ipv6_right(bytes: &mut [u8], how: u8) {
        let total = bytes.len();
        let mut packet = Ipv6Packet::new_unchecked(&mut *bytes);
        if total < 40 {
            return;
        }
        if how & 1 != 0 {
            packet.set_version(6);
            packet.set_src_addr(THEIRS6);
            packet.set_dst_addr(OURS6);
        }
        if how & 8 != 0 {
            packet.set_payload_len((total - 40) as u16);
        }
        if packet.check_len().is_ok() {
            let (source, destination) = (packet.src_addr(), packet.dst_addr());
            let protocol = packet.next_header();
            Self::default().put_transport_right(protocol, packet.payload_mut(), source.into(), destination.into(), how);
        }
    }

    fn put_transport_right(&self, protocol: IpProtocol, bytes: &mut [u8], from: IpAddr, to: IpAddr, how: u8) {
        match protocol {
            IpProtocol::Tcp if bytes.len() >= 20 => {
                let mut segment = TcpPacket::new_unchecked(bytes);
                if let Some((source, destination, next, acknowledged)) = self.tcp.filter(|_| how & 2 != 0) {
                    segment.set_src_port(destination);
                    segment.set_dst_port(source);
                    segment.set_seq_number(smoltcp::wire::TcpSeqNumber(acknowledged));
                    segment.set_ack_number(smoltcp::wire::TcpSeqNumber(next));
                }
                if how & 8 != 0 {
                    segment.set_header_len(20);
                }
                if how & 4 != 0 {
                    segment.fill_checksum(&from.into(), &to.into());
                }
            }
            IpProtocol::Udp if bytes.len() >= 8 => {
                let total = bytes.len();
                let mut datagram = UdpPacket::new_unchecked(bytes);
                if how & 8 != 0 {
                    datagram.set_len(total as u16);
                }
                if how & 2 != 0 && datagram.check_len().is_ok() {
                    self.answer(&mut datagram);
                }
                if how & 4 != 0 && datagram.check_len().is_ok() {
                    datagram.fill_checksum(&from.into(), &to.into());
                }
            }
            _ => {}
        }
    }

    /// Makes a datagram from a server an answer to what the guest asked it.
    fn answer(&self, datagram: &mut UdpPacket<&mut [u8]>) {
        match (datagram.src_port(), &self.question, self.dhcp) {
            (53, Some((port, question)), _) => {
                datagram.set_dst_port(*port);
                let payload = datagram.payload_mut();
                let id = payload.iter_mut().zip(question);
                id.take(2).for_each(|(to, from)| *to = *from);
                // The question, after the header.
                let copy = payload.iter_mut().zip(question).skip(12);
                copy.for_each(|(to, from)| *to = *from);
            }
            (67, _, Some(transaction)) => {
                datagram.set_dst_port(68);
                let id = datagram.payload_mut().iter_mut().skip(4).zip(transaction);
                id.for_each(|(to, from)| *to = from);
            }
            _ => {}
        }
    }
}
