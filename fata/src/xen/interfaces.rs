//! The domain's network interfaces: a set that gains and loses members.
//!
//! ```text
//! device/vif changes ──> Devices::list ──> update: not known       -> a driver is started
//!                                                  known, there    -> told: a driver whose device was gone looks again
//!                                                  known, not there -> its driver ends by itself (Step::Finish)
//! ```
//!
//! An interface that somebody has a network stack on is kept while it is gone. The next device of its number is the same
//! interface, however different: the stack sees its link go down and come up.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use fata_events::Signal;
use fata_hypercall::Hypervisor;
use fata_netfront::Vif;

use super::interface::VifInterface;
use crate::port::Interface;

/// The interfaces, in the order of their numbers.
pub(super) struct Interfaces<H: Hypervisor> {
    all: RefCell<Vec<Rc<VifInterface<H>>>>,
    changes: Signal,
}

impl<H: Hypervisor> Interfaces<H> {
    pub(super) fn new() -> Self {
        Self {
            all: RefCell::default(),
            changes: Signal::new(),
        }
    }

    /// Raised when one has come or gone, and when the link or the address of one is another.
    pub(super) fn changes(&self) -> &Signal {
        &self.changes
    }

    /// From now on there are those with these numbers. `vifs` makes what newcomers need.
    pub(super) fn update(&self, there: &[u32], vifs: impl FnOnce(&[u32]) -> Vec<Vif<H>>) {
        let mut all = self.all.borrow_mut();
        let mut changed = false;
        for interface in &*all {
            changed |= interface.set_there(there.contains(&interface.index()));
        }
        // Who is gone for good: nobody has a stack on it, and its driver has taken leave.
        all.retain(|interface| Rc::strong_count(interface) > 1 || !interface.is_over());
        let mut new = there.to_vec();
        new.retain(|index| all.iter().all(|interface| interface.index() != *index));
        for vif in vifs(&new) {
            let place = all.partition_point(|other| other.index() < vif.index());
            all.insert(place, Rc::new(VifInterface::start(vif, self.changes.clone())));
            changed = true;
        }
        drop(all);
        if changed {
            self.changes.raise();
        }
    }

    /// Those that are there.
    pub(super) fn there(&self) -> Vec<(usize, Rc<dyn Interface>)> {
        let all = self.all.borrow();
        all.iter()
            .filter(|interface| interface.is_there())
            .map(|interface| (interface.index() as usize, Rc::clone(interface) as Rc<dyn Interface>))
            .collect()
    }

    /// All go on in a new Xen domain.
    #[cfg(feature = "suspend")]
    pub(super) fn resume(&self) {
        self.all.borrow().iter().for_each(|interface| interface.resume());
    }

    /// Takes leave of all backends.
    pub(super) async fn stop(&self) {
        for interface in self.all.take() {
            interface.stop().await;
        }
    }
}
