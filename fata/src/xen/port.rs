//! The facade's [`Port`], as a Xen domain provides it.

use alloc::rc::Rc;
use alloc::string::{String, ToString};
#[cfg(any(feature = "net", feature = "9pfs"))]
use alloc::vec::Vec;
use core::cell::OnceCell;
#[cfg(feature = "net")]
use core::cell::{Cell, RefCell};
#[cfg(feature = "net")]
use core::convert::Infallible;
use core::task::{Context, Poll};
use core::time::Duration;

use fata_console::Console;
use fata_events::Handle;
#[cfg(feature = "net")]
use fata_events::JoinHandle;
#[cfg(any(feature = "net", feature = "9pfs"))]
use fata_events::Signal;
use fata_events::xen::{Ports, PvClock, XenLoop};
use fata_grant::Table;
use fata_hypercall::Hypervisor;
#[cfg(feature = "net")]
use fata_netfront::{Options, Vif};
#[cfg(feature = "net")]
use fata_xenstore::Client;
#[cfg(feature = "net")]
use fata_xenstore::xenbus::Devices;
use fata_xenstore::{Error, Store, decimal};

use super::Ram;
#[cfg(feature = "net")]
use super::interfaces::Interfaces;
#[cfg(feature = "9pfs")]
use super::shares::Shares;
#[cfg(feature = "net")]
use crate::port::Interface;
use crate::port::Port;
use crate::stats::{Events, Grants, Memory};

/// How long xenstored may take to answer at the start.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// The domain's devices and what drives them.
pub(super) struct XenPort<H: Hypervisor> {
    hv: H,
    clock: Rc<PvClock<H>>,
    ports: Ports<H>,
    console: Console<H>,
    table: Table<H>,
    ram: Rc<dyn Ram>,
    store: OnceCell<Store<H>>,
    /// Why there are no devices, if that is xenstore's fault.
    #[cfg(feature = "net")]
    store_problem: RefCell<Option<String>>,
    name: OnceCell<String>,
    #[cfg(feature = "vchan")]
    vchans: OnceCell<fata_vchan::Vchans>,
    #[cfg(feature = "9pfs")]
    shares: Rc<Shares<H>>,
    #[cfg(feature = "net")]
    interfaces: Interfaces<H>,
    /// Has them come and go.
    #[cfg(feature = "net")]
    following: Cell<Option<JoinHandle<()>>>,
}

impl<H: Hypervisor> XenPort<H> {
    /// Takes up the console; nothing else yet.
    pub(super) fn new(hv: H, xen_loop: &XenLoop<H>, ram: Rc<dyn Ram>) -> Self {
        let console = Console::new(hv.clone(), xen_loop.ports());
        xen_loop.handle().spawn(console.clone().run()).detach();
        Self {
            clock: Rc::clone(xen_loop.clock()),
            ports: xen_loop.ports().clone(),
            table: Table::new(hv.clone()),
            hv,
            console,
            ram,
            store: OnceCell::new(),
            #[cfg(feature = "net")]
            store_problem: RefCell::default(),
            name: OnceCell::new(),
            #[cfg(feature = "vchan")]
            vchans: OnceCell::new(),
            #[cfg(feature = "9pfs")]
            shares: Shares::new(),
            #[cfg(feature = "net")]
            interfaces: Interfaces::new(),
            #[cfg(feature = "net")]
            following: Cell::new(None),
        }
    }

    /// Connects to xenstore. If that fails, the domain has no devices.
    pub(super) fn open_store(&self, handle: &Handle) {
        if let Err(error) = self.try_to_open_store(handle) {
            self.no_devices(error.to_string());
        }
    }

    fn no_devices(&self, problem: String) {
        log::warn!("no devices: xenstore: {problem}");
        #[cfg(feature = "net")]
        self.store_problem.replace(Some(problem));
    }

    /// Starts a driver for each network interface that the toolstack gave the domain. If xenstore does not answer in time, the
    /// program begins without them; they come when it does.
    pub(super) async fn start_devices(self: &Rc<Self>, handle: &Handle) {
        let Some(store) = self.store.get() else { return };
        #[cfg(feature = "9pfs")]
        self.shares
            .start(self.table.clone(), self.ports.clone(), store.client().clone());
        let found = async {
            // On its way while the devices are looked for.
            let name = store.read_string("name");
            #[cfg(feature = "net")]
            {
                let looked = Signal::new();
                let first = looked.after(0);
                self.following.set(Some(
                    handle.spawn(Rc::clone(self).follow(store.client().clone(), looked)),
                ));
                first.await;
            }
            if let Ok(name) = name.await {
                let _ = self.name.set(name);
            }
        };
        if handle.timeout(STORE_PATIENCE, found).await.is_err() {
            self.no_devices(String::from("no answer yet"));
        }
    }

    fn try_to_open_store(&self, handle: &Handle) -> Result<(), Error> {
        let store = Store::new(self.hv.clone(), &self.ports, handle.clone())?;
        let serve = store.run();
        handle
            .spawn(async {
                let error = serve.await;
                log::error!("xenstore: {error}");
            })
            .detach();
        let _ = self.store.set(store);
        Ok(())
    }

    /// Has interfaces come and go as the toolstack says, as long as the store lives. `looked` is raised after each look.
    #[cfg(feature = "net")]
    async fn follow(self: Rc<Self>, client: Client, looked: Signal) {
        let look = async {
            let mut devices = Devices::new(&client, "vif")?;
            loop {
                let there = devices.list().await?;
                self.store_problem.take();
                self.interfaces.update(&there, |new| self.vifs(new));
                looked.raise();
                devices.changed().await?;
            }
        };
        let Err(error): Result<Infallible, Error> = look.await;
        self.no_devices(error.to_string());
        looked.raise();
    }

    /// Interfaces with these numbers, each with its share of the memory that is free.
    #[cfg(feature = "net")]
    fn vifs(&self, indices: &[u32]) -> Vec<Vif<H>> {
        let Some(store) = self.store.get() else {
            return Vec::new();
        };
        let options = Options {
            // The network stack says to which groups it listens.
            filter_multicast: true,
            ..Options::for_memory(self.ram.memory().free() / indices.len().max(1))
        };
        let vif = |&index: &u32| {
            let (table, ports) = (self.table.clone(), self.ports.clone());
            Vif::new(table, ports, store.client().clone(), index, options)
        };
        indices.iter().map(vif).collect()
    }

    /// The program ends: what comes from now on is not taken up.
    pub(super) fn stop_following(&self) {
        #[cfg(feature = "9pfs")]
        self.shares.stop_following();
        #[cfg(feature = "net")]
        drop(self.following.take());
    }

    /// Takes leave of all backends.
    pub(super) async fn disconnect(&self) {
        #[cfg(feature = "9pfs")]
        self.shares.stop().await;
        #[cfg(feature = "net")]
        self.interfaces.stop().await;
    }

    /// Gives up what cannot be there while the domain is suspended.
    #[cfg(all(feature = "suspend", feature = "vchan"))]
    pub(super) fn let_go(&self) {
        if let Some(vchans) = self.vchans.get() {
            vchans.close_all();
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
        #[cfg(feature = "9pfs")]
        self.shares.resume();
        #[cfg(feature = "net")]
        self.interfaces.resume();
    }

    pub(super) fn store(&self) -> Option<&Store<H>> {
        self.store.get()
    }

    #[cfg(feature = "balloon")]
    pub(super) fn ram(&self) -> &Rc<dyn Ram> {
        &self.ram
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
        self.ram.memory()
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

    fn watches(&self) -> usize {
        self.store.get().map_or(0, |store| store.stats().watches)
    }

    fn events(&self) -> Events {
        let stats = self.ports.stats();
        Events {
            received: stats.received,
            sent: stats.sent,
            sleeps: stats.sleeps,
        }
    }

    #[cfg(feature = "vchan")]
    fn vchans(&self) -> Option<fata_vchan::Vchans> {
        let store = self.store.get()?;
        let make = || fata_vchan::Vchans::new(&self.table, &self.ports, store);
        Some(self.vchans.get_or_init(make).clone())
    }

    #[cfg(feature = "9pfs")]
    fn shares(&self) -> Vec<fata_9pfront::Share> {
        self.shares.all()
    }

    #[cfg(feature = "9pfs")]
    fn share_changes(&self) -> &Signal {
        self.shares.changes()
    }

    #[cfg(feature = "net")]
    fn interfaces(&self) -> Vec<(usize, Rc<dyn Interface>)> {
        self.interfaces.there()
    }

    #[cfg(feature = "net")]
    fn interface_changes(&self) -> &Signal {
        self.interfaces.changes()
    }

    #[cfg(feature = "net")]
    fn how_to_add_interface(&self) -> String {
        match &*self.store_problem.borrow() {
            Some(problem) => ["xenstore could not be asked for it: ", problem].concat(),
            None => String::from("the domain's configuration has no vif=[...]; add for example vif=['bridge=xenbr0']"),
        }
    }
}
