//! The services in a simulated domain: the real drivers below them, a simulated client on the bridge.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fata::stats::Memory;
use fata::xen::{Facts, start};
use fata_sim::wire::{Host, HostConfig};
use fata_sim::{Consoled, Domain, ShutdownRequest, Sim, VifConfig};

const SECOND: Duration = Duration::from_secs(1);

fn boot(sim: &Sim) -> (Host, Domain) {
    let client = Host::start(sim, &sim.bridge("xenbr0"), HostConfig::default());
    let domain = sim.domain("echo");
    // Without one the last words wait for their limit, and nobody looks at the store meanwhile.
    let _console = Consoled::start(sim, &domain).unwrap();
    let _vif = sim.add_vif(&domain, VifConfig::default());
    let memory = || Memory {
        total: 8 << 20,
        used: 0,
        ..Memory::default()
    };
    let facts = Facts {
        command_line: "ipv4=10.0.0.2/24 ipv6=none".into(),
        entropy: vec![9; 32],
        ram: Rc::new(memory),
    };
    let mut guest = start(domain.clone(), facts, echo::serve);
    sim.add_guest(&domain, move || {
        guest.turn();
    });
    sim.run_for(2 * SECOND);
    (client, domain)
}

fn port(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], port))
}

fn end(sim: &Sim, domain: &Domain) {
    sim.request_shutdown(domain, ShutdownRequest::PowerOff);
    sim.run_until(|| domain.shutdown_reason().is_some(), 10 * SECOND);
    sim.remove_guest(domain);
    sim.run_for(SECOND);
    sim.assert_no_leaks(domain);
}

#[test]
fn a_megabyte_comes_back() {
    fata_sim::check(0..3, |sim| {
        let (client, domain) = boot(sim);
        let data: Vec<u8> = (0..1_u32 << 20)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let connection = client.connect(port(7));
        connection.send(&data);
        connection.close();
        sim.run_until(|| connection.is_over(), 600 * SECOND);
        assert!(connection.take() == data);
        end(sim, &domain);
    });
}

#[test]
fn datagrams_come_back() {
    let sim = Sim::new(1);
    let (client, domain) = boot(&sim);
    let socket = client.udp(1000);
    for length in [0, 1, 1472] {
        let data = vec![length as u8; length];
        socket.send(port(7), &data);
        sim.run_until(|| socket.waiting() > 0, SECOND);
        assert_eq!(socket.receive(), Some((port(7), data)));
    }
    end(&sim, &domain);
}

#[test]
fn discard_says_nothing_and_the_generator_does_not_stop() {
    let sim = Sim::new(1);
    let (client, domain) = boot(&sim);
    let (discard, generator) = (client.connect(port(9)), client.connect(port(19)));
    discard.send(&[1; 100_000]);
    discard.close();
    let mut received = Vec::new();
    sim.run_until(
        || {
            received.extend(generator.take());
            received.len() > 50_000
        },
        60 * SECOND,
    );
    let expected: Vec<u8> = (0..).flat_map(echo::pattern).take(received.len()).collect();
    assert!(received == expected);
    generator.abort();
    sim.run_until(|| discard.is_over() && generator.is_over(), 60 * SECOND);
    assert_eq!(discard.received(), 0);
    end(&sim, &domain);
}
