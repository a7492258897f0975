//! What the peer says about checksums, times what is true, times protocol, times IP version (rule 39).

mod world;

use fata_net::{Limits, RxChecksum};
use smoltcp::wire::{IpProtocol, TcpControl};
use world::{OURS, OURS6, THEIRS, THEIRS6, World, at, ip_frame, tcp, udp};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sum {
    Right,
    Wrong,
    /// Only the pseudo-header's sum, as in a frame that never was on a wire.
    Partial,
    Zero,
}

fn set(segment: &mut [u8], field: usize, sum: Sum, partial: u16) {
    match sum {
        Sum::Right => {}
        Sum::Wrong => segment[field + 1] ^= 0x10,
        Sum::Partial => segment[field..field + 2].copy_from_slice(&partial.to_be_bytes()),
        Sum::Zero => segment[field..field + 2].fill(0),
    }
}

/// The pseudo-header's sum, by smoltcp.
fn partial(v6: bool, protocol: IpProtocol, len: usize) -> u16 {
    use smoltcp::wire::{IpAddress, checksum};
    let (source, destination): (IpAddress, IpAddress) = if v6 {
        (THEIRS6.into(), OURS6.into())
    } else {
        (THEIRS.into(), OURS.into())
    };
    checksum::pseudo_header(&source, &destination, protocol, len as u32)
}

fn expected(flag: RxChecksum, sum: Sum, protocol: IpProtocol, v6: bool) -> bool {
    match (flag, sum) {
        (RxChecksum::Validated | RxChecksum::Blank, _) | (RxChecksum::Unknown, Sum::Right) => true,
        // UDP over IPv4 may have none.
        (RxChecksum::Unknown, Sum::Zero) => protocol == IpProtocol::Udp && !v6,
        (RxChecksum::Unknown, Sum::Wrong | Sum::Partial) => false,
    }
}

#[test]
fn rule_39_flags_times_sums_times_protocols() {
    let mut cases = 0;
    for flag in [RxChecksum::Unknown, RxChecksum::Validated, RxChecksum::Blank] {
        for sum in [Sum::Right, Sum::Wrong, Sum::Partial, Sum::Zero] {
            for v6 in [false, true] {
                for protocol in [IpProtocol::Udp, IpProtocol::Tcp] {
                    // Odd and even lengths, with and without Ethernet's padding.
                    for len in [0, 1, 2, 3, 500, 501] {
                        for padding in [0, 1, 7] {
                            case(flag, sum, v6, protocol, len, padding);
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 3 * 4 * 2 * 2 * 6 * 3);
}

fn case(flag: RxChecksum, sum: Sum, v6: bool, protocol: IpProtocol, len: usize, padding: usize) {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let socket = stack.udp(9).unwrap();
    let _listener = stack.listen(9).unwrap();
    world::mark(&wire, flag);
    let (source, destination) = if v6 {
        (at(THEIRS6, 5), at(OURS6, 9))
    } else {
        (at(THEIRS, 5), at(OURS, 9))
    };
    let data = world::pattern(len);
    let mut payload = match protocol {
        IpProtocol::Udp => udp(source, destination, &data),
        _ => tcp(source, destination, TcpControl::Syn, 77, None, &data),
    };
    let field = if protocol == IpProtocol::Udp { 6 } else { 16 };
    let partial = partial(v6, protocol, payload.len());
    set(&mut payload, field, sum, partial);
    let mut frame = ip_frame(source.ip(), destination.ip(), protocol, &payload);
    frame.extend(std::iter::repeat_n(0xa5, padding));
    wire.send(&frame);
    world.settle();
    let stats = stack.stats();
    let name = format!("{flag:?} {sum:?} v6={v6} {protocol} {len}+{padding}");
    let accepted = expected(flag, sum, protocol, v6);
    assert_eq!(stats.rx_bad_checksum, u64::from(!accepted), "{name}");
    if protocol == IpProtocol::Tcp {
        assert_eq!(stats.tcp_half_open, u64::from(accepted), "{name}");
    } else if accepted {
        let got = world.run(async move {
            let mut buffer = [0; 600];
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            assert_eq!(from, source);
            buffer[..len].to_vec()
        });
        assert_eq!(got, data, "{name}");
    }
}

#[test]
fn a_wrong_ip_header_is_dropped_whatever_the_flag() {
    for flag in [RxChecksum::Unknown, RxChecksum::Validated, RxChecksum::Blank] {
        let mut world = World::new();
        let (stack, mut wire) = world.stack_and_wire(Limits::default());
        let _listener = stack.listen(9).unwrap();
        world::mark(&wire, flag);
        let mut frame = world::tcp_frame(at(THEIRS, 5), at(OURS, 9), TcpControl::Syn, 77, None, &[]);
        frame[14 + 10] ^= 1;
        wire.send(&frame);
        world.settle();
        assert_eq!((stack.stats().rx_bad_checksum, stack.stats().tcp_half_open), (1, 0));
    }
}

/// A length that leaves out a part of UDP's own header, with a sum that is right for it.
#[test]
fn rule_39_a_datagram_shorter_than_its_header_is_dropped() {
    for length in 0..8_u16 {
        let mut world = World::new();
        let (stack, mut wire) = world.stack_and_wire(Limits::default());
        let _socket = stack.udp(9).unwrap();
        let mut payload = udp(at(THEIRS, 5), at(OURS, 9), &[]);
        payload[4..6].copy_from_slice(&length.to_be_bytes());
        payload[6..8].copy_from_slice(&[0xff, 0xff]);
        // Whatever of the header the length covers, and the pseudo-header, adds up to 0xffff by way of the source port.
        payload[..2].fill(0);
        let covered = payload[..usize::from(length)].to_vec();
        let total = covered
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
        let total = total.sum::<u32>() + u32::from(partial(false, IpProtocol::Udp, covered.len()));
        let folded = (total & 0xffff) + (total >> 16);
        payload[..2].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        wire.send(&ip_frame(THEIRS.into(), OURS.into(), IpProtocol::Udp, &payload));
        world.settle();
        assert_eq!(stack.stats().rx_bad_checksum, 1, "{length}");
    }
}

#[test]
fn a_packet_that_is_longer_than_its_frame_is_malformed() {
    for flag in [RxChecksum::Unknown, RxChecksum::Validated, RxChecksum::Blank] {
        for (source, destination) in [(at(THEIRS, 5), at(OURS, 9)), (at(THEIRS6, 5), at(OURS6, 9))] {
            let mut world = World::new();
            let (stack, mut wire) = world.stack_and_wire(Limits::default());
            let _socket = stack.udp(9).unwrap();
            world::mark(&wire, flag);
            let payload = udp(source, destination, &[1; 50]);
            let frame = ip_frame(source.ip(), destination.ip(), IpProtocol::Udp, &payload);
            wire.send(&frame[..frame.len() - 1]);
            world.settle();
            assert_eq!(stack.stats().rx_malformed, 1);
        }
    }
}

#[test]
fn what_is_sent_blank_holds_the_pseudo_headers_sum() {
    for v6 in [false, true] {
        let mut world = World::new();
        let (one, two) = fata_net::pair::pair();
        let offload = fata_net::ChecksumOffload {
            ipv4: true,
            ipv6: false,
        };
        one.control()
            .set_capabilities(|capabilities| capabilities.tx_checksum = offload);
        let stack = world.stack(one, world::fixed(OURS, OURS6), Limits::default(), 1);
        let mut wire = world::Wire(two);
        world.settle();
        while wire.0.take().is_some() {}
        // A refused connection: smoltcp's own RST takes the same way as everything else.
        let (source, destination) = if v6 {
            (at(THEIRS6, 5), at(OURS6, 9))
        } else {
            (at(THEIRS, 5), at(OURS, 9))
        };
        if v6 {
            wire.send(&neighbour());
        }
        wire.send(&world::tcp_frame(source, destination, TcpControl::Syn, 77, None, &[]));
        world.settle();
        let mut seen = 0;
        while let Some((frame, flag)) = wire.0.take() {
            let header = if v6 { 14 + 40 } else { 14 + 20 };
            let is_tcp = frame[12..14] == [0x86, 0xdd] && frame[20] == 6 || frame[12..14] == [8, 0] && frame[23] == 6;
            if frame[12..14] == [8, 6] {
                let reply = world::ethernet_frame(smoltcp::wire::EthernetProtocol::Arp, &arp_reply());
                wire.send(&reply);
                wire.send(&world::tcp_frame(source, destination, TcpControl::Syn, 77, None, &[]));
                world.settle();
            }
            if !is_tcp {
                continue;
            }
            seen += 1;
            let segment = &frame[header..];
            let field = u16::from_be_bytes([segment[16], segment[17]]);
            // The sum is the same in both directions.
            let sum = partial(v6, IpProtocol::Tcp, segment.len());
            assert_eq!(flag == RxChecksum::Blank, !v6);
            assert_eq!(field == sum, !v6, "over IPv6 it is complete");
            if v6 {
                assert!(world::segment(&frame).is_some());
            }
        }
        assert_eq!(seen, 1);
        drop(stack);
    }
}

fn arp_reply() -> Vec<u8> {
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: world::THEIR_MAC,
        source_protocol_addr: THEIRS,
        target_hardware_addr: world::OUR_MAC,
        target_protocol_addr: OURS,
    };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut payload));
    payload
}

/// A neighbour solicitation from `THEIRS6`, which says where `THEIRS6` is.
fn neighbour() -> Vec<u8> {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, NdiscRepr};
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: OURS6,
        lladdr: Some(world::THEIR_MAC.into()),
    });
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(
        &THEIRS6,
        &OURS6,
        &mut Icmpv6Packet::new_unchecked(&mut message),
        &ChecksumCapabilities::default(),
    );
    let mut frame = ip_frame(THEIRS6.into(), OURS6.into(), IpProtocol::Icmpv6, &message);
    frame[14 + 7] = 255;
    frame
}
