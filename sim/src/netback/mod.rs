//! A network backend that behaves as Linux's netback does: xenbus handshake, rings through grants, the same limits,
//! the same discipline of notifications. A frontend that forgets a final check hangs here as it would there.

mod link;
mod malice;
mod ring;
mod rx;
mod tx;
mod xenbus;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use fata_hypercall::{DomId, PAGE_SIZE};

use crate::domain::Domain;
use crate::sim::{Sim, Waker};
use crate::toolstack::VifConfig;
pub use malice::{Malice, Trick};
use xenbus::Backend;

/// States of a device's end (xen/include/public/io/xenbus.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum XenbusState {
    /// No state, or no node.
    Unknown = 0,
    /// Just made.
    Initialising = 1,
    /// The backend waits for the frontend.
    InitWait = 2,
    /// The frontend has written its keys.
    Initialised = 3,
    /// In use.
    Connected = 4,
    /// On the way to the end.
    Closing = 5,
    /// The end, or a pause.
    Closed = 6,
}

impl XenbusState {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "1" => Self::Initialising,
            "2" => Self::InitWait,
            "3" => Self::Initialised,
            "4" => Self::Connected,
            "5" => Self::Closing,
            "6" => Self::Closed,
            _ => Self::Unknown,
        }
    }
}

/// How a backend fills the guest's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Bytes that go into one buffer at most. Linux fills whole pages; fewer make short packets span slots. A long packet
    /// has more in each, so that it takes no more slots than Linux uses.
    pub chunk: usize,
    /// Bytes left free at the front of a buffer where there is room.
    pub headroom: usize,
}

/// What a backend says about the checksums of packets that it delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksums {
    /// What it knows: blank stays blank between guests, a packet from a host is not verified.
    #[default]
    AsTheyAre,
    /// All blank, as packets from sockets in dom0 are.
    Blank,
    /// All verified, as by a network card.
    Validated,
    /// By chance, packet by packet.
    Mixed,
}

/// What a backend offers and how it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// `feature-sg`
    pub scatter_gather: bool,
    /// `feature-gso-tcpv4` and `feature-gso-tcpv6`
    pub gso: bool,
    /// `feature-ipv6-csum-offload`
    pub ipv6_csum_offload: bool,
    /// `feature-split-event-channels`
    pub split_event_channels: bool,
    /// `feature-multicast-control` and `feature-dynamic-multicast-control`
    pub multicast_control: bool,
    /// `multi-queue-max-queues`; `None`: it has never heard of several. It serves one.
    pub max_queues: Option<u32>,
    /// Buffers of the guest.
    pub fill: Fill,
    /// Flags of the packets for the guest.
    pub checksums: Checksums,
    /// False: the backend never says a word.
    pub responsive: bool,
    /// What it does that no backend may do.
    pub malice: Malice,
}

impl Default for Behaviour {
    /// All that Linux 6.1 offers, whole pages, checksums as they are.
    fn default() -> Self {
        Self {
            scatter_gather: true,
            gso: true,
            ipv6_csum_offload: true,
            split_event_channels: true,
            multicast_control: true,
            max_queues: Some(2),
            fill: Fill {
                chunk: PAGE_SIZE,
                headroom: 0,
            },
            checksums: Checksums::AsTheyAre,
            responsive: true,
            malice: Malice::NONE,
        }
    }
}

/// What went through a backend, as the guest sees the directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets from the guest.
    pub tx_packets: u64,
    /// Bytes from the guest.
    pub tx_bytes: u64,
    /// Packets from the guest that were dropped for breaking a rule.
    pub tx_dropped: u64,
    /// Packets to the guest.
    pub rx_packets: u64,
    /// Bytes to the guest.
    pub rx_bytes: u64,
    /// Packets for the guest that were dropped because it had no buffers.
    pub rx_dropped: u64,
    /// Packets that were kept back, for multicast groups that the guest does not listen to.
    pub rx_filtered: u64,
    /// Slots used for packets to the guest.
    pub rx_slots: u64,
    /// Events sent to the guest.
    pub notifications: u64,
    /// Times that the rings were connected.
    pub connects: u64,
    /// Rules that it broke.
    pub tricks: u64,
}

/// The backend of one vif. Clones are the same backend.
#[derive(Clone)]
pub struct Netback {
    backend: Rc<RefCell<Backend>>,
    waker: Waker,
}

impl Netback {
    pub(crate) fn start(sim: &Sim, guest: &Domain, front: String, back: String, config: &VifConfig) -> Self {
        let mut made = None;
        let waker = sim.add_service(&format!("netback for {}", guest.id()), |waker| {
            let plug = sim.bridge(&config.bridge).plug(&waker);
            let backend = Backend::new(sim, guest.id(), front, back, config.backend, plug, waker);
            let backend = Rc::new(RefCell::new(backend));
            made = Some(Rc::clone(&backend));
            move || backend.borrow_mut().step()
        });
        let backend = made.expect("made above");
        sim.stalls.watch({
            let backend = Rc::clone(&backend);
            move || backend.borrow().due()
        });
        Self { backend, waker }
    }

    /// The guest was restored: the same device has a new backend, which knows nothing of the old one.
    pub(crate) fn move_to(&self, guest: DomId, front: String, back: String) {
        self.backend.borrow_mut().move_to(guest, front, back);
        self.waker.wake();
    }

    /// The device was taken away.
    pub(crate) fn is_stopped(&self) -> bool {
        self.backend.borrow().is_stopped()
    }

    /// The backend's own state.
    #[must_use]
    pub fn state(&self) -> XenbusState {
        self.backend.borrow().state()
    }

    /// Both ends are connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state() == XenbusState::Connected
    }

    /// The rings are gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state() == XenbusState::Closed
    }

    /// What went through.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.backend.borrow().stats()
    }

    /// Changes what it offers, from its next [start](Self::restart) on, and all else at once.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.backend.borrow_mut().behaviour = behaviour;
    }

    /// Changes how buffers are filled, from the next packet on.
    pub fn set_fill(&self, fill: Fill) {
        self.backend.borrow_mut().behaviour.fill = fill;
    }

    /// Changes what is said about checksums, from the next packet on.
    pub fn set_checksums(&self, checksums: Checksums) {
        self.backend.borrow_mut().behaviour.checksums = checksums;
    }

    /// The frontend's directory in the store. It is another one after the guest was restored.
    #[must_use]
    pub fn frontend_path(&self) -> String {
        self.backend.borrow().front().to_owned()
    }

    /// The backend's directory in the store. It is another one after the guest was restored.
    #[must_use]
    pub fn backend_path(&self) -> String {
        self.backend.borrow().back().to_owned()
    }

    /// Makes it hostile, or honest again, from the next step on.
    pub fn set_malice(&self, malice: Malice) {
        self.backend.borrow_mut().behaviour.malice = malice;
    }

    /// It hangs: whatever comes, it neither answers nor lets go. Or it goes on.
    pub fn set_silent(&self, silent: bool) {
        self.backend.borrow_mut().set_silent(silent);
        self.waker.wake();
    }

    /// The driver domain dies: its mappings and ports are gone, and the store still says what it said.
    pub fn crash(&self) {
        self.backend.borrow_mut().crash();
    }

    /// The driver starts anew, whether it has crashed before or not. It knows nothing of the frontend but what the
    /// store and the rings say.
    pub fn restart(&self) {
        self.backend.borrow_mut().restart();
        self.waker.wake();
    }

    pub(crate) fn expect_leave(&self) {
        self.backend.borrow_mut().expect_leave();
    }

    /// It has not crashed, and was not stopped.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.backend.borrow().is_alive()
    }

    /// The device is taken away: the driver lets go of everything at once, without a word to the frontend.
    pub fn stop(&self) {
        self.backend.borrow_mut().stop();
        self.waker.wake();
    }
}

impl fmt::Debug for Netback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netback({}, {:?})", self.backend_path(), self.state())
    }
}

#[cfg(test)]
mod tests;
