//! What a backend offers, in every combination, and from one connection to the next.

mod common;

use std::time::Duration;

use common::host::{Host, reflected};
use common::{Device, Guest, Mode, SECOND, frame, send};
use fata_hypercall::{Hypervisor, Port};
use fata_netfront::abi::TxResponse;
use fata_netfront::{Error, Options};
use fata_sim::netback::{Behaviour, Netback};
use fata_sim::wire::{Checksum, Gso, GsoKind, Packet};
use fata_sim::{Domain, Sim, VifConfig};

/// A backend with these offers, by their bits.
fn offers(bits: u64) -> Behaviour {
    let bit = |nth: u64| bits >> nth & 1 != 0;
    Behaviour {
        scatter_gather: bit(0),
        gso: bit(1),
        ipv6_csum_offload: bit(2),
        split_event_channels: bit(3),
        multicast_control: bit(4),
        max_queues: bit(5).then_some(1 + (bits >> 6) as u32 % 8),
        ..Behaviour::default()
    }
}

/// Options that take what there is, by two more bits.
fn wishes(bits: u64) -> Options {
    Options {
        split_channels: bits & 1 != 0,
        filter_multicast: bits & 2 != 0,
        ..Options::default()
    }
}

fn boot(sim: &Sim, backend: Behaviour, options: Options) -> (Guest, Netback) {
    let domain = sim.domain("guest");
    let config = VifConfig {
        backend,
        ..VifConfig::default()
    };
    let netback = sim.add_vif(&domain, config);
    (Guest::boot(sim, &domain, options), netback)
}

/// The backend's driver domain dies, and another one takes over, which offers something else.
fn replace(sim: &Sim, guest: &Guest, netback: &Netback, backend: Behaviour) {
    netback.crash();
    sim.store()
        .write(&format!("{}/state", netback.backend_path()), "6")
        .unwrap();
    sim.run_until(|| key(sim, netback, "state").as_deref() == Some("6"), SECOND);
    assert!(!guest.vif.link_up());
    netback.set_behaviour(backend);
    netback.restart();
}

fn key(sim: &Sim, netback: &Netback, name: &str) -> Option<String> {
    sim.store().read_text(&format!("{}/{name}", netback.frontend_path()))
}

/// A group's Ethernet address.
const fn group(number: u8) -> [u8; 6] {
    [1, 0, 0x5e, 0, 0, number]
}

fn frame_for(to: [u8; 6]) -> Vec<u8> {
    let mut bytes = frame(60, 5);
    bytes[..6].copy_from_slice(&to);
    bytes
}

/// Frames of every kind that this connection may carry come back.
fn carries(sim: &Sim, guest: &Guest, host: &Host) {
    let segmentation = guest.vif.identity().unwrap().segmentation;
    for round in 0..12 {
        let many = round % 3 == 0 && segmentation.ipv4;
        let len = if many { 9000 } else { 14 + sim.random(1501) as usize };
        let gso = Gso {
            kind: GsoKind::Tcp4,
            size: 1460,
        };
        let packet = Packet {
            bytes: frame(len, round),
            checksum: if many { Checksum::Blank } else { Checksum::Complete },
            gso: many.then_some(gso),
        };
        let before = host.received();
        host.send_packet(packet.clone());
        sim.run_until(|| host.received() > before, SECOND);
        let got = &host.got.borrow()[before];
        assert_eq!((&got.bytes, got.gso), (&reflected(packet.bytes), packet.gso));
    }
}

/// All that Linux offers or not, all that can be wanted or not, and at each connection something else.
#[test]
fn every_combination_of_offers_carries_frames() {
    fata_sim::check(0..64, |sim| {
        let (guest, netback) = boot(sim, offers(sim.seed()), wishes(sim.random(4)));
        let host = Host::start(sim);
        guest.vif.listen(&[group(1), group(2)]);
        for connection in 1..5 {
            guest.wait_up(sim);
            assert_eq!(guest.vif.stats().connections, connection);
            carries(sim, &guest, &host);
            let split = key(sim, &netback, "event-channel-tx").is_some();
            assert_eq!(key(sim, &netback, "event-channel-rx").is_some(), split);
            assert_eq!(key(sim, &netback, "event-channel").is_none(), split);
            if connection == 4 {
                break;
            }
            replace(sim, &guest, &netback, offers(sim.random(512)));
        }
        guest.stop.set(true);
        assert_eq!(guest.wait_end(sim), Ok(()));
        guest.assert_nothing_shared(sim);
        guest.assert_no_leaks(sim);
    });
}

/// A backend reads the keys of two channels first. Those of a connection that had two must not be there for one that has one.
#[test]
fn channels_that_are_offered_and_then_not() {
    let sim = Sim::new(1);
    let one = Behaviour {
        split_event_channels: false,
        max_queues: None,
        ..Behaviour::default()
    };
    let (guest, netback) = boot(&sim, Behaviour::default(), wishes(3));
    let keys = [
        "event-channel",
        "event-channel-tx",
        "event-channel-rx",
        "multi-queue-num-queues",
    ];
    for (connection, backend) in [(1, Behaviour::default()), (2, one), (3, Behaviour::default())] {
        guest.wait_up(&sim);
        assert_eq!(guest.vif.stats().connections, connection);
        let there = keys.map(|name| key(&sim, &netback, name).is_some());
        let split = backend.split_event_channels;
        assert_eq!(there, [!split, split, split, split], "connection {connection}");
        assert_eq!(key(&sim, &netback, "request-multicast-control").as_deref(), Some("1"));
        replace(&sim, &guest, &netback, if split { one } else { Behaviour::default() });
    }
}

/// A life before ours, of another system, had two channels, and left its keys.
#[test]
fn channels_of_a_former_life() {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let netback = sim.add_vif(&domain, VifConfig::default());
    for name in ["event-channel-tx", "event-channel-rx"] {
        sim.store()
            .write(&format!("{}/{name}", netback.frontend_path()), "77")
            .unwrap();
    }
    let guest = Guest::boot(&sim, &domain, Options::default());
    let host = Host::start(&sim);
    guest.wait_up(&sim);
    carries(&sim, &guest, &host);
}

/// Frames that leave wake nobody as long as there is room, with one channel or two; and whoever waits for room is told.
#[test]
fn frames_that_leave_wake_only_who_waits_for_room() {
    for split_channels in [false, true] {
        let sim = Sim::new(1);
        let options = Options {
            tx_buffers: 8,
            split_channels,
            ..Options::default()
        };
        let (guest, netback) = boot(&sim, Behaviour::default(), options);
        let host = Host::start(&sim);
        guest.wait_up(&sim);
        let mut sent = 0;
        let mut send_burst = |count: u64| {
            guest.to_send.borrow_mut().extend(vec![100; count as usize]);
            // Something that makes it look.
            host.send(frame(60, 5));
            sent += count + 1;
            sim.run_until(|| netback.stats().tx_packets == sent, SECOND);
            sim.run_for(SECOND);
        };
        send_burst(4);
        let before = guest.vif.stats();
        for _ in 0..10 {
            send_burst(4);
        }
        let stats = guest.vif.stats();
        assert_eq!(
            stats.events - before.events,
            10,
            "one for each frame received; split: {split_channels}"
        );
        assert_eq!(stats.notifications - before.notifications, 10);
        send_burst(500);
        assert!(guest.vif.stats().tx_full > stats.tx_full);
    }
}

/// The receive ring's channel wakes nobody for the transmit ring, and the other way round: each ring's news come by its own.
#[test]
fn each_ring_has_its_own_channel() {
    let sim = Sim::new(3);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    device.set(&sim, "feature-split-event-channels", "1");
    let options = Options {
        tx_buffers: 4,
        segment_buffers: 0,
        ..wishes(1)
    };
    let guest = Guest::boot(&sim, &domain, options);
    guest.mode.set(Mode::Keep);
    let mut backend = device.connect(&sim, &guest);
    let rx_port = backend.port;
    let port = |name: &str| -> Port {
        let text = sim.store().read_text(&format!("{}/{name}", device.front));
        Port(text.unwrap().parse().unwrap())
    };
    assert_ne!(port("event-channel-tx"), port("event-channel-rx"));
    let tx_port = backend.tx_port;
    assert_ne!(tx_port, rx_port);
    sim.run_for(SECOND);

    // No room: it waits for the transmit ring, and hears of it by that ring's channel only.
    guest.to_send.borrow_mut().extend([100; 6]);
    backend.deliver(&frame(60, 1));
    backend.publish();
    sim.run_for(SECOND);
    assert_eq!((guest.seen.borrow().len(), guest.to_send.borrow().len()), (1, 2));
    while let Some(request) = backend.tx.pop().unwrap() {
        backend
            .tx
            .push(&TxResponse {
                id: request.id,
                status: 0,
            })
            .unwrap();
    }
    assert!(backend.tx.publish(), "it has asked for that");
    let before = guest.vif.stats().events;
    backend.dom0.evtchn_send(tx_port).unwrap();
    sim.run_for(SECOND);
    assert_eq!(guest.to_send.borrow().len(), 0);
    assert_eq!(guest.vif.stats().events, before + 1);

    // Room: events of the transmit ring are not heard.
    for _ in 0..10 {
        backend.dom0.evtchn_send(tx_port).unwrap();
        sim.run_for(Duration::from_millis(10));
    }
    assert!(guest.vif.stats().events <= before + 2);
    backend.deliver(&frame(60, 2));
    backend.dom0.evtchn_send(rx_port).unwrap();
    backend.publish();
    sim.run_for(SECOND);
    assert_eq!(guest.seen.borrow().len(), 2);
}

/// Frames for groups that nobody listens to neither arrive nor wake the guest; the others come, also after the backend was
/// started anew.
#[test]
fn groups_are_heard_if_listened_to() {
    for split in [0, 1] {
        fata_sim::check(0..8, |sim| {
            // So they are told of one by one.
            let options = Options {
                segment_buffers: 0,
                ..wishes(2 | split)
            };
            let (guest, netback) = boot(sim, Behaviour::default(), options);
            let host = Host::start(sim);
            guest.mode.set(Mode::Keep);
            guest.vif.listen(&[group(1), group(2), group(3)]);
            for connection in 1..4 {
                guest.wait_up(sim);
                assert_eq!(guest.vif.stats().connections, connection);
                sim.run_for(SECOND);
                let before = guest.vif.stats();
                for _ in 0..20 {
                    host.send(frame_for(group(9)));
                    sim.run_for(Duration::from_millis(1));
                }
                let stats = guest.vif.stats();
                assert_eq!((stats.rx_frames, stats.events), (before.rx_frames, before.events));
                assert_eq!(netback.stats().rx_filtered, 20 * connection);
                drop(guest.seen.take());
                for to in [group(1), group(2), group(3), [0xff; 6], [2, 0, 0, 0, 0, 1]] {
                    host.send(frame_for(to));
                }
                sim.run_until(|| guest.seen.borrow().len() == 5, SECOND);
                replace(sim, &guest, &netback, Behaviour::default());
            }
            assert_eq!(guest.vif.stats().tx_frames, 0, "what is told of groups is no frame");
        });
    }
}

/// Groups change while the interface is busy, and with the least that there may be of everything.
#[test]
fn groups_change_and_there_is_little_room() {
    fata_sim::check(0..20, |sim| {
        let options = Options {
            tx_buffers: 1 + sim.random(3) as u16,
            segment_buffers: sim.random(3) as u16,
            ..wishes(2 | sim.random(2))
        };
        let (guest, netback) = boot(sim, Behaviour::default(), options);
        let host = Host::start(sim);
        let mut filtered = 0;
        for first in 0..6 {
            let groups: Vec<_> = (first * 5..first * 5 + 10).map(group).collect();
            guest.vif.listen(&groups);
            if first == 0 {
                guest.wait_up(sim);
            }
            // What makes it look.
            for i in 0..20 {
                host.send(frame(200, i));
            }
            sim.run_for(SECOND);
            let before = host.received();
            for number in 0..40 {
                host.send(frame_for(group(number)));
                sim.run_for(Duration::from_millis(1));
            }
            sim.run_for(SECOND);
            filtered += 30;
            assert_eq!(host.received() - before, 10, "round {first}");
            assert_eq!(netback.stats().rx_filtered, filtered);
        }
        assert_eq!(guest.vif.stats().tx_dropped, 0);
        guest.stop.set(true);
        assert_eq!(guest.wait_end(sim), Ok(()));
        guest.assert_nothing_shared(sim);
    });
}

/// A backend that does not answer what it is told of groups gets no more of it, and frames go on; nobody spins.
#[test]
fn a_backend_that_does_not_answer_about_groups() {
    for segment_buffers in [0, 4] {
        let sim = Sim::new(1);
        let domain = sim.domain("guest");
        let device = Device::add(&sim, &domain);
        device.set(&sim, "feature-multicast-control", "1");
        let options = Options {
            segment_buffers,
            ..wishes(2)
        };
        let guest = Guest::boot(&sim, &domain, options);
        guest.mode.set(Mode::Keep);
        guest.vif.listen(&(0..50).map(group).collect::<Vec<_>>());
        let mut backend = device.connect(&sim, &guest);
        sim.run_for(SECOND);
        let mut told = 0;
        while backend.tx.pop().unwrap().is_some() {
            told += 1;
        }
        // As many as there are extras at once: each a request and its extra.
        assert_eq!(told, 2 * (1 + segment_buffers));
        let turns = guest.domain.activity().turns;
        sim.run_for(10 * SECOND);
        assert!(
            guest.domain.activity().turns - turns < 1500,
            "it looks a hundred times a second"
        );
        // Without segments no frame needs what is missing.
        assert_eq!(send(&guest, 100, 1), segment_buffers == 0);
        assert_eq!(guest.vif.stats().faults, 0);
    }
}

/// What a backend may say of queues and does not, it does not get past.
#[test]
fn rule_69_junk_in_what_is_offered() {
    for (name, values) in [
        ("multi-queue-max-queues", ["0", "4294967296", "junk", "-1"]),
        ("feature-split-event-channels", ["yes", "", "-1", "1x"]),
        ("feature-multicast-control", ["yes", "", "18446744073709551616", "1 "]),
    ] {
        for value in values {
            let sim = Sim::new(1);
            let domain: Domain = sim.domain("guest");
            let device = Device::add(&sim, &domain);
            device.set(&sim, name, value);
            let guest = Guest::boot(&sim, &domain, wishes(3));
            device.set(&sim, "state", "2");
            // The backend is silent; we do not wait for it for ever.
            assert_eq!(guest.wait_retry(&sim), Error::BadKey(name), "{value:?}");
            guest.assert_nothing_shared(&sim);
        }
    }
}

/// What is told of a group takes a slot more than it takes buffers, and there is that slot.
#[test]
fn rule_31_the_ring_has_a_slot_for_what_is_told_of_groups() {
    for segment_buffers in [0, 8] {
        let sim = Sim::new(1);
        let domain = sim.domain("guest");
        let device = Device::add(&sim, &domain);
        device.set(&sim, "feature-multicast-control", "1");
        let options = Options {
            tx_buffers: 256,
            segment_buffers,
            segment_buffer: 65_535,
            ..wishes(2)
        };
        let guest = Guest::boot(&sim, &domain, options);
        guest.mode.set(Mode::Ignore);
        let mut backend = device.connect(&sim, &guest);
        // All buffers but one of each kind are in flight.
        let longest = guest.vif.identity().unwrap().segmentation.longest.into();
        (1..segment_buffers).for_each(|_| assert!(send(&guest, longest, 1)));
        let slots_of_segments = usize::from(segment_buffers) * 17;
        (1..255 - slots_of_segments).for_each(|_| assert!(send(&guest, 100, 1)));
        guest.vif.listen(&[group(1), group(2)]);
        guest.vif.flush();
        let mut slots = 0;
        let mut last = None;
        while let Some(slot) = backend.tx.pop().unwrap() {
            (last, slots) = (Some(slot), slots + 1);
        }
        assert!(slots <= 256, "{slots}");
        let bytes: [u8; 12] = zerocopy::transmute!(last.unwrap());
        assert_eq!(
            bytes[..8],
            [2, 0, 1, 0, 0x5e, 0, 0, 1],
            "the first group's extra came last"
        );
    }
}
