//! Rules of the hardening list that need a whole guest: what is shared, what is told, what is left.

mod common;

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

use common::{Device, Guest, Mode, SECOND, connected, few, frame, send};
use fata_events::xen::XenLoop;
use fata_grant::Table;
use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{
    DomId, Errno, Gfn, GrantRef, Hypervisor, PAGE_SIZE, Port, ServiceRing, SharedPage, ShutdownReason, SystemTime,
    Version,
};
use fata_netfront::abi::{RxFlags, RxResponse, TxFlags, TxResponse};
use fata_netfront::{Error, Fault, Options, TxChecksum, TxMeta, Vif};
use fata_sim::{Domain, Sim, VifConfig};
use fata_xenstore::Store;

const REQ_PROD: usize = 0;
const RSP_PROD: usize = 8;

/// Rule 10, MX 99520b2: all slots of a frame become visible in one store, and frames do not interleave.
#[test]
fn mx_99520b2_the_slots_of_a_frame_become_visible_at_once() {
    let sim = Sim::new(1);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    device.set_front(&sim, "mtu", "9000");
    let guest = Guest::boot(&sim, &domain, Options::default());
    let mut backend = device.connect(&sim, &guest);
    guest.mode.set(Mode::Ignore);
    sim.run_for(SECOND);
    let produced = || backend.tx.page().shared().load_u32(REQ_PROD, SeqCst);
    for seed in 1..=2 {
        assert!(send(&guest, 9014, seed));
        assert_eq!(produced(), Some(0), "nothing is shown before all is there");
    }
    guest.vif.flush();
    assert_eq!(produced(), Some(6));
    for _ in 0..2 {
        let slots: Vec<_> = (0..3).map(|_| backend.tx.pop().unwrap().unwrap()).collect();
        let more = slots.iter().map(|slot| slot.flags.contains(TxFlags::MORE_DATA));
        assert_eq!(more.collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(slots[0].size, 9014);
    }
}

/// Rule 39: whether the checksum is blank stands in the first slot, with both flags, as Linux sets them.
#[test]
fn rule_39_a_blank_frame_says_so_in_its_first_slot() {
    let sim = Sim::new(39);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    device.set_front(&sim, "mtu", "9000");
    let guest = Guest::boot(&sim, &domain, Options::default());
    let mut backend = device.connect(&sim, &guest);
    guest.mode.set(Mode::Ignore);
    sim.run_for(SECOND);
    let blank = TxFlags::CSUM_BLANK | TxFlags::DATA_VALIDATED;
    for (checksum, expected) in [(TxChecksum::Blank, blank), (TxChecksum::Complete, TxFlags::empty())] {
        let room = guest.vif.transmit().unwrap();
        room.consume(9014, |bytes| {
            common::fill(bytes, 1);
            ((), checksum.into())
        });
        guest.vif.flush();
        let flags = [(); 3].map(|()| backend.tx.pop().unwrap().unwrap().flags);
        assert_eq!(
            flags,
            [expected | TxFlags::MORE_DATA, TxFlags::MORE_DATA, TxFlags::empty()]
        );
    }
}

/// Rule 74: only a device that is not there is said to be missing.
#[test]
fn rule_74_a_device_that_makes_no_sense_is_not_missing() {
    let sim = Sim::new(74);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    device.set_front(&sim, "backend-id", "junk");
    let guest = Guest::boot(&sim, &domain, Options::default());
    let ended = guest.wait_end(&sim);
    assert!(matches!(ended, Err(error) if error != Error::NoDevice), "{ended:?}");
}

/// Rule 11, SMR ca79af1: room that was found is room that is taken: no two frames get the same.
#[test]
fn smr_ca79af1_no_two_frames_get_the_same_room() {
    let (_sim, guest, _device, mut backend) = connected(2, few());
    let sent = (0..10).filter(|&seed| send(&guest, 100, seed)).count();
    assert_eq!(sent, 4);
    guest.vif.flush();
    let mut places = Vec::new();
    for seed in 0..4 {
        let request = backend.tx.pop().unwrap().unwrap();
        let mut bytes = [0; 100];
        let gref = GrantRef(request.gref);
        backend
            .dom0
            .copy_from_grant(backend.guest, gref, request.offset.into(), &mut bytes)
            .unwrap();
        assert_eq!(bytes[..], frame(100, seed));
        places.push((request.id, request.gref, request.offset));
    }
    places.sort_unstable();
    places.dedup_by(|a, b| a.0 == b.0 || (a.1, a.2) == (b.1, b.2));
    assert_eq!(places.len(), 4);
}

/// Rule 13, NX d43ea46: a ring that was used up, by frames of one slot, by longer ones or by what had to be dropped, is full
/// again before anybody sleeps, and the next frame is heard of. Nobody calls `flush` here: going to sleep does.
#[test]
fn nx_d43ea46_an_empty_ring_is_refilled_before_sleeping() {
    let (_sim, guest, _device, mut backend) = connected(3, few());
    let mut waiting = Context::from_waker(Waker::noop());
    for round in 0..99 {
        for slot in 0..20 {
            let request = backend.fill_buffer(0, &frame(60, slot));
            let (status, flags) = match round % 3 {
                1 if slot % 2 == 0 => (60, RxFlags::MORE_DATA),
                2 => (-1, RxFlags::empty()),
                _ => (60, RxFlags::empty()),
            };
            backend.respond(RxResponse {
                id: request.id,
                flags,
                status,
                ..RxResponse::default()
            });
        }
        assert!(backend.publish(), "it asked to be told of the next frame");
        let mut frames = 0;
        while guest.vif.poll_ready(&mut waiting).is_ready() {
            while let Some(received) = guest.vif.receive() {
                received.consume(|_| ());
                frames += 1;
            }
        }
        assert_eq!(
            (frames, backend.rx.ready()),
            ([20, 10, 0][round % 3], Ok(20)),
            "round {round}"
        );
    }
}

struct Noted(AtomicU32);

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Rule 19: whoever waits for frames or room is told that the interface is broken; nobody waits for ever.
#[test]
fn rule_19_who_waits_is_told_of_a_fault() {
    let (sim, guest, _device, backend) = connected(4, few());
    while send(&guest, 60, 1) {}
    let noted = Arc::new(Noted(AtomicU32::new(0)));
    let waker = Waker::from(Arc::clone(&noted));
    let mut waiting = Context::from_waker(&waker);
    // What happened before is told first.
    while guest.vif.poll_ready(&mut waiting).is_ready() {}
    noted.0.store(0, SeqCst);
    backend.tx.page().shared().store_u32(RSP_PROD, 1000, SeqCst);
    backend.notify();
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    assert!(noted.0.load(SeqCst) > 0, "woken");
    assert_eq!(guest.vif.poll_ready(&mut waiting), Poll::Ready(()));
    assert!(!send(&guest, 60, 1), "and nothing more is taken");
}

/// XSA-405: a frame that the stack still holds when its interface breaks stays what it is until it is given back, and
/// only then do its pages go.
#[test]
fn xsa_405_a_frame_in_the_hand_outlives_its_interface() {
    let (sim, guest, device, mut backend) = connected(5, few());
    backend.deliver(&frame(100, 1));
    backend.publish();
    let held = guest.vif.receive().expect("a frame");
    backend.tx.page().shared().store_u32(RSP_PROD, 77, SeqCst);
    backend.notify();
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    backend.let_go();
    device.set(&sim, "state", "6");
    sim.run_for(SECOND);
    assert_eq!(guest.ended.get(), None, "it waits for its buffer");
    held.consume(|bytes| assert_eq!(bytes, frame(100, 1)));
    assert!(matches!(guest.wait_retry(&sim), Error::Fault(Fault::TxRing(_))));
    guest.assert_nothing_shared(&sim);
    guest.assert_no_leaks(&sim);
}

/// MSA-01: whoever writes a frame sees the bytes of that frame and no more; and what the backend can read beyond a frame
/// is zeroes, or frames that it had before.
#[test]
fn msa_01_no_stale_bytes_beside_a_frame() {
    let (_sim, guest, _device, mut backend) = connected(6, few());
    for len in [14, 60, 1514] {
        let room = guest.vif.transmit().unwrap();
        room.consume(len, |bytes| {
            assert_eq!(bytes.len(), len);
            bytes.fill(0xee);
            ((), TxMeta::default())
        });
        guest.vif.flush();
        let request = backend.tx.pop().unwrap().unwrap();
        let (offset, end) = (usize::from(request.offset), usize::from(request.offset) + len);
        let mut buffer = [0; 2048];
        backend
            .dom0
            .copy_from_grant(backend.guest, GrantRef(request.gref), offset, &mut buffer)
            .unwrap();
        assert!(buffer[..end - offset].iter().all(|&byte| byte == 0xee));
        assert!(buffer[end - offset..].iter().all(|&byte| byte == 0));
    }
}

/// Rule 25, XSA-403: a backend that is said not to be trusted gets what any backend gets: copies. While frames move, no
/// page is granted beyond the rings and the buffers, and the buffers for sending cannot be written.
#[test]
fn xsa_403_trusted_0_or_not_every_frame_is_copied() {
    for trusted in [None, Some("1"), Some("0")] {
        let sim = Sim::new(7);
        let domain = sim.domain("guest");
        let device = Device::add(&sim, &domain);
        if let Some(trusted) = trusted {
            device.set_front(&sim, "trusted", trusted);
        }
        let guest = Guest::boot(&sim, &domain, few());
        let mut backend = device.connect(&sim, &guest);
        let granted = || {
            let mut grants = sim.leaks(&domain).grants;
            grants.sort_unstable();
            grants
        };
        let at_first = granted();
        assert_eq!(
            at_first.len(),
            2 + 20 + 2 + 4 * 4,
            "two rings, a page for each buffer in, half a page out, 16 KiB out for many segments"
        );
        for seed in 0..100 {
            backend.deliver(&frame(1514, seed));
            backend.publish();
            sim.run_until(|| backend.tx.ready().unwrap() == 1, SECOND);
            let request = backend.tx.pop().unwrap().unwrap();
            assert_eq!(granted(), at_first);
            backend
                .dom0
                .copy_to_grant(backend.guest, GrantRef(request.gref), 0, &[1])
                .expect_err("granted for reading only");
            let answer = TxResponse {
                id: request.id,
                status: 0,
            };
            backend.tx.push(&answer).unwrap();
            backend.publish();
        }
    }
}

/// Rule 29: what we know of our pages is not in the page that the backend can write: scribbled all over, nothing is lost.
#[test]
fn rule_29_teardown_takes_nothing_from_the_rings() {
    for first_byte in [0, 64] {
        let (sim, guest, device, backend) = connected(8, few());
        for page in [backend.rx.page().shared(), backend.tx.page().shared()] {
            page.write(first_byte, &[0xa5; PAGE_SIZE]);
        }
        backend.notify();
        sim.run_for(SECOND);
        assert_eq!(
            guest.vif.link_up(),
            first_byte != 0,
            "slots without an index mean nothing"
        );
        backend.let_go();
        device.forget(&sim);
        let _ = guest.wait_end(&sim);
        guest.assert_nothing_shared(&sim);
        guest.assert_no_leaks(&sim);
    }
}

/// A first piece that is shorter than an Ethernet header: nobody looks at it before it is whole.
#[test]
fn linux_2026_a_short_first_piece() {
    let (_sim, guest, _device, mut backend) = connected(9, few());
    let whole = frame(65, 3);
    for (piece, flags) in [(&whole[..5], RxFlags::MORE_DATA), (&whole[5..], RxFlags::empty())] {
        backend.fill_buffer(0, piece);
        backend.respond(RxResponse {
            status: piece.len() as i16,
            flags,
            ..RxResponse::default()
        });
    }
    backend.fill_buffer(0, &whole[..13]);
    backend.respond(RxResponse {
        status: 13,
        ..RxResponse::default()
    });
    backend.publish();
    assert_eq!(guest.vif.receive().unwrap().consume(<[u8]>::to_vec), whole);
    assert!(guest.vif.receive().is_none());
    assert_eq!(guest.vif.stats().rx_dropped, 1);
    guest.vif.flush();
    assert_eq!(backend.rx.ready(), Ok(20), "and no buffer is lost");
}

/// Rule 41: without an address there is no interface. None is made up that could be the peer's.
#[test]
fn nx_1_11_0_no_address_is_made_up() {
    let sim = Sim::new(10);
    let domain = sim.domain("guest");
    let netback = sim.add_vif(&domain, VifConfig::default());
    sim.store().remove(&format!("{}/mac", netback.frontend_path())).unwrap();
    let guest = Guest::boot(&sim, &domain, Options::default());
    assert_eq!(guest.wait_retry(&sim), Error::BadKey("mac"));
    assert_eq!(guest.vif.mac(), None);
    guest.assert_nothing_shared(&sim);
}

/// Rule 60: whatever becomes of a frame, there is a number that says so.
#[test]
fn rule_60_everything_is_counted() {
    let (sim, guest, _device, mut backend) = connected(11, few());
    guest.mode.set(Mode::Reflect);
    backend.deliver(&frame(100, 1));
    backend.fill_buffer(0, &[]);
    backend.respond(RxResponse {
        status: -1,
        ..RxResponse::default()
    });
    backend.publish();
    sim.run_until(|| backend.tx.ready().unwrap() == 1, SECOND);
    let request = backend.tx.pop().unwrap().unwrap();
    let refused = TxResponse {
        id: request.id,
        status: -1,
    };
    backend.tx.push(&refused).unwrap();
    backend.publish();
    guest.to_send.borrow_mut().extend([70; 6]);
    backend.notify();
    sim.run_for(SECOND);
    backend.rx.page().shared().store_u32(RSP_PROD, 1 << 20, SeqCst);
    backend.notify();
    sim.run_until(|| !guest.vif.link_up(), SECOND);
    let stats = guest.vif.stats();
    assert_eq!((stats.rx_frames, stats.rx_bytes, stats.rx_dropped), (1, 100, 1));
    assert_eq!((stats.tx_frames, stats.tx_bytes, stats.tx_dropped), (5, 380, 1));
    assert_eq!((stats.connections, stats.faults), (1, 1));
    assert!(
        stats.tx_full >= 1 && stats.events >= 2 && stats.notifications >= 2,
        "{stats:?}"
    );
}

/// A simulated domain that writes down in which order ports are closed and pages are freed.
#[derive(Clone)]
struct Spy {
    domain: Domain,
    log: Rc<RefCell<Vec<&'static str>>>,
}

impl Spy {
    fn note(&self, what: &'static str) {
        self.log.borrow_mut().push(what);
    }
}

// SAFETY: it is the simulator's, and notes.
unsafe impl Hypervisor for Spy {
    fn alloc_pages(&self, count: usize) -> Option<NonNull<SharedPage>> {
        self.domain.alloc_pages(count)
    }
    unsafe fn free_pages(&self, first: NonNull<SharedPage>, count: usize) {
        self.note("free");
        // SAFETY: as the caller promises.
        unsafe { self.domain.free_pages(first, count) };
    }
    fn gfn_of(&self, page: &SharedPage) -> Gfn {
        self.domain.gfn_of(page)
    }
    fn console_ring(&self) -> Option<ServiceRing<'_>> {
        self.domain.console_ring()
    }
    fn store_ring(&self) -> Option<ServiceRing<'_>> {
        self.domain.store_ring()
    }
    fn version(&self) -> Option<Version> {
        self.domain.version()
    }
    fn shared_info(&self) -> &SharedInfo {
        self.domain.shared_info()
    }
    fn tsc(&self) -> u64 {
        self.domain.tsc()
    }
    fn evtchn_alloc_unbound(&self, remote: DomId) -> Result<Port, Errno> {
        self.domain.evtchn_alloc_unbound(remote)
    }
    fn evtchn_close(&self, port: Port) -> Result<(), Errno> {
        self.note("close");
        self.domain.evtchn_close(port)
    }
    fn evtchn_send(&self, port: Port) -> Result<(), Errno> {
        self.domain.evtchn_send(port)
    }
    fn poll(&self, ports: &[Port], deadline: Option<SystemTime>) {
        self.domain.poll(ports, deadline);
    }
    fn shutdown(&self, reason: ShutdownReason) {
        self.domain.shutdown(reason);
    }
    fn grant_max_frames(&self) -> u32 {
        self.domain.grant_max_frames()
    }
    fn claim_grant_table(&self) -> bool {
        self.domain.claim_grant_table()
    }
    fn release_grant_table(&self) {
        self.domain.release_grant_table();
    }
    // SAFETY: as the caller promises.
    unsafe fn grant_frame(&self, index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno> {
        // SAFETY: as the caller promises.
        unsafe { self.domain.grant_frame(index) }
    }
    fn console_io(&self, bytes: &[u8]) {
        self.domain.console_io(bytes);
    }
}

/// A guest with nothing but the driver, whose life is cancelled before its `turns`th turn.
fn cancelled_after(sim: &Sim, hv: &Spy, turns: u64) -> (Vif<Spy>, Table<Spy>) {
    let mut xen = XenLoop::new(hv.clone());
    let table = Table::new(hv.clone());
    let store = Store::new(hv.clone(), xen.ports(), xen.handle()).unwrap();
    let vif = Vif::new(
        table.clone(),
        xen.ports().clone(),
        store.client().clone(),
        0,
        Options::default(),
    );
    let service = xen.handle().spawn(store.run());
    let mut life = Some(xen.handle().spawn({
        let vif = vif.clone();
        async move { vif.run().await }
    }));
    // Goes on turning when nothing happens.
    let handle = xen.handle();
    let ticks = async move {
        loop {
            handle.sleep(SECOND / 20).await;
        }
    };
    xen.handle().spawn(ticks).detach();
    let turn = Cell::new(0);
    sim.add_guest(&hv.domain, move || {
        turn.set(turn.get() + 1);
        if turn.get() == turns {
            drop(life.take());
        }
        let _ = &service;
        xen.turn();
    });
    (vif, table)
}

/// Rule 59: `run` may be dropped at any await. The port is closed, and pages come back: at once, or when the backend has
/// let go of them; watches and transactions are given back too.
#[test]
fn rule_59_a_connection_is_cancelled_at_every_await() {
    let mut connected = 0;
    for turns in 1..200 {
        let sim = Sim::new(turns);
        // A backend that comes for rings that have gone complains, and nothing is wrong with that.
        sim.expect_violations();
        let domain = sim.domain("guest");
        let netback = sim.add_vif(&domain, VifConfig::default());
        let hv = Spy {
            domain: domain.clone(),
            log: Rc::default(),
        };
        let (vif, table) = cancelled_after(&sim, &hv, turns);
        sim.run_for(SECOND);
        // Nothing happens any more once it is connected. Events without a cause give it a few more turns.
        for _ in 0..5 {
            sim.spurious_events(&domain, 1);
            sim.run_for(SECOND);
        }
        if vif.link_up() {
            break; // it was never cancelled: all awaits until then have been
        }
        connected += u32::from(vif.stats().connections > 0);
        sim.forget_vif(&netback);
        sim.run_for(SECOND);
        table.retry_quarantine();
        let leaks = sim.leaks(&domain);
        assert!(leaks.is_empty(), "after {turns} turns: {leaks}");
        let stats = table.stats();
        assert_eq!((stats.in_use, stats.quarantined), (0, 0), "after {turns} turns");
        let complaints = sim.take_violations();
        assert!(
            complaints.iter().all(|text| text.contains("mapping ring")),
            "{complaints:?}"
        );
    }
    assert!(connected > 0, "at least one was cancelled when it had come to its end");
}

/// Rule 58: the port is closed before any page of the connection goes, so that no event finds a ring that is gone.
#[test]
fn linux_2026_the_port_is_closed_before_the_rings_go() {
    let sim = Sim::new(12);
    let domain = sim.domain("guest");
    let netback = sim.add_vif(&domain, VifConfig::default());
    let hv = Spy {
        domain: domain.clone(),
        log: Rc::default(),
    };
    let (vif, _table) = cancelled_after(&sim, &hv, 0);
    sim.run_until(|| vif.link_up(), 5 * SECOND);
    hv.log.borrow_mut().clear();
    vif.stop();
    sim.remove_vif(&netback, 5 * SECOND);
    sim.run_for(SECOND);
    // Two rings, buffers in, two kinds of buffers out.
    assert_eq!(*hv.log.borrow(), ["close", "free", "free", "free", "free", "free"]);
}
