//! From connect to disconnect: the real network frontend, stack, event loop, grant table and store client of two
//! domains and of a host in dom0, over the simulated Linux backend.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use fata_events::Handle;
use fata_events::xen::XenLoop;
use fata_grant::Table;
use fata_net::{
    Capabilities, ChecksumOffload, Cidr, Config, Device, Ipv4Config, Ipv6Config, Limits, RxChecksum, RxFrame,
    SegmentationOffload, Segments, Stack, TxChecksum, TxFrame, TxMeta,
};
use fata_netfront::abi::{Gso, GsoType};
use fata_netfront::{Options, Vif};
use fata_sim::netback::{Behaviour, Checksums, Fill};
use fata_sim::wire::{DhcpConfig, Host, HostConfig};
use fata_sim::{Domain, Netback, Sim, VifConfig};
use fata_xenstore::Store;

const SECOND: Duration = Duration::from_secs(1);

/// The frontend as the stack's device, as the facade does it.
struct Card(Rc<Vif<Domain>>);

struct Received<'a>(fata_netfront::RxFrame<'a, Domain>);
struct Room<'a>(fata_netfront::TxFrame<'a, Domain>);

impl RxFrame for Received<'_> {
    fn checksum(&self) -> RxChecksum {
        match self.0.meta().checksum {
            fata_netfront::RxChecksum::Unknown => RxChecksum::Unknown,
            fata_netfront::RxChecksum::Validated => RxChecksum::Validated,
            fata_netfront::RxChecksum::Blank => RxChecksum::Blank,
        }
    }

    fn consume<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        self.0.consume(f)
    }
}

impl TxFrame for Room<'_> {
    fn consume<R>(self, len: usize, f: impl FnOnce(&mut [u8]) -> (R, TxMeta)) -> R {
        self.0.consume(len, |bytes| {
            let (result, meta) = f(bytes);
            let checksum = match meta.checksum {
                TxChecksum::Complete => fata_netfront::TxChecksum::Complete,
                TxChecksum::Blank => fata_netfront::TxChecksum::Blank,
            };
            let gso = meta.segments.map(|segments| match segments {
                Segments::Ipv4(size) => (GsoType::TcpV4, size),
                Segments::Ipv6(size) => (GsoType::TcpV6, size),
            });
            let gso = gso.map(|(kind, size)| Gso { kind, size });
            (result, fata_netfront::TxMeta { checksum, gso })
        })
    }
}

impl Device for Card {
    type Rx<'a> = Received<'a>;
    type Tx<'a> = Room<'a>;

    fn capabilities(&self) -> Capabilities {
        let (mut mac, mut mtu, mut tx_checksum) = ([0; 6], 0, ChecksumOffload::NONE);
        let mut tx_segmentation = SegmentationOffload::NONE;
        if let Some(identity) = self.0.identity() {
            mac = identity.mac;
            mtu = identity.mtu;
            tx_checksum = ChecksumOffload {
                ipv4: identity.offload.ipv4,
                ipv6: identity.offload.ipv6,
            };
            tx_segmentation = SegmentationOffload {
                ipv4: identity.segmentation.ipv4,
                ipv6: identity.segmentation.ipv6,
                longest: identity.segmentation.longest,
            };
        }
        Capabilities {
            mac,
            mtu,
            tx_checksum,
            tx_segmentation,
        }
    }

    fn link_up(&self) -> bool {
        self.0.link_up()
    }

    fn receive(&mut self) -> Option<(Received<'_>, Room<'_>)> {
        let room = self.0.transmit()?;
        Some((Received(self.0.receive()?), Room(room)))
    }

    fn transmit(&mut self) -> Option<Room<'_>> {
        self.0.transmit().map(Room)
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_ready(cx)
    }
}

/// A domain with one vif and a program.
struct Guest {
    domain: Domain,
    netback: Netback,
    vif: Rc<RefCell<Option<Rc<Vif<Domain>>>>>,
    stack: Rc<RefCell<Option<Stack>>>,
    /// Tells the program to close its interface and to let go of everything.
    stop: Rc<Cell<bool>>,
    ended: Rc<Cell<bool>>,
}

/// Starts a domain whose `program` runs once the stack has an address. It ends when `stop` is set.
fn guest<P, F>(sim: &Sim, name: &str, ipv4: Ipv4Config, vif: VifConfig, program: P) -> Guest
where
    P: FnOnce(Handle, Stack) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let domain = sim.domain(name);
    let netback = sim.add_vif(&domain, vif);
    let mut xen_loop = XenLoop::new(domain.clone());
    let (handle, ports) = (xen_loop.handle(), xen_loop.ports().clone());
    let (stop, ended) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (shown_vif, shown_stack) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(None)));
    let seed = sim.random(u64::MAX);
    let life = {
        let (stop, ended, domain) = (Rc::clone(&stop), Rc::clone(&ended), domain.clone());
        let (shown_vif, shown_stack) = (Rc::clone(&shown_vif), Rc::clone(&shown_stack));
        async move {
            let store = Store::new(domain.clone(), &ports, handle.clone()).unwrap();
            let service = handle.spawn(store.run());
            let table = Table::new(domain.clone());
            let client = store.client().clone();
            let vif = Rc::new(Vif::new(table.clone(), ports, client, 0, Options::default()));
            *shown_vif.borrow_mut() = Some(Rc::clone(&vif));
            let driver = handle.spawn({
                let vif = Rc::clone(&vif);
                async move { vif.run().await }
            });
            let config = Config {
                ipv4,
                ipv6: Ipv6Config::Off,
                ..Config::default()
            };
            let random = ChaCha20Rng::seed_from_u64(seed);
            let card = Card(Rc::clone(&vif));
            let (stack, runner) = Stack::new(&handle, card, random, config, Limits::for_memory(8 << 20)).unwrap();
            *shown_stack.borrow_mut() = Some(stack.clone());
            let runner = handle.spawn(runner.run());
            let program = handle.spawn({
                let (stack, handle) = (stack.clone(), handle.clone());
                async move {
                    stack.wait_config_up().await.unwrap();
                    program(handle, stack).await;
                }
            });
            while !stop.get() {
                handle.sleep(Duration::from_millis(10)).await;
            }
            drop((program, runner, stack));
            shown_stack.borrow_mut().take();
            shown_vif.borrow_mut().take();
            vif.stop();
            driver.await.expect("not cancelled").expect("the interface ends well");
            // The unwatches are on their way; an answer proves that they have arrived.
            store.read("name").await.unwrap();
            drop((vif, service, store, table));
            ended.set(true);
        }
    };
    xen_loop.handle().spawn(life).detach();
    sim.add_guest(&domain, move || {
        xen_loop.turn();
    });
    Guest {
        domain,
        netback,
        vif: shown_vif,
        stack: shown_stack,
        stop,
        ended,
    }
}

impl Guest {
    /// Ends the program and looks what it left.
    fn end(&self, sim: &Sim) {
        self.stop.set(true);
        sim.run_until(|| self.ended.get(), 30 * SECOND);
        sim.run_for(SECOND);
        assert!(self.netback.is_closed());
        sim.assert_no_leaks(&self.domain);
    }
}

fn fixed(last: u8) -> Ipv4Config {
    Ipv4Config::Static {
        addresses: vec![Cidr::new(Ipv4Addr::new(10, 0, 0, last), 24)],
        gateway: None,
    }
}

async fn echo_server(handle: Handle, stack: Stack) {
    let listener = stack.listen(7).unwrap();
    while let Ok(stream) = listener.accept().await {
        let serve = async move {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            let _ = stream.close().await;
        };
        handle.spawn(serve).detach();
    }
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = fata_sim::Rng::new(seed);
    (0..len.div_ceil(8))
        .flat_map(|_| rng.next_u64().to_le_bytes())
        .take(len)
        .collect()
}

/// One connection to the echo server: everything comes back, and both ends close.
fn echo(sim: &Sim, host: &Host, to: SocketAddr, len: usize) {
    let data = pattern(len, sim.seed());
    // The program listens a moment after its backend is connected.
    sim.run_for(SECOND);
    let client = host.connect(to);
    client.send(&data);
    client.close();
    sim.run_until(|| client.is_over(), 120 * SECOND);
    assert!(client.is_connected());
    let got = client.take();
    assert_eq!(got.len(), data.len());
    assert!(got == data, "some byte is wrong");
}

/// A backend by chance: what it offers, how it fills buffers, what it says of checksums.
fn any_backend(sim: &Sim) -> Behaviour {
    let chunk = [4096, 4096, 600, 100][sim.random(4) as usize];
    let headroom = [0, 256][sim.random(2) as usize];
    let checksums = [
        Checksums::AsTheyAre,
        Checksums::Blank,
        Checksums::Validated,
        Checksums::Mixed,
    ];
    Behaviour {
        scatter_gather: sim.random(4) != 0,
        ipv6_csum_offload: sim.random(2) == 0,
        split_event_channels: sim.random(2) == 0,
        fill: Fill { chunk, headroom },
        checksums: checksums[sim.random(4) as usize],
        ..Behaviour::default()
    }
}

#[test]
fn a_megabyte_through_the_echo_server_without_a_leak() {
    fata_sim::check(0..24, |sim| {
        let vif = VifConfig {
            backend: any_backend(sim),
            ..VifConfig::default()
        };
        let guest = guest(sim, "echo", fixed(2), vif, echo_server);
        let host = Host::start(sim, &sim.bridge("xenbr0"), HostConfig::default());
        sim.run_until(|| guest.netback.is_connected(), 10 * SECOND);
        echo(sim, &host, SocketAddr::from(([10, 0, 0, 2], 7)), 1 << 20);
        let stats = guest.netback.stats();
        assert_eq!((stats.tx_dropped, stats.connects), (0, 1), "{stats:?}");
        assert!(stats.notifications < stats.rx_packets + stats.tx_packets, "{stats:?}");
        guest.end(sim);
    });
}

#[test]
fn the_same_seed_transfers_in_the_same_way() {
    let trace = |seed| {
        let sim = Sim::new(seed);
        let guest = guest(&sim, "echo", fixed(2), VifConfig::default(), echo_server);
        let host = Host::start(&sim, &sim.bridge("xenbr0"), HostConfig::default());
        sim.run_until(|| guest.netback.is_connected(), 10 * SECOND);
        echo(&sim, &host, SocketAddr::from(([10, 0, 0, 2], 7)), 10_000);
        guest.end(&sim);
        sim.trace()
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

#[test]
fn two_domains_talk_with_blank_checksums() {
    fata_sim::check(0..8, |sim| {
        let server = guest(sim, "server", fixed(2), VifConfig::default(), echo_server);
        let answer = Rc::new(RefCell::new(Vec::new()));
        let client = guest(sim, "client", fixed(3), VifConfig::default(), {
            let answer = Rc::clone(&answer);
            |handle, stack| async move {
                let stream = loop {
                    if let Ok(stream) = stack.connect(SocketAddr::from(([10, 0, 0, 2], 7))).await {
                        break stream;
                    }
                    handle.sleep(SECOND).await;
                };
                stream.write_all(&pattern(30_000, 1)).await.unwrap();
                stream.shutdown();
                let mut buffer = [0; 1000];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    answer.borrow_mut().extend_from_slice(&buffer[..count]);
                }
                let _ = stream.close().await;
            }
        });
        sim.bridge("xenbr0").tap();
        sim.run_until(|| answer.borrow().len() == 30_000, 60 * SECOND);
        assert!(*answer.borrow() == pattern(30_000, 1));
        let blank = sim.bridge("xenbr0").tapped();
        assert!(
            blank
                .iter()
                .any(|packet| packet.checksum == fata_sim::wire::Checksum::Blank),
            "offload is used"
        );
        client.end(sim);
        server.end(sim);
    });
}

#[test]
fn dhcp_ping_and_udp() {
    fata_sim::check(0..8, |sim| {
        let dhcp = DhcpConfig {
            first: Ipv4Addr::new(10, 0, 0, 100),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 0, 1)),
            dns: None,
            lease: 3600,
        };
        let config = HostConfig {
            dhcp: Some(dhcp),
            ..HostConfig::default()
        };
        let host = Host::start(sim, &sim.bridge("xenbr0"), config);
        let guest = guest(
            sim,
            "guest",
            Ipv4Config::Dhcp,
            VifConfig::default(),
            |_, stack| async move {
                let socket = stack.udp(7).unwrap();
                let mut buffer = [0; 2000];
                while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
                    socket.send_to(&buffer[..count], from).await.unwrap();
                }
            },
        );
        let address = IpAddr::from([10, 0, 0, 100]);
        let has_address = || {
            let stack = guest.stack.borrow();
            stack
                .as_ref()
                .is_some_and(|stack| stack.status().addresses.iter().any(|own| own.address == address))
        };
        sim.run_until(has_address, 30 * SECOND);
        // The first one may be lost: the stack has to ask who we are before it can answer.
        let _ = host.ping(address, 8);
        sim.run_for(SECOND);
        let pings: Vec<_> = [0, 56, 1000, 1472, 5000]
            .iter()
            .map(|&len| host.ping(address, len))
            .collect();
        sim.run_until(|| pings.iter().all(|ping| ping.is_answered()), 10 * SECOND);
        let udp = host.udp(9999);
        for len in [0, 1, 1400] {
            udp.send(SocketAddr::from((address, 7)), &pattern(len, 3));
            sim.run_until(|| udp.waiting() == 1, 10 * SECOND);
            assert_eq!(udp.receive(), Some((SocketAddr::from((address, 7)), pattern(len, 3))));
        }
        guest.end(sim);
    });
}

#[test]
fn an_idle_guest_does_nothing() {
    let sim = Sim::new(1);
    let guest = guest(&sim, "idle", fixed(2), VifConfig::default(), echo_server);
    sim.run_until(
        || guest.vif.borrow().as_ref().is_some_and(|vif| vif.link_up()),
        10 * SECOND,
    );
    sim.run_for(10 * SECOND);
    let before = guest.domain.activity();
    sim.run_for(10 * SECOND);
    let after = guest.domain.activity();
    assert_eq!((after.sends, after.events), (before.sends, before.events));
    // The program itself looks at `stop` a hundred times a second.
    assert!(
        after.turns - before.turns < 1300,
        "{} turns",
        after.turns - before.turns
    );
    guest.end(&sim);
}
