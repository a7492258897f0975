//! An interface's life: what goes wrong is tried again, less and less often; what is removed ends; what is made anew begins.

mod common;

use std::time::Duration;

use common::{Backend, Device, Guest, Mode, SECOND, frame};
use fata_hypercall::GrantRef;
use fata_netfront::abi::{RxResponse, TxResponse};
use fata_netfront::{Error, Fault, Options};
use fata_sim::{Access, Domain, Sim, VifConfig};

fn new(seed: u64) -> (Sim, Domain, Device, Guest) {
    let sim = Sim::new(seed);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    guest.mode.set(Mode::Keep);
    (sim, domain, device, guest)
}

/// A response that leaves its page.
fn break_the_protocol(backend: &mut Backend) {
    let request = backend.fill_buffer(0, &[]);
    backend.respond(RxResponse {
        id: request.id,
        offset: 1,
        status: 4096,
        ..RxResponse::default()
    });
    let _ = backend.rx.publish();
    backend.notify();
}

const FAULT: Error = Error::Fault(Fault::RxBounds { offset: 1, len: 4096 });

/// A backend that breaks the protocol in each connection, and keeps a page of each, gets fewer and fewer of them, and never
/// more pages than the limit and one connection's.
#[test]
fn a_backend_that_never_learns_costs_a_connection_a_minute() {
    let (sim, domain, device, guest) = new(1);
    let (mut kept, mut longest) = (Vec::new(), Duration::ZERO);
    let hour = sim.now().0 + 3600 * 1_000_000_000;
    while sim.now().0 < hour {
        device.set(&sim, "state", "2");
        if !sim.try_run_until(|| device.front_state(&sim) == "4", 61 * SECOND) {
            break; // it is given no more pages
        }
        let mut backend = device.connect(&sim, &guest);
        let (dom0, gref) = (backend.dom0.clone(), backend.rx.pop().unwrap().unwrap().gref);
        kept.push(dom0.map_grant(domain.id(), GrantRef(gref), Access::Write).unwrap());
        break_the_protocol(&mut backend);
        sim.run_until(|| !guest.vif.link_up(), SECOND);
        backend.let_go();
        device.set(&sim, "state", "6");
        assert_eq!(guest.wait_retry(&sim), FAULT);
        let closed = sim.now().0;
        sim.run_until(|| device.front_state(&sim) != "6", 61 * SECOND);
        longest = longest.max(Duration::from_nanos(sim.now().0 - closed));
    }
    let stats = guest.vif.stats();
    assert!((5..=70).contains(&stats.connections), "{stats:?}");
    assert!(longest >= 8 * SECOND, "{longest:?}");
    assert!(guest.table.stats().quarantined_pages <= 256 + 128);
    drop(kept);
    // With its pages it gets another chance.
    device.set(&sim, "state", "6");
    sim.run_for(130 * SECOND);
    let _backend = device.connect(&sim, &guest);
    assert_eq!(guest.vif.problem(), None);
}

/// netback's driver is bound anew in the middle of work (`unbind`, `bind`; rmmod, modprobe): it takes the rings as they are
/// and answers once more what its former self had answered out of order. That breaks the protocol, and is made good.
#[test]
fn a_driver_that_answers_twice_is_met_again() {
    let (sim, _domain, device, guest) = new(2);
    let mut backend = device.connect(&sim, &guest);
    guest.to_send.borrow_mut().extend([60; 3]);
    backend.deliver(&frame(60, 1));
    backend.publish();
    sim.run_until(|| backend.tx.ready() == Ok(3), SECOND);
    let ids = [(); 3].map(|()| backend.tx.pop().unwrap().unwrap().id);
    for id in [ids[2], ids[2]] {
        backend.tx.push(&TxResponse { id, status: 0 }).unwrap();
    }
    backend.publish();
    backend.notify();
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    assert!(matches!(guest.vif.problem(), Some(Error::Fault(Fault::TxId(_)))));
    backend.let_go();
    device.set(&sim, "state", "6");
    guest.wait_retry(&sim);
    let mut backend = device.connect(&sim, &guest);
    backend.deliver(&frame(100, 2));
    backend.publish();
    sim.run_until(|| guest.seen.borrow().len() == 2, SECOND);
    assert_eq!(guest.vif.stats().retries, 1);
}

/// While it pauses, it can be stopped, removed, made anew.
#[test]
fn a_pause_ends_when_it_has_lost_its_sense() {
    for what in ["stop", "remove", "anew"] {
        let (sim, domain, device, guest) = new(3);
        // The pause is a long one by now.
        for _ in 0..5 {
            let mut backend = device.connect(&sim, &guest);
            break_the_protocol(&mut backend);
            sim.run_until(|| !guest.vif.link_up(), SECOND);
            backend.let_go();
            device.set(&sim, "state", "6");
            guest.wait_retry(&sim);
            if guest.vif.stats().retries < 5 {
                sim.run_until(|| device.front_state(&sim) != "6", 61 * SECOND);
            }
        }
        let before = sim.now().0;
        match what {
            "stop" => {
                guest.stop.set(true);
                assert_eq!(guest.wait_end(&sim), Ok(()));
                assert_eq!(device.front_state(&sim), "6");
            }
            "remove" => {
                device.forget(&sim);
                assert_eq!(guest.wait_end(&sim), Ok(()));
            }
            _ => {
                device.forget(&sim);
                let device = Device::add(&sim, &domain);
                let _backend = device.connect(&sim, &guest);
                assert_eq!(guest.ended.get(), None);
            }
        }
        assert!(sim.now().0 - before < SECOND.as_nanos() as u64, "{what}");
    }
}

/// What went well for a minute is no part of the trouble before.
#[test]
fn after_a_good_while_the_pause_is_short_again() {
    let (sim, _domain, device, guest) = new(4);
    for round in 0..6 {
        let mut backend = device.connect(&sim, &guest);
        if round == 5 {
            sim.run_for(60 * SECOND);
        }
        break_the_protocol(&mut backend);
        sim.run_until(|| !guest.vif.link_up(), SECOND);
        backend.let_go();
        device.set(&sim, "state", "6");
        guest.wait_retry(&sim);
        let closed = sim.now().0;
        sim.run_until(|| device.front_state(&sim) != "6", 61 * SECOND);
        let pause = Duration::from_nanos(sim.now().0 - closed).as_secs();
        assert_eq!(pause, [1, 2, 4, 8, 16, 1][round], "{round}");
    }
}

/// The domain goes on in a new one at any moment: after each number of turns. The link is down at once; and comes up again.
#[test]
fn a_resume_at_every_await() {
    for turns in 0..120 {
        let sim = Sim::new(turns);
        // The simulator's domain is still the same one: its backend misses what it had mapped.
        sim.expect_violations();
        let (guest, netback) = Guest::with_netback(&sim, VifConfig::default());
        let begin = guest.domain.activity().turns;
        sim.run_until(|| guest.domain.activity().turns >= begin + turns, 20 * SECOND);
        let connections = guest.vif.stats().connections;
        guest.vif.resume();
        assert!(!guest.vif.link_up() && guest.vif.problem().is_none(), "{turns}");
        sim.run_until(|| guest.vif.stats().connections > connections, 60 * SECOND);
        assert_eq!(guest.vif.stats().faults, 0);
        guest.stop.set(true);
        assert_eq!(guest.wait_end(&sim), Ok(()), "{turns}");
        sim.forget_vif(&netback);
        guest.assert_nothing_shared(&sim);
        let complaints = sim.take_violations();
        assert!(
            complaints
                .iter()
                .all(|text| text.contains("ring") || text.contains("event channel")),
            "{turns}: {complaints:?}"
        );
        guest.assert_no_leaks(&sim);
    }
}

/// Resumed while nothing runs, or while it pauses: no harm.
#[test]
fn a_resume_in_a_pause_begins_at_once() {
    let (sim, _domain, device, guest) = new(6);
    let mut backend = device.connect(&sim, &guest);
    break_the_protocol(&mut backend);
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    backend.let_go();
    device.set(&sim, "state", "6");
    guest.wait_retry(&sim);
    guest.vif.resume();
    sim.run_until(|| device.front_state(&sim) == "1", SECOND / 2);
    device.forget(&sim);
    assert_eq!(guest.wait_end(&sim), Ok(()));
    guest.vif.resume();
    sim.run_for(SECOND);
    guest.assert_no_leaks(&sim);
}
