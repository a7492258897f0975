//! A Xen network interface as the facade sees it.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use core::cell::Cell;
use core::convert::Infallible;
use core::task::{Context, Poll};

use fata_events::Signal;
use fata_events::select::{Either, select};
use fata_hypercall::Hypervisor;
use fata_net::{Capabilities, ChecksumOffload, RxChecksum, SegmentationOffload, Segments, TxChecksum, TxMeta};
use fata_netfront::abi::{Gso, GsoType};
use fata_netfront::{Error, Identity, Vif};

use super::place::Place;
use crate::port::Interface;

/// A vif, and its place.
pub(super) struct VifInterface<H: Hypervisor> {
    vif: Vif<H>,
    place: Place,
    known: Rc<Known>,
}

/// What is known about the place.
struct Known {
    /// There is a device.
    there: Cell<bool>,
    /// Why the life of the last one ended, if it has.
    ended: Cell<Option<Error>>,
}

impl<H: Hypervisor> VifInterface<H> {
    /// Starts the driver. `changes` is raised at each change of its link or address.
    pub(super) fn start(vif: Vif<H>, changes: Signal) -> Self {
        let known = Rc::new(Known {
            there: Cell::new(true),
            ended: Cell::new(None),
        });
        let (driver, notes) = (vif.clone(), Rc::clone(&known));
        let place = Place::start(vif.handle(), async move || {
            notes.ended.set(None);
            if let Either::First(Err(error)) = select(driver.run(), report(&driver, &changes)).await {
                notes.ended.set(Some(error));
                if notes.there.get() {
                    log::error!(target: "net", "net{}: {error}", driver.index());
                }
            }
        });
        Self { vif, place, known }
    }

    pub(super) fn index(&self) -> u32 {
        self.vif.index()
    }

    /// Whether the domain has the device now.
    pub(super) fn is_there(&self) -> bool {
        self.known.there.get()
    }

    /// Notes whether it has; `true` if that is news.
    pub(super) fn set_there(&self, there: bool) -> bool {
        if there {
            self.place.look();
        }
        self.known.there.replace(there) != there
    }

    /// The device is gone, and its driver has taken leave.
    pub(super) fn is_over(&self) -> bool {
        self.place.is_over() && !self.is_there()
    }

    /// Goes on in a new Xen domain.
    #[cfg(feature = "suspend")]
    pub(super) fn resume(&self) {
        self.vif.resume();
    }

    /// Takes leave of the backend, and waits until nothing is shared with it any more.
    pub(super) async fn stop(&self) {
        self.place.leave(|| self.vif.stop()).await;
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
        match self.known.ended.get().or(self.vif.problem()) {
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
