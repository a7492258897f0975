//! The domain's shared directories: a set that gains members.
//!
//! A directory that the toolstack takes away keeps its place, and programs their handles on it: the next device of its number
//! is the same one.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::convert::Infallible;

use fata_9pfront::{Device, Share};
use fata_events::xen::Ports;
use fata_events::{JoinHandle, Signal};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
use fata_xenstore::xenbus::Devices;
use fata_xenstore::{Client, Error};

use super::place::Place;

/// The directories, and what their drivers need.
pub(super) struct Shares<H: Hypervisor> {
    all: RefCell<Vec<(Device<H>, Place)>>,
    changes: Signal,
    /// Has them come and go.
    following: Cell<Option<JoinHandle<()>>>,
}

impl<H: Hypervisor> Shares<H> {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            all: RefCell::default(),
            changes: Signal::new(),
            following: Cell::new(None),
        })
    }

    /// Raised when one of them has come, or gets or loses its connection.
    pub(super) fn changes(&self) -> &Signal {
        &self.changes
    }

    pub(super) fn all(&self) -> Vec<Share> {
        self.all.borrow().iter().map(|(device, _)| device.share()).collect()
    }

    /// Starts a driver for each directory that the toolstack gives, as long as the store lives.
    pub(super) fn start(self: &Rc<Self>, table: Table<H>, ports: Ports<H>, client: Client) {
        let (shares, handle) = (Rc::clone(self), client.handle().clone());
        let following = handle.spawn(async move {
            let look = async {
                let mut devices = Devices::new(&client, "9pfs")?;
                loop {
                    for index in devices.list().await? {
                        shares.look(index, || {
                            let (table, ports, changes) = (table.clone(), ports.clone(), shares.changes.clone());
                            Device::new(table, ports, client.clone(), index, changes)
                        });
                    }
                    devices.changed().await?;
                }
            };
            let Err(error): Result<Infallible, Error> = look.await;
            log::warn!("no more shared directories: xenstore: {error}");
        });
        self.following.set(Some(following));
    }

    /// There is a device with this number.
    fn look(&self, index: u32, new: impl FnOnce() -> Device<H>) {
        let mut all = self.all.borrow_mut();
        if let Some((_, place)) = all.iter().find(|(device, _)| device.index() == index) {
            place.look();
            return;
        }
        let device = new();
        let driver = device.clone();
        let place = Place::start(device.handle(), async move || {
            if let Err(error) = driver.run().await {
                log::warn!("shared directory {}: {error}", driver.index());
            }
        });
        all.push((device, place));
        self.changes.raise();
    }

    /// All go on in a new Xen domain.
    #[cfg(feature = "suspend")]
    pub(super) fn resume(&self) {
        self.all.borrow().iter().for_each(|(device, _)| device.resume());
    }

    /// The program ends: what comes from now on is not taken up.
    pub(super) fn stop_following(&self) {
        drop(self.following.take());
    }

    /// Takes leave of all backends.
    pub(super) async fn stop(&self) {
        for (device, place) in self.all.take() {
            place.leave(|| device.stop()).await;
        }
    }
}
