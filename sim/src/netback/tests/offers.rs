//! What it offers, and what a frontend makes of it.

use super::*;

#[test]
fn each_ring_may_have_its_own_event_channel() {
    let sim = Sim::new(1);
    let mut front = Front::new(&sim, Behaviour::default());
    let rx_port = front.domain.evtchn_alloc_unbound(sim.dom0().id()).unwrap();
    front.key("event-channel-tx", &front.port.0.to_string());
    front.key("event-channel-rx", &rx_port.0.to_string());
    front.connect();
    assert!(front.vif.is_connected());
    front.domain.take_pending(front.port);
    front.domain.take_pending(rx_port);
    front.wire.send(Packet::new(frame(100)));
    sim.run_until_idle();
    front.post([0]);
    front.notify();
    assert_eq!(front.received(), [], "that was the other ring's event");
    front.domain.evtchn_send(rx_port).unwrap();
    sim.run_until_idle();
    assert_eq!(front.received().len(), 1);
    assert!(front.domain.take_pending(rx_port) && !front.domain.take_pending(front.port));
    sim.destroy(&front.domain);
}

#[test]
fn packets_for_groups_come_to_who_asked_for_them() {
    let sim = Sim::new(1);
    let mut front = Front::new(&sim, Behaviour::default());
    front.key("request-multicast-control", "1");
    front.connect();
    front.post(0..8);
    front.notify();
    let to = |group: u8| {
        let mut bytes = frame(60);
        bytes[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, group]);
        Packet::new(bytes)
    };
    let receives = |front: &mut Front<'_>, group| {
        front.wire.send(to(group));
        sim.run_until_idle();
        front.received().len() == 1
    };
    let change = |front: &mut Front<'_>, kind, group| {
        front.push(&[(0, 0, 8, 0)]);
        front.push_raw([kind, 0, 1, 0, 0x5e, 0, 0, group, 0, 0, 0, 0]);
        front.publish();
        front.responses().iter().map(|&(_, status)| status).collect::<Vec<_>>()
    };
    assert!(!receives(&mut front, 1));
    assert_eq!(
        change(&mut front, 2, 1),
        [0, 1],
        "one for the request, NULL for the extra"
    );
    assert!(receives(&mut front, 1));
    assert!(!receives(&mut front, 2));
    assert_eq!(change(&mut front, 3, 1), [0, 1]);
    assert!(!receives(&mut front, 1));
    assert_eq!(front.vif.stats().rx_filtered, 3);
    front.wire.send(Packet::new(frame(60)));
    sim.run_until_idle();
    assert_eq!(front.received().len(), 1, "a broadcast");
    for group in 0..64 {
        assert_eq!(change(&mut front, 2, group), [0, 1]);
    }
    assert_eq!(change(&mut front, 2, 64), [-1, 1], "its list is full");
    assert_eq!(change(&mut front, 2, 63), [0, 1], "it has that");
    assert!(front.wire.receive().is_none(), "none of these was a packet");
}

#[test]
fn what_was_not_offered_is_not_to_be_used() {
    let without = Behaviour {
        multicast_control: false,
        max_queues: None,
        ..Behaviour::default()
    };
    for (key, message) in [
        ("multi-queue-num-queues", "none was asked for"),
        ("request-multicast-control", "was not offered"),
    ] {
        let sim = Sim::new(1);
        sim.expect_violations();
        let front = Front::new(&sim, without);
        front.key(key, "1");
        front.connect();
        assert!(sim.take_violations()[0].contains(message));
    }
    let sim = Sim::new(1);
    sim.expect_violations();
    let mut front = Front::connected(&sim, without);
    front.push(&[(0, 0, 8, 0)]);
    front.push_raw([2, 0, 1, 0, 0x5e, 0, 0, 1, 0, 0, 0, 0]);
    front.publish();
    assert!(sim.take_violations()[0].contains("Multicast control was not offered"));
}
