//! Driver domains that die and come back at an unlucky moment.

mod common;

use common::{Device, Guest, Mode, SECOND, frame};
use fata_netfront::Options;
use fata_sim::Sim;

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
