//! What libxl does: it makes domains, their devices, and their end.

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
use crate::netback::{self, Netback};
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

/// A network device as an `xl` configuration describes it, and how its backend behaves.
#[derive(Clone, Debug)]
pub struct VifConfig {
    /// Hardware address of the guest's side; `None`: one in Xen's range, from the domain's and the device's number.
    pub mac: Option<[u8; 6]>,
    /// The bridge that the backend is plugged into.
    pub bridge: String,
    /// Largest packet without the Ethernet header.
    pub mtu: u16,
    /// What the backend offers and how it fills buffers.
    pub backend: netback::Behaviour,
}

impl Default for VifConfig {
    fn default() -> Self {
        Self {
            mac: None,
            bridge: "xenbr0".to_owned(),
            mtu: 1500,
            backend: netback::Behaviour::default(),
        }
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

    /// Adds a network device to a domain, with the nodes that libxl writes, and starts its backend.
    #[must_use = "the handle is how a test looks at the backend"]
    pub fn add_vif(&self, domain: &Domain, config: VifConfig) -> Netback {
        let id = domain.id();
        let front_dir = format!("{}/device/vif", domain_path(id));
        let index = (0..)
            .find(|index| self.store.read(&format!("{front_dir}/{index}")).is_none())
            .unwrap_or(0);
        let [high, low] = id.0.to_be_bytes();
        let mac = config.mac.unwrap_or([0x00, 0x16, 0x3e, high, low, index as u8]);
        let config = VifConfig {
            mac: Some(mac),
            ..config
        };
        let (front, back) = self.write_vif_nodes(id, index, &config);
        let vif = Netback::start(self, domain, front, back, &config);
        self.when_restored(domain, {
            let (vif, domain) = (vif.clone(), domain.clone());
            move |sim: &Self| {
                if !vif.is_stopped() {
                    let (front, back) = sim.write_vif_nodes(domain.id(), index, &config);
                    vif.move_to(domain.id(), front, back);
                }
            }
        });
        vif
    }

    /// The nodes that libxl makes for a network device: where its ends are.
    fn write_vif_nodes(&self, id: DomId, index: u32, config: &VifConfig) -> (String, String) {
        let front = format!("{}/device/vif/{index}", domain_path(id));
        let back = format!("{}/backend/vif/{}/{index}", domain_path(DomId::DOM0), id.0);
        let mac = config.mac.unwrap_or_default();
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let front_perms = [Perm::none(id), Perm::read(DomId::DOM0)];
        let back_perms = [Perm::none(DomId::DOM0), Perm::read(id)];
        let (id_text, index_text, mtu) = (id.0.to_string(), index.to_string(), config.mtu.to_string());

        self.node(&back, "", &back_perms);
        for (key, value) in [
            ("frontend", front.as_str()),
            ("frontend-id", &id_text),
            ("online", "1"),
            ("script", "/etc/xen/scripts/vif-bridge"),
            ("mac", &mac),
            ("bridge", &config.bridge),
            ("handle", &index_text),
            ("type", "vif"),
            ("mtu", &mtu),
            ("hotplug-status", "connected"),
            ("state", "1"),
        ] {
            self.node(&format!("{back}/{key}"), value, &back_perms);
        }
        self.node(&front, "", &front_perms);
        for (key, value) in [
            ("backend", back.as_str()),
            ("backend-id", "0"),
            ("handle", &index_text),
            ("mac", &mac),
            ("mtu", &mtu),
            ("trusted", "1"),
            ("state", "1"),
        ] {
            self.node(&format!("{front}/{key}"), value, &front_perms);
        }
        (front, back)
    }

    /// `xl network-detach`: asks the frontend to close and takes the device away when it has, or after `limit`.
    pub fn remove_vif(&self, vif: &Netback, limit: Duration) -> bool {
        vif.expect_leave();
        let _ = self.store.write(&format!("{}/online", vif.backend_path()), "0");
        let _ = self.store.write(&format!("{}/state", vif.backend_path()), "5");
        let closed = self.try_run_until(|| vif.is_closed(), limit);
        self.forget_vif(vif);
        closed
    }

    /// Removes a device's nodes at once, as a toolstack in a hurry does.
    pub fn forget_vif(&self, vif: &Netback) {
        vif.stop();
        let _ = self.store.remove(&vif.frontend_path());
        let _ = self.store.remove(&vif.backend_path());
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
