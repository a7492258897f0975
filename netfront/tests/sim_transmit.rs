//! What is sent: buffers and slots for it, and who is told.

mod common;

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use common::{Device, Guest, SECOND, connected, few, frame, send};
use fata_netfront::abi::{Gso, GsoType, TxResponse};
use fata_netfront::{Options, TxChecksum, TxMeta};
use fata_sim::Sim;

/// Rule 31: beside the frames of many segments, each with its extra, there are as many others as the ring has slots left.
#[test]
fn rule_31_the_ring_has_slots_for_frames_of_both_kinds() {
    let options = Options {
        tx_buffers: 256,
        segment_buffers: 8,
        segment_buffer: 65_535,
        ..Options::default()
    };
    let (_sim, guest, _device, mut backend) = connected(31, options);
    let mut frames = 0;
    while send(&guest, 60, 1) {
        frames += 1;
    }
    // The longest takes 16 pages.
    assert_eq!(frames, 256 - 8 * (16 + 1));
    guest.vif.flush();
    for _ in 0..frames {
        let request = backend.tx.pop().unwrap().unwrap();
        assert_eq!(request.size, 60);
    }
    let answer = TxResponse { id: 0, status: 0 };
    backend.tx.push(&answer).unwrap();
    backend.publish();
    let size = NonZeroU16::new(1448).unwrap();
    let kind = GsoType::TcpV4;
    for _ in 0..8 {
        let room = guest.vif.transmit().expect("room");
        room.consume(65_535, |bytes| {
            common::fill(bytes, 1);
            let meta = TxMeta {
                checksum: TxChecksum::Blank,
                gso: Some(Gso { kind, size }),
            };
            ((), meta)
        });
    }
    assert!(!guest.vif.has_room());
    guest.vif.flush();
    assert_eq!(backend.tx.ready(), Ok(8 * 17), "all of it is in the ring");
}

/// The larger buffers are for what does not fit the usual ones.
#[test]
fn a_frame_takes_the_smallest_buffer_that_it_fits() {
    let (_sim, guest, _device, _backend) = connected(1, Options::default());
    for _ in 0..5 {
        assert!(send(&guest, 2048, 1), "half a page");
    }
    for _ in 0..4 {
        assert!(send(&guest, 2049, 1));
    }
    assert!(!guest.vif.has_room());
}

/// Rules 14 and 15: whatever kind of frame it belongs to, each slot in flight has an id of its own.
#[test]
fn rule_14_no_two_slots_in_flight_have_the_same_id() {
    let sim = Sim::new(14);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    device.set_front(&sim, "mtu", "9000");
    let guest = Guest::boot(&sim, &domain, Options::default());
    let mut backend = device.connect(&sim, &guest);
    for len in [9014; 30].into_iter().chain([16_384; 4]) {
        assert!(send(&guest, len, 1));
    }
    guest.vif.flush();
    let mut ids = BTreeSet::new();
    while let Some(request) = backend.tx.pop().unwrap() {
        assert!(ids.insert(request.id), "{}", request.id);
    }
    assert_eq!(ids.len(), 30 * 3 + 4 * 4);
    for id in ids {
        backend.tx.push(&TxResponse { id, status: 0 }).unwrap();
    }
    let _ = backend.tx.publish();
    guest.vif.flush();
    assert_eq!(guest.vif.problem(), None);
}

/// Numbers out of their range become the nearest ones in it.
#[test]
fn options_have_ranges() {
    let least = Options {
        rx_buffers: 0,
        tx_buffers: 0,
        segment_buffers: 0,
        ..Options::default()
    };
    let (_sim, guest, _device, mut backend) = connected(3, least);
    assert_eq!(backend.rx.ready(), Ok(20));
    assert!(send(&guest, 60, 1) && !send(&guest, 60, 1));

    let most = Options {
        rx_buffers: 257,
        tx_buffers: 257,
        segment_buffers: 9,
        segment_buffer: 5000,
        ..Options::default()
    };
    let (sim, guest, _device, _backend) = connected(4, most);
    // The frames of many segments take three slots each, and leave as many for others.
    let (segments, frames) = (8 * 2, (256 - 8 * 3) / 2);
    let grants = sim.leaks(&guest.domain).grants.len();
    assert_eq!(grants, 2 + 256 + segments + frames);
}

/// Rule 60: a frame without a whole header is counted, takes no room, and does not get to the backend.
#[test]
fn rule_60_a_frame_shorter_than_its_header_is_not_sent() {
    let (_sim, guest, _device, mut backend) = connected(60, few());
    for count in 1..=10 {
        assert!(send(&guest, 13, 1));
        assert_eq!(guest.vif.stats().tx_dropped, count);
    }
    assert!(send(&guest, 14, 1));
    guest.vif.flush();
    assert_eq!(backend.tx.ready(), Ok(1));
    assert_eq!(guest.vif.stats().tx_frames, 1);
}

/// A backend that wants to be told of both rings is told once.
#[test]
fn one_notification_tells_of_both_rings() {
    let (_sim, guest, _device, mut backend) = connected(2, few());
    for seed in 0..20 {
        backend.deliver(&frame(60, seed));
    }
    let _ = backend.rx.publish();
    assert_eq!(backend.rx.enable_events(1), Ok(false));
    assert_eq!(backend.tx.enable_events(1), Ok(false));
    drop(guest.vif.receive().expect("a frame, whose buffer goes back"));
    assert!(send(&guest, 60, 1));
    let before = guest.vif.stats().notifications;
    guest.vif.flush();
    assert_eq!(guest.vif.stats().notifications, before + 1);
    assert_eq!((backend.rx.ready(), backend.tx.ready()), (Ok(1), Ok(1)));
}

/// Rule 55: events of a backend that does no more than answer are for something, too.
#[test]
fn xsa_391_a_backend_that_answers_is_never_kept_waiting() {
    let sim = Sim::new(55);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let options = Options { tx_buffers: 1, ..few() };
    let guest = Guest::boot(&sim, &domain, options);
    guest.to_send.borrow_mut().extend([60; 200]);
    let mut backend = device.connect(&sim, &guest);
    for _ in 0..200 {
        sim.run_until(|| backend.tx.ready() == Ok(1), SECOND / 1000);
        let request = backend.tx.pop().unwrap().unwrap();
        let answer = TxResponse {
            id: request.id,
            status: 0,
        };
        backend.tx.push(&answer).unwrap();
        assert!(backend.publish(), "it asked to be told");
    }
}
