//! A backend's end of an event channel.

use fata_hypercall::{DomId, Port};

use crate::domain::Domain;
use crate::ports::PortState;
use crate::sim::Waker;

/// An event channel to the guest. Dropped, it is closed.
pub(crate) struct Line {
    dom0: Domain,
    port: Port,
}

impl Line {
    /// Binds the guest's port. Its events wake the backend.
    pub(super) fn bind(dom0: &Domain, guest: DomId, port: u32, waker: &Waker) -> Result<Self, String> {
        let local = dom0.bind_interdomain(guest, Port(port));
        let local = local.map_err(|errno| format!("binding event channel {port}: {errno}"))?;
        dom0.own_port(local, waker);
        Ok(Self {
            dom0: dom0.clone(),
            port: local,
        })
    }

    /// Tells the guest.
    pub(crate) fn notify(&self) {
        let _ = self.dom0.machine.send(&self.dom0.state, self.port);
    }

    /// The guest has told us, and we have not looked.
    pub(crate) fn has_event(&self) -> bool {
        self.dom0.state.is_pending(self.port)
    }

    /// The same, and now we look.
    pub(crate) fn take_event(&self) -> bool {
        self.dom0.take_pending(self.port)
    }

    /// The guest's end is open, and no event of ours waits there.
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(PortState::Interdomain { remote, port }) = self.dom0.port_state(self.port) else {
            return false;
        };
        let guest = self.dom0.machine.domain(remote);
        guest.is_some_and(|guest| !guest.is_pending(port))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.dom0.machine.close(&self.dom0.state, self.port);
    }
}
