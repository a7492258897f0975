//! A hypervisor for tests of event channels and of what lives on one page: no peers, no memory, and a hook in every
//! call, so that a test can have something happen at that very moment.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use fata_events::xen::XenLoop;
use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{
    DomId, Errno, Gfn, Hypervisor, Port, ServiceRing, SharedPage, ShutdownReason, SystemTime, Version,
};

/// A call of `SCHEDOP_poll`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Poll {
    pub(crate) ports: Vec<Port>,
    pub(crate) deadline: Option<SystemTime>,
    /// Whether the domain went to sleep: no listed port was pending and the deadline was ahead.
    pub(crate) slept: bool,
}

type Hook = Box<dyn FnMut(&Fake)>;
type Sleep = Box<dyn Fn(&[Port])>;

#[derive(Default)]
pub(crate) struct State {
    info: SharedInfo,
    pub(crate) tsc: Cell<u64>,
    pub(crate) open: RefCell<BTreeSet<u32>>,
    pub(crate) sent: RefCell<Vec<Port>>,
    pub(crate) polls: RefCell<Vec<Poll>>,
    pub(crate) log: RefCell<Vec<u8>>,
    pub(crate) console: Option<(Box<SharedPage>, Port)>,
    pub(crate) max_ports: Cell<u32>,
    hook: RefCell<Option<Hook>>,
    sleep: RefCell<Option<Sleep>>,
}

#[derive(Clone)]
pub(crate) struct Fake(pub(crate) Rc<State>);

#[allow(dead_code, reason = "each test binary uses its part")]
impl Fake {
    /// A domain without a console, at system time 1000 s; its counter ticks once a nanosecond.
    pub(crate) fn new() -> Self {
        Self::build(None)
    }

    /// The same with a console ring.
    pub(crate) fn with_console(port: Port) -> Self {
        Self::build(Some((Box::new(SharedPage::new_zeroed()), port)))
    }

    fn build(console: Option<(Box<SharedPage>, Port)>) -> Self {
        let state = State {
            console,
            max_ports: Cell::new(4096),
            ..State::default()
        };
        let time = &state.info.vcpu_info[0].time;
        time.system_time.store(1_000_000_000_000, Ordering::Relaxed);
        time.tsc_to_system_mul.store(1 << 31, Ordering::Relaxed);
        time.tsc_shift.store(1, Ordering::Relaxed);
        Self(Rc::new(state))
    }

    /// Has `hook` called in every call that the loop makes.
    pub(crate) fn set_hook(&self, hook: impl FnMut(&Fake) + 'static) {
        *self.0.hook.borrow_mut() = Some(Box::new(hook));
    }

    /// Has `sleep` called with the ports of each `SCHEDOP_poll`, which is as long as it takes.
    pub(crate) fn set_sleep(&self, sleep: impl Fn(&[Port]) + 'static) {
        *self.0.sleep.borrow_mut() = Some(Box::new(sleep));
    }

    fn call_hook(&self) {
        // Out of its cell while it runs: it may call us.
        let hook = self.0.hook.borrow_mut().take();
        if let Some(mut hook) = hook {
            hook(self);
            self.0.hook.borrow_mut().get_or_insert(hook);
        }
    }

    /// What Xen does when the peer signals.
    pub(crate) fn signal(&self, port: Port) {
        let (word, bit) = (port.0 as usize / 64, port.0 % 64);
        self.0.info.evtchn_pending[word].fetch_or(1 << bit, Ordering::SeqCst);
    }

    pub(crate) fn is_pending(&self, port: Port) -> bool {
        let (word, bit) = (port.0 as usize / 64, port.0 % 64);
        self.0.info.evtchn_pending[word].load(Ordering::SeqCst) & 1 << bit != 0
    }

    /// What Xen does in a second in which `port` fires at every moment there is, in steps of a microsecond: it wakes the
    /// domain if that listens to the port, or when its deadline is over. Says how many turns the loop took.
    pub(crate) fn storm_for_a_second(&self, xen: &mut XenLoop<Fake>, port: Port) -> u64 {
        let mut turns = 0;
        let end = self.system_time() + 1_000_000_000;
        while self.system_time() < end {
            self.signal(port);
            self.0.tsc.set(self.0.tsc.get() + 1000);
            turns += 1;
            if xen.turn() {
                continue;
            }
            let poll = self.last_poll();
            if poll.slept && !poll.ports.contains(&port) {
                // Each further signal finds the bit set, and wakes nobody.
                let until = poll.deadline.map_or(end, |deadline| deadline.0.min(end));
                self.0
                    .tsc
                    .set(self.0.tsc.get() + until.saturating_sub(self.system_time()));
            }
        }
        turns
    }

    pub(crate) fn last_poll(&self) -> Poll {
        self.0.polls.borrow().last().expect("it polled").clone()
    }

    pub(crate) fn system_time(&self) -> u64 {
        1_000_000_000_000 + self.0.tsc.get()
    }
}

// SAFETY: it gives out neither pages nor a grant table.
unsafe impl Hypervisor for Fake {
    fn alloc_pages(&self, _count: usize) -> Option<NonNull<SharedPage>> {
        None
    }

    // SAFETY: nothing is done; and as nothing can be allocated, nothing can be freed.
    unsafe fn free_pages(&self, _first: NonNull<SharedPage>, _count: usize) {}

    fn gfn_of(&self, _page: &SharedPage) -> Gfn {
        Gfn(0)
    }

    fn console_ring(&self) -> Option<ServiceRing<'_>> {
        self.call_hook();
        self.0
            .console
            .as_ref()
            .map(|(page, port)| ServiceRing { page, port: *port })
    }

    fn store_ring(&self) -> Option<ServiceRing<'_>> {
        None
    }

    fn version(&self) -> Option<Version> {
        None
    }

    fn shared_info(&self) -> &SharedInfo {
        &self.0.info
    }

    fn tsc(&self) -> u64 {
        self.call_hook();
        self.0.tsc.get()
    }

    fn evtchn_alloc_unbound(&self, _remote: DomId) -> Result<Port, Errno> {
        let mut open = self.0.open.borrow_mut();
        let port = (1..self.0.max_ports.get())
            .find(|port| !open.contains(port))
            .ok_or(Errno::ENOSPC)?;
        open.insert(port);
        Ok(Port(port))
    }

    fn evtchn_close(&self, port: Port) -> Result<(), Errno> {
        self.0
            .open
            .borrow_mut()
            .remove(&port.0)
            .then_some(())
            .ok_or(Errno::EINVAL)
    }

    fn evtchn_send(&self, port: Port) -> Result<(), Errno> {
        self.0.sent.borrow_mut().push(port);
        self.call_hook();
        Ok(())
    }

    fn poll(&self, ports: &[Port], deadline: Option<SystemTime>) {
        self.call_hook();
        if let Some(sleep) = &*self.0.sleep.borrow() {
            return sleep(ports);
        }
        let slept = !ports.iter().any(|port| self.is_pending(*port))
            && deadline.is_none_or(|deadline| deadline.0 > self.system_time());
        self.0.polls.borrow_mut().push(Poll {
            ports: ports.to_vec(),
            deadline,
            slept,
        });
    }

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

    fn console_io(&self, bytes: &[u8]) {
        self.0.log.borrow_mut().extend_from_slice(bytes);
    }
}
