//! A whole guest behind a backend that keeps back what is for multicast groups: the groups that IPv6 lives on come through,
//! others do not even wake it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use fata::stats::Memory;
use fata::xen::{Facts, Guest};
use fata_sim::wire::{Host, HostConfig, Packet};
use fata_sim::{Consoled, Domain, Next, Sim, VifConfig};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet,
    Ipv6Repr, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};

const SECOND: Duration = Duration::from_secs(1);
const ROUTER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);

/// Says on the bridge what it is told to say.
#[derive(Clone)]
struct Voice(Rc<RefCell<VecDeque<Vec<u8>>>>, fata_sim::Waker);

impl Voice {
    fn start(sim: &Sim) -> Self {
        let words = Rc::<RefCell<VecDeque<Vec<u8>>>>::default();
        let waker = sim.add_service("voice", |waker| {
            let (plug, words) = (sim.bridge("xenbr0").plug(&waker), Rc::clone(&words));
            move || {
                while plug.receive().is_some() {}
                match words.borrow_mut().pop_front() {
                    Some(bytes) => plug.send(Packet::new(bytes)),
                    None => return Next::Sleep,
                }
                Next::Again
            }
        });
        Self(words, waker)
    }

    fn say(&self, bytes: Vec<u8>) {
        self.0.borrow_mut().push_back(bytes);
        self.1.wake();
    }
}

/// A router's advertisement of fd00::/64, to all nodes.
fn advertisement() -> Vec<u8> {
    let (router, all) = ("fe80::2".parse().unwrap(), "ff02::1".parse().unwrap());
    let lifetime = smoltcp::time::Duration::from_secs(10_000);
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: lifetime,
        reachable_time: smoltcp::time::Duration::ZERO,
        retrans_time: smoltcp::time::Duration::ZERO,
        lladdr: Some(ROUTER_MAC.into()),
        mtu: None,
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: 64,
            flags: NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
            valid_lifetime: lifetime,
            preferred_lifetime: lifetime,
            prefix: "fd00::".parse().unwrap(),
        }),
    });
    let ethernet = EthernetRepr {
        src_addr: ROUTER_MAC,
        dst_addr: EthernetAddress([0x33, 0x33, 0, 0, 0, 1]),
        ethertype: EthernetProtocol::Ipv6,
    };
    let ip = Ipv6Repr {
        src_addr: router,
        dst_addr: all,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: 255,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + message.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet);
    let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
    message.emit(&router, &all, &mut icmp, &ChecksumCapabilities::default());
    bytes
}

#[test]
fn ipv6_lives_on_its_groups_and_hears_no_others() {
    fata_sim::check(0..8, |sim| {
        let domain = sim.domain("http");
        let netback = sim.add_vif(&domain, VifConfig::default());
        let _console = Consoled::start(sim, &domain).unwrap();
        let facts = Facts {
            command_line: "ipv4=none ipv6=auto".to_owned(),
            entropy: sim.random(u64::MAX).to_le_bytes().to_vec(),
            ram: std::rc::Rc::new(|| Memory {
                total: 16 << 20,
                used: 1 << 20,
                ballooned: 0,
            }),
        };
        let mut guest: Guest<Domain> = fata::xen::start(domain.clone(), facts, http::serve);
        sim.add_guest(&domain, move || {
            guest.turn();
        });
        let host = Host::start(
            sim,
            &sim.bridge("xenbr0"),
            HostConfig {
                addresses: vec![("fd00::2".parse().unwrap(), 64)],
                ..HostConfig::default()
            },
        );
        let voice = Voice::start(sim);
        sim.run_until(|| netback.is_connected(), 10 * SECOND);
        // It has said to which groups it listens before it asked for a router.
        sim.run_for(SECOND);
        voice.say(advertisement());
        sim.run_for(SECOND);
        // Made of the prefix and of 00:16:3e:00:01:00.
        let own: Ipv6Addr = "fd00::216:3eff:fe00:100".parse().unwrap();
        for life in 0..3 {
            // The host does not know where it is, and asks its solicited nodes.
            let client = host.http_get(SocketAddr::from((own, 80)), "/");
            sim.run_until(|| client.is_closed_by_peer(), 10 * SECOND);
            client.close();
            let ping = host.ping(IpAddr::from(own), 56);
            sim.run_until(|| ping.is_answered(), SECOND);
            // What is left of the connection goes.
            sim.run_for(120 * SECOND);

            let (turns, filtered) = (domain.activity().turns, netback.stats().rx_filtered);
            for group in 0..100 {
                let mut mdns = advertisement();
                mdns[..6].copy_from_slice(&[1, 0, 0x5e, 0, group, 251]);
                voice.say(mdns);
                sim.run_for(Duration::from_millis(1));
            }
            assert_eq!(netback.stats().rx_filtered - filtered, 100);
            let turns = domain.activity().turns - turns;
            assert!(
                turns <= 2,
                "life {life}: it took {turns} turns for what it does not listen to"
            );

            netback.crash();
            let state = format!("{}/state", netback.backend_path());
            sim.store().write(&state, "6").unwrap();
            sim.run_for(SECOND);
            netback.restart();
            sim.run_until(|| netback.is_connected(), 30 * SECOND);
            sim.run_for(SECOND);
        }
    });
}
