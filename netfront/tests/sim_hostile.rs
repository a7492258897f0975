//! Against a backend that does what no backend may do. It costs the backend its interface, and nothing else.

mod common;

use std::num::NonZeroU16;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{Backend, Device, Guest, Mode, SECOND, frame};
use fata_grant::RingError;
use fata_hypercall::{GrantRef, Hypervisor, SystemTime};
use fata_netfront::abi::{ExtraInfo, Gso, GsoType, RxFlags, RxResponse, TxFlags, TxRequest, TxResponse};
use fata_netfront::{Error, Fault, Options, TxMeta};
use fata_sim::{Access, Next, Sim};
use std::sync::atomic::Ordering::SeqCst;

const RSP_PROD: usize = 8;

fn connected(seed: u64) -> (Sim, Guest, Device, Backend) {
    connected_with(seed, Options::default())
}

fn connected_with(seed: u64, options: Options) -> (Sim, Guest, Device, Backend) {
    let sim = Sim::new(seed);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, options);
    let backend = device.connect(&sim, &guest);
    (sim, guest, device, backend)
}

/// The backend has done wrong: the link goes down at once, the store says why, and once the backend lets go nothing
/// is shared any more.
#[track_caller]
fn expect_fault(sim: &Sim, guest: &Guest, device: &Device, backend: Backend, fault: Fault) {
    backend.notify();
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    assert_eq!(guest.vif.problem(), Some(Error::Fault(fault)));
    assert_eq!(guest.vif.stats().faults, 1);
    assert!(guest.vif.receive().is_none() && guest.vif.transmit().is_none());
    sim.run_until(|| device.front_state(sim) == "5", SECOND);
    let text = device.error(sim, &guest.domain);
    assert_eq!(text, Error::Fault(fault).to_string(), "the toolstack is told");

    backend.let_go();
    device.set(sim, "state", "6");
    assert_eq!(guest.wait_retry(sim), Error::Fault(fault));
    assert_eq!(device.front_state(sim), "6");
    guest.assert_nothing_shared(sim);
    guest.assert_no_leaks(sim);
}

/// Rule 2.
#[test]
fn xsa_376_a_producer_that_jumps() {
    for jump in [65, 1 << 31, u32::MAX] {
        let (sim, guest, device, backend) = connected(1);
        let page = backend.rx.page().shared();
        page.store_u32(RSP_PROD, jump, SeqCst);
        let error = RingError {
            claimed: jump,
            own: 0,
            limit: 64,
        };
        expect_fault(&sim, &guest, &device, backend, Fault::RxRing(error));

        let (sim, guest, device, backend) = connected(2);
        let page = backend.tx.page().shared();
        page.store_u32(RSP_PROD, jump, SeqCst);
        let error = RingError {
            claimed: jump,
            own: 0,
            limit: 0,
        };
        // The transmit ring is looked at when something is sent.
        expect_fault(&sim, &guest, &device, backend, Fault::TxRing(error));
    }
}

#[test]
fn rule_34_received_bytes_outside_their_page() {
    let (sim, guest, device, mut backend) = connected(3);
    backend.fill_buffer(0, &[]);
    backend.respond(RxResponse {
        offset: 4000,
        status: 97,
        ..RxResponse::default()
    });
    let _ = backend.rx.publish();
    expect_fault(
        &sim,
        &guest,
        &device,
        backend,
        Fault::RxBounds { offset: 4000, len: 97 },
    );
}

#[test]
fn rule_32_extras_without_end() {
    let (sim, guest, device, mut backend) = connected(4);
    backend.fill_buffer(0, &frame(60, 1));
    backend.respond(RxResponse {
        status: 60,
        flags: RxFlags::EXTRA_INFO,
        ..RxResponse::default()
    });
    for _ in 0..40 {
        backend.fill_buffer(0, &[]);
        backend.respond(ExtraInfo {
            kind: 4,
            flags: ExtraInfo::MORE,
            data: [0; 6],
        });
    }
    let _ = backend.rx.publish();
    expect_fault(&sim, &guest, &device, backend, Fault::RxExtraTwice(4));
}

#[test]
fn rule_33_a_packet_that_ends_in_the_middle() {
    let (sim, guest, device, mut backend) = connected(5);
    backend.fill_buffer(0, &frame(60, 1));
    backend.respond(RxResponse {
        status: 60,
        flags: RxFlags::MORE_DATA,
        ..RxResponse::default()
    });
    let _ = backend.rx.publish();
    expect_fault(&sim, &guest, &device, backend, Fault::RxTruncated);
}

/// MSA00, rules 14 and 15: ids out of range, never sent, answered twice.
#[test]
fn msa_00_transmit_ids_that_are_not_in_flight() {
    for (ids, wrong) in [(vec![64], 64), (vec![0xffff], 0xffff), (vec![1], 1), (vec![0, 0], 0)] {
        let (sim, guest, device, mut backend) = connected(6);
        guest.mode.set(Mode::Reflect);
        for i in 0..2 {
            backend.deliver(&frame(60, i));
            backend.publish();
            sim.run_until(|| backend.tx.ready().unwrap() > i.into(), SECOND);
        }
        let first = backend.tx.pop().unwrap().unwrap();
        backend.tx.pop().unwrap().unwrap();
        let other = |id: u16| if wrong == 1 { first.id ^ 0x20 } else { id };
        for id in ids {
            let id = if id == 0 { first.id } else { other(id) };
            backend.tx.push(&TxResponse { id, status: 0 }).unwrap();
        }
        let _ = backend.tx.publish();
        let id = if wrong == 0 { first.id } else { other(wrong) };
        expect_fault(&sim, &guest, &device, backend, Fault::TxId(id));
    }
}

#[test]
fn rule_17_a_transmit_status_that_there_is_not() {
    let (sim, guest, device, mut backend) = connected(7);
    guest.to_send.borrow_mut().push(100);
    backend.deliver(&frame(60, 1));
    backend.publish();
    sim.run_until(|| backend.tx.ready().unwrap() > 0, SECOND);
    let request = backend.tx.pop().unwrap().unwrap();
    backend
        .tx
        .push(&TxResponse {
            id: request.id,
            status: 1,
        })
        .unwrap();
    let _ = backend.tx.publish();
    expect_fault(&sim, &guest, &device, backend, Fault::TxStatus(1));
}

/// Has the guest reflect a frame of two segments; gives the request that comes of it. The extra's slot is taken, too.
fn two_segments(sim: &Sim, backend: &mut Backend) -> TxRequest {
    let bytes = frame(3000, 1);
    let request = backend.fill_buffer(0, &bytes);
    let gso = Gso {
        kind: GsoType::TcpV4,
        size: NonZeroU16::new(1448).unwrap(),
    };
    backend.respond(RxResponse {
        id: request.id,
        flags: RxFlags::EXTRA_INFO | RxFlags::CSUM_BLANK,
        status: bytes.len() as i16,
        ..RxResponse::default()
    });
    backend.rx.pop().unwrap().expect("the buffer under the extra");
    backend.respond(ExtraInfo::gso(gso));
    backend.publish();
    sim.run_until(|| backend.tx.ready().unwrap() == 2, SECOND);
    let request = backend.tx.pop().unwrap().unwrap();
    backend.tx.pop().unwrap().expect("the extra");
    assert_eq!(request.size, 3000);
    assert_eq!(
        request.flags,
        TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED | TxFlags::EXTRA_INFO
    );
    request
}

fn answer(backend: &mut Backend, id: u16, status: i16) {
    backend.tx.push(&TxResponse { id, status }).unwrap();
    let _ = backend.tx.publish();
    backend.notify();
}

/// Rule 17: the slot of an extra is answered with a status of its own, as often as there were extras, and with no id.
#[test]
fn rule_17_no_more_answers_to_extras_than_there_were() {
    let (sim, guest, device, mut backend) = connected(8);
    let request = two_segments(&sim, &mut backend);
    answer(&mut backend, request.id, 0);
    answer(&mut backend, 0xdead, 1);
    sim.run_for(SECOND);
    assert!(guest.vif.link_up(), "{:?}", guest.vif.problem());
    backend.deliver(&frame(60, 2));
    backend.publish();
    sim.run_until(|| backend.tx.ready().unwrap() > 0, SECOND);
    let request = backend.tx.pop().unwrap().unwrap();
    answer(&mut backend, request.id, 1);
    expect_fault(&sim, &guest, &device, backend, Fault::TxStatus(1));
}

/// Rule 11: a backend that answers to everything but extras does not fill the ring with them.
#[test]
fn rule_11_extras_without_an_answer_take_room() {
    let (sim, guest, _device, mut backend) = connected(9);
    for _ in 0..Options::default().segment_buffers {
        assert!(guest.vif.has_room());
        let request = two_segments(&sim, &mut backend);
        answer(&mut backend, request.id, 0);
        sim.run_for(SECOND);
    }
    assert!(!guest.vif.has_room());
    answer(&mut backend, 0, 1);
    sim.run_for(SECOND);
    assert!(guest.vif.has_room());
}

/// Rule 18.
#[test]
fn rule_18_a_refused_frame_is_a_number() {
    let (sim, guest, _device, mut backend) = connected(8);
    for i in 0..200 {
        backend.deliver(&frame(60, i));
        backend.publish();
        sim.run_until(|| backend.tx.ready().unwrap() > 0, SECOND);
        let request = backend.tx.pop().unwrap().unwrap();
        assert_eq!((request.size, request.flags), (60, TxFlags::empty()));
        let mut bytes = [0; 60];
        let gref = GrantRef(request.gref);
        backend
            .dom0
            .copy_from_grant(backend.guest, gref, request.offset.into(), &mut bytes)
            .unwrap();
        assert_eq!(bytes[12..], frame(60, i)[12..]);
        backend
            .dom0
            .copy_to_grant(backend.guest, gref, 0, &[1])
            .expect_err("rule 24: granted for reading only");
        backend
            .tx
            .push(&TxResponse {
                id: request.id,
                status: [0, -1, -2][usize::from(i) % 3],
            })
            .unwrap();
        let _ = backend.tx.publish();
    }
    backend.notify();
    sim.run_for(SECOND);
    let stats = guest.vif.stats();
    assert_eq!((stats.tx_frames, stats.faults), (200, 0));
    assert!((130..=133).contains(&stats.tx_dropped), "{}", stats.tx_dropped);
}

/// Rules 17, 36 and 42: errors and extras use up slots, and no buffer is lost over many rounds of the ring.
#[test]
fn nx_b51facf_no_buffer_is_lost() {
    let (sim, guest, _device, mut backend) = connected(9);
    guest.mode.set(Mode::Keep);
    let mut expected = 0;
    for round in 0..2000_u32 {
        match round % 4 {
            0 => {
                let request = backend.fill_buffer(0, &[]);
                backend.respond(RxResponse {
                    id: request.id,
                    status: -1,
                    ..RxResponse::default()
                });
            }
            1 => {
                // An id that lies, an extra without one, two pieces.
                let flags = RxFlags::EXTRA_INFO | RxFlags::MORE_DATA;
                let bytes = frame(300, round as u8);
                backend.fill_buffer(0, &bytes[..100]);
                backend.respond(RxResponse {
                    id: 0xdead,
                    status: 100,
                    flags,
                    ..RxResponse::default()
                });
                backend.fill_buffer(0, &[]);
                backend.respond(ExtraInfo {
                    kind: 4,
                    flags: 0,
                    data: [0; 6],
                });
                backend.fill_buffer(3896, &bytes[100..]);
                backend.respond(RxResponse {
                    id: 1,
                    status: 200,
                    offset: 3896,
                    ..RxResponse::default()
                });
                expected += 1;
            }
            2 => {
                backend.fill_buffer(0, &[]);
                backend.respond(RxResponse {
                    status: 3,
                    ..RxResponse::default()
                });
            }
            _ => {
                backend.deliver(&frame(1514, round as u8));
                expected += 1;
            }
        }
        backend.publish();
        let count = || guest.seen.borrow().len();
        sim.run_until(|| count() == expected && backend.rx.ready().unwrap() == 64, SECOND);
    }
    for (i, seen) in guest.seen.borrow().iter().enumerate() {
        let round = 2 * i + 1;
        let len = if round % 4 == 1 { 300 } else { 1514 };
        assert_eq!(seen.bytes, frame(len, round as u8), "round {round}");
    }
    assert_eq!(guest.vif.stats().rx_dropped, 1000);
    assert_eq!(guest.vif.stats().faults, 0);
}

/// XSA-396, rules 20 to 22: a page that is still mapped is not read, not freed, and costs the backend the interface.
#[test]
fn xsa_396_a_page_that_is_still_mapped() {
    let (sim, guest, device, mut backend) = connected(10);
    let request = backend.fill_buffer(0, &frame(60, 1));
    let kept = backend
        .dom0
        .map_grant(backend.guest, GrantRef(request.gref), Access::Write)
        .unwrap();
    backend.respond(RxResponse {
        id: request.id,
        status: 60,
        ..RxResponse::default()
    });
    let _ = backend.rx.publish();
    backend.notify();
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    assert_eq!(guest.vif.problem(), Some(Error::Fault(Fault::RxBusy)));
    backend.let_go();
    device.set(&sim, "state", "6");
    assert_eq!(guest.wait_retry(&sim), Error::Fault(Fault::RxBusy));

    sim.run_for(10 * SECOND);
    assert_eq!(guest.table.stats().quarantined, 1);
    kept.page().write(0, b"still mine, and nobody else's");
    drop(kept);
    guest.assert_nothing_shared(&sim);
    guest.assert_no_leaks(&sim);
}

/// A backend that never lets go of the rings: the end is bounded, and the rings are quarantined.
#[test]
fn a_backend_that_does_not_close() {
    let (sim, guest, device, mut backend) = connected(11);
    backend.fill_buffer(0, &[]);
    backend.respond(RxResponse {
        offset: 1,
        status: 4096,
        ..RxResponse::default()
    });
    let _ = backend.rx.publish();
    backend.notify();
    let start = sim.now().0;
    guest.wait_retry(&sim);
    assert!(sim.now().0 - start < 6_000_000_000);
    assert_eq!(device.front_state(&sim), "6");
    assert_eq!(guest.table.stats().quarantined, 2, "both rings are mapped");
    backend.let_go();
    guest.assert_nothing_shared(&sim);
}

/// Rule 55: 10^6 events in a second, all for nothing, cost the guest a bounded number of turns; and what comes behind
/// them is found.
#[test]
fn xsa_391_an_event_storm_costs_bounded_work() {
    let (sim, guest, _device, mut backend) = connected(12);
    sim.run_for(SECOND);
    let (dom0, port, clock) = (backend.dom0.clone(), backend.port, backend.dom0.clone());
    let (before, start) = (guest.domain.activity().turns, sim.now().0);
    sim.add_service("storm", |_| {
        move || {
            dom0.evtchn_send(port).unwrap();
            Next::Until(SystemTime(clock.now().0 + 1000))
        }
    });
    // In tenths, so that it ends soon if it costs too much.
    for tenth in 1..=10 {
        sim.run_for(SECOND / 10);
        let turns = guest.domain.activity().turns - before;
        assert!(turns < 200 + 40 * tenth, "{turns} turns in {} ns", sim.now().0 - start);
    }
    backend.deliver(&frame(60, 1));
    backend.publish();
    sim.run_until(|| backend.tx.ready().unwrap() == 1, SECOND / 50);
}

/// Rule 55, the other side: a backend whose events are for something is heard at once, however many there are.
#[test]
fn xsa_391_an_honest_backend_is_never_kept_waiting() {
    let (sim, guest, _device, mut backend) = connected(19);
    guest.mode.set(Mode::Keep);
    for count in 1..=200 {
        backend.deliver(&frame(60, count as u8));
        assert!(backend.publish());
        sim.run_until(|| guest.seen.borrow().len() == count, SECOND / 1000);
    }
}

/// A backend that takes frames and does not answer: no room, no spinning; frames go on when it answers.
#[test]
fn a_stalled_backend_is_waited_for_without_spinning() {
    let (sim, guest, _device, mut backend) = connected_with(
        13,
        Options {
            tx_buffers: 4,
            rx_buffers: 20,
            ..Options::default()
        },
    );
    for i in 0..10 {
        backend.deliver(&frame(60, i));
    }
    backend.publish();
    sim.run_until(|| backend.tx.ready().unwrap() == 4, SECOND);
    sim.run_for(SECOND);
    assert!(guest.vif.stats().tx_full > 0);
    let before = guest.domain.activity().turns;
    sim.run_for(10 * SECOND);
    let turns = guest.domain.activity().turns - before;
    assert!(turns < 300, "the test's own timer ticks ten times a second: {turns}");
    // More frames that cannot be answered wake it once each, not for ever.
    backend.deliver(&frame(60, 10));
    backend.publish();
    sim.run_for(SECOND);
    assert!(guest.domain.activity().turns - before < 350);

    let mut echoed = 0;
    while echoed < 11 {
        sim.run_until(|| backend.tx.ready().unwrap() > 0, SECOND);
        let request = backend.tx.pop().unwrap().unwrap();
        backend
            .tx
            .push(&TxResponse {
                id: request.id,
                status: 0,
            })
            .unwrap();
        backend.publish();
        echoed += 1;
    }
    sim.run_for(SECOND);
    assert_eq!(guest.vif.stats().tx_frames, 11);
}

/// Rule 40: a backend that has not said Connected gets nothing.
#[test]
fn rule_40_nothing_is_sent_before_the_backend_is_connected() {
    let sim = Sim::new(14);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    guest.to_send.borrow_mut().push(60);
    let mut backend = device.attach(&sim, &domain);
    sim.run_for(SECOND);
    assert!(!guest.vif.link_up() && guest.vif.transmit().is_none());
    assert_eq!(backend.tx.ready(), Ok(0));
    assert_eq!(backend.rx.ready(), Ok(64), "but buffers are there");
    device.set(&sim, "state", "4");
    sim.run_until(|| backend.tx.ready().unwrap() == 1, SECOND);
    assert!(guest.vif.link_up());
}

/// Driver domain restarts, in every way that a state node can tell of it: the interface comes back, and the old
/// connection is gone without a trace.
#[test]
fn a_backend_that_comes_back_is_connected_again() {
    for farewell in [&["5", "6"][..], &["6"], &["1"], &["5"]] {
        let (sim, guest, device, backend) = connected(15);
        let mut backend = backend;
        for life in 0..5_u64 {
            assert_eq!(guest.vif.stats().connections, life + 1);
            backend.deliver(&frame(100, life as u8));
            backend.publish();
            sim.run_until(|| backend.tx.ready().unwrap() == 1, SECOND);
            backend.let_go();
            for state in farewell {
                device.set(&sim, "state", state);
                sim.run_for(Duration::from_millis(20));
            }
            sim.run_until(|| device.front_state(&sim) == "6", SECOND);
            assert!(!guest.vif.link_up());
            guest.assert_nothing_shared(&sim);
            backend = device.connect(&sim, &guest);
        }
        assert_eq!(guest.ended.get(), None);
        backend.let_go();
        device.forget(&sim);
        assert_eq!(guest.wait_end(&sim), Ok(()), "removed");
        guest.assert_nothing_shared(&sim);
        guest.assert_no_leaks(&sim);
    }
}

/// After a fault and a pause it connects again when the backend is willing.
#[test]
fn a_new_life_after_a_fault() {
    let (sim, guest, device, mut backend) = connected(16);
    backend.fill_buffer(0, &[]);
    backend.respond(RxResponse {
        offset: 1,
        status: 4096,
        ..RxResponse::default()
    });
    let _ = backend.rx.publish();
    backend.notify();
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    backend.let_go();
    device.set(&sim, "state", "6");
    guest.wait_retry(&sim);
    let mut backend = device.connect(&sim, &guest);
    assert_eq!(guest.vif.problem(), None);
    backend.deliver(&frame(100, 1));
    backend.publish();
    sim.run_until(|| backend.tx.ready().unwrap() == 1, SECOND);
}

/// The device vanishes from under a running connection.
#[test]
fn rule_71_a_device_that_is_removed_at_once() {
    let (sim, guest, device, backend) = connected(17);
    guest.to_send.borrow_mut().extend([100; 10]);
    device.forget(&sim);
    assert_eq!(guest.wait_end(&sim), Ok(()));
    backend.let_go();
    guest.assert_nothing_shared(&sim);
    guest.assert_no_leaks(&sim);
}

/// Any bytes in the rings: at worst a fault, never a panic, never without end.
#[test]
fn any_ring_content_is_survived() {
    let (mut faults, mut frames) = (0, 0);
    for seed in 0..150 {
        let (sim, guest, device, mut backend) = connected(seed);
        guest.mode.set(if seed % 2 == 0 { Mode::Keep } else { Mode::Reflect });
        for _ in 0..40 {
            if !guest.vif.link_up() {
                break;
            }
            for _ in 0..sim.random(5) {
                let Ok(Some(_)) = backend.rx.pop() else { break };
                let mut bytes = sim.random(u64::MAX).to_le_bytes();
                if sim.random(40) > 0 {
                    (bytes[2], bytes[3], bytes[4], bytes[5], bytes[7]) = (0, 0, bytes[4] & 3, 0, bytes[7] & 15);
                }
                let slot: fata_netfront::abi::RxSlot = zerocopy::transmute!(bytes);
                backend.rx.push(&slot).unwrap();
            }
            while let Ok(Some(request)) = backend.tx.pop() {
                let id = if sim.random(30) == 0 {
                    sim.random(70) as u16
                } else {
                    request.id
                };
                backend
                    .tx
                    .push(&TxResponse {
                        id,
                        status: -(sim.random(3) as i16),
                    })
                    .unwrap();
            }
            backend.publish();
            if sim.random(50) == 0 {
                let page = backend.rx.page().shared();
                page.store_u32(RSP_PROD, sim.random(1 << 32) as u32, SeqCst);
            }
            backend.notify();
            sim.run_for(Duration::from_millis(1));
        }
        guest.stop.set(true);
        sim.run_for(SECOND / 5);
        backend.let_go();
        device.set(&sim, "state", "6");
        let _ = guest.wait_end(&sim);
        guest.assert_nothing_shared(&sim);
        guest.assert_no_leaks(&sim);
        faults += guest.vif.stats().faults;
        frames += guest.vif.stats().rx_frames;
    }
    assert!(faults > 50 && frames > 500, "{faults} faults, {frames} frames");
}

/// Rule 12: responses that a flush takes between a transmit that found no room and the wait for it are room all the same,
/// and no event will follow them.
#[test]
fn rule_12_room_that_a_flush_makes_is_told() {
    let sim = Sim::new(17);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let options = Options {
        tx_buffers: 4,
        ..Options::default()
    };
    let guest = Guest::boot(&sim, &domain, options);
    guest.mode.set(Mode::Keep);
    let mut backend = device.connect(&sim, &guest);
    sim.run_for(SECOND);
    for _ in 0..2 {
        while let Some(room) = guest.vif.transmit() {
            room.consume(60, |bytes| {
                bytes.fill(1);
                ((), TxMeta::default())
            });
        }
        guest.vif.flush();
        while let Some(request) = backend.tx.pop().unwrap() {
            backend
                .tx
                .push(&TxResponse {
                    id: request.id,
                    status: 0,
                })
                .unwrap();
        }
        let _ = backend.tx.publish();
    }
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(guest.vif.poll_ready(&mut context), Poll::Ready(()));
    assert!(guest.vif.has_room());
}
