//! The backend against a frontend of a few lines, with nothing but the numbers of netif.h and ring.h.

mod offers;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fata_hypercall::{Hypervisor, PAGE_SIZE, Port, SharedPage};

use super::{Behaviour, Checksums, Fill, Malice, Netback, Trick, VifConfig};
use crate::backend::XenbusState;
use crate::domain::Domain;
use crate::sim::{Next, Sim};
use crate::wire::{Checksum, Gso, GsoKind, Packet, Plug};

const TX_RING: u32 = 8;
const RX_RING: u32 = 9;
/// Data pages are granted from here on: 32 of them.
const DATA: u32 = 16;

struct Front<'a> {
    sim: &'a Sim,
    domain: Domain,
    vif: Netback,
    port: Port,
    tx: &'static SharedPage,
    rx: &'static SharedPage,
    data: &'static [SharedPage],
    tx_prod: u32,
    tx_cons: u32,
    rx_prod: u32,
    rx_cons: u32,
    /// The other side of the bridge.
    wire: Plug,
}

/// A slot of a packet: page, offset, flags, size.
type Slot = (usize, u16, u16, u16);

impl<'a> Front<'a> {
    fn new(sim: &'a Sim, behaviour: Behaviour) -> Self {
        let domain = sim.domain("front");
        let vif = sim.add_vif(
            &domain,
            VifConfig {
                backend: behaviour,
                ..VifConfig::default()
            },
        );
        let waker = sim.add_service("wire", |_| || Next::Sleep);
        let wire = sim.bridge("xenbr0").plug(&waker);
        let pages = domain.alloc_pages(34).unwrap();
        // SAFETY: 34 pages, which the domain keeps as long as the simulator lives.
        let pages: &'static [SharedPage] = unsafe { std::slice::from_raw_parts(pages.as_ptr(), 34) };
        let (tx, rx, data) = (&pages[0], &pages[1], &pages[2..]);
        for ring in [tx, rx] {
            ring.store_u32(4, 1, SeqCst);
            ring.store_u32(12, 1, SeqCst);
        }
        let port = domain.evtchn_alloc_unbound(sim.dom0().id()).unwrap();
        let front = Self {
            sim,
            domain,
            vif,
            port,
            tx,
            rx,
            data,
            tx_prod: 0,
            tx_cons: 0,
            rx_prod: 0,
            rx_cons: 0,
            wire,
        };
        front.grant(TX_RING, tx, 1);
        front.grant(RX_RING, rx, 1);
        for (index, page) in data.iter().enumerate() {
            front.grant(DATA + index as u32, page, 1);
        }
        front
    }

    fn grant(&self, reference: u32, page: &SharedPage, flags: u16) {
        let entry = &self.domain.grant_entries(0).unwrap()[reference as usize];
        entry.domid.store(0, SeqCst);
        entry.frame.store(self.domain.gfn_of(page).0 as u32, SeqCst);
        entry.flags.store(flags, SeqCst);
    }

    fn key(&self, name: &str, value: &str) {
        self.sim
            .store()
            .write(&format!("{}/{name}", self.vif.frontend_path()), value)
            .unwrap();
    }

    fn connected(sim: &'a Sim, behaviour: Behaviour) -> Self {
        let front = Self::new(sim, behaviour);
        front.connect();
        assert_eq!(front.vif.state(), XenbusState::Connected);
        front
    }

    fn connect(&self) {
        self.sim
            .run_until(|| self.vif.state() == XenbusState::InitWait, Duration::from_secs(1));
        for (name, value) in [
            ("tx-ring-ref", TX_RING),
            ("rx-ring-ref", RX_RING),
            ("event-channel", self.port.0),
            ("request-rx-copy", 1),
            ("feature-rx-notify", 1),
            ("feature-sg", 1),
            ("feature-gso-tcpv4", 1),
        ] {
            self.key(name, &value.to_string());
        }
        self.key("state", "4");
        self.sim.run_until_idle();
    }

    /// Writes one packet's slots; the first one's size is the whole packet's.
    fn push(&mut self, slots: &[Slot]) {
        for &(page, offset, flags, size) in slots {
            let mut slot = [0; 12];
            slot[0..4].copy_from_slice(&(DATA + page as u32).to_le_bytes());
            slot[4..6].copy_from_slice(&offset.to_le_bytes());
            slot[6..8].copy_from_slice(&flags.to_le_bytes());
            slot[8..10].copy_from_slice(&(100 + self.tx_prod as u16).to_le_bytes());
            slot[10..12].copy_from_slice(&size.to_le_bytes());
            self.push_raw(slot);
        }
    }

    fn push_raw(&mut self, slot: [u8; 12]) {
        self.tx.write(64 + (self.tx_prod % 256) as usize * 12, &slot);
        self.tx_prod += 1;
    }

    fn notify(&self) {
        self.domain.evtchn_send(self.port).unwrap();
        self.sim.run_until_idle();
    }

    fn publish(&self) {
        self.tx.store_u32(0, self.tx_prod, SeqCst);
        self.notify();
    }

    /// Responses so far: id and status.
    fn responses(&mut self) -> Vec<(u16, i16)> {
        let prod = self.tx.load_u32(8, SeqCst).unwrap();
        let mut all = Vec::new();
        while self.tx_cons != prod {
            let slot: [u8; 4] = self.tx.get(64 + (self.tx_cons % 256) as usize * 12).unwrap();
            all.push((
                u16::from_le_bytes([slot[0], slot[1]]),
                i16::from_le_bytes([slot[2], slot[3]]),
            ));
            self.tx_cons += 1;
        }
        self.tx.store_u32(12, self.tx_cons + 1, SeqCst);
        all
    }

    fn post(&mut self, pages: impl IntoIterator<Item = usize>) {
        for page in pages {
            let at = 64 + (self.rx_prod % 256) as usize * 8;
            self.rx.write(at, &(page as u16).to_le_bytes());
            self.rx.write(at + 4, &(DATA + page as u32).to_le_bytes());
            self.rx_prod += 1;
        }
        self.rx.store_u32(0, self.rx_prod, SeqCst);
    }

    /// Received slots: id, offset, flags, status.
    fn received(&mut self) -> Vec<(u16, u16, u16, i16)> {
        let prod = self.rx.load_u32(8, SeqCst).unwrap();
        let mut all = Vec::new();
        while self.rx_cons != prod {
            let slot: [u8; 8] = self.rx.get(64 + (self.rx_cons % 256) as usize * 8).unwrap();
            let word = |at: usize| u16::from_le_bytes([slot[at], slot[at + 1]]);
            all.push((word(0), word(2), word(4), word(6) as i16));
            self.rx_cons += 1;
        }
        self.rx.store_u32(12, self.rx_cons + 1, SeqCst);
        all
    }

    fn in_use(&self, page: usize) -> bool {
        self.domain.grant_entries(0).unwrap()[DATA as usize + page]
            .flags
            .load(SeqCst)
            & 24
            != 0
    }
}

/// A frame that belongs to no protocol.
fn frame(len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}

#[test]
fn the_handshake_goes_both_ways_and_again() {
    crate::check(0..8, |sim| {
        let front = Front::new(sim, Behaviour::default());
        sim.run_until_idle();
        assert_eq!(front.vif.state(), XenbusState::InitWait);
        let key = |name: &str| sim.store().read_text(&format!("{}/{name}", front.vif.backend_path()));
        assert_eq!(key("feature-sg").as_deref(), Some("1"));
        assert_eq!(key("feature-rx-copy").as_deref(), Some("1"));
        assert_eq!(key("state").as_deref(), Some("2"));
        for round in 1..4 {
            front.connect();
            assert_eq!(key("state").as_deref(), Some("4"));
            assert_eq!(front.vif.stats().connects, round);
            front.key("state", "5");
            sim.run_until_idle();
            assert_eq!(front.vif.state(), XenbusState::Closing);
            front.key("state", "6");
            sim.run_until_idle();
            assert_eq!(key("state").as_deref(), Some("6"));
            assert!(sim.leaks(&front.domain).mappings.is_empty(), "the rings are unmapped");
            assert_eq!(sim.leaks(&front.domain).ports.len(), 1);
            front.key("state", "1");
            sim.run_until_idle();
        }
    });
}

#[test]
fn what_the_frontend_must_write() {
    for (key, value, message) in [
        ("request-rx-copy", "0", "request-rx-copy"),
        ("tx-ring-ref", "x", "tx-ring-ref is \"x\""),
        ("rx-ring-ref", "400", "mapping ring 400"),
        ("event-channel", "77", "binding event channel 77"),
        ("multi-queue-num-queues", "2", "more than one queue"),
    ] {
        let sim = Sim::new(1);
        sim.expect_violations();
        let front = Front::new(&sim, Behaviour::default());
        front.connect();
        // Once more, with one key wrong.
        front.key("state", "6");
        sim.run_until_idle();
        front.key("state", "1");
        sim.run_until_idle();
        front.key(key, value);
        front.key("state", "4");
        sim.run_until_idle();
        let found = sim.take_violations();
        assert!(found.len() == 1 && found[0].contains(message), "{found:?}");
        assert_eq!(front.vif.state(), XenbusState::Closing);
    }
}

#[test]
fn packets_leave_as_they_were_put_together() {
    crate::check(0..8, |sim| {
        let mut front = Front::connected(sim, Behaviour::default());
        let whole = frame(6000);
        front.data[0].write(96, &whole[..2000]);
        front.data[1].write(0, &whole[2000..4000]);
        front.data[2].write(2096, &whole[4000..]);
        front.push(&[(0, 96, 4, 6000), (1, 0, 4, 2000), (2, 2096, 0, 2000)]);
        front.push(&[(0, 96, 1, 60)]);
        front.publish();
        let mut responses = front.responses();
        responses.sort_unstable();
        assert_eq!(responses, [(100, 0), (101, 0), (102, 0), (103, 0)]);
        let mut packets = [front.wire.receive().unwrap(), front.wire.receive().unwrap()];
        packets.sort_by_key(|packet| packet.bytes.len());
        assert_eq!(
            (&packets[0].bytes[..], packets[0].checksum),
            (&whole[..60], Checksum::Blank)
        );
        assert_eq!(
            (&packets[1].bytes[..], packets[1].checksum),
            (&whole[..], Checksum::Complete)
        );
        assert!((0..3).all(|page| !front.in_use(page)), "unmapped before the response");
        assert_eq!(front.vif.stats().tx_packets, 2);
    });
}

#[test]
fn small_packets_are_never_mapped_and_large_ones_until_the_response() {
    let sim = Sim::new(3);
    let mut front = Front::connected(&sim, Behaviour::default());
    for (size, is_mapped) in [(128, false), (129, true)] {
        front.data[0].write(0, &frame(size));
        front.push(&[(0, 0, 0, size as u16)]);
        front.tx.store_u32(0, front.tx_prod, SeqCst);
        front.domain.evtchn_send(front.port).unwrap();
        let mut was_mapped = false;
        let answered = || front.tx.load_u32(8, SeqCst) == Some(front.tx_prod);
        sim.run_until(
            || {
                was_mapped |= front.in_use(0);
                answered()
            },
            Duration::from_secs(1),
        );
        assert_eq!(was_mapped, is_mapped, "{size}");
        sim.run_until_idle();
    }
}

#[test]
fn linux_disables_the_vif_for_what_cannot_be_an_accident() {
    let gso = |size: u8, kind: u8| [1, 0, size, 0, kind, 0, 0, 0, 0, 0, 0, 0];
    type Attack = Box<dyn Fn(&mut Front<'_>)>;
    let attacks: [(&str, Attack); 9] = [
        (
            "Cross page boundary",
            Box::new(|front| front.push(&[(0, 4000, 0, 200)])),
        ),
        (
            "Cross page boundary",
            Box::new(|front| front.push(&[(0, 0, 4, 300), (1, 4000, 0, 200)])),
        ),
        ("exceeds this limit", Box::new(|front| front.push(&[(0, 0, 4, 300)]))),
        ("Missing extra info", Box::new(|front| front.push(&[(0, 0, 8, 300)]))),
        (
            "Invalid extra type: 0",
            Box::new(|front| {
                front.push(&[(0, 0, 8, 300)]);
                front.push_raw([0; 12]);
            }),
        ),
        (
            "GSO size must not be zero",
            Box::new(move |front| {
                front.push(&[(0, 0, 8, 300)]);
                front.push_raw(gso(0, 1));
            }),
        ),
        (
            "Bad GSO type 9",
            Box::new(move |front| {
                front.push(&[(0, 0, 8, 300)]);
                front.push_raw(gso(100, 9));
            }),
        ),
        (
            "threshold 20",
            Box::new(|front| {
                let mut slots = vec![(0, 0, 4, 3000)];
                slots.extend((0..22).map(|_| (1, 0, 4, 100)));
                front.push(&slots);
            }),
        ),
        (
            "Impossible number of requests: 257",
            Box::new(|front| front.tx_prod += 257),
        ),
    ];
    for (message, attack) in attacks {
        let sim = Sim::new(1);
        sim.expect_violations();
        let mut front = Front::connected(&sim, Behaviour::default());
        attack(&mut front);
        front.publish();
        let found = sim.take_violations();
        let fatal = |text: &String| text.contains("disabled") && text.contains(message);
        assert!(found.iter().any(fatal), "{message}: {found:?}");
        assert_eq!(front.responses(), [], "a disabled vif answers nothing");
    }
}

#[test]
fn linux_drops_what_may_be_a_mistake() {
    let mut many = vec![(0, 0, 4, 3000)];
    many.extend((0..19).map(|i| (1, 0, if i < 18 { 4 } else { 0 }, 100)));
    let mistakes: [(&str, Vec<Slot>); 4] = [
        ("Bad packet size", vec![(0, 0, 0, 13)]),
        ("Bad packet size", vec![(0, 0, 4, 500), (1, 0, 0, 490)]),
        ("slot size > remaining size", vec![(0, 0, 4, 500), (1, 0, 0, 501)]),
        ("Too many slots", many),
    ];
    for (message, slots) in mistakes {
        let sim = Sim::new(1);
        sim.expect_violations();
        let mut front = Front::connected(&sim, Behaviour::default());
        front.push(&slots);
        front.publish();
        assert!(sim.take_violations()[0].contains(message));
        let responses = front.responses();
        assert_eq!(responses.len(), slots.len(), "every slot is answered");
        assert!(responses.iter().all(|(_, status)| *status == -1));
        front.data[0].write(0, &frame(100));
        front.push(&[(0, 0, 0, 100)]);
        front.publish();
        assert_eq!(front.responses().len(), 1, "and the vif goes on");
        assert_eq!(front.wire.receive().unwrap().bytes, frame(100));
    }
}

#[test]
fn eighteen_more_slots_and_a_gso_extra_are_fine() {
    let sim = Sim::new(1);
    let mut front = Front::connected(&sim, Behaviour::default());
    front.data[0].write(0, &frame(200));
    front.push(&[(0, 0, 4 | 8 | 1, 2000)]);
    front.push_raw([1, 0, 0xb4, 5, 1, 0, 0, 0, 0, 0, 0, 0]);
    let rest: Vec<Slot> = (0..18).map(|i| (1, 0, if i < 17 { 4 } else { 0 }, 100)).collect();
    front.push(&rest);
    front.publish();
    let packet = front.wire.receive().unwrap();
    assert_eq!(packet.bytes.len(), 2000);
    assert_eq!(
        packet.gso,
        Some(Gso {
            kind: GsoKind::Tcp4,
            size: 1460
        })
    );
    let responses = front.responses();
    assert_eq!(responses.len(), 20);
    assert_eq!(
        responses.iter().filter(|(_, status)| *status == 1).count(),
        1,
        "NULL for the extra"
    );
}

#[test]
fn a_request_without_the_event_it_needs_is_not_seen() {
    let sim = Sim::new(1);
    let mut front = Front::connected(&sim, Behaviour::default());
    sim.run_until_idle();
    assert_eq!(
        front.tx.load_u32(4, SeqCst),
        Some(1),
        "it asked for an event at the next request"
    );
    front.data[0].write(0, &frame(100));
    front.push(&[(0, 0, 0, 100)]);
    front.tx.store_u32(0, front.tx_prod, SeqCst);
    sim.run_for(Duration::from_secs(60));
    assert!(front.wire.receive().is_none());
    front.notify();
    assert!(front.wire.receive().is_some());
}

#[test]
fn responses_notify_when_asked_and_only_then() {
    let sim = Sim::new(1);
    let mut front = Front::connected(&sim, Behaviour::default());
    front.domain.take_pending(front.port);
    front.data[0].write(0, &frame(100));
    front.tx.store_u32(12, 3, SeqCst);
    for (count, expected) in [(1, false), (2, false), (3, true), (4, false)] {
        front.push(&[(0, 0, 0, 100)]);
        front.publish();
        assert_eq!(front.domain.take_pending(front.port), expected, "response {count}");
    }
}

#[test]
fn packets_fill_the_buffers_in_their_order() {
    let sim = Sim::new(1);
    let mut front = Front::connected(&sim, Behaviour::default());
    front.post([5, 3, 4]);
    front.notify();
    front.wire.send(Packet {
        checksum: Checksum::Validated,
        ..Packet::new(frame(100))
    });
    front.wire.send(Packet::new(frame(5000)));
    sim.run_until_idle();
    assert_eq!(front.received(), [(5, 0, 1, 100), (3, 0, 4, 4096), (4, 0, 0, 904)]);
    let mut bytes = vec![0; 5000];
    front.data[3].read(0, &mut bytes[..PAGE_SIZE]);
    front.data[4].read(0, &mut bytes[PAGE_SIZE..]);
    assert_eq!(bytes, frame(5000));
    assert!(!front.in_use(3) && !front.in_use(5));
}

#[test]
fn short_chunks_headroom_and_a_gso_extra() {
    let sim = Sim::new(1);
    let fill = Fill {
        chunk: 600,
        headroom: 256,
    };
    let mut front = Front::connected(
        &sim,
        Behaviour {
            fill,
            ..Behaviour::default()
        },
    );
    front.post(0..4);
    front.notify();
    let gso = Some(Gso {
        kind: GsoKind::Tcp4,
        size: 1448,
    });
    front.wire.send(Packet {
        gso,
        ..Packet::new(frame(1500))
    });
    sim.run_until_idle();
    // The extra lies over the second slot: type 1, no more, size 1448, kind 1.
    assert_eq!(
        front.received(),
        [
            (0, 256, 4 | 8, 600),
            (1, 1448, 1, 0),
            (2, 256, 4, 600),
            (3, 256, 0, 300)
        ]
    );
}

#[test]
fn without_buffers_packets_wait_and_then_are_dropped() {
    let sim = Sim::new(1);
    let mut front = Front::connected(&sim, Behaviour::default());
    front.wire.send(Packet::new(frame(100)));
    sim.run_for(Duration::from_secs(1));
    assert_eq!(front.rx.load_u32(4, SeqCst), Some(1), "it asks for an event");
    front.post([0]);
    sim.run_for(Duration::from_secs(1));
    assert_eq!(front.received(), [], "nobody told it");
    front.notify();
    assert_eq!(front.received().len(), 1);

    front.wire.send(Packet::new(frame(100)));
    sim.run_for(Duration::from_secs(11));
    front.post([0]);
    front.notify();
    assert_eq!(front.received(), []);
    assert_eq!(front.vif.stats().rx_dropped, 1);
}

#[test]
fn a_buffer_that_cannot_be_written_is_an_error() {
    let sim = Sim::new(1);
    sim.expect_violations();
    let mut front = Front::connected(&sim, Behaviour::default());
    front.grant(DATA, &front.data[0], 5);
    front.post([0]);
    front.notify();
    front.wire.send(Packet::new(frame(100)));
    sim.run_until_idle();
    assert_eq!(front.received(), [(0, 0, 0, -1)]);
    assert!(sim.take_violations()[0].contains("cannot write to buffer 16"));
}

/// A backend that writes to what was sent from, and puts responses over requests that it has not read yet.
fn play_tricks(front: &mut Front<'_>) {
    front.vif.set_malice(Malice {
        one_in: 1,
        tricks: &[Trick::TxId, Trick::WriteReadOnly],
    });
    for _ in 0..50 {
        front.push(&[(0, 0, 0, 200); 8]);
        front.publish();
    }
}

#[test]
fn a_transmit_buffer_that_can_be_written_is_found() {
    let sim = Sim::new(1);
    sim.expect_violations();
    let mut front = Front::connected(&sim, Behaviour::default());
    front.push(&[(0, 0, 0, 200)]);
    front.publish();
    play_tricks(&mut front);
    assert!(sim.take_violations()[0].contains("wrote to d1's transmit buffer 16"));
}

#[test]
fn a_request_that_the_backend_has_overwritten_accuses_nobody() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let mut front = Front::connected(&sim, Behaviour::default());
        front.grant(DATA, &front.data[0], 5);
        front.push(&[(0, 0, 0, 200)]);
        front.publish();
        // Pages from 17 on may be written, as those may that are received into.
        play_tricks(&mut front);
    }
}

#[test]
fn checksums_are_dressed_as_asked() {
    let udp = {
        let mut bytes = frame(14);
        bytes[12..14].copy_from_slice(&[8, 0]);
        bytes.extend([
            0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4, 0, 10, 0, 0, 9, 9,
        ]);
        let mut packet = Packet {
            bytes,
            checksum: Checksum::Blank,
            gso: None,
        };
        assert!(packet.blank() && packet.complete());
        Packet {
            checksum: Checksum::Complete,
            ..packet
        }
    };
    assert_eq!(udp.verify(), Some(true));
    for (checksums, flags) in [
        (Checksums::AsTheyAre, 0),
        (Checksums::Blank, 3),
        (Checksums::Validated, 1),
    ] {
        let sim = Sim::new(1);
        let mut front = Front::connected(
            &sim,
            Behaviour {
                checksums,
                ..Behaviour::default()
            },
        );
        front.post([0]);
        front.notify();
        front.wire.send(udp.clone());
        sim.run_until_idle();
        assert_eq!(front.received(), [(0, 0, flags, 44)]);
        let mut field = [0; 2];
        front.data[0].read(40, &mut field);
        assert_eq!(field == udp.bytes[40..42], flags != 3);
    }
}

#[test]
fn detaching_asks_first() {
    let sim = Sim::new(1);
    let front = Front::connected(&sim, Behaviour::default());
    assert!(
        !sim.remove_vif(&front.vif, Duration::from_secs(1)),
        "this frontend does not listen"
    );
    assert!(sim.store().read(&front.vif.frontend_path()).is_none());
    assert!(sim.leaks(&front.domain).mappings.is_empty());
}
