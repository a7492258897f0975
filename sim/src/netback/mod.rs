//! A network backend that behaves as Linux's netback does: xenbus handshake, rings through grants, the same limits,
//! the same discipline of notifications. A frontend that forgets a final check hangs here as it would there.

mod driver;
mod link;
mod malice;
mod ring;
mod rx;
mod tx;

use std::time::Duration;

use fata_hypercall::PAGE_SIZE;

use crate::backend::Backend;
use crate::domain::Domain;
use crate::sim::Sim;
pub use driver::NetDriver;
pub use malice::{Malice, Trick};

/// A network device as an `xl` configuration describes it, and how its backend behaves.
#[derive(Clone, Debug)]
pub struct VifConfig {
    /// Hardware address of the guest's side; `None`: one in Xen's range, from the domain's and the device's number.
    pub mac: Option<[u8; 6]>,
    /// The bridge that the backend is plugged into.
    pub bridge: String,
    /// Largest packet without the Ethernet header.
    pub mtu: u16,
    /// What the backend offers and how it fills buffers.
    pub backend: Behaviour,
}

impl Default for VifConfig {
    fn default() -> Self {
        Self {
            mac: None,
            bridge: "xenbr0".to_owned(),
            mtu: 1500,
            backend: Behaviour::default(),
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

/// The backend of one vif.
pub type Netback = Backend<NetDriver>;

impl Sim {
    /// Adds a network device to a domain, with the nodes that libxl writes, and starts its backend.
    #[must_use = "the handle is how a test looks at the backend"]
    pub fn add_vif(&self, domain: &Domain, config: VifConfig) -> Netback {
        self.add_device(domain, |index, waker| {
            let plug = self.bridge(&config.bridge).plug(waker);
            let [high, low] = domain.id().0.to_be_bytes();
            let mac = config.mac.or(Some([0x00, 0x16, 0x3e, high, low, index as u8]));
            NetDriver::new(VifConfig { mac, ..config }, plug)
        })
    }

    /// `xl network-detach`: asks the frontend to close and takes the device away when it has, or after `limit`.
    pub fn remove_vif(&self, vif: &Netback, limit: Duration) -> bool {
        self.remove_device(vif, limit)
    }

    /// Removes a device's nodes at once, as a toolstack in a hurry does.
    pub fn forget_vif(&self, vif: &Netback) {
        self.forget_device(vif);
    }
}

impl Netback {
    /// What went through.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.driver().stats
    }

    /// Changes what it offers, from its next [start](Self::restart) on, and all else at once.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.driver_mut().config.backend = behaviour;
    }

    /// Changes how buffers are filled, from the next packet on.
    pub fn set_fill(&self, fill: Fill) {
        self.driver_mut().config.backend.fill = fill;
    }

    /// Changes what is said about checksums, from the next packet on.
    pub fn set_checksums(&self, checksums: Checksums) {
        self.driver_mut().config.backend.checksums = checksums;
    }

    /// Makes it hostile, or honest again, from the next step on.
    pub fn set_malice(&self, malice: Malice) {
        self.driver_mut().config.backend.malice = malice;
    }
}

#[cfg(test)]
mod tests;
