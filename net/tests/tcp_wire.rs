//! TCP against a peer that is made of bare segments: what two well-behaved stacks never do to each other.

mod world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use fata_net::pair::SeedRng;
use fata_net::{Error, Limits, Stack};
use rand_core::{TryCryptoRng, TryRng};
use smoltcp::wire::TcpControl::{Fin, None as Plain, Rst, Syn};
use smoltcp::wire::TcpPacket;
use world::{OURS, OURS6, Segment, THEIRS, THEIRS6, Wire, World, at, tcp_frame};

const SERVER: u16 = 80;

/// Sends a SYN and gives the answer to it.
fn knock(world: &mut World, wire: &mut Wire, port: u16) -> Vec<Segment> {
    wire.send(&tcp_frame(at(THEIRS, port), at(OURS, SERVER), Syn, 1000, None, &[]));
    wire.segments(world)
}

/// Establishes a connection; gives our next sequence number.
fn connect(world: &mut World, wire: &mut Wire, port: u16) -> u32 {
    let answer = knock(world, wire, port);
    assert_eq!((answer[0].control, answer[0].acknowledgement), (Syn, Some(1001)));
    let next = answer[0].sequence.wrapping_add(1);
    wire.send(&tcp_frame(
        at(THEIRS, port),
        at(OURS, SERVER),
        Plain,
        1001,
        Some(next),
        &[],
    ));
    assert_eq!(wire.segments(world), []);
    next
}

/// Establishes a connection, has the server close it first, and answers with our FIN. The server is in TIME-WAIT then.
fn to_time_wait(world: &mut World, wire: &mut Wire, stack: &Stack, port: u16) -> u32 {
    let listener = stack.listen(SERVER).unwrap();
    let next = connect(world, wire, port);
    let stream = world.run(async move { (listener.accept().await.unwrap(), listener) });
    drop(stream.0);
    let fin = wire.segments(world);
    assert_eq!((fin[0].control, fin[0].sequence), (Fin, next));
    wire.send(&tcp_frame(
        at(THEIRS, port),
        at(OURS, SERVER),
        Fin,
        1001,
        Some(next + 1),
        &[],
    ));
    let last = wire.segments(world);
    assert_eq!((last[0].control, last[0].acknowledgement), (Plain, Some(1002)));
    next
}

#[test]
fn a_closed_port_refuses() {
    let mut world = World::new();
    let (_stack, mut wire) = world.stack_and_wire(Limits::default());
    // smoltcp keeps no answer back until it knows its neighbour: the first SYN only makes it ask.
    assert_eq!(knock(&mut world, &mut wire, 5000), []);
    let answer = knock(&mut world, &mut wire, 5000);
    assert_eq!((answer[0].control, answer[0].acknowledgement), (Rst, Some(1001)));
}

#[test]
fn a_flood_of_syns_costs_a_bounded_amount_and_ends() {
    let mut world = World::new();
    let limits = Limits {
        half_open: 16,
        ..Limits::default()
    };
    let (stack, mut wire) = world.stack_and_wire(limits);
    let listener = stack.listen(SERVER).unwrap();
    connect(&mut world, &mut wire, 4000);
    let mut answered = 0;
    for port in 5000..6000 {
        answered += knock(&mut world, &mut wire, port)
            .iter()
            .filter(|answer| answer.control == Syn)
            .count();
    }
    assert_eq!((answered, stack.stats().tcp_half_open), (16, 16));
    assert_eq!(stack.stats().tcp_no_memory, 1000 - 16);
    // Who was in before is not troubled.
    let stream = world.run(async move { (listener.accept().await.unwrap(), listener) });
    wire.send(&tcp_frame(
        at(THEIRS, 4000),
        at(OURS, SERVER),
        Plain,
        1001,
        None,
        b"ignored: no ACK",
    ));
    world.pass(limits.half_open_timeout + Duration::from_secs(1));
    let stats = stack.stats();
    assert_eq!(
        (stats.tcp_half_open, stats.tcp_half_open_dropped, stats.tcp_connections),
        (0, 16, 1)
    );
    assert!(
        wire.segments(&mut world).iter().all(|segment| segment.control != Rst),
        "they end in silence"
    );
    // And there is room again.
    assert_eq!(knock(&mut world, &mut wire, 7000)[0].control, Syn);
    drop(stream);
}

#[test]
fn a_reset_frees_a_half_open_connection_at_once() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits {
        half_open: 1,
        ..Limits::default()
    });
    let _listener = stack.listen(SERVER).unwrap();
    for port in 5000..5010 {
        let answer = knock(&mut world, &mut wire, port);
        assert_eq!(answer[0].control, Syn);
        wire.send(&tcp_frame(at(THEIRS, port), at(OURS, SERVER), Rst, 1001, None, &[]));
        assert_eq!(wire.segments(&mut world), []);
        assert_eq!(stack.stats().tcp_connections, 0);
    }
}

#[test]
fn a_lost_syn_ack_is_sent_again() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let _listener = stack.listen(SERVER).unwrap();
    let first = knock(&mut world, &mut wire, 5000);
    // The peer's SYN comes again, too: it is the same connection.
    wire.send(&tcp_frame(at(THEIRS, 5000), at(OURS, SERVER), Syn, 1000, None, &[]));
    world.pass(Duration::from_millis(1500));
    let again = wire.segments(&mut world);
    assert_eq!(again[0], first[0]);
    assert_eq!(stack.stats().tcp_half_open, 1);
}

/// A random source that shows what it has given.
struct Open(SeedRng, Rc<RefCell<Vec<u64>>>);

impl TryRng for Open {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let number = self.0.try_next_u64()?;
        self.1.borrow_mut().push(number);
        Ok(number)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

impl TryCryptoRng for Open {}

#[test]
fn every_sequence_number_comes_from_64_fresh_random_bits() {
    // smoltcp's generator: the first number of an interface is for IPv4's identification, the second for the SYN.
    let step = |state: u64| state.wrapping_mul(0xbb2e_fcec_3c39_611d).wrapping_add(0x7590_ef39);
    let number = |state: u64| (state >> (29 - (state >> 61))) as u32;

    let mut world = World::new();
    let drawn = Rc::new(RefCell::new(Vec::new()));
    let (one, two) = fata_net::pair::pair();
    let random = Open(SeedRng::new(1), drawn.clone());
    let config = world::fixed(OURS, OURS6);
    let (stack, runner) = Stack::new(&world.handle, one, random, config, Limits::default()).unwrap();
    world.handle.spawn(runner.run()).detach();
    let mut wire = Wire(two);
    let _listener = stack.listen(SERVER).unwrap();
    let mut numbers = BTreeSet::new();
    for port in 5000..5064 {
        drawn.borrow_mut().clear();
        let got = knock(&mut world, &mut wire, port)[0].sequence;
        let drawn = drawn.borrow();
        let [seed] = drawn[..] else {
            panic!("one number for one connection");
        };
        assert_eq!(got, number(step(step(seed))));
        numbers.insert(got);
    }
    assert_eq!(numbers.len(), 64);
    // The same for connections from here.
    drawn.borrow_mut().clear();
    world
        .handle
        .spawn(async move { stack.connect(at(THEIRS, 80)).await.map(drop) })
        .detach();
    let syn = wire.segments(&mut world);
    let seed = drawn.borrow()[0];
    assert_eq!((syn[0].control, syn[0].sequence), (Syn, number(step(step(seed)))));
}

#[test]
fn time_wait_keeps_no_buffers_and_acknowledges_again() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let next = to_time_wait(&mut world, &mut wire, &stack, 5000);
    let stats = stack.stats();
    assert_eq!((stats.tcp_connections, stats.tcp_time_wait), (0, 1));
    // Our acknowledgement got lost: the peer's FIN comes again.
    wire.send(&tcp_frame(
        at(THEIRS, 5000),
        at(OURS, SERVER),
        Fin,
        1001,
        Some(next + 1),
        &[],
    ));
    let again = wire.segments(&mut world);
    assert_eq!(again.len(), 1);
    assert_eq!(
        (again[0].control, again[0].sequence, again[0].acknowledgement),
        (Plain, next + 1, Some(1002))
    );
    // Strays get no RST, and a RST changes nothing.
    wire.send(&tcp_frame(
        at(THEIRS, 5000),
        at(OURS, SERVER),
        Plain,
        1002,
        Some(next + 1),
        b"stray",
    ));
    wire.send(&tcp_frame(at(THEIRS, 5000), at(OURS, SERVER), Rst, 1002, None, &[]));
    assert_eq!(wire.segments(&mut world), []);
    assert_eq!(stack.stats().tcp_time_wait, 1);
    // After its time the connection is as unknown as any other.
    world.pass(stack.limits().time_wait_timeout);
    wire.send(&tcp_frame(
        at(THEIRS, 5000),
        at(OURS, SERVER),
        Plain,
        1002,
        Some(next + 1),
        b"stray",
    ));
    assert_eq!(wire.segments(&mut world)[0].control, Rst);
    assert_eq!(stack.stats().tcp_time_wait, 0);
}

#[test]
fn time_wait_without_room_to_send_is_over_in_time() {
    let mut world = World::new();
    let (one, two) = fata_net::pair::pair();
    let (control, mut wire) = (one.control(), Wire(two));
    let stack = world.stack(one, world::fixed(OURS, world::OURS6), Limits::default(), 1);
    let others = stack.udp(9).unwrap();
    let listener = stack.listen(SERVER).unwrap();
    let next = connect(&mut world, &mut wire, 5000);
    drop(world.run(async move { listener.accept().await.unwrap() }));
    assert_eq!(wire.segments(&mut world)[0].control, Fin);
    // The last of the connection comes when others fill the ring, which nobody empties any more.
    control.set_capacity(1);
    let last = tcp_frame(at(THEIRS, 5000), at(OURS, SERVER), Fin, 1001, Some(next + 1), &[]);
    let _kept = world.run(async move {
        for _ in 0..4 {
            others.send_to(b"me first", at(THEIRS, 9)).await.unwrap();
        }
        wire.send(&last);
        (others, wire)
    });
    world.settle();
    assert_eq!(stack.stats().tcp_closing, 1);
    let before = world.turns;
    world.pass(Duration::from_secs(60));
    assert_eq!(stack.stats().tcp_connections, 0);
    assert!(world.turns - before < 1000, "{} turns", world.turns - before);
}

#[test]
fn time_wait_acknowledges_over_ipv6_too() {
    // Where the acknowledgement has to be addressed without smoltcp's help.
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let listener = stack.listen(SERVER).unwrap();
    let (them, us) = (at(THEIRS6, 5000), at(OURS6, SERVER));
    // A neighbour solicitation is answered by an advertisement made of its target.
    wire.send(&tcp_frame(them, us, Syn, 1000, None, &[]));
    world.settle();
    wire.send(&world_advertisement());
    world.pass(Duration::from_secs(2));
    let answer = wire.segments(&mut world);
    let next = answer[0].sequence.wrapping_add(1);
    wire.send(&tcp_frame(them, us, Plain, 1001, Some(next), &[]));
    let stream = world.run(async move { listener.accept().await.unwrap() });
    drop(stream);
    assert_eq!(wire.segments(&mut world)[0].control, Fin);
    let fin = tcp_frame(them, us, Fin, 1001, Some(next + 1), &[]);
    wire.send(&fin);
    assert_eq!(wire.segments(&mut world)[0].acknowledgement, Some(1002));
    wire.send(&fin);
    let again = wire.segments(&mut world);
    assert_eq!((again[0].sequence, again[0].acknowledgement), (next + 1, Some(1002)));
}

/// A neighbour advertisement of `THEIRS6`.
fn world_advertisement() -> Vec<u8> {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, IpProtocol, NdiscNeighborFlags, NdiscRepr};
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
        target_addr: THEIRS6,
        lladdr: Some(world::THEIR_MAC.into()),
    });
    let mut message = vec![0; repr.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    repr.emit(
        &THEIRS6,
        &OURS6,
        &mut Icmpv6Packet::new_unchecked(&mut message),
        &checksums,
    );
    let mut frame = world::ip_frame(THEIRS6.into(), OURS6.into(), IpProtocol::Icmpv6, &message);
    frame[14 + 7] = 255;
    frame
}

#[test]
fn a_name_in_time_wait_can_be_used_again_at_once() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    to_time_wait(&mut world, &mut wire, &stack, 5000);
    // Nobody listens any more: a SYN is refused, as always.
    assert_eq!(knock(&mut world, &mut wire, 5000)[0].control, Rst);
    to_time_wait(&mut world, &mut wire, &stack, 5000);
    to_time_wait(&mut world, &mut wire, &stack, 5000);
    assert_eq!(stack.stats().tcp_time_wait, 1);
}

#[test]
fn segments_for_nobody_are_ignored() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let _listener = stack.listen(SERVER).unwrap();
    let broadcast = at([10, 0, 0, 255], SERVER);
    let from = |source: [u8; 4]| tcp_frame(at(source, 5000), at(OURS, SERVER), Syn, 1, None, &[]);
    wire.send(&tcp_frame(at(THEIRS, 5000), broadcast, Syn, 1, None, &[]));
    wire.send(&from([0, 0, 0, 0]));
    wire.send(&from([224, 0, 0, 1]));
    wire.send(&from([255, 255, 255, 255]));
    wire.send(&from([127, 0, 0, 1]));
    wire.send(&from([10, 0, 0, 255]));
    wire.send(&from(OURS.octets()));
    wire.send(&tcp_frame(at(THEIRS, 0), at(OURS, SERVER), Syn, 1, None, &[]));
    // For another station of the wire.
    let mut other = tcp_frame(at(THEIRS, 5000), at(OURS, SERVER), Syn, 1, None, &[]);
    other[5] ^= 0x40;
    wire.send(&other);
    // Not a SYN that opens anything: with a FIN.
    let mut odd = tcp_frame(at(THEIRS, 5000), at(OURS, SERVER), Syn, 1, None, &[]);
    odd[14 + 20 + 13] |= 1;
    wire.send(&odd);
    assert_eq!(wire.segments(&mut world), []);
    assert_eq!(stack.stats().tcp_connections, 0);
}

#[test]
fn a_connection_reset_in_the_queue_is_still_handed_out_and_says_so() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let listener = stack.listen(SERVER).unwrap();
    connect(&mut world, &mut wire, 5000);
    wire.send(&tcp_frame(at(THEIRS, 5000), at(OURS, SERVER), Rst, 1001, None, &[]));
    world.settle();
    world.run(async move {
        let stream = listener.accept().await.unwrap();
        assert_eq!(stream.read(&mut [0; 4]).await, Err(Error::ConnectionReset));
    });
    world.settle();
    assert_eq!(stack.stats().tcp_connections, 0);
}

#[test]
fn nonsense_of_every_length_is_survived() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let _listener = stack.listen(SERVER).unwrap();
    let good = tcp_frame(at(THEIRS, 5000), at(OURS, SERVER), Syn, 1, None, &[]);
    for len in 0..good.len() {
        wire.send(&good[..len]);
    }
    for at in 12..good.len() {
        for bit in 0..8 {
            let mut frame = good.clone();
            frame[at] ^= 1 << bit;
            wire.send(&frame);
        }
        wire.frames(&mut world);
    }
    assert!(stack.stats().rx_malformed > 0 && stack.stats().rx_bad_checksum > 0);
    assert_eq!(stack.stats().tcp_half_open, 0, "no changed bit is a good SYN");
    assert_eq!(knock(&mut world, &mut wire, 5001)[0].control, Syn);
}

/// An acknowledgement with this window.
fn window(port: u16, next: u32, window: u16) -> Vec<u8> {
    let mut frame = tcp_frame(at(THEIRS, port), at(OURS, SERVER), Plain, 1001, Some(next), &[]);
    let mut segment = TcpPacket::new_unchecked(&mut frame[34..]);
    segment.set_window_len(window);
    segment.fill_checksum(&THEIRS.into(), &OURS.into());
    frame
}

/// smoltcp believes the window of every segment (RFC 9293 section 3.10.7.4 has it ask first which one is newer). When
/// its retransmission is due and that window is zero, it sends nothing, and starts no probe either: both sides wait.
#[test]
fn a_closed_window_that_was_overtaken_by_the_open_one_stops_nobody() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let listener = stack.listen(SERVER).unwrap();
    let next = connect(&mut world, &mut wire, 5000);
    wire.send(&window(5000, next, 100));
    let _stream = world.run(async move {
        let stream = listener.accept().await.unwrap();
        stream.write_all(&[7; 300]).await.unwrap();
        stream
    });
    let range = |segments: Vec<Segment>| {
        segments
            .first()
            .map(|first| (first.sequence - next, first.payload.len()))
    };
    assert_eq!(range(wire.segments(&mut world)), Some((0, 100)));
    // The window closes and opens again. The second one comes first, and what follows it is lost.
    wire.send(&window(5000, next + 100, 100));
    assert_eq!(range(wire.segments(&mut world)), Some((100, 100)));
    wire.send(&window(5000, next + 100, 0));
    assert_eq!(range(wire.segments(&mut world)), None);
    world.pass(Duration::from_secs(10));
    let again = wire.segments(&mut world);
    assert!(
        again
            .iter()
            .any(|segment| segment.sequence == next + 100 && !segment.payload.is_empty()),
        "{again:?}"
    );
}

/// The window that is really closed is probed, and a peer that takes its window back gets no more than probes.
#[test]
fn a_closed_window_is_probed_until_it_opens() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    let listener = stack.listen(SERVER).unwrap();
    let next = connect(&mut world, &mut wire, 5000);
    let _stream = world.run(async move {
        let stream = listener.accept().await.unwrap();
        stream.write_all(&[7; 300]).await.unwrap();
        stream
    });
    assert_eq!(wire.segments(&mut world).len(), 1);
    wire.send(&window(5000, next + 100, 0));
    world.settle();
    let mut probes = 0;
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
        for probe in wire.segments(&mut world) {
            assert!(probe.payload.len() <= 200);
            wire.send(&window(5000, next + 100, 0));
            probes += 1;
        }
    }
    assert!((2..=10).contains(&probes), "{probes}");
    wire.send(&window(5000, next + 100, 1000));
    assert!(
        wire.segments(&mut world)
            .iter()
            .any(|segment| segment.payload.len() >= 199)
    );
}
