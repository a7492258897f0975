//! A domain with nothing but a store ring, and a small server at the other end of it.
#![allow(dead_code, unreachable_pub)] // each test program uses its part

mod server;

use core::cell::Cell;
use core::future::Future;
use core::ptr::NonNull;
use core::time::Duration;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use fata_events::xen::Ports;
use fata_events::{Executor, Handle, JoinHandle, ManualClock, Turn};
use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{
    DomId, Errno, Gfn, Hypervisor, Port, ServiceRing, SharedPage, ShutdownReason, SystemTime, Version,
};
use fata_xenstore::{Client, Error, Store};

pub use server::Server;

const PORT: Port = Port(1);

pub struct Machine {
    pub page: SharedPage,
    info: SharedInfo,
    /// Signals to the server.
    pub kicks: Cell<u64>,
}

impl Machine {
    /// A signal from the server.
    pub fn signal(&self) {
        self.info.evtchn_pending[0].fetch_or(1 << PORT.0, Ordering::SeqCst);
    }

    /// Has Xen's clock go on, by which pauses of event channels are measured.
    pub fn pass(&self, time: Duration) {
        let clock = &self.info.vcpu_info[0].time.system_time;
        clock.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }
}

/// A hypervisor that has event channels and a store ring, and refuses everything else.
#[derive(Clone)]
pub struct Fake(pub Rc<Machine>);

// SAFETY: it gives out neither pages nor a grant table.
unsafe impl Hypervisor for Fake {
    fn alloc_pages(&self, _count: usize) -> Option<NonNull<SharedPage>> {
        None
    }
    // SAFETY: nothing is ever allocated, so nothing is freed.
    unsafe fn free_pages(&self, _first: NonNull<SharedPage>, _count: usize) {}
    fn gfn_of(&self, _page: &SharedPage) -> Gfn {
        Gfn(0)
    }
    fn console_ring(&self) -> Option<ServiceRing<'_>> {
        None
    }
    fn store_ring(&self) -> Option<ServiceRing<'_>> {
        Some(ServiceRing {
            page: &self.0.page,
            port: PORT,
        })
    }
    fn version(&self) -> Option<Version> {
        None
    }
    fn shared_info(&self) -> &SharedInfo {
        &self.0.info
    }
    fn tsc(&self) -> u64 {
        0
    }
    fn evtchn_alloc_unbound(&self, _remote: DomId) -> Result<Port, Errno> {
        Err(Errno::ENOSPC)
    }
    fn evtchn_close(&self, _port: Port) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    fn evtchn_send(&self, port: Port) -> Result<(), Errno> {
        assert_eq!(port, PORT);
        self.0.kicks.set(self.0.kicks.get() + 1);
        Ok(())
    }
    fn poll(&self, _ports: &[Port], _deadline: Option<SystemTime>) {}
    fn shutdown(&self, _reason: ShutdownReason) {}
    fn grant_max_frames(&self) -> u32 {
        0
    }
    fn claim_grant_table(&self) -> bool {
        false
    }
    fn release_grant_table(&self) {}
    // SAFETY: there is no table.
    unsafe fn grant_frame(&self, _index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno> {
        Err(Errno::ENOSYS)
    }
    fn console_io(&self, _bytes: &[u8]) {}
}

/// The domain, its loop and its server, stepped by hand.
pub struct Rig {
    pub executor: Executor,
    pub clock: Rc<ManualClock>,
    pub ports: Ports<Fake>,
    pub machine: Rc<Machine>,
    pub server: Server,
    pub store: Store<Fake>,
    pub runner: Option<JoinHandle<Error>>,
}

impl Rig {
    pub fn new() -> Self {
        Self::prepared(|_| {})
    }

    /// With a ring page that `prepare` has had its hands on before anybody else.
    pub fn prepared(prepare: impl FnOnce(&SharedPage)) -> Self {
        let machine = Rc::new(Machine {
            page: SharedPage::new_zeroed(),
            info: SharedInfo::default(),
            kicks: Cell::new(0),
        });
        prepare(&machine.page);
        let clock = Rc::new(ManualClock::default());
        let executor = Executor::new(clock.clone());
        let hv = Fake(Rc::clone(&machine));
        let ports = Ports::new(hv.clone());
        let store = Store::new(hv, &ports, executor.handle()).expect("a store");
        let server = Server::new(Rc::clone(&machine));
        let runner = Some(executor.handle().spawn(store.run()));
        Self {
            executor,
            clock,
            ports,
            machine,
            server,
            store,
            runner,
        }
    }

    pub fn client(&self) -> Client {
        self.store.client().clone()
    }

    pub fn handle(&self) -> Handle {
        self.executor.handle()
    }

    /// One round; `false` if nothing happened. Time stands still.
    pub fn turn(&mut self) -> bool {
        let served = self.server.turn();
        let dispatched = self.ports.dispatch();
        let ready = self.executor.turn() == Turn::Ready;
        served || dispatched || ready
    }

    /// Rounds until nothing happens any more. Time stands still.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            // Twice, because a task that has just run may have signalled the server.
            if !self.turn() && !self.turn() {
                return;
            }
        }
        panic!("it does not settle");
    }

    /// Rounds, with time passing whenever there is nothing else to do, until `future` is done.
    pub fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let task = self.handle().spawn(future);
        self.finish(task)
    }

    /// The same with a task that was spawned earlier.
    pub fn finish<T: 'static>(&mut self, task: JoinHandle<T>) -> T {
        for _ in 0..1000 {
            self.settle();
            if task.is_finished() {
                return now(task).expect("the task ended").expect("not cancelled");
            }
            match self.executor.turn() {
                Turn::Idle {
                    deadline: Some(deadline),
                } => self.clock.set(deadline),
                Turn::Idle { deadline: None } => panic!("it waits for ever"),
                Turn::Ready => {}
            }
        }
        panic!("it takes for ever");
    }
}

/// What a future gives without waiting.
pub fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
