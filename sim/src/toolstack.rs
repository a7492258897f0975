//! What libxl does: it makes domains, and their end. Devices are made in [`backend`](crate::backend).

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::Ordering::Release;
use std::time::Duration;

use fata_hypercall::abi::grant_table::Flags;
use fata_hypercall::{DomId, Gfn, GrantRef, Port};

use crate::clock::write_wall_clock;
use crate::domain::{Domain, DomainConfig, DomainState, ServiceRun};
use crate::memory::Run;
use crate::ports::PortState;
use crate::sim::Sim;
use crate::store::{Perm, domain_path, prepare};
use crate::wire::Switch;

/// The toolstack's reference for the console page (`GNTTAB_RESERVED_CONSOLE`).
pub(crate) const CONSOLE_GRANT: GrantRef = GrantRef(0);
/// The toolstack's reference for xenstore's page (`GNTTAB_RESERVED_XENSTORE`).
pub(crate) const STORE_GRANT: GrantRef = GrantRef(1);

/// 2026-01-01, the day on which a simulated host boots.
pub(crate) const BOOT_DAY: Duration = Duration::from_secs(1_767_225_600);

/// What `xl` writes to `control/shutdown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownRequest {
    /// `xl shutdown`.
    PowerOff,
    /// `xl reboot`.
    Reboot,
}

impl fmt::Display for ShutdownRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
        })
    }
}

impl Sim {
    /// Makes a domain: `sim.domain("guest")`, or with a [`DomainConfig`].
    #[must_use]
    pub fn domain(&self, config: impl Into<DomainConfig>) -> Domain {
        let config = config.into();
        let id = self.machine.next_domain();
        let slot = self.add_domain_slot(&format!("{id} {}", config.name));
        let (console, store) = (config.console, config.store);
        let state = Rc::new(DomainState::new(&self.machine, id, config, slot));
        self.machine.add_domain(Rc::clone(&state));
        write_wall_clock(state.info.shared_info(), BOOT_DAY);
        let domain = Domain {
            machine: Rc::clone(&self.machine),
            state,
        };
        self.write_domain_nodes(&domain);
        if console {
            let _ = domain.state.console.set(domain.make_service_ring(CONSOLE_GRANT));
        }
        if store {
            let ring = domain.make_service_ring(STORE_GRANT);
            prepare(ring.run.page(0), &mut self.machine.rng.borrow_mut());
            let port = domain.state.store.get_or_init(|| ring).port.get();
            self.store
                .introduce(&self.dom0, id, port)
                .expect("the toolstack's own grant and port");
        }
        domain
    }

    /// Writes a node with these permissions.
    pub(crate) fn node(&self, path: &str, value: &str, perms: &[Perm]) {
        let written = self
            .store
            .write(path, value)
            .and_then(|()| self.store.set_perms(path, perms));
        written.expect("dom0 may write everything");
    }

    /// The nodes that libxl makes for every domain.
    pub(crate) fn write_domain_nodes(&self, domain: &Domain) {
        let (path, id) = (domain_path(domain.id()), domain.id());
        let read_only = [Perm::none(DomId::DOM0), Perm::read(id)];
        let own = [Perm::none(id)];
        self.node(&path, "", &read_only);
        self.node(&format!("{path}/name"), domain.name(), &read_only);
        self.node(&format!("{path}/domid"), &id.0.to_string(), &read_only);
        for name in ["device", "control", "memory"] {
            self.node(&format!("{path}/{name}"), "", &read_only);
        }
        let kib = (domain.state.config.pages * 4).to_string();
        for name in ["target", "static-max"] {
            self.node(&format!("{path}/memory/{name}"), &kib, &read_only);
        }
        for name in [
            "platform-feature-multiprocessor-suspend",
            "platform-feature-xs_reset_watches",
        ] {
            self.node(&format!("{path}/control/{name}"), "1", &read_only);
        }
        for name in [
            "shutdown",
            "feature-poweroff",
            "feature-reboot",
            "feature-suspend",
            "sysrq",
        ] {
            self.node(&format!("{path}/control/{name}"), "", &own);
        }
        for name in ["data", "drivers", "feature", "attr", "error"] {
            self.node(&format!("{path}/{name}"), "", &own);
        }
    }

    /// The bridge of that name in dom0.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Switch {
        self.bridges.borrow_mut().entry(name.to_owned()).or_default().clone()
    }

    /// `xl shutdown` and its relatives.
    pub fn request_shutdown(&self, domain: &Domain, request: ShutdownRequest) {
        let path = format!("{}/control/shutdown", domain_path(domain.id()));
        let _ = self.store.write(&path, request.to_string());
    }

    /// `xl mem-set`: what the domain is to have, in KiB.
    pub fn set_memory_target(&self, domain: &Domain, kib: u64) {
        let path = format!("{}/memory/target", domain_path(domain.id()));
        let _ = self.store.write(&path, kib.to_string());
    }

    /// `xl destroy`: the program stops, its ports close, its nodes vanish. The handle stays for a look.
    pub fn destroy(&self, domain: &Domain) {
        self.remove_guest(domain);
        domain.state.shutdown.set(
            domain
                .state
                .shutdown
                .get()
                .or(Some(fata_hypercall::ShutdownReason::PowerOff)),
        );
        self.store.release(&self.dom0, domain.id());
        let ports: Vec<_> = domain.state.ports.borrow().open_ports().map(|(port, _)| port).collect();
        for port in ports {
            let _ = self.machine.close(&domain.state, port);
        }
        domain.unmap_all();
        self.machine.remove_domain(domain.id());
        let _ = self.store.remove(&domain_path(domain.id()));
    }
}

impl Domain {
    /// A page and an unbound port for a service in dom0, and the grant by which the service maps the page.
    fn make_service_ring(&self, reference: GrantRef) -> ServiceRun {
        let run = Run::new(1);
        let (gfn, _) = self.state.memory.borrow_mut().adopt(Rc::clone(&run));
        let port = Cell::new(self.open_service(reference, gfn));
        ServiceRun { run, port }
    }

    /// Grants a service's page to dom0, and opens a port for it.
    pub(crate) fn open_service(&self, reference: GrantRef, gfn: Gfn) -> Port {
        let state = PortState::Unbound { remote: DomId::DOM0 };
        let port = self.state.ports.borrow_mut().open(state, &self.state.fifo);
        let table = self.grant_entries(0).expect("a new domain has a grant table");
        let entry = &table[reference.0 as usize];
        entry.domid.store(DomId::DOM0.0, Release);
        entry.frame.store(gfn.0 as u32, Release);
        entry.flags.store(Flags::PERMIT_ACCESS.bits(), Release);
        port.expect("a new domain has free ports")
    }
}
