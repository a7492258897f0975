//! What libxl does: it makes domains, their devices, and their end.

use std::rc::Rc;
use std::sync::atomic::Ordering::Release;
use std::time::Duration;

use fata_hypercall::abi::grant_table::Flags;
use fata_hypercall::{DomId, GrantRef, Hypervisor};

use crate::clock::write_wall_clock;
use crate::domain::{Domain, DomainConfig, DomainState, ServiceRun};
use crate::memory::Run;
use crate::ports::PortState;
use crate::sim::Sim;

/// The toolstack's reference for the console page (`GNTTAB_RESERVED_CONSOLE`).
pub(crate) const CONSOLE_GRANT: GrantRef = GrantRef(0);
/// The toolstack's reference for xenstore's page (`GNTTAB_RESERVED_XENSTORE`).
pub(crate) const STORE_GRANT: GrantRef = GrantRef(1);

/// 2026-01-01, the day on which a simulated host boots.
const BOOT_DAY: Duration = Duration::from_secs(1_767_225_600);

impl Sim {
    /// Makes a domain: `sim.domain("guest")`, or with a [`DomainConfig`].
    #[must_use]
    pub fn domain(&self, config: impl Into<DomainConfig>) -> Domain {
        let config = config.into();
        let id = {
            let mut last = self.names.borrow_mut();
            *last += 1;
            DomId(*last)
        };
        let slot = self.add_slot(&format!("{id} {}", config.name));
        let (console, store) = (config.console, config.store);
        let state = Rc::new(DomainState::new(&self.machine, id, config, slot));
        self.machine.add_domain(Rc::clone(&state));
        write_wall_clock(state.info.shared_info(), BOOT_DAY);
        let domain = Domain {
            machine: Rc::clone(&self.machine),
            state,
        };
        if console {
            let _ = domain.state.console.set(domain.make_service_ring(CONSOLE_GRANT));
        }
        if store {
            let _ = domain.state.store.set(domain.make_service_ring(STORE_GRANT));
        }
        domain
    }
}

impl Domain {
    /// A page and an unbound port for a service in dom0, and the grant by which the service maps the page.
    fn make_service_ring(&self, reference: GrantRef) -> ServiceRun {
        let run = Run::new(1);
        let (gfn, _) = self.state.memory.borrow_mut().adopt(Rc::clone(&run));
        let port = self
            .state
            .ports
            .borrow_mut()
            .open(PortState::Unbound { remote: DomId::DOM0 });
        let port = port.expect("a new domain has free ports");
        let table = self.grant_frame(0).expect("a new domain has a grant table");
        let entry = &table[reference.0 as usize];
        entry.domid.store(DomId::DOM0.0, Release);
        entry.frame.store(gfn.0 as u32, Release);
        entry.flags.store(Flags::PERMIT_ACCESS.bits(), Release);
        ServiceRun { run, port }
    }
}
