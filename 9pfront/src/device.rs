//! A share's driver, which lives as long as the domain.

use alloc::rc::Rc;
use core::fmt;

use fata_events::xen::Ports;
use fata_events::{Handle, Signal};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
use fata_xenstore::Client;
use fata_xenstore::xenbus::{Life, Limits};

use crate::Share;
use crate::common::Common;

/// A shared directory (`device/9pfs/<index>`), as its driver sees it.
///
/// Clones are the same device. [`run`](Self::run) is its life, to be spawned once. What a program uses is its
/// [`share`](Self::share).
pub struct Device<H: Hypervisor>(pub(crate) Rc<Inner<H>>);

pub(crate) struct Inner<H: Hypervisor> {
    pub(crate) life: Life<H>,
    pub(crate) ports: Ports<H>,
    pub(crate) common: Rc<Common>,
}

impl<H: Hypervisor> Device<H> {
    /// The device with this number. Nothing happens before [`run`](Self::run). `changes` is raised whenever it gets or loses its
    /// connection, or has another [problem](Share::problem); devices may have it in common.
    #[must_use]
    pub fn new(table: Table<H>, ports: Ports<H>, client: Client, index: u32, changes: Signal) -> Self {
        Self(Rc::new(Inner {
            life: Life::new(table, client, index, Limits::default()),
            ports,
            common: Rc::new(Common::new(changes)),
        }))
    }

    /// Its number among the domain's shares.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.0.life.index()
    }

    /// The loop that its life is to run on.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.0.life.handle()
    }

    /// What a program does with it.
    #[must_use]
    pub fn share(&self) -> Share {
        Share(Rc::clone(&self.0.common))
    }

    /// Goes on in a new Xen domain, where nothing of what was shared with the backend exists any more: the connection is over
    /// at once, and [`run`](Self::run) begins again with a backend that is another one.
    ///
    /// To be called after the table of grants and the ports have begun again.
    pub fn resume(&self) {
        self.0.common.end();
        self.0.life.resume();
    }

    /// Has [`run`](Self::run) take leave of the backend and end.
    pub fn stop(&self) {
        self.0.life.stop();
    }
}

impl<H: Hypervisor> Clone for Device<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<H: Hypervisor> fmt::Debug for Device<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {:?})", self.index(), self.share())
    }
}
