//! Many sockets at once: each gets what is its own, when it is due.

mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fata_net::{Limits, ListenOptions, Stack, TcpListener, TcpOptions};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, TcpControl};
use world::peer::open;
use world::{OUR_MAC, OURS, OURS6, THEIR_MAC, THEIRS, Wire, World, at, ethernet_frame, segment, tcp_frame};

/// Limits for so many connections with small buffers.
fn room_for(connections: usize) -> Limits {
    Limits {
        connections,
        half_open: connections,
        tcp_rx_buffer: 512,
        tcp_tx_buffer: 512,
        ..Limits::default()
    }
}

fn listen(stack: &Stack, port: u16, tcp: TcpOptions) -> TcpListener {
    let options = ListenOptions { backlog: 20_000, tcp };
    stack.listen_on(at(OURS, port), options).unwrap()
}

#[test]
fn ten_thousand_connections_are_open_at_once_and_do_not_mix() {
    const COUNT: usize = 10_000;
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(room_for(COUNT));
    let listener = listen(&ours, 7, TcpOptions::default());
    let handle = world.handle.clone();
    let echo = async move {
        while let Ok(stream) = listener.accept().await {
            let serve = async move {
                let mut buffer = [0; 8];
                while stream.read_exact(&mut buffer).await.is_ok() {
                    stream.write_all(&buffer).await.unwrap();
                }
            };
            handle.spawn(serve).detach();
        }
    };
    world.handle.spawn(echo).detach();
    let client = theirs.clone();
    let streams = world.run(async move {
        let mut streams = Vec::new();
        for _ in 0..COUNT {
            streams.push(client.connect(at(OURS, 7)).await.unwrap());
        }
        streams
    });
    world.settle();
    assert_eq!(ours.stats().tcp_connections, COUNT as u64);
    let streams = world.run(async move {
        for round in 0..2_u64 {
            for (index, stream) in streams.iter().enumerate() {
                stream.write_all(&(index as u64 + round).to_le_bytes()).await.unwrap();
            }
            for (index, stream) in streams.iter().enumerate() {
                let mut answer = [0; 8];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(u64::from_le_bytes(answer), index as u64 + round);
            }
        }
        streams
    });
    drop(streams);
    world.pass(Duration::from_secs(1));
    for stack in [ours, theirs] {
        assert_eq!(stack.stats().tcp_connections, 0);
    }
}

fn arp_reply() -> Vec<u8> {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: THEIR_MAC,
        source_protocol_addr: THEIRS,
        target_hardware_addr: OUR_MAC,
        target_protocol_addr: OURS,
    };
    let mut payload = vec![0; reply.buffer_len()];
    reply.emit(&mut ArpPacket::new_unchecked(&mut payload));
    ethernet_frame(EthernetProtocol::Arp, &payload)
}

/// Everything that has arrived, ARP requests left unanswered.
fn take(world: &mut World, wire: &mut Wire) -> Vec<Vec<u8>> {
    world.settle();
    std::iter::from_fn(|| wire.0.take().map(|(frame, _)| frame)).collect()
}

#[test]
fn when_the_neighbour_answers_late_all_who_wait_for_him_go_on_at_once() {
    const COUNT: usize = 20;
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(Limits::default());
    for index in 0..COUNT {
        let stack = stack.clone();
        // The last one waits for somebody else.
        let host = if index + 1 < COUNT {
            THEIRS
        } else {
            [10, 0, 0, 77].into()
        };
        let connect = async move { stack.connect(at(host, 80)).await.map(drop) };
        world.handle.spawn(connect).detach();
    }
    let datagrams = stack.udp(9).unwrap();
    world.run(async move {
        datagrams.send_to(b"late", at(THEIRS, 9)).await.unwrap();
        std::mem::forget(datagrams);
    });
    let before = take(&mut world, &mut wire);
    assert!(
        before.iter().all(|frame| frame[12..14] != [8, 0]),
        "nobody knows where to send to"
    );
    world.pass(Duration::from_millis(100));
    // What everybody may say does not help, and does no harm.
    take(&mut world, &mut wire);
    wire.send(&arp_reply());
    let (segments, others): (Vec<_>, Vec<_>) = take(&mut world, &mut wire)
        .into_iter()
        .partition(|frame| frame[23] == 6);
    let segments: Vec<_> = segments.iter().filter_map(|frame| segment(frame)).collect();
    assert_eq!(segments.len(), COUNT - 1);
    assert!(
        segments
            .iter()
            .all(|syn| syn.destination == at(THEIRS, 80) && syn.control == TcpControl::Syn)
    );
    assert_eq!(others.iter().filter(|frame| frame.ends_with(b"late")).count(), 1);
}

#[test]
fn a_segment_for_no_connection_is_refused_and_disturbs_none() {
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(room_for(50));
    let listener = listen(&stack, 80, TcpOptions::default());
    let peers = open(&mut world, &mut wire, 80, 50);
    let known = peers[7].port;
    // Right ports and the wrong host's port, right addresses and the wrong port.
    for (from, to) in [(known + 1000, 80), (known, 81)] {
        let stray = tcp_frame(
            at(THEIRS, from),
            at(OURS, to),
            TcpControl::Psh,
            1_001,
            Some(77),
            b"stray",
        );
        wire.send(&stray);
        let answers = wire.segments(&mut world);
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].control, answers[0].sequence), (TcpControl::Rst, 77));
        assert_eq!((answers[0].source.port(), answers[0].destination.port()), (to, from));
    }
    assert_eq!(stack.stats().tcp_connections, 50);
    world.run(async move {
        for peer in &peers {
            let stream = listener.accept().await.unwrap();
            assert!(stream.is_open() && stream.readable() == 0);
            assert_eq!(stream.peer_addr(), peer.address());
        }
    });
}

#[test]
fn every_listener_gets_its_own_connections() {
    const PORTS: std::ops::Range<u16> = 1_000..1_100;
    let mut world = World::new();
    let (ours, theirs, _, _) = world.stacks(room_for(300));
    let accepted = Rc::new(Cell::new(0));
    let serve = |listener: TcpListener, answer: u16| {
        let accepted = accepted.clone();
        let serve = async move {
            while let Ok(stream) = listener.accept().await {
                accepted.set(accepted.get() + 1);
                stream.write_all(&answer.to_be_bytes()).await.unwrap();
            }
        };
        world.handle.spawn(serve).detach();
    };
    for port in PORTS {
        serve(ours.listen(port).unwrap(), port);
        // The one for one address goes first.
        serve(
            ours.listen_on(at(OURS6, port), ListenOptions::default()).unwrap(),
            !port,
        );
    }
    world.run(async move {
        let mut streams = Vec::new();
        for port in PORTS {
            streams.push((port, theirs.connect(at(OURS, port)).await.unwrap()));
            streams.push((!port, theirs.connect(at(OURS6, port)).await.unwrap()));
        }
        for (expected, stream) in streams {
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(u16::from_be_bytes(answer), expected);
        }
    });
    assert_eq!(accepted.get(), 2 * PORTS.len());
}

#[test]
fn the_timers_of_many_connections_all_fire() {
    const COUNT: usize = 600;
    let mut world = World::new();
    let (stack, mut wire) = world.stack_and_wire(room_for(COUNT));
    let tcp = TcpOptions {
        idle_timeout: Some(Duration::from_secs(20)),
        ..TcpOptions::default()
    };
    let listener = listen(&stack, 80, tcp);
    let peers = open(&mut world, &mut wire, 80, COUNT);
    let handle = world.handle.clone();
    let server = async move {
        while let Ok(stream) = listener.accept().await {
            let unheard = async move {
                stream.write_all(b"is anybody there?").await.unwrap();
                assert!(stream.read(&mut [0; 8]).await.is_err(), "it times out");
            };
            handle.spawn(unheard).detach();
        }
    };
    world.handle.spawn(server).detach();
    let mut heard: BTreeMap<u16, usize> = BTreeMap::new();
    for _ in 0..180 {
        for segment in wire.segments(&mut world) {
            if !segment.payload.is_empty() {
                *heard.entry(segment.destination.port()).or_default() += 1;
            }
        }
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(heard.len(), COUNT);
    // Once, and then again after about 1, 3, 7 and 15 seconds.
    assert!(heard.values().all(|times| (4..=6).contains(times)), "{heard:?}");
    for _ in 0..60 {
        wire.segments(&mut world);
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(stack.stats().tcp_connections, 0);
    drop(peers);
}

#[test]
fn a_large_transfer_does_not_hold_up_a_small_answer() {
    let mut world = World::new();
    let limits = Limits {
        tcp_tx_buffer: 64 << 10,
        ..Limits::default()
    };
    let (stack, mut wire) = world.stack_and_wire(limits);
    let listener = listen(&stack, 80, TcpOptions::default());
    let peers = open(&mut world, &mut wire, 80, 2);
    let _streams = world.run(async move {
        let (large, small) = (listener.accept().await.unwrap(), listener.accept().await.unwrap());
        large.write_all(&[1; 60_000]).await.unwrap();
        small.write_all(b"small").await.unwrap();
        (large, small)
    });
    let sent = wire.segments(&mut world);
    let place = sent
        .iter()
        .position(|segment| segment.destination == peers[1].address());
    assert!(
        sent.len() > 2 && place.is_some_and(|place| place <= 1),
        "{place:?} of {}",
        sent.len()
    );
}
