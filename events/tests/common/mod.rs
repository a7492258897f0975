//! A hypervisor for tests of event channels and of what lives on one page: no peers, no memory, and a hook in every
//! call, so that a test can have something happen at that very moment.

#[path = "../../../sim/src/fifo_queue.rs"]
mod fifo_queue;

use std::array;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::rc::Rc;

use fata_events::xen::XenLoop;
use fata_hypercall::abi::event_fifo::{ControlBlock, EventWords, MASKED, PENDING, WORDS_PER_PAGE};
use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::sync::{AtomicU32, Ordering};
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

/// The FIFO form's pages. There are more of them than any test needs.
#[derive(Default)]
pub(crate) struct Fifo {
    queue: fifo_queue::Queue,
    control: ControlBlock,
    words: [OnceCell<EventWords>; 8],
    /// Whether there is such a form.
    offered: Cell<bool>,
    /// Whether the domain has changed over to it.
    in_use: Cell<bool>,
}

type Hook = Box<dyn FnMut(&Fake)>;
type Sleep = Box<dyn Fn(&[Port])>;

#[derive(Default)]
pub(crate) struct State {
    info: SharedInfo,
    pub(crate) fifo: Fifo,
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

    /// From now on the domain may have the FIFO form.
    pub(crate) fn offer_fifo(&self) {
        self.0.fifo.offered.set(true);
    }

    /// Forgets the FIFO form, as Xen does for a restored domain.
    pub(crate) fn forget_fifo(&self) {
        self.0.fifo.in_use.set(false);
    }

    fn word(&self, port: Port) -> Option<&AtomicU32> {
        let index = port.0 as usize;
        Some(&self.evtchn_words(index / WORDS_PER_PAGE)?[index % WORDS_PER_PAGE])
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
        self.set_pending(port);
    }

    /// The same; `true` if the port was not pending before, for which a sleeping domain is woken.
    pub(crate) fn set_pending(&self, port: Port) -> bool {
        if self.0.fifo.in_use.get() {
            let words = |port| self.word(port);
            return self.0.fifo.queue.set_pending(&self.0.fifo.control, words, port);
        }
        let (word, bit) = (port.0 as usize / 64, port.0 % 64);
        self.0.info.evtchn_pending[word].fetch_or(1 << bit, Ordering::SeqCst) & 1 << bit == 0
    }

    pub(crate) fn is_pending(&self, port: Port) -> bool {
        match self.word(port) {
            Some(word) => word.load(Ordering::SeqCst) & PENDING != 0,
            None => self.is_two_level_pending(port),
        }
    }

    /// Whether the port's word has it masked, in the FIFO form.
    pub(crate) fn is_masked(&self, port: Port) -> bool {
        self.word(port)
            .is_some_and(|word| word.load(Ordering::SeqCst) & MASKED != 0)
    }

    fn is_two_level_pending(&self, port: Port) -> bool {
        let (word, bit) = (port.0 as usize / 64, port.0 % 64);
        let word = self.0.info.evtchn_pending.get(word);
        word.is_some_and(|word| word.load(Ordering::SeqCst) & 1 << bit != 0)
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

    fn evtchn_use_fifo(&self, pages: usize) -> Result<(), Errno> {
        let fifo = &self.0.fifo;
        if !fifo.offered.get() {
            return Err(Errno::ENOSYS);
        }
        let fresh = !fifo.in_use.get();
        for (page, words) in fifo.words.get(..pages).ok_or(Errno::ENOMEM)?.iter().enumerate() {
            if fresh || words.get().is_none() {
                for (index, word) in words
                    .get_or_init(|| array::from_fn(|_| AtomicU32::new(0)))
                    .iter()
                    .enumerate()
                {
                    let port = Port((page * WORDS_PER_PAGE + index) as u32);
                    let pending = fresh && self.is_two_level_pending(port);
                    word.store(if pending { MASKED | PENDING } else { MASKED }, Ordering::SeqCst);
                }
            }
        }
        // The last moment at which a peer sets a bit of the old form.
        self.call_hook();
        fifo.in_use.set(true);
        Ok(())
    }

    fn evtchn_control(&self) -> Option<&ControlBlock> {
        self.0.fifo.in_use.get().then_some(&self.0.fifo.control)
    }

    fn evtchn_words(&self, index: usize) -> Option<&EventWords> {
        self.evtchn_control()?;
        self.0.fifo.words.get(index)?.get()
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
