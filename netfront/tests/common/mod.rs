//! A guest with one interface whose program sends every frame back, and a backend that the test plays by hand.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod host;

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use fata_events::xen::XenLoop;
use fata_grant::{BackRing, Table};
use fata_hypercall::{DomId, GrantRef, Hypervisor, Port, SharedPage};
use fata_netfront::abi::{RxRequest, RxResponse, RxSlot, TxRequest, TxResponse};
use fata_netfront::{Error, Options, RxChecksum, TxChecksum, TxMeta, Vif};
use fata_sim::netback::Behaviour;
use fata_sim::{Access, Domain, Mapping, Netback, Sim, VifConfig};
use fata_xenstore::Store;

pub const SECOND: Duration = Duration::from_secs(1);

/// What the guest's program does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sends it back, its checksum as it came.
    Reflect,
    /// Keeps it for the test.
    Keep,
    /// Leaves it where it is.
    Ignore,
}

/// A frame as the guest saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub bytes: Vec<u8>,
    pub checksum: RxChecksum,
}

pub struct Guest {
    pub domain: Domain,
    pub vif: Vif<Domain>,
    pub table: Table<Domain>,
    /// What `run` ended with.
    pub ended: Rc<Cell<Option<Result<(), Error>>>>,
    pub mode: Rc<Cell<Mode>>,
    pub seen: Rc<RefCell<Vec<Seen>>>,
    /// Frames of this length to send as soon as there is room.
    pub to_send: Rc<RefCell<Vec<usize>>>,
    pub stop: Rc<Cell<bool>>,
    retries: Cell<u64>,
    again: Rc<Cell<bool>>,
    quit: Rc<Cell<bool>>,
    gone: Rc<Cell<bool>>,
}

impl Guest {
    pub fn boot(sim: &Sim, domain: &Domain, options: Options) -> Self {
        let mut xen_loop = XenLoop::new(domain.clone());
        let handle = xen_loop.handle();
        let table = Table::new(domain.clone());
        let store = Store::new(domain.clone(), xen_loop.ports(), handle.clone()).unwrap();
        let vif = Vif::new(
            table.clone(),
            xen_loop.ports().clone(),
            store.client().clone(),
            0,
            options,
        );
        let guest = Self {
            domain: domain.clone(),
            vif: vif.clone(),
            table: table.clone(),
            ended: Rc::default(),
            mode: Rc::new(Cell::new(Mode::Reflect)),
            seen: Rc::default(),
            to_send: Rc::default(),
            stop: Rc::default(),
            retries: Cell::new(0),
            again: Rc::default(),
            quit: Rc::default(),
            gone: Rc::default(),
        };
        let service = handle.spawn(store.run());
        let life = handle.spawn({
            let (vif, ended, handle) = (vif.clone(), Rc::clone(&guest.ended), handle.clone());
            let again = Rc::clone(&guest.again);
            async move {
                loop {
                    ended.set(Some(vif.run().await));
                    while !again.take() {
                        handle.sleep(Duration::from_millis(10)).await;
                    }
                    ended.set(None);
                }
            }
        });
        let frames = handle.spawn({
            let (vif, mode) = (vif.clone(), Rc::clone(&guest.mode));
            let (seen, to_send) = (Rc::clone(&guest.seen), Rc::clone(&guest.to_send));
            let pause = handle.clone();
            async move {
                loop {
                    move_frames(&vif, &mode, &seen, &to_send);
                    vif.flush();
                    match mode.get() {
                        // It would be told again and again of the frames that it leaves where they are.
                        Mode::Ignore => pause.sleep(Duration::from_millis(10)).await,
                        _ => poll_fn(|cx| vif.poll_ready(cx)).await,
                    }
                }
            }
        });
        // The test's orders.
        let (stop, quit, gone) = (Rc::clone(&guest.stop), Rc::clone(&guest.quit), Rc::clone(&guest.gone));
        let timer = handle.clone();
        handle
            .spawn(async move {
                let mut tasks = Some((service, life, frames));
                loop {
                    timer.sleep(Duration::from_millis(100)).await;
                    if stop.take() {
                        vif.stop();
                    }
                    if quit.take() {
                        tasks = None;
                        timer.sleep(Duration::from_millis(10)).await;
                        gone.set(true);
                    }
                    let _ = &tasks;
                }
            })
            .detach();
        sim.add_guest(domain, move || {
            xen_loop.turn();
        });
        guest
    }

    /// A guest with one interface, served by the simulator's netback.
    pub fn with_netback(sim: &Sim, config: VifConfig) -> (Self, Netback) {
        let domain = sim.domain("guest");
        let netback = sim.add_vif(&domain, config);
        let guest = Self::boot(sim, &domain, Options::default());
        (guest, netback)
    }

    pub fn wait_up(&self, sim: &Sim) {
        sim.run_until(|| self.vif.link_up(), 10 * SECOND);
    }

    #[track_caller]
    pub fn wait_end(&self, sim: &Sim) -> Result<(), Error> {
        sim.run_until(|| self.ended.get().is_some(), 30 * SECOND);
        self.ended.get().unwrap()
    }

    /// Waits until something has gone wrong once more and was cleared away, so that a pause begins: what it was.
    #[track_caller]
    pub fn wait_retry(&self, sim: &Sim) -> Error {
        let before = self.retries.get();
        sim.run_until(|| self.vif.stats().retries > before, 30 * SECOND);
        self.retries.set(self.vif.stats().retries);
        assert_eq!(self.ended.get(), None);
        self.vif.problem().unwrap()
    }

    /// Lets `run` be called again after it has ended.
    pub fn run_again(&self) {
        self.ended.set(None);
        self.again.set(true);
    }

    /// Nothing is shared with anybody any more, once pages that were still mapped have been tried again.
    #[track_caller]
    pub fn assert_nothing_shared(&self, sim: &Sim) {
        sim.run_for(2 * SECOND);
        self.assert_nothing_shared_now(sim);
    }

    /// Nothing is shared with anybody at this moment.
    #[track_caller]
    pub fn assert_nothing_shared_now(&self, sim: &Sim) {
        let leaks = sim.leaks(&self.domain);
        assert_eq!(
            (leaks.pages, leaks.grants.len(), leaks.ports.len()),
            (0, 0, 0),
            "{leaks}"
        );
        let stats = self.table.stats();
        assert_eq!((stats.in_use, stats.quarantined), (0, 0));
    }

    /// Ends the program; then nothing at all is left.
    #[track_caller]
    pub fn assert_no_leaks(&self, sim: &Sim) {
        self.quit.set(true);
        sim.run_until(|| self.gone.get(), 5 * SECOND);
        sim.remove_guest(&self.domain);
        let leaks = sim.leaks(&self.domain);
        assert_eq!(
            (leaks.pages, leaks.grants.len(), leaks.ports.len()),
            (0, 0, 0),
            "{leaks}"
        );
        assert!(sim.take_violations().is_empty());
    }
}

fn move_frames(vif: &Vif<Domain>, mode: &Cell<Mode>, seen: &RefCell<Vec<Seen>>, to_send: &RefCell<Vec<usize>>) {
    let mut to_send = to_send.borrow_mut();
    while let Some(&len) = to_send.last() {
        let Some(room) = vif.transmit() else { break };
        to_send.pop();
        room.consume(len, |bytes| {
            fill(bytes, len as u8);
            ((), TxMeta::default())
        });
    }
    loop {
        match mode.get() {
            Mode::Ignore => return,
            Mode::Keep => {
                let Some(frame) = vif.receive() else { return };
                let meta = frame.meta();
                let bytes = frame.consume(<[u8]>::to_vec);
                assert_eq!(bytes.len(), meta.len);
                seen.borrow_mut().push(Seen {
                    bytes,
                    checksum: meta.checksum,
                });
            }
            Mode::Reflect => {
                if !vif.has_room() {
                    return;
                }
                let Some(frame) = vif.receive() else { return };
                let meta = frame.meta();
                let Some(identity) = vif.identity() else { return };
                let longest = match meta.gso {
                    Some(_) => identity.segmentation.longest.into(),
                    None => usize::from(identity.mtu) + 14,
                };
                if meta.len > longest {
                    continue;
                }
                frame.consume(|from| {
                    let room = vif.transmit().expect("room while a frame is held");
                    room.consume(meta.len, |to| {
                        to.copy_from_slice(from);
                        to[..6].copy_from_slice(&from[6..12]);
                        to[6..12].copy_from_slice(&from[..6]);
                        let checksum = match meta.checksum {
                            RxChecksum::Blank => TxChecksum::Blank,
                            _ => TxChecksum::Complete,
                        };
                        let gso = meta.gso;
                        ((), TxMeta { checksum, gso })
                    });
                });
            }
        }
    }
}

/// Bytes that tell where in which frame they were.
pub fn fill(bytes: &mut [u8], seed: u8) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = (i as u8)
            .wrapping_mul(31)
            .wrapping_add((i >> 8) as u8)
            .wrapping_add(seed);
    }
    if let Some(head) = bytes.first_chunk_mut::<12>() {
        *head = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, seed.max(2)];
    }
}

pub fn frame(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, seed);
    bytes
}

/// A mapped ring page.
pub struct Page(Mapping);

impl Page {
    pub fn shared(&self) -> &SharedPage {
        self.0.page()
    }
}

impl Borrow<SharedPage> for Page {
    fn borrow(&self) -> &SharedPage {
        self.0.page()
    }
}

/// The backend's end of a connection, played by the test.
pub struct Backend {
    pub dom0: Domain,
    pub guest: DomId,
    /// The receive ring's, and the other's unless there is one for each.
    pub port: Port,
    pub tx_port: Port,
    pub rx: BackRing<Page, RxRequest, RxSlot>,
    pub tx: BackRing<Page, TxRequest, TxResponse>,
}

/// A device whose backend is silent until the test speaks for it.
pub struct Device {
    pub front: String,
    pub back: String,
    netback: Netback,
}

impl Device {
    pub fn add(sim: &Sim, domain: &Domain) -> Self {
        let backend = Behaviour {
            responsive: false,
            ..Behaviour::default()
        };
        let netback = sim.add_vif(
            domain,
            VifConfig {
                backend,
                ..VifConfig::default()
            },
        );
        Self {
            front: netback.frontend_path().to_owned(),
            back: netback.backend_path().to_owned(),
            netback,
        }
    }

    pub fn set(&self, sim: &Sim, key: &str, value: &str) {
        sim.store().write(&format!("{}/{key}", self.back), value).unwrap();
    }

    pub fn set_front(&self, sim: &Sim, key: &str, value: &str) {
        sim.store().write(&format!("{}/{key}", self.front), value).unwrap();
    }

    pub fn front_state(&self, sim: &Sim) -> String {
        sim.store()
            .read_text(&format!("{}/state", self.front))
            .unwrap_or_default()
    }

    pub fn error(&self, sim: &Sim, domain: &Domain) -> String {
        let path = format!("/local/domain/{}/error/device/vif/0/error", domain.id().0);
        sim.store().read_text(&path).unwrap_or_default()
    }

    /// Goes to InitWait, waits for the frontend, and maps what it shares; the frontend does not see Connected yet.
    #[track_caller]
    pub fn attach(&self, sim: &Sim, domain: &Domain) -> Backend {
        for key in [
            "feature-sg",
            "feature-ipv6-csum-offload",
            "feature-rx-copy",
            "feature-gso-tcpv4",
        ] {
            self.set(sim, key, "1");
        }
        self.set(sim, "state", "2");
        sim.run_until(|| self.front_state(sim) == "4", 5 * SECOND);
        let text = |key: &str| sim.store().read_text(&format!("{}/{key}", self.front));
        let number = |key: &str| -> u32 { text(key).unwrap().parse().unwrap() };
        let dom0 = sim.dom0().clone();
        let guest = domain.id();
        let map = |key| Page(dom0.map_grant(guest, GrantRef(number(key)), Access::Write).unwrap());
        let (rx, tx) = (map("rx-ring-ref"), map("tx-ring-ref"));
        let bind = |key| dom0.bind_interdomain(guest, Port(number(key))).unwrap();
        let (port, tx_port) = if text("event-channel").is_some() {
            let port = bind("event-channel");
            (port, port)
        } else {
            (bind("event-channel-rx"), bind("event-channel-tx"))
        };
        let (rx, tx) = (BackRing::attach(rx).unwrap(), BackRing::attach(tx).unwrap());
        Backend {
            dom0,
            guest,
            port,
            tx_port,
            rx,
            tx,
        }
    }

    /// The same, and goes to Connected.
    #[track_caller]
    pub fn connect(&self, sim: &Sim, guest: &Guest) -> Backend {
        let backend = self.attach(sim, &guest.domain);
        self.set(sim, "state", "4");
        guest.wait_up(sim);
        backend
    }

    /// The driver domain takes the device away.
    pub fn forget(&self, sim: &Sim) {
        sim.forget_vif(&self.netback);
    }
}

impl Backend {
    pub fn notify(&self) {
        self.dom0.evtchn_send(self.port).unwrap();
    }

    /// Takes the next receive buffer and puts `bytes` into it.
    #[track_caller]
    pub fn fill_buffer(&mut self, offset: usize, bytes: &[u8]) -> RxRequest {
        let request = self.rx.pop().unwrap().expect("a receive buffer");
        self.dom0
            .copy_to_grant(self.guest, GrantRef(request.gref), offset, bytes)
            .unwrap();
        request
    }

    /// Queues one received slot.
    pub fn respond(&mut self, slot: impl Into<RxSlot>) {
        self.rx.push(&slot.into()).unwrap();
    }

    /// Queues a received frame of one slot.
    #[track_caller]
    pub fn deliver(&mut self, bytes: &[u8]) {
        let request = self.fill_buffer(0, bytes);
        self.respond(RxResponse {
            id: request.id,
            status: bytes.len() as i16,
            ..RxResponse::default()
        });
    }

    /// Publishes everything, and notifies if the frontend wants it.
    pub fn publish(&mut self) -> bool {
        let notify = self.rx.publish() | self.tx.publish();
        if notify {
            self.notify();
        }
        notify
    }

    /// Closes the port and unmaps the rings.
    pub fn let_go(self) {
        self.dom0.evtchn_close(self.port).unwrap();
    }
}

/// A guest that does nothing by itself, and is connected.
pub fn connected(seed: u64, options: Options) -> (Sim, Guest, Device, Backend) {
    let sim = Sim::new(seed);
    let domain = sim.domain("guest");
    let device = Device::add(&sim, &domain);
    let guest = Guest::boot(&sim, &domain, options);
    let backend = device.connect(&sim, &guest);
    guest.mode.set(Mode::Ignore);
    sim.run_for(SECOND);
    (sim, guest, device, backend)
}

/// As few buffers as there can be, about.
pub fn few() -> Options {
    Options {
        tx_buffers: 4,
        rx_buffers: 20,
        ..Options::default()
    }
}

/// Queues a frame of so many bytes; `false` if there is no room.
pub fn send(guest: &Guest, len: usize, seed: u8) -> bool {
    let Some(room) = guest.vif.transmit() else { return false };
    room.consume(len, |bytes| {
        fill(bytes, seed);
        ((), TxMeta::default())
    });
    true
}
