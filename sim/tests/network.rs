//! Hosts on a bridge, without any domain.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use fata_sim::Sim;
use fata_sim::wire::{DhcpConfig, Host, HostConfig, Impairment, Packet};

const SECOND: Duration = Duration::from_secs(1);

fn other() -> HostConfig {
    let addresses = vec![(IpAddr::from([10, 0, 0, 2]), 24), ("fd00::2".parse().unwrap(), 64)];
    HostConfig {
        name: "other".to_owned(),
        mac: [2, 0, 0, 0, 0, 2],
        addresses,
        ..HostConfig::default()
    }
}

fn two(sim: &Sim) -> (Host, Host) {
    let bridge = sim.bridge("xenbr0");
    (
        Host::start(sim, &bridge, HostConfig::default()),
        Host::start(sim, &bridge, other()),
    )
}

#[test]
fn hosts_ping_each_other() {
    fata_sim::check(0..8, |sim| {
        let (a, _b) = two(sim);
        let (ipv4, ipv6) = (IpAddr::from([10, 0, 0, 2]), "fd00::2".parse().unwrap());
        let pings = [
            a.ping(ipv4, 56),
            a.ping(ipv4, 1472),
            a.ping(ipv6, 0),
            a.ping(ipv6, 1452),
        ];
        sim.run_until(|| pings.iter().all(|ping| ping.is_answered()), 5 * SECOND);
        let nobody = a.ping([10, 0, 0, 3].into(), 56);
        sim.run_for(5 * SECOND);
        assert!(!nobody.is_answered());
    });
}

#[test]
fn tcp_carries_a_megabyte_each_way_even_over_a_bad_bridge() {
    fata_sim::check(0..4, |sim| {
        let (a, b) = two(sim);
        let accepted = b.listen(7);
        let count = Rc::new(Cell::new(0));
        sim.bridge("xenbr0").set_filter({
            let count = Rc::clone(&count);
            move |_: &mut Packet| {
                count.set(count.get() + 1);
                match count.get() % 100 {
                    50 => 0,
                    75 => 2,
                    _ => 1,
                }
            }
        });
        let client = a.connect(SocketAddr::from(([10, 0, 0, 2], 7)));
        let data: Vec<u8> = (0..1 << 20)
            .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        client.send(&data);
        client.close();
        sim.run_until(|| !accepted.borrow().is_empty(), 5 * SECOND);
        let server = accepted.borrow_mut().pop_front().unwrap();
        server.send(&data);
        sim.run_until(
            || server.is_closed_by_peer() && client.received() == data.len(),
            600 * SECOND,
        );
        server.close();
        assert!(server.take() == data && client.take() == data);
        sim.run_until(|| client.is_over() && server.is_over(), 600 * SECOND);
        assert!(count.get() > 200, "enough to be lost and doubled");
    });
}

#[test]
fn a_refused_connection_is_over() {
    let sim = Sim::new(1);
    let (a, _b) = two(&sim);
    let client = a.connect(SocketAddr::from(([10, 0, 0, 2], 9)));
    sim.run_until(|| client.is_over(), SECOND);
    assert!(!client.is_connected());
}

#[test]
fn udp_carries_datagrams() {
    let sim = Sim::new(1);
    let (a, b) = two(&sim);
    let (from, to) = (a.udp(1000), b.udp(2000));
    from.send(SocketAddr::from(([10, 0, 0, 2], 2000)), b"hello");
    sim.run_until(|| to.waiting() == 1, SECOND);
    assert_eq!(
        to.receive(),
        Some((SocketAddr::from(([10, 0, 0, 1], 1000)), b"hello".to_vec()))
    );
}

#[test]
fn dhcp_hands_out_addresses() {
    let sim = Sim::new(1);
    let dhcp = DhcpConfig {
        first: Ipv4Addr::new(10, 0, 0, 100),
        prefix: 24,
        router: Some(Ipv4Addr::new(10, 0, 0, 1)),
        dns: None,
        lease: 3600,
    };
    let bridge = sim.bridge("xenbr0");
    let _server = Host::start(
        &sim,
        &bridge,
        HostConfig {
            dhcp: Some(dhcp),
            ..HostConfig::default()
        },
    );
    let client = Host::start(&sim, &bridge, other());
    let port = client.udp(68);
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&[1, 2, 3, 4]);
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    message.extend([99, 130, 83, 99, 53, 1]);
    let everybody = SocketAddr::from(([255, 255, 255, 255], 67));
    let ask = |options: &[u8]| {
        let mut message = message.clone();
        message.extend(options);
        port.send(everybody, &message);
        sim.run_until(|| port.waiting() == 1, SECOND);
        port.receive().unwrap().1
    };
    let offer = ask(&[1, 255]);
    assert_eq!(
        (&offer[4..8], &offer[16..20]),
        (&[1, 2, 3, 4][..], &[10, 0, 0, 100][..])
    );
    let options = &offer[240..];
    assert_eq!(options[..3], [53, 1, 2], "an offer");
    assert!(options.windows(6).any(|part| part == [1, 4, 255, 255, 255, 0]));
    assert_eq!(
        ask(&[3, 50, 4, 10, 0, 0, 100, 54, 4, 10, 0, 0, 1, 255])[240..243],
        [53, 1, 5],
        "acknowledged"
    );
    assert_eq!(
        ask(&[3, 50, 4, 10, 0, 0, 99, 54, 4, 10, 0, 0, 1, 255])[240..243],
        [53, 1, 6],
        "not that one"
    );
}

/// What arrives of ten numbered datagrams over a bridge that is as bad as this.
fn over(impairment: Impairment) -> Vec<u8> {
    let sim = Sim::new(1);
    let (a, b) = two(&sim);
    let (from, to) = (a.udp(1000), b.udp(2000));
    from.send(SocketAddr::from(([10, 0, 0, 2], 2000)), &[100; 20]);
    sim.run_until(|| to.waiting() == 1, SECOND);
    let _ = to.receive();
    sim.bridge("xenbr0").impair(impairment);
    for number in 0..10 {
        from.send(SocketAddr::from(([10, 0, 0, 2], 2000)), &[number; 20]);
        sim.run_for(SECOND / 10);
    }
    std::iter::from_fn(|| to.receive())
        .map(|(_, bytes)| {
            assert!(bytes.iter().all(|&byte| byte == bytes[0]), "{bytes:?}");
            bytes[0]
        })
        .collect()
}

#[test]
fn a_bad_bridge_is_as_bad_as_it_says() {
    let good = Impairment::NONE;
    assert_eq!(over(good), (0..10).collect::<Vec<_>>());
    assert_eq!(over(Impairment { loss: 1, ..good }), []);
    assert_eq!(
        over(Impairment { corrupt: 1, ..good }),
        [],
        "a checksum tells of every bit"
    );
    let twice: Vec<u8> = (0..10).flat_map(|number| [number, number]).collect();
    assert_eq!(over(Impairment { duplicate: 1, ..good }), twice);
    let mut mixed = over(Impairment { reorder: 3, ..good });
    assert!(!mixed.is_sorted());
    mixed.sort_unstable();
    assert!(mixed.len() >= 9);
}
