//! Packets of many segments that are none: what a backend says of segments is handed on with the bytes, and believed nowhere.

mod common;

use std::num::NonZeroU16;

use common::{Backend, Guest, Mode, SECOND, connected, frame};
use fata_netfront::abi::{ExtraInfo, Gso, GsoType, RxFlags, RxResponse};
use fata_netfront::{Error, Fault, Options};
use fata_sim::netback::{Behaviour, Malice, Trick};
use fata_sim::{Sim, VifConfig};

fn gso(kind: GsoType, size: u16) -> ExtraInfo {
    ExtraInfo::gso(Gso {
        kind,
        size: NonZeroU16::new(size).unwrap(),
    })
}

/// A packet whose first slot has `first` bytes and says that segments follow; then the extra, then slots of these lengths.
fn deliver(backend: &mut Backend, first: usize, extra: ExtraInfo, rest: &[usize]) {
    let more = |left: usize| if left > 0 { RxFlags::MORE_DATA } else { RxFlags::empty() };
    let mut slot = |len: usize, flags| {
        let request = backend.fill_buffer(0, &frame(len, 7));
        RxResponse {
            id: request.id,
            offset: 0,
            flags,
            status: len as i16,
        }
    };
    let head = slot(first, RxFlags::EXTRA_INFO | more(rest.len()));
    let _ = slot(0, RxFlags::empty());
    let tail: Vec<_> = rest
        .iter()
        .enumerate()
        .map(|(nth, &len)| slot(len, more(rest.len() - nth - 1)))
        .collect();
    backend.respond(head);
    backend.respond(extra);
    tail.into_iter().for_each(|response| backend.respond(response));
    backend.publish();
}

/// What the guest has seen, if it has seen it whole.
fn seen(sim: &Sim, guest: &Guest) -> Vec<usize> {
    guest.mode.set(Mode::Keep);
    sim.run_for(SECOND);
    guest
        .seen
        .borrow_mut()
        .drain(..)
        .map(|frame| frame.bytes.len())
        .collect()
}

#[test]
fn rule_35_lies_about_segments_are_frames_or_nothing() {
    let (sim, guest, _device, mut backend) = connected(1, Options::default());
    // Not even a header, with and without the rest that makes it one; nothing at all.
    deliver(&mut backend, 0, gso(GsoType::TcpV4, 1460), &[]);
    deliver(&mut backend, 13, gso(GsoType::TcpV6, 1), &[]);
    deliver(&mut backend, 0, gso(GsoType::TcpV4, 1460), &[0, 0, 0]);
    deliver(&mut backend, 1, gso(GsoType::TcpV4, 1460), &[0, 59]);
    assert_eq!(seen(&sim, &guest), [60]);
    assert_eq!(guest.vif.stats().rx_dropped, 3);
    // One segment is longer than the frame; all are of one byte; the bytes are of no TCP.
    deliver(&mut backend, 60, gso(GsoType::TcpV4, u16::MAX), &[]);
    deliver(&mut backend, 4096, gso(GsoType::TcpV6, 1), &[4096; 4]);
    assert_eq!(seen(&sim, &guest), [60, 5 * 4096]);
    // Longer than any frame: to its end, and the next one is whole.
    deliver(&mut backend, 4096, gso(GsoType::TcpV4, 1460), &[4096; 17]);
    deliver(&mut backend, 100, gso(GsoType::TcpV4, 50), &[]);
    assert_eq!(seen(&sim, &guest), [100]);
    let stats = guest.vif.stats();
    assert_eq!((stats.rx_dropped, stats.faults), (4, 0));
}

/// Segments of size 0 or of a type that nobody has asked for are no accident.
#[test]
fn rule_35_segments_that_were_not_asked_for() {
    for data in [[0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 1, 3, 0, 0, 0]] {
        let (sim, guest, _device, mut backend) = connected(1, Options::default());
        let extra = ExtraInfo {
            data,
            ..gso(GsoType::TcpV4, 1)
        };
        deliver(&mut backend, 200, extra, &[]);
        guest.mode.set(Mode::Keep);
        sim.run_until(|| guest.vif.stats().faults > 0, SECOND);
        assert_eq!(guest.vif.problem(), Some(Error::Fault(Fault::RxGso)));
    }
}

/// The flag by which a slot of its own told the size of segments, before there were extras: we never ask for that, so it means
/// nothing, and such a slot is the beginning of a frame.
#[test]
fn a_prefix_for_segments_means_nothing() {
    let (sim, guest, _device, mut backend) = connected(1, Options::default());
    let prefix = RxFlags::from_bits_retain(16) | RxFlags::MORE_DATA;
    let request = backend.fill_buffer(0, &[]);
    backend.respond(RxResponse {
        id: request.id,
        offset: 1460,
        flags: prefix,
        status: 0,
    });
    backend.deliver(&frame(300, 1));
    backend.publish();
    assert_eq!(seen(&sim, &guest), [300]);
}

/// All of it by chance, in the middle of honest work.
#[test]
fn rule_35_a_backend_that_lies_about_segments() {
    fata_sim::check(0..100, |sim| {
        sim.expect_violations();
        let malice = Malice {
            one_in: 20,
            tricks: &[Trick::RxGso],
        };
        let backend = Behaviour {
            malice,
            ..Behaviour::default()
        };
        let config = VifConfig {
            backend,
            ..VifConfig::default()
        };
        let (guest, netback) = Guest::with_netback(sim, config);
        let host = common::host::Host::start(sim);
        guest.wait_up(sim);
        for i in 0..200 {
            host.send(frame(60 + i * 7, i as u8));
        }
        sim.run_for(20 * SECOND);
        assert!(netback.stats().tricks > 0);
        match guest.ended.get() {
            None | Some(Ok(()) | Err(Error::Fault(Fault::RxGso | Fault::RxTruncated))) => {}
            ended => panic!("{ended:?}"),
        }
        guest.stop.set(true);
        let _ = guest.wait_end(sim);
        guest.assert_nothing_shared(sim);
    });
}
