//! A share's driver, which lives as long as the domain.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;

use fata_events::xen::Ports;
use fata_events::{Handle, Signal};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
use fata_xenstore::Client;

use crate::common::Common;
use crate::{Error, Share};

/// A shared directory (`device/9pfs/<index>`), as its driver sees it.
///
/// Clones are the same device. [`run`](Self::run) is its life, to be spawned once. What a program uses is its
/// [`share`](Self::share).
pub struct Device<H: Hypervisor>(pub(crate) Rc<Inner<H>>);

pub(crate) struct Inner<H: Hypervisor> {
    pub(crate) table: Table<H>,
    pub(crate) ports: Ports<H>,
    pub(crate) client: Client,
    pub(crate) index: u32,
    pub(crate) common: Rc<Common>,
    pub(crate) stopping: Cell<bool>,
    /// Raised for `run`: the wish to stop.
    pub(crate) attention: Signal,
    /// Raised when the domain goes on in a new one.
    pub(crate) resumes: Signal,
}

impl<H: Hypervisor> Device<H> {
    /// The device with this number. Nothing happens before [`run`](Self::run). `changes` is raised whenever it gets or loses its
    /// connection, or has another [problem](Share::problem); devices may have it in common.
    #[must_use]
    pub fn new(table: Table<H>, ports: Ports<H>, client: Client, index: u32, changes: Signal) -> Self {
        Self(Rc::new(Inner {
            table,
            ports,
            client,
            index,
            common: Rc::new(Common::new(changes)),
            stopping: Cell::new(false),
            attention: Signal::new(),
            resumes: Signal::new(),
        }))
    }

    /// Its number among the domain's shares.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.0.index
    }

    /// The loop that its life is to run on.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.0.client.handle()
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
        self.0.common.end(Error::Closed);
        self.0.resumes.raise();
    }

    /// Has [`run`](Self::run) take leave of the backend and end.
    pub fn stop(&self) {
        self.0.stopping.set(true);
        self.0.attention.raise();
    }
}

impl<H: Hypervisor> Clone for Device<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<H: Hypervisor> fmt::Debug for Device<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {:?})", self.0.index, self.share())
    }
}
