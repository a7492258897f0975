//! A Xen network interface as the facade sees it.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
use core::cell::Cell;
use core::task::{Context, Poll};

use fata_events::xen::Ports;
use fata_events::{Handle, JoinHandle};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
use fata_net::{Capabilities, ChecksumOffload, RxChecksum, SegmentationOffload, Segments, TxChecksum, TxMeta};
use fata_netfront::abi::{Gso, GsoType};
use fata_netfront::{Error, Identity, Options, Vif};
use fata_xenstore::Client;

use crate::port::Interface;

/// A vif, and the task that is its life.
pub(super) struct VifInterface<H: Hypervisor> {
    vif: Vif<H>,
    /// Why its life ended, if it has.
    ended: Rc<Cell<Option<Error>>>,
    life: Cell<Option<JoinHandle<()>>>,
}

impl<H: Hypervisor> VifInterface<H> {
    /// Starts the driver of `device/vif/<index>`.
    pub(super) fn start(
        table: &Table<H>,
        ports: &Ports<H>,
        store: &Client,
        handle: &Handle,
        index: u32,
        options: Options,
    ) -> Self {
        let vif = Vif::new(table.clone(), ports.clone(), store.clone(), index, options);
        let ended = Rc::new(Cell::new(None));
        let life = handle.spawn({
            let (vif, ended) = (vif.clone(), Rc::clone(&ended));
            async move {
                if let Err(error) = vif.run().await {
                    log::error!(target: "net", "net{index}: {error}");
                    ended.set(Some(error));
                }
            }
        });
        Self {
            vif,
            ended,
            life: Cell::new(Some(life)),
        }
    }

    /// Goes on in a new Xen domain.
    #[cfg(feature = "suspend")]
    pub(super) fn resume(&self) {
        self.vif.resume();
    }

    /// Takes leave of the backend, and waits until nothing is shared with it any more.
    pub(super) async fn stop(&self) {
        self.vif.stop();
        if let Some(life) = self.life.take() {
            // Cancelled or ended: it is over.
            let _ = life.await;
        }
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
        match self.ended.get().or(self.vif.problem()) {
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
