//! Against the simulator's netback, which has Linux's limits: connect, carry frames, disconnect, leave nothing.

mod common;

use std::cell::Cell;

use common::host::{Host, reflected};
use common::{Guest, Mode, SECOND, frame};
use fata_events::xen::XenLoop;
use fata_grant::Table;
use fata_hypercall::{Errno, PAGE_SIZE};
use fata_netfront::{Error, Options, RxChecksum, Vif, mac_name};
use fata_sim::netback::{Behaviour, Checksums, Fill};
use fata_sim::wire::{Checksum, Gso, GsoKind, Packet};
use fata_sim::{Call, Sim, VifConfig};
use fata_xenstore::Store;
use fata_xenstore::xenbus::State;

fn fill(chunk: usize, headroom: usize) -> VifConfig {
    let backend = Behaviour {
        fill: Fill { chunk, headroom },
        ..Behaviour::default()
    };
    VifConfig {
        backend,
        ..VifConfig::default()
    }
}

#[test]
fn rule_73_connects_carries_frames_and_leaves_nothing() {
    fata_sim::check(0..40, |sim| {
        let (guest, netback) = Guest::with_netback(sim, VifConfig::default());
        let host = Host::start(sim);
        guest.wait_up(sim);
        let identity = guest.vif.identity().unwrap();
        assert_eq!((identity.mac, identity.mtu), ([0, 0x16, 0x3e, 0, 1, 0], 1500));
        assert_eq!(guest.vif.mac(), Some(identity.mac));
        assert_eq!(mac_name(identity.mac), "enx00163e000100");
        assert!(identity.offload.ipv4 && identity.offload.ipv6);
        assert_eq!(guest.vif.problem(), None);

        let frames: Vec<_> = (0..200).map(|i| frame(14 + (i * 37) % 1501, i as u8)).collect();
        frames.iter().for_each(|bytes| host.send(bytes.clone()));
        sim.run_until(
            || host.received() + netback.stats().rx_dropped as usize >= frames.len(),
            5 * SECOND,
        );
        let mut expected = frames.iter().map(|bytes| reflected(bytes.clone()));
        for packet in host.got.borrow().iter() {
            assert!(expected.any(|bytes| bytes == packet.bytes), "in order, unchanged");
        }
        let (stats, back) = (guest.vif.stats(), netback.stats());
        assert_eq!((stats.rx_frames, stats.tx_frames), (back.rx_packets, back.tx_packets));
        assert_eq!((stats.rx_bytes, stats.tx_bytes), (back.rx_bytes, back.tx_bytes));
        assert_eq!(
            (stats.rx_dropped, stats.tx_dropped, stats.faults, stats.connections),
            (0, 0, 0, 1)
        );

        assert!(
            sim.remove_vif(&netback, 5 * SECOND),
            "it closes when the toolstack asks"
        );
        assert_eq!(guest.wait_end(sim), Ok(()));
        assert!(!guest.vif.link_up());
        guest.assert_nothing_shared(sim);
        guest.assert_no_leaks(sim);
    });
}

/// One burst is one notification, whatever its size; and an idle interface costs nothing.
#[test]
fn a_burst_notifies_once() {
    let sim = Sim::new(7);
    let (guest, netback) = Guest::with_netback(&sim, VifConfig::default());
    let host = Host::start(&sim);
    guest.wait_up(&sim);
    sim.run_for(SECOND);
    let before = guest.vif.stats().notifications;
    guest.to_send.borrow_mut().extend([1514; 50]);
    host.send(frame(60, 9));
    sim.run_until(|| host.received() >= 51, SECOND);
    let stats = guest.vif.stats();
    assert!(
        stats.notifications - before <= 3,
        "{} for 51 frames",
        stats.notifications - before
    );
    assert_eq!(stats.tx_frames, 51);
    assert_eq!(netback.stats().tx_packets, 51);

    sim.run_for(SECOND);
    let (turns, stats) = (guest.domain.activity().turns, guest.vif.stats());
    sim.run_for(10 * SECOND);
    let turns = guest.domain.activity().turns - turns;
    assert!(turns <= 250, "the test's own timer ticks ten times a second: {turns}");
    assert_eq!(guest.vif.stats(), stats);
}

#[test]
fn packets_of_several_slots_are_put_together() {
    for (chunk, headroom) in [(100, 0), (700, 256), (1400, 2), (PAGE_SIZE, 2048), (80, 4000)] {
        fata_sim::check(0..5, |sim| {
            let (guest, netback) = Guest::with_netback(sim, fill(chunk, headroom));
            let host = Host::start(sim);
            guest.wait_up(sim);
            guest.mode.set(Mode::Keep);
            for i in 0..60 {
                // No faster than it is taken, so that nothing is dropped.
                host.send(frame(14 + i * 25, i as u8));
                sim.run_until(|| guest.seen.borrow().len() == i + 1, SECOND);
            }
            for (i, seen) in guest.seen.borrow().iter().enumerate() {
                assert_eq!(seen.bytes, frame(14 + i * 25, i as u8), "chunk {chunk}, frame {i}");
            }
            assert_eq!(netback.stats().rx_dropped, 0);
            drop(guest.seen.take());
            guest.stop.set(true);
            assert_eq!(guest.wait_end(sim), Ok(()));
            guest.assert_nothing_shared(sim);
        });
    }
}

#[test]
fn a_jumbo_frame_takes_several_slots_both_ways() {
    fata_sim::check(0..10, |sim| {
        for mtu in [2034, 2035, 4082, 4083, 9000, 65521] {
            let sim = Sim::new(sim.seed() * 100 + u64::from(mtu));
            let (guest, netback) = Guest::with_netback(
                &sim,
                VifConfig {
                    mtu,
                    ..VifConfig::default()
                },
            );
            let host = Host::start(&sim);
            guest.wait_up(&sim);
            assert_eq!(guest.vif.mtu(), Some(mtu));
            let longest = usize::from(mtu) + 14;
            let mut count = 0;
            for len in [longest, 14, longest / 2, 4096.min(longest), longest, longest - 1] {
                host.send(frame(len, len as u8));
                count += 1;
                sim.run_until(|| host.received() == count, SECOND);
                assert_eq!(host.got.borrow()[count - 1].bytes, reflected(frame(len, len as u8)));
            }
            assert_eq!(netback.stats().tx_dropped, 0);
            guest.stop.set(true);
            assert_eq!(guest.wait_end(&sim), Ok(()));
            guest.assert_nothing_shared(&sim);
        }
    });
}

/// Frames of many segments, each in one piece, both ways, of every length that the options and the ring allow; and frames
/// of one segment between them.
#[test]
fn frames_of_many_segments_go_both_ways() {
    fata_sim::check(0..30, |sim| {
        let (segment_buffers, segment_buffer) = [(1, 16_384), (4, 20_000), (8, 65_535)][sim.random(3) as usize];
        let domain = sim.domain("guest");
        // Short of whole pages now and then, but the ring has 64 buffers, and a packet 19 slots at the most.
        let netback = sim.add_vif(&domain, fill(PAGE_SIZE - sim.random(2) as usize * 96, 0));
        let options = Options {
            segment_buffers,
            segment_buffer,
            ..Options::default()
        };
        let guest = Guest::boot(sim, &domain, options);
        let host = Host::start(sim);
        guest.wait_up(sim);
        let longest = guest.vif.identity().unwrap().segmentation.longest;
        assert_eq!(longest, segment_buffer);
        let mut expected = Vec::new();
        for round in 0..40 {
            let len = match round % 4 {
                0 => 14 + sim.random(1501) as usize,
                1 => usize::from(longest),
                _ => 1515 + sim.random(u64::from(longest) - 1514) as usize,
            };
            let many = len > 1514;
            let gso = Gso {
                kind: if round % 8 < 4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 },
                size: 1 + sim.random(1460) as u16,
            };
            let packet = Packet {
                bytes: frame(len, round),
                checksum: if many { Checksum::Blank } else { Checksum::Complete },
                gso: many.then_some(gso),
            };
            expected.push(Packet {
                bytes: reflected(packet.bytes.clone()),
                ..packet.clone()
            });
            host.send_packet(packet);
        }
        sim.run_until(|| host.received() == expected.len(), 10 * SECOND);
        assert!(*host.got.borrow() == expected, "in order, unchanged");
        let stats = guest.vif.stats();
        assert_eq!((stats.tx_dropped, stats.rx_dropped, stats.faults), (0, 0, 0));
        assert_eq!(netback.stats().tx_packets, 40);
        guest.stop.set(true);
        assert_eq!(guest.wait_end(sim), Ok(()));
        guest.assert_nothing_shared(sim);
    });
}

/// nx#122, #123, #126: what is said about a checksum is passed on, per frame, both ways.
#[test]
fn rule_39_checksum_flags_go_both_ways() {
    let sim = Sim::new(3);
    let (guest, netback) = Guest::with_netback(&sim, VifConfig::default());
    let host = Host::start(&sim);
    guest.wait_up(&sim);
    let cases = [
        (Checksums::AsTheyAre, Checksum::Complete, RxChecksum::Unknown),
        (Checksums::Validated, Checksum::Complete, RxChecksum::Validated),
        (Checksums::AsTheyAre, Checksum::Blank, RxChecksum::Blank),
    ];
    // A DNS query by UDP, its checksum the pseudo-header's sum.
    let mut udp = frame(14, 9);
    udp[12..14].copy_from_slice(&[8, 0]);
    udp.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    udp.extend([0x12, 0x34, 0x00, 0x35, 0, 12, 0x14, 0x20, 1, 2, 3, 4]);
    let blank = Packet {
        bytes: udp,
        checksum: Checksum::Blank,
        gso: None,
    };
    let mut complete = blank.clone();
    assert!(complete.complete());
    for (i, (says, checksum, expected)) in cases.into_iter().enumerate() {
        let packet = match checksum {
            Checksum::Blank => blank.clone(),
            checksum => Packet {
                checksum,
                ..complete.clone()
            },
        };
        netback.set_checksums(says);
        guest.mode.set(Mode::Keep);
        host.send_packet(packet.clone());
        sim.run_until(|| guest.seen.borrow().len() == i + 1, SECOND);
        assert_eq!(guest.seen.borrow()[i].checksum, expected);
        guest.mode.set(Mode::Reflect);
        host.send_packet(packet.clone());
        sim.run_until(|| host.received() == i + 1, SECOND);
        let back = host.got.borrow()[i].checksum;
        assert_eq!(back == Checksum::Blank, expected == RxChecksum::Blank, "{back:?}");
    }
}

/// The ring's indices go round many times, under all kinds of timing, and nobody sleeps for ever.
#[test]
fn many_frames_under_load() {
    fata_sim::check(0..12, |sim| {
        let domain = sim.domain("guest");
        let netback = sim.add_vif(&domain, fill(PAGE_SIZE, 0));
        // As small as it gets, so that rings and buffers run out all the time.
        let options = Options {
            rx_buffers: 20,
            tx_buffers: 3,
            ..Options::default()
        };
        let guest = Guest::boot(sim, &domain, options);
        let host = Host::start(sim);
        guest.wait_up(sim);
        for i in 0..2000_usize {
            host.send(frame(60 + i % 1000, i as u8));
        }
        let done = || host.received() as u64 + netback.stats().rx_dropped >= 2000;
        sim.run_until(done, 60 * SECOND);
        assert_eq!(netback.stats().tx_packets, guest.vif.stats().rx_frames);
        assert_eq!(guest.vif.stats().faults, 0);
        // Afterwards it still works: no buffer was lost.
        let before = host.received();
        for i in 0..100 {
            host.send(frame(100, i));
            sim.run_until(|| host.received() == before + usize::from(i) + 1, SECOND);
        }
        guest.stop.set(true);
        assert_eq!(guest.wait_end(sim), Ok(()));
        guest.assert_nothing_shared(sim);
    });
}

#[test]
fn without_scatter_gather_the_mtu_is_that_of_ethernet() {
    let sim = Sim::new(1);
    let backend = Behaviour {
        scatter_gather: false,
        ipv6_csum_offload: false,
        ..Behaviour::default()
    };
    let (guest, _netback) = Guest::with_netback(
        &sim,
        VifConfig {
            mtu: 9000,
            backend,
            ..VifConfig::default()
        },
    );
    guest.wait_up(&sim);
    assert_eq!(guest.vif.mtu(), Some(1500));
    let offload = guest.vif.identity().unwrap().offload;
    assert!(offload.ipv4 && !offload.ipv6);
}

#[test]
fn rule_74_no_such_interface_is_said_at_once() {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let guest = Guest::boot(&sim, &domain, Options::default());
    assert_eq!(guest.wait_end(&sim), Err(Error::NoDevice));
    guest.assert_no_leaks(&sim);
}

#[test]
fn an_interface_knows_its_number() {
    let domain = Sim::new(1).domain("guest");
    let xen = XenLoop::new(domain.clone());
    let store = Store::new(domain.clone(), xen.ports(), xen.handle()).unwrap();
    let (table, ports) = (Table::new(domain), xen.ports().clone());
    let vif = Vif::new(table, ports, store.client().clone(), 7, Options::default());
    assert_eq!(vif.index(), 7);
}

#[test]
fn a_silent_backend_is_named_with_its_state_and_waited_for() {
    let sim = Sim::new(1);
    let backend = Behaviour {
        responsive: false,
        ..Behaviour::default()
    };
    let (guest, netback) = Guest::with_netback(
        &sim,
        VifConfig {
            backend,
            ..VifConfig::default()
        },
    );
    let start = sim.now().0;
    sim.run_until(|| guest.vif.problem().is_some(), 60 * SECOND);
    assert!(sim.now().0 - start < 11_000_000_000);
    let expected = Error::TimedOut {
        own: State::Initialising,
        backend: State::Initialising,
    };
    assert_eq!(guest.vif.problem(), Some(expected));
    assert_eq!(
        expected.to_string(),
        "no answer from the network backend: it is Initialising, we are Initialising"
    );
    assert_eq!(guest.ended.get(), None);

    let status = format!("{}/hotplug-status", netback.backend_path());
    sim.store().write(&status, "error").unwrap();
    sim.run_until(|| guest.vif.problem() == Some(Error::Hotplug), 60 * SECOND);
    guest.stop.set(true);
    assert_eq!(guest.wait_end(&sim), Ok(()));
    guest.assert_nothing_shared(&sim);
}

#[test]
fn a_backend_on_paper_only_is_said_to_be_missing() {
    let sim = Sim::new(1);
    let backend = Behaviour {
        responsive: false,
        ..Behaviour::default()
    };
    let config = VifConfig {
        backend,
        ..VifConfig::default()
    };
    let (guest, netback) = Guest::with_netback(&sim, config);
    sim.store().remove(&netback.backend_path()).unwrap();
    sim.run_until(|| guest.vif.problem().is_some(), 60 * SECOND);
    assert_eq!(guest.vif.problem(), Some(Error::NoBackend));
}

#[test]
fn rule_69_junk_in_the_keys_is_an_error_that_names_the_key() {
    for (key, value) in [
        ("mac", "00:16:3e:00:00"),
        ("mac", "ff:ff:ff:ff:ff:ff"),
        ("mtu", "67"),
        ("mtu", "9000x"),
    ] {
        let sim = Sim::new(2);
        let domain = sim.domain("guest");
        let netback = sim.add_vif(&domain, VifConfig::default());
        sim.store()
            .write(&format!("{}/{key}", netback.frontend_path()), value)
            .unwrap();
        let guest = Guest::boot(&sim, &domain, Options::default());
        assert_eq!(guest.wait_retry(&sim), Error::BadKey(key), "{value}");
        guest.assert_nothing_shared(&sim);
    }
}

/// Rule 26: whatever allocation fails, it is a typed error and nothing is left.
#[test]
fn rule_26_want_of_memory_or_ports_is_an_error() {
    let sim = Sim::new(2);
    let mut failed = 0;
    for (call, nth) in [
        (Call::AllocPages, 1),
        (Call::AllocPages, 2),
        (Call::AllocPages, 3),
        (Call::AllocPages, 4),
    ]
    .into_iter()
    .chain([(Call::EvtchnAlloc, 1)])
    {
        let domain = sim.domain("guest");
        let _netback = sim.add_vif(&domain, VifConfig::default());
        let guest = Guest::boot(&sim, &domain, Options::default());
        domain.faults().fail(call, nth, Errno::ENOSPC);
        let expected = match call {
            Call::AllocPages => Error::Grant(fata_grant::Error::NoMemory),
            _ => Error::Event(fata_events::xen::Error::Xen(Errno::ENOSPC)),
        };
        assert_eq!(guest.wait_retry(&sim), expected, "{call:?} {nth}");
        guest.assert_nothing_shared_now(&sim);
        guest.wait_up(&sim);
        failed += 1;
    }
    assert_eq!(failed, 5);
}

/// Rule 11, as far as one thread has it: room that was handed out is there.
#[test]
fn one_frame_at_a_time_and_room_beside_it() {
    let sim = Sim::new(5);
    let (guest, _netback) = Guest::with_netback(&sim, VifConfig::default());
    let host = Host::start(&sim);
    guest.wait_up(&sim);
    guest.mode.set(Mode::Ignore);
    host.send(frame(100, 1));
    host.send(frame(200, 2));
    sim.run_for(SECOND / 10);
    let vif = &guest.vif;
    assert_eq!(vif.peek().unwrap().len, 100);
    assert_eq!(vif.peek().unwrap().len, 100, "looking takes nothing");
    let first = vif.receive().unwrap();
    assert!(vif.receive().is_none(), "the one before is alive");
    let room = vif.transmit().unwrap();
    assert!(vif.transmit().is_none());
    drop(room);
    assert!(vif.has_room(), "unused room costs nothing");
    let answered = Cell::new(false);
    first.consume(|bytes| {
        assert_eq!(bytes, frame(100, 1));
        answered.set(vif.transmit().is_some());
    });
    assert!(answered.get());
    drop(vif.receive().unwrap());
    assert!(vif.peek().is_none(), "dropped is discarded");
}
