//! Driver domains that die and come back at an unlucky moment.

mod common;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use common::{Device, Guest, Mode, SECOND, frame};
use fata_hypercall::{DomId, GrantRef};
use fata_netfront::{Error, Options};
use fata_sim::{Access, Sim};

const RSP_PROD: usize = 8;

/// The new driver sees us leave the old one, takes that for the end of its own connection, and closes. Both are closed then,
/// and it is for us to begin again.
#[test]
fn a_new_backend_that_takes_leave_by_mistake() {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    let backend = device.connect(&sim, &guest);
    backend.let_go();
    device.set(&sim, "state", "1");
    sim.run_until(|| device.front_state(&sim) == "6", SECOND);
    device.set(&sim, "state", "6");
    sim.run_until(|| device.front_state(&sim) == "1", 10 * SECOND);
    let _backend = device.connect(&sim, &guest);
    assert_eq!(guest.vif.stats().connections, 2);
}

/// A device that the toolstack is about to take away stays closed.
#[test]
fn a_device_that_goes_offline_is_not_offered_again() {
    let sim = Sim::new(2);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    let backend = device.connect(&sim, &guest);
    backend.let_go();
    device.set(&sim, "online", "0");
    device.set(&sim, "state", "6");
    sim.run_until(|| device.front_state(&sim) == "6", SECOND);
    sim.run_for(60 * SECOND);
    assert_eq!(device.front_state(&sim), "6");
}

/// The old driver died between a response and its event, the new one goes on with the rings as they are.
#[test]
fn a_response_of_which_nobody_could_tell() {
    let sim = Sim::new(3);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    guest.mode.set(Mode::Keep);
    let mut backend = device.connect(&sim, &guest);
    sim.run_for(SECOND);
    backend.deliver(&frame(100, 1));
    assert!(backend.rx.publish(), "it should tell");
    backend.let_go();
    sim.run_for(SECOND);
    assert!(guest.seen.borrow().is_empty(), "no event came");
    device.set(&sim, "state", "2");
    device.set(&sim, "state", "4");
    sim.run_until(|| guest.seen.borrow().len() == 1, SECOND);
    assert_eq!(guest.vif.stats().connections, 1, "the connection is the same one");
}

/// A backend that breaks the protocol while we learn that it has said Connected once more: the news come first at times, and
/// do not bring the link up again. The store's answers come a little later at each round.
#[test]
fn a_fault_is_not_forgiven_by_a_new_start() {
    for delay in 1..50 {
        let sim = Sim::new(delay);
        let domain = sim.domain("guest");
        let device = Device::add(&sim, &domain);
        let guest = Guest::boot(&sim, &domain, Options::default());
        guest.mode.set(Mode::Ignore);
        let backend = device.connect(&sim, &guest);
        backend.rx.page().shared().store_u32(RSP_PROD, 1000, SeqCst);
        device.set(&sim, "state", "4");
        sim.run_for(Duration::from_micros(delay));
        assert!(guest.vif.receive().is_none());
        assert!(matches!(guest.vif.problem(), Some(Error::Fault(_))));
        sim.run_until(|| device.front_state(&sim) == "5", SECOND);
        assert_eq!(guest.vif.stats().connections, 1, "{delay} us");
    }
}

/// Pages that a backend had not let go are tried again each second until they are back; then nothing runs.
#[test]
fn an_empty_quarantine_costs_nothing() {
    let sim = Sim::new(4);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    guest.mode.set(Mode::Keep);
    let turns = |keep: bool| {
        let mut backend = device.connect(&sim, &guest);
        let request = backend.rx.pop().unwrap().unwrap();
        let (dom0, gref) = (&backend.dom0, GrantRef(request.gref));
        let kept = keep.then(|| dom0.map_grant(backend.guest, gref, Access::Write).unwrap());
        backend.let_go();
        device.set(&sim, "state", "6");
        sim.run_for(SECOND / 10);
        assert_eq!(guest.table.stats().quarantined, usize::from(keep));
        drop(kept);
        guest.assert_nothing_shared(&sim);
        let before = domain.activity().turns;
        sim.run_for(60 * SECOND);
        domain.activity().turns - before
    };
    let never_used = turns(false);
    let empty_again = turns(true);
    assert!(
        empty_again < never_used + 10,
        "{empty_again} turns, and not {never_used}"
    );
}

/// Rule 21, over many lives: a backend that keeps a page of each connection does not get the guest's memory.
#[test]
fn a_backend_that_keeps_a_page_of_each_connection() {
    let sim = Sim::new(18);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, Options::default());
    let (mut kept, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut backend = device.connect(&sim, &guest);
        let request = backend.rx.pop().unwrap().unwrap();
        kept.push(
            backend
                .dom0
                .map_grant(backend.guest, GrantRef(request.gref), Access::Write)
                .unwrap(),
        );
        backend.let_go();
        device.set(&sim, "state", "5");
        device.set(&sim, "state", "6");
        sim.run_until(|| device.front_state(&sim) == "6", SECOND);
        sim.run_for(SECOND);
        tasks.push(guest.vif.handle().stats().tasks);
    }
    assert!(
        tasks.iter().all(|count| *count == tasks[0]),
        "one tends them all: {tasks:?}"
    );
    let held = guest.table.stats().quarantined_pages;
    assert_eq!(held, 5 * 64, "a pool stays whole");
    device.set(&sim, "state", "2");
    sim.run_until(
        || {
            guest.vif.problem()
                == Some(Error::Grant(fata_grant::Error::Quarantine {
                    peer: DomId(0),
                    pages: held,
                }))
        },
        SECOND,
    );
    drop(kept);
    device.set(&sim, "state", "6");
    guest.assert_nothing_shared(&sim);
}
