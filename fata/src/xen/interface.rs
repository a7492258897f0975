//! A Xen network interface as the facade sees it.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use core::cell::Cell;
use core::convert::Infallible;
use core::task::{Context, Poll};

use fata_events::select::{Either, select};
use fata_events::{JoinHandle, Signal};
use fata_hypercall::Hypervisor;
use fata_net::{Capabilities, ChecksumOffload, RxChecksum, SegmentationOffload, Segments, TxChecksum, TxMeta};
use fata_netfront::abi::{Gso, GsoType};
use fata_netfront::{Error, Identity, Vif};

use crate::port::Interface;

/// A vif, and the task that is its life, or one life after the other.
pub(super) struct VifInterface<H: Hypervisor> {
    vif: Vif<H>,
    place: Rc<Place>,
    life: Cell<Option<JoinHandle<()>>>,
}

/// What is known about the place of a vif: `device/vif/<index>`.
#[derive(Default)]
struct Place {
    /// There is a device.
    there: Cell<bool>,
    /// Raised when it is looked at and there is a device, perhaps another one than before.
    looks: Signal,
    /// There is none that lives.
    over: Cell<bool>,
    /// Why its life ended, if it has.
    ended: Cell<Option<Error>>,
    /// The program ends.
    leaving: Cell<bool>,
}

impl<H: Hypervisor> VifInterface<H> {
    /// Starts the driver. `changes` is raised at each change of its link or address.
    pub(super) fn start(vif: Vif<H>, changes: Signal) -> Self {
        let place = Rc::new(Place::default());
        place.there.set(true);
        let life = vif.handle().spawn(live(vif.clone(), Rc::clone(&place), changes));
        Self {
            vif,
            place,
            life: Cell::new(Some(life)),
        }
    }

    pub(super) fn index(&self) -> u32 {
        self.vif.index()
    }

    /// Whether the domain has the device now.
    pub(super) fn is_there(&self) -> bool {
        self.place.there.get()
    }

    /// Notes whether it has; `true` if that is news.
    pub(super) fn set_there(&self, there: bool) -> bool {
        if there {
            self.place.looks.raise();
        }
        self.place.there.replace(there) != there
    }

    /// The device is gone, and its driver has taken leave.
    pub(super) fn is_over(&self) -> bool {
        self.place.over.get() && !self.is_there()
    }

    /// Goes on in a new Xen domain.
    #[cfg(feature = "suspend")]
    pub(super) fn resume(&self) {
        self.vif.resume();
    }

    /// Takes leave of the backend, and waits until nothing is shared with it any more.
    pub(super) async fn stop(&self) {
        self.place.leaving.set(true);
        self.place.looks.raise();
        self.vif.stop();
        if let Some(life) = self.life.take() {
            // Cancelled or ended: it is over.
            let _ = life.await;
        }
    }
}

/// The life of a place: that of its device, and of the next one that the toolstack puts there.
async fn live<H: Hypervisor>(vif: Vif<H>, place: Rc<Place>, changes: Signal) {
    while !place.leaving.get() {
        // What is seen from here on may be a device that this life does not know.
        let seen = place.looks.count();
        place.over.set(false);
        place.ended.set(None);
        if let Either::First(Err(error)) = select(vif.run(), report(&vif, &changes)).await {
            place.ended.set(Some(error));
            if place.there.get() {
                log::error!(target: "net", "net{}: {error}", vif.index());
            }
        }
        place.over.set(true);
        place.looks.after(seen).await;
    }
}

/// Tells of each change, and logs what a user cannot guess.
async fn report<H: Hypervisor>(vif: &Vif<H>, changes: &Signal) -> Infallible {
    let mut seen = vif.changes().count();
    let (mut up, mut known) = (false, None);
    loop {
        seen = vif.changes().after(seen).await;
        changes.raise();
        let problem = vif.problem();
        if let Some(error) = problem.filter(|_| problem != known) {
            log::warn!(target: "net", "net{}: {error}", vif.index());
        } else if up != vif.link_up() {
            log::info!(target: "net", "net{}: link is {}", vif.index(), if up { "down" } else { "up" });
        }
        (up, known) = (vif.link_up(), problem);
    }
}

impl<H: Hypervisor> Interface for VifInterface<H> {
    fn capabilities(&self) -> Capabilities {
        let Some(Identity {
            mac,
            mtu,
            offload,
            segmentation,
        }) = self.vif.identity()
        else {
            return Capabilities {
                mac: [0; 6],
                mtu: 0,
                tx_checksum: ChecksumOffload::NONE,
                tx_segmentation: SegmentationOffload::NONE,
            };
        };
        Capabilities {
            mac,
            mtu,
            tx_checksum: ChecksumOffload {
                ipv4: offload.ipv4,
                ipv6: offload.ipv6,
            },
            tx_segmentation: SegmentationOffload {
                ipv4: segmentation.ipv4,
                ipv6: segmentation.ipv6,
                longest: segmentation.longest,
            },
        }
    }

    fn link_up(&self) -> bool {
        self.vif.link_up()
    }

    fn problem(&self) -> String {
        match self.place.ended.get().or(self.vif.problem()) {
            _ if !self.is_there() => String::from("the toolstack has taken the interface away"),
            Some(error) => error.to_string(),
            None => String::from("no answer from the network backend yet"),
        }
    }

    fn peek(&self) -> Option<RxChecksum> {
        Some(match self.vif.peek()?.checksum {
            fata_netfront::RxChecksum::Unknown => RxChecksum::Unknown,
            fata_netfront::RxChecksum::Validated => RxChecksum::Validated,
            fata_netfront::RxChecksum::Blank => RxChecksum::Blank,
        })
    }

    fn read(&self, f: &mut dyn FnMut(&[u8])) {
        if let Some(frame) = self.vif.receive() {
            frame.consume(f);
        }
    }

    fn has_room(&self) -> bool {
        self.vif.has_room()
    }

    fn write(&self, length: usize, f: &mut dyn FnMut(&mut [u8]) -> TxMeta) {
        if let Some(room) = self.vif.transmit() {
            room.consume(length, |frame| {
                let meta = f(frame);
                let checksum = match meta.checksum {
                    TxChecksum::Complete => fata_netfront::TxChecksum::Complete,
                    TxChecksum::Blank => fata_netfront::TxChecksum::Blank,
                };
                let gso = meta.segments.map(|segments| match segments {
                    Segments::Ipv4(size) => (GsoType::TcpV4, size),
                    Segments::Ipv6(size) => (GsoType::TcpV6, size),
                });
                let gso = gso.map(|(kind, size)| Gso { kind, size });
                ((), fata_netfront::TxMeta { checksum, gso })
            });
        }
    }

    fn listen(&self, groups: &[[u8; 6]]) {
        self.vif.listen(groups);
    }

    fn flush(&self) {
        self.vif.flush();
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.vif.poll_ready(cx)
    }
}
