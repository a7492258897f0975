//! The facade's [`Port`], as a Xen domain provides it.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
#[cfg(feature = "net")]
use alloc::vec::Vec;
use core::cell::OnceCell;
#[cfg(feature = "net")]
use core::cell::RefCell;
use core::task::{Context, Poll};
use core::time::Duration;

use fata_console::Console;
use fata_events::Handle;
use fata_events::xen::{Ports, PvClock, XenLoop};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
#[cfg(feature = "net")]
use fata_netfront::Options;
#[cfg(feature = "net")]
use fata_xenstore::xenbus;
use fata_xenstore::{Error, Store, decimal};

#[cfg(feature = "net")]
use super::interface::VifInterface;
#[cfg(feature = "net")]
use crate::port::Interface;
use crate::port::Port;
use crate::stats::{Events, Grants, Memory};

/// How long xenstored may take to answer at the start.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// The domain's devices and what drives them.
pub(super) struct XenPort<H: Hypervisor> {
    hv: H,
    clock: Rc<PvClock<H>>,
    ports: Ports<H>,
    console: Console<H>,
    table: Table<H>,
    memory: fn() -> Memory,
    store: OnceCell<Store<H>>,
    /// Why there are no devices, if that is xenstore's fault.
    store_problem: OnceCell<String>,
    name: OnceCell<String>,
    #[cfg(feature = "net")]
    interfaces: RefCell<Vec<(usize, Rc<VifInterface<H>>)>>,
}

impl<H: Hypervisor> XenPort<H> {
    /// Takes up the console; nothing else yet.
    pub(super) fn new(hv: H, xen_loop: &XenLoop<H>, memory: fn() -> Memory) -> Self {
        let console = Console::new(hv.clone(), xen_loop.ports());
        xen_loop.handle().spawn(console.clone().run()).detach();
        Self {
            clock: Rc::clone(xen_loop.clock()),
            ports: xen_loop.ports().clone(),
            table: Table::new(hv.clone()),
            hv,
            console,
            memory,
            store: OnceCell::new(),
            store_problem: OnceCell::new(),
            name: OnceCell::new(),
            #[cfg(feature = "net")]
            interfaces: RefCell::default(),
        }
    }

    /// Connects to xenstore and starts a driver for each network interface that the toolstack gave the domain. If
    /// that fails, the domain has no devices.
    pub(super) async fn connect(&self, handle: &Handle) {
        let problem = match handle.timeout(STORE_PATIENCE, self.find_devices(handle)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => String::from("no answer"),
        };
        log::warn!("no devices: xenstore: {problem}");
        let _ = self.store_problem.set(problem);
    }

    async fn find_devices(&self, handle: &Handle) -> Result<(), Error> {
        let store = Store::new(self.hv.clone(), &self.ports, handle.clone())?;
        let serve = store.run();
        handle
            .spawn(async {
                let error = serve.await;
                log::error!("xenstore: {error}");
            })
            .detach();
        let store = self.store.get_or_init(|| store);
        // On its way while the devices are looked for.
        let name = store.read_string("name");
        #[cfg(feature = "net")]
        {
            let indices = xenbus::devices(store, "vif").await?;
            let options = Options {
                // The network stack says to which groups it listens.
                filter_multicast: true,
                ..Options::for_memory((self.memory)().free() / indices.len().max(1))
            };
            for index in indices {
                let vif = VifInterface::start(&self.table, &self.ports, store, handle, index, options);
                self.interfaces.borrow_mut().push((index as usize, Rc::new(vif)));
            }
        }
        if let Ok(name) = name.await {
            let _ = self.name.set(name);
        }
        Ok(())
    }

    /// Takes leave of all backends.
    pub(super) async fn disconnect(&self) {
        #[cfg(feature = "net")]
        for (_, vif) in self.interfaces.take() {
            vif.stop().await;
        }
    }

    /// Goes on in a new Xen domain: whatever Xen or another domain knew of us is to be made anew.
    #[cfg(feature = "suspend")]
    pub(super) fn resume(&self) {
        self.clock.resume();
        self.ports.resume();
        self.table.resume();
        self.console.resume(&self.ports);
        if let Some(store) = self.store.get()
            && let Err(error) = store.resume(&self.ports)
        {
            log::error!("xenstore: {error}");
        }
        #[cfg(feature = "net")]
        for (_, vif) in &*self.interfaces.borrow() {
            vif.resume();
        }
    }

    pub(super) fn store(&self) -> Option<&Store<H>> {
        self.store.get()
    }

    pub(super) fn hypervisor(&self) -> &H {
        &self.hv
    }

    pub(super) fn console(&self) -> &Console<H> {
        &self.console
    }

    pub(super) fn clock(&self) -> &PvClock<H> {
        &self.clock
    }
}

impl<H: Hypervisor> Port for XenPort<H> {
    fn machine(&self) -> String {
        match self.hv.version() {
            Some(version) => {
                let [major, minor] = [version.major, version.minor].map(|number| decimal::string(number.into()));
                ["Xen ", &major, ".", &minor].concat()
            }
            None => String::from("Xen"),
        }
    }

    fn name(&self) -> Option<String> {
        self.name.get().cloned()
    }

    fn wall_clock(&self) -> Duration {
        self.clock.wall_clock()
    }

    fn write(&self, bytes: &[u8]) {
        self.console.write(bytes);
    }

    fn flush(&self) {
        self.console.flush(&self.clock, Duration::from_millis(100));
    }

    fn console_dropped(&self) -> u64 {
        self.console.stats().dropped
    }

    fn poll_line(&self, cx: &mut Context<'_>) -> Poll<Option<String>> {
        self.console.poll_line(cx).map(Result::ok)
    }

    fn memory(&self) -> Memory {
        (self.memory)()
    }

    fn grants(&self) -> Grants {
        let stats = self.table.stats();
        Grants {
            active: stats.in_use,
            quarantined: stats.quarantined,
        }
    }

    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn events(&self) -> Events {
        let stats = self.ports.stats();
        Events {
            received: stats.received,
            sent: stats.sent,
            sleeps: stats.sleeps,
        }
    }

    #[cfg(feature = "net")]
    fn interfaces(&self) -> Vec<(usize, Rc<dyn Interface>)> {
        let interfaces = self.interfaces.borrow();
        interfaces
            .iter()
            .map(|(index, vif)| (*index, Rc::clone(vif) as Rc<dyn Interface>))
            .collect()
    }

    #[cfg(feature = "net")]
    fn how_to_add_interface(&self) -> String {
        match self.store_problem.get() {
            Some(problem) => ["xenstore could not be asked for it: ", problem].concat(),
            None => String::from("the domain's configuration has no vif=[...]; add for example vif=['bridge=xenbr0']"),
        }
    }
}
