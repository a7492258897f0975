//! UDP, ping, and fragments.

mod world;

use std::time::Duration;

use fata_net::pair::Faults;
use fata_net::{Error, Limits, RxChecksum, UdpOptions};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet,
    Ipv6Packet,
};
use world::{OURS, OURS6, THEIRS, THEIRS6, Wire, World, at, ip_frame, pattern, udp};

#[test]
fn datagrams_of_every_size_come_back() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let server = ours.udp(7).unwrap();
    let echo = async move {
        let mut buffer = [0; 9000];
        loop {
            let (len, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(&buffer[..len], from).await.unwrap();
        }
    };
    world.handle.spawn(echo).detach();
    let stats = ours.clone();
    world.run(async move {
        let client = theirs.udp(0).unwrap();
        let mut buffer = [0; 9000];
        for to in [at(OURS, 7), at(OURS6, 7)] {
            let largest = if to.is_ipv4() { 8164 } else { 1452 };
            for len in [0, 1, 2, 1451, 1452, 1472, 1473, 3000, 8163, 8164] {
                let data = pattern(len);
                if len > largest {
                    assert_eq!(client.send_to(&data, to).await, Err(Error::DatagramTooLarge));
                    continue;
                }
                client.send_to(&data, to).await.unwrap();
                let (got, from) = client.recv_from(&mut buffer).await.unwrap();
                assert_eq!((from, &buffer[..got]), (to, &data[..]), "{len}");
            }
        }
    });
    assert_eq!(stats.stats().rx_reassembled, 4);
    assert_eq!(stats.stats().rx_fragments_dropped, 0);
}

#[test]
fn large_datagrams_side_by_side_do_not_mix() {
    // smoltcp holds the fragments of one packet at a time.
    let mut world = World::new();
    let (ours, theirs, left, _) = world.stacks(Limits::default());
    left.set_capacity(3);
    let options = UdpOptions {
        rx_buffer: 64 << 10,
        tx_buffer: 32 << 10,
        datagrams: 8,
    };
    let receiver = theirs.udp_on(at(THEIRS, 9), options).unwrap();
    for index in 0..4u8 {
        let sender = ours.udp_on(at(OURS, 0), options).unwrap();
        let send = async move {
            sender.send_to(&[index; 8000], at(THEIRS, 9)).await.unwrap();
            core::future::pending::<()>().await;
            drop(sender);
        };
        world.handle.spawn(send).detach();
    }
    let mut got = world.run(async move {
        let mut got = Vec::new();
        let mut buffer = [0; 9000];
        for _ in 0..4 {
            let (len, _) = receiver.recv_from(&mut buffer).await.unwrap();
            assert_eq!(len, 8000);
            assert!(buffer[..len].iter().all(|byte| *byte == buffer[0]));
            got.push(buffer[0]);
        }
        got
    });
    got.sort();
    assert_eq!(got, [0, 1, 2, 3]);
}

#[test]
fn what_does_not_fit_is_told() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let (receiver, sender) = (ours.udp(9).unwrap(), theirs.udp(99).unwrap());
    world.run(async move {
        sender.send_to(&pattern(100), at(OURS, 9)).await.unwrap();
        let mut small = [0; 10];
        let datagram = receiver.receive(&mut small).await.unwrap();
        assert_eq!(
            (datagram.len, datagram.full_len, datagram.from),
            (10, 100, at(THEIRS, 99))
        );
        assert_eq!(datagram.to, OURS);
        assert_eq!(small[..], pattern(10)[..]);
    });
}

#[test]
fn sending_fails_for_the_right_reason() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits {
        udp_sockets: 2,
        ..Limits::default()
    });
    let socket = ours.udp(9).unwrap();
    assert_eq!(ours.udp(9).err(), Some(Error::AddressInUse));
    assert_eq!(
        ours.udp_on(at(THEIRS, 10), UdpOptions::default()).err(),
        Some(Error::AddressNotAvailable)
    );
    let _second = ours.udp(10).unwrap();
    assert_eq!(ours.udp(11).err(), Some(Error::OutOfMemory));
    world.run(async move {
        assert_eq!(
            socket.send_to(b"x", at([192, 168, 9, 9], 9)).await,
            Err(Error::AddressNotAvailable)
        );
        assert_eq!(socket.send_to(b"x", at(THEIRS, 0)).await, Err(Error::InvalidInput));
        assert_eq!(
            socket.send_to(b"x", at([0, 0, 0, 0], 9)).await,
            Err(Error::InvalidInput)
        );
        assert_eq!(
            socket.send_to(&[0; 8165], at(THEIRS, 9)).await,
            Err(Error::DatagramTooLarge)
        );
        // Everybody on the wire.
        let listener = theirs.udp(9).unwrap();
        socket.send_to(b"all", at([255, 255, 255, 255], 9)).await.unwrap();
        let datagram = listener.receive(&mut [0; 9]).await.unwrap();
        assert_eq!((datagram.len, datagram.from), (3, at(OURS, 9)));
    });
}

#[test]
fn a_neighbour_that_does_not_answer_holds_nobody_up_for_long() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let (sender, receiver) = (ours.udp(9).unwrap(), theirs.udp(9).unwrap());
    let handle = world.handle.clone();
    let start = world.clock_now();
    world.run(async move {
        sender.send_to(b"nobody", at([10, 0, 0, 77], 9)).await.unwrap();
        let resend = async {
            loop {
                sender.send_to(b"somebody", at(THEIRS, 9)).await.unwrap();
                handle.sleep(Duration::from_millis(500)).await;
            }
        };
        let mut buffer = [0; 16];
        fata_events::select::select(resend, receiver.recv_from(&mut buffer)).await;
        assert_eq!(&buffer[..8], b"somebody");
    });
    assert!(world.clock_now() - start < Duration::from_secs(4));
    assert_eq!(ours.stats().udp_unreachable, 1);
}

#[test]
fn a_link_that_goes_while_a_neighbour_is_asked_for_stops_nobody() {
    let mut world = World::new();
    let (ours, _theirs, left, _) = world.stacks(Limits::default());
    let handle = world.handle.clone();
    world.run(async move {
        let socket = ours.udp(0).unwrap();
        socket.send_to(b"nobody", at([10, 0, 0, 77], 9)).await.unwrap();
        handle.sleep(Duration::from_millis(500)).await;
        left.set_link(false);
        handle.sleep(Duration::from_secs(10)).await;
    });
    assert!(world.turns < 100, "{} turns", world.turns);
}

#[test]
fn what_a_dropped_socket_holds_is_sent() {
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(Limits::default());
    let receiver = theirs.udp(9).unwrap();
    let sockets = ours.clone();
    world.run(async move {
        for message in [
            b"The neighbour has to be asked for first.",
            b"His address is known, it goes at once...",
        ] {
            let sender = sockets.udp(0).unwrap();
            sender.send_to(message, at(THEIRS, 9)).await.unwrap();
            drop(sender);
            let mut buffer = [0; 64];
            let (len, _) = receiver.recv_from(&mut buffer).await.unwrap();
            assert_eq!(buffer[..len], message[..]);
        }
    });
    world.pass(Duration::from_millis(1));
    assert_eq!(ours.stats().udp_sockets, 0);
}

#[test]
fn a_dropped_socket_that_cannot_send_goes_in_time_or_when_its_place_is_wanted() {
    let mut world = World::new();
    let limits = Limits {
        udp_sockets: 2,
        ..Limits::default()
    };
    let (ours, _theirs, left, _) = world.stacks(limits);
    let sockets = ours.clone();
    world.run(async move {
        for port in [9, 9, 10, 11] {
            let socket = sockets.udp(port).unwrap();
            socket.send_to(b"nobody", at([10, 0, 0, 77], 9)).await.unwrap();
        }
    });
    assert_eq!(ours.stats().udp_sockets, 2);
    left.set_link(false);
    world.pass(Duration::from_secs(2));
    assert_eq!(ours.stats().udp_sockets, 0);
}

#[test]
fn an_idle_stack_sleeps() {
    let mut world = World::new();
    let (one, two) = fata_net::pair::pair();
    // Nobody answers DHCP nor router solicitations: that ends, or gets rare.
    let config = fata_net::Config {
        ipv4: fata_net::Ipv4Config::Off,
        ..fata_net::Config::default()
    };
    let stack = world.stack(one, config, Limits::default(), 1);
    let mut wire = Wire(two);
    world.pass(Duration::from_secs(30));
    wire.frames(&mut world);
    let before = world.executor.stats().polls;
    world.pass(Duration::from_secs(1000));
    assert!(
        world.executor.stats().polls - before <= 4,
        "{} polls",
        world.executor.stats().polls - before
    );
    assert_eq!(wire.frames(&mut world), Vec::<Vec<u8>>::new());
    assert_eq!(stack.status().addresses.len(), 1);
}

/// Answers to pings, put together.
fn pong(wire: &mut Wire, world: &mut World) -> Option<(u16, Vec<u8>)> {
    let mut whole = Vec::new();
    for frame in wire.frames(world) {
        let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
        match ethernet.ethertype() {
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                assert!(packet.verify_checksum());
                assert_eq!(usize::from(packet.frag_offset()), whole.len());
                whole.extend_from_slice(packet.payload());
                if packet.more_frags() {
                    continue;
                }
                let message = Icmpv4Packet::new_checked(&whole[..]).unwrap();
                if let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) =
                    Icmpv4Repr::parse(&message, &ChecksumCapabilities::default())
                {
                    return Some((seq_no, data.to_vec()));
                }
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
                let parsed = Icmpv6Repr::parse(
                    &packet.src_addr(),
                    &packet.dst_addr(),
                    &message,
                    &ChecksumCapabilities::default(),
                );
                if let Ok(Icmpv6Repr::EchoReply { seq_no, data, .. }) = parsed {
                    return Some((seq_no, data.to_vec()));
                }
            }
            _ => {}
        }
    }
    None
}

fn ping4(seq_no: u16, data: &[u8]) -> Vec<u8> {
    let repr = Icmpv4Repr::EchoRequest { ident: 7, seq_no, data };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(
        &mut Icmpv4Packet::new_unchecked(&mut message),
        &ChecksumCapabilities::default(),
    );
    message
}

/// Cuts an IPv4 payload into frames with `size` bytes each.
fn fragments(protocol: IpProtocol, ident: u16, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let last = payload.len().div_ceil(size) - 1;
    let cut = payload.chunks(size).enumerate().map(|(index, chunk)| {
        let mut frame = ip_frame(THEIRS.into(), OURS.into(), protocol, chunk);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_ident(ident);
        packet.set_dont_frag(false);
        packet.set_more_frags(index != last);
        packet.set_frag_offset((index * size) as u16);
        packet.fill_checksum();
        frame
    });
    cut.collect()
}

/// A stack that knows its neighbour already.
fn acquainted(world: &mut World, limits: Limits) -> (fata_net::Stack, Wire) {
    let (stack, mut wire) = world.stack_and_wire(limits);
    let listener = stack.listen(1).unwrap();
    wire.send(&world::tcp_frame(
        at(THEIRS, 5),
        at(OURS, 1),
        smoltcp::wire::TcpControl::Syn,
        1,
        None,
        &[],
    ));
    wire.frames(world);
    drop(listener);
    wire.frames(world);
    (stack, wire)
}

#[test]
fn pings_of_every_size_come_back() {
    let mut world = World::new();
    let (_stack, mut wire) = acquainted(&mut world, Limits::default());
    for (index, len) in [0, 1, 56, 64, 1471, 1472, 1473, 4096, 8000, 8164]
        .into_iter()
        .enumerate()
    {
        let (seq_no, data) = (index as u16, pattern(len));
        for frame in fragments(IpProtocol::Icmp, seq_no, &ping4(seq_no, &data), 1480) {
            wire.send(&frame);
        }
        assert_eq!(pong(&mut wire, &mut world), Some((seq_no, data)), "{len} bytes");
    }
}

#[test]
fn two_large_pings_at_once_are_both_answered() {
    let mut world = World::new();
    let (_stack, mut wire) = acquainted(&mut world, Limits::default());
    let (one, two) = (pattern(5000), vec![9; 6000]);
    for frame in fragments(IpProtocol::Icmp, 1, &ping4(1, &one), 1480) {
        wire.send(&frame);
    }
    for frame in fragments(IpProtocol::Icmp, 2, &ping4(2, &two), 1480) {
        wire.send(&frame);
    }
    world.settle();
    let mut wholes = [Vec::new(), Vec::new()];
    let mut current = 0;
    for frame in wire.frames(&mut world) {
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!(usize::from(packet.frag_offset()), wholes[current].len());
        wholes[current].extend_from_slice(packet.payload());
        current += usize::from(!packet.more_frags());
    }
    for (whole, data) in wholes.iter().zip([one, two]) {
        let message = Icmpv4Packet::new_checked(&whole[..]).unwrap();
        assert!(message.verify_checksum());
        assert!(message.data() == data);
    }
}

#[test]
fn pings_over_ipv6_come_back() {
    let mut world = World::new();
    let (_ours, theirs, _, _) = world.stacks(Limits::default());
    // The neighbours get to know each other.
    world.run(async move { assert_eq!(theirs.connect(at(OURS6, 9)).await.err(), Some(Error::ConnectionRefused)) });
    let (_stack, mut wire) = world.stack_and_wire(Limits::default());
    wire.send(&solicitation());
    for (index, len) in [0usize, 1, 56, 64, 1452].into_iter().enumerate() {
        let data = pattern(len);
        let repr = Icmpv6Repr::EchoRequest {
            ident: 7,
            seq_no: index as u16,
            data: &data,
        };
        let mut message = vec![0; repr.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        repr.emit(
            &THEIRS6,
            &OURS6,
            &mut Icmpv6Packet::new_unchecked(&mut message),
            &checksums,
        );
        wire.send(&ip_frame(THEIRS6.into(), OURS6.into(), IpProtocol::Icmpv6, &message));
        assert_eq!(pong(&mut wire, &mut world), Some((index as u16, data)));
    }
}

fn solicitation() -> Vec<u8> {
    use smoltcp::wire::NdiscRepr;
    let lladdr = Some(world::THEIR_MAC.into());
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: OURS6,
        lladdr,
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

/// Rule 39: whatever the device says of the fragments, nobody has verified the whole.
#[test]
fn a_fragmented_datagram_with_a_wrong_checksum_is_dropped() {
    for flag in [RxChecksum::Unknown, RxChecksum::Validated, RxChecksum::Blank] {
        let mut world = World::new();
        let (stack, mut wire) = acquainted(&mut world, Limits::default());
        world::mark(&wire, flag);
        let socket = stack.udp(9).unwrap();
        let good = udp(at(THEIRS, 5), at(OURS, 9), &pattern(4000));
        let mut bad = good.clone();
        bad[3000] ^= 4;
        for (ident, datagram) in [(1, &bad), (2, &good)] {
            for frame in fragments(IpProtocol::Udp, ident, datagram, 1480).iter().rev() {
                wire.send(frame);
            }
        }
        world.settle();
        assert_eq!((stack.stats().rx_reassembled, stack.stats().rx_bad_checksum), (2, 1));
        let got = world.run(async move {
            let mut buffer = [0; 5000];
            let (len, _) = socket.recv_from(&mut buffer).await.unwrap();
            buffer[..len].to_vec()
        });
        assert_eq!(got, pattern(4000));
    }
}

/// Rule 39: a fragment's header has to add up, and it has to be for us, before any memory is spent on it.
#[test]
fn fragments_with_a_wrong_header_or_for_somebody_else_are_dropped() {
    let mut world = World::new();
    let (stack, mut wire) = acquainted(&mut world, Limits::default());
    let datagram = udp(at(THEIRS, 5), at(OURS, 9), &pattern(4000));
    for mut frame in fragments(IpProtocol::Udp, 1, &datagram, 1480) {
        frame[14 + 8] ^= 1; // its time to live
        wire.send(&frame);
    }
    world.settle();
    assert_eq!(
        (stack.stats().rx_fragments_dropped, stack.stats().rx_reassembled),
        (3, 0)
    );
    for mut frame in fragments(IpProtocol::Udp, 2, &datagram, 1480) {
        frame[5] ^= 1; // the station
        wire.send(&frame);
    }
    world.settle();
    assert_eq!(
        (stack.stats().rx_fragments_dropped, stack.stats().rx_reassembled),
        (3, 0)
    );
}

#[test]
fn a_flood_of_fragments_costs_a_bounded_amount() {
    let mut world = World::new();
    let (stack, mut wire) = acquainted(
        &mut world,
        Limits {
            reassembly: 20_000,
            ..Limits::default()
        },
    );
    let payload = vec![0; 16_000];
    for ident in 0..500 {
        let frames = fragments(IpProtocol::Icmp, ident, &payload, 1480);
        wire.send(&frames[0]);
        wire.send(&frames[9]);
        world.settle();
    }
    let data = pattern(3000);
    for frame in fragments(IpProtocol::Icmp, 1000, &ping4(5, &data), 1480) {
        wire.send(&frame);
    }
    assert_eq!(pong(&mut wire, &mut world), Some((5, data)));
    assert_eq!(stack.stats().rx_reassembled, 1);
}

#[test]
fn lost_datagrams_are_lost_and_nothing_else() {
    let mut world = World::new();
    let (ours, theirs, left, _) = world.stacks(Limits::default());
    let (sender, receiver) = (ours.udp(9).unwrap(), theirs.udp(9).unwrap());
    let count = world.handle.spawn(async move {
        let mut buffer = [0; 64];
        let mut last = 0;
        let mut count = 0;
        while last < 999 {
            let (len, _) = receiver.recv_from(&mut buffer).await.unwrap();
            assert_eq!(len, 4);
            let index = u32::from_be_bytes(buffer[..4].try_into().unwrap());
            assert!(count == 0 || index > last);
            (last, count) = (index, count + 1);
        }
        count
    });
    world.run(async move {
        for index in 0..1000u32 {
            if index == 10 {
                left.set_faults(Faults {
                    loss: 300,
                    seed: 3,
                    ..Faults::default()
                });
            }
            if index == 990 {
                left.set_faults(Faults::default());
            }
            sender.send_to(&index.to_be_bytes(), at(THEIRS, 9)).await.unwrap();
            fata_events::yield_now().await;
            fata_events::yield_now().await;
        }
        let count = count.await.unwrap();
        assert!((500..900).contains(&count), "{count}");
    });
}
