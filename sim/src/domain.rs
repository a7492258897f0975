//! One domain: the state that Xen keeps for it, and the handle through which drivers reach it.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use fata_hypercall::abi::event_fifo::{ControlBlock, EventWords, PENDING};
use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::sched::POLL_MAX_PORTS;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{
    DomId, Errno, ForeignPage, Gfn, GrantError, GrantRef, Hypervisor, PAGE_SIZE, Port, ServiceRing, SharedPage,
    ShutdownReason, Suspended, SystemTime, Version,
};

use crate::clock::Tsc;
use crate::events::EventFaults;
use crate::faults::{Call, Faults};
use crate::fifo::Fifo;
use crate::grants::{Foreign, Pins};
use crate::machine::{Machine, SlotId};
use crate::memory::{Memory, Run};
use crate::ports::{PortState, PortTable};
use crate::rng::Rng;
use crate::sim::Waker;

/// How a domain is made. `sim.domain("name")` takes every default.
#[derive(Clone, Debug)]
pub struct DomainConfig {
    /// Its name in messages and in the store.
    pub name: String,
    /// Pages it may allocate.
    pub pages: usize,
    /// Pages its grant table may grow to (`max_grant_frames`).
    pub grant_frames: u32,
    /// The highest port it may have (`max_event_channels`).
    pub event_channels: u32,
    /// Whether it has a console ring.
    pub console: bool,
    /// Whether it has a xenstore ring.
    pub store: bool,
    /// Whether fresh pages are zeroed, as they must be. If not, they are full of [`POISON`](crate::POISON).
    pub zeroed_pages: bool,
}

impl DomainConfig {
    /// A domain with 4096 pages (16 MiB), 64 grant frames, 1023 event channels, a console and a store ring.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pages: 4096,
            grant_frames: 64,
            event_channels: 1023,
            console: true,
            store: true,
            zeroed_pages: true,
        }
    }
}

impl From<&str> for DomainConfig {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// What a domain did, for tests that count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: Cell<u64>,
    pub(crate) polls: Cell<u64>,
    pub(crate) sends: Cell<u64>,
    pub(crate) events: Cell<u64>,
}

/// What a domain did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Turns the simulator gave it.
    pub turns: u64,
    /// `poll` calls.
    pub polls: u64,
    /// Events it sent.
    pub sends: u64,
    /// Events it received: pending bits that went from 0 to 1.
    pub events: u64,
}

/// A domain inside `SCHEDOP_poll`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleep {
    /// The only port that wakes it; `None`: any port does.
    pub(crate) only: Option<Port>,
}

/// A ring that the toolstack made for a service.
pub(crate) struct ServiceRun {
    pub(crate) run: Rc<Run>,
    pub(crate) port: Cell<Port>,
}

/// What Xen keeps for one domain.
pub(crate) struct DomainState {
    id: Cell<DomId>,
    /// How often it was restored: what peers had of it before is of a domain that does not exist any more.
    pub(crate) incarnation: Cell<u32>,
    /// What becomes of it when it suspends itself, if the toolstack has asked it to.
    pub(crate) suspension: Cell<Option<Suspended>>,
    pub(crate) config: DomainConfig,
    pub(crate) slot: SlotId,
    pub(crate) info: Rc<Run>,
    pub(crate) tsc: Cell<Tsc>,
    /// The host's system time less the simulator's, modulo 2^64: hosts have been up for different times.
    pub(crate) host_time: Cell<u64>,
    pub(crate) memory: RefCell<Memory>,
    pub(crate) grant_frames: Box<[OnceCell<Rc<Run>>]>,
    pub(crate) grants_claimed: Cell<bool>,
    pub(crate) pins: RefCell<Pins>,
    pub(crate) foreign: RefCell<Foreign>,
    pub(crate) ports: RefCell<PortTable>,
    pub(crate) fifo: Fifo,
    /// Services of this domain that a port wakes. Only dom0 has any.
    pub(crate) port_owners: RefCell<BTreeMap<Port, SlotId>>,
    pub(crate) console: OnceCell<ServiceRun>,
    pub(crate) store: OnceCell<ServiceRun>,
    pub(crate) sleep: Cell<Option<Sleep>>,
    pub(crate) shutdown: Cell<Option<ShutdownReason>>,
    pub(crate) hypervisor_log: RefCell<Vec<u8>>,
    pub(crate) faults: Faults,
    pub(crate) event_faults: Cell<EventFaults>,
    pub(crate) counters: Counters,
    /// Seeded early returns from `poll`: once in so many times; 0 never.
    pub(crate) spurious_wakes: Cell<u64>,
    pub(crate) watched_for_poison: Cell<bool>,
}

impl DomainState {
    pub(crate) fn new(machine: &Machine, id: DomId, config: DomainConfig, slot: SlotId) -> Self {
        let mut rng = machine.rng.borrow_mut();
        let tsc = Tsc::new(&mut rng);
        let first_gfn = 0x1000 + rng.below(0x10_0000);
        let info = Run::new(1);
        tsc.anchor(
            &info.shared_info().vcpu_info[0].time,
            machine.now.get(),
            machine.now.get(),
        );
        Self {
            id: Cell::new(id),
            incarnation: Cell::new(0),
            suspension: Cell::new(None),
            slot,
            info,
            tsc: Cell::new(tsc),
            host_time: Cell::new(0),
            memory: RefCell::new(Memory::new(config.pages, config.zeroed_pages, first_gfn)),
            grant_frames: (0..config.grant_frames).map(|_| OnceCell::new()).collect(),
            grants_claimed: Cell::new(false),
            pins: RefCell::default(),
            foreign: RefCell::default(),
            ports: RefCell::new(PortTable::new(config.event_channels)),
            fifo: Fifo::default(),
            port_owners: RefCell::default(),
            console: OnceCell::new(),
            store: OnceCell::new(),
            sleep: Cell::new(None),
            shutdown: Cell::new(None),
            hypervisor_log: RefCell::default(),
            faults: Faults::new(Rng::new(rng.next_u64())),
            event_faults: Cell::default(),
            counters: Counters::default(),
            spurious_wakes: Cell::new(64),
            watched_for_poison: Cell::new(false),
            config,
        }
    }

    pub(crate) fn grant_page(&self, index: u32) -> Option<&[EntryV1; EntryV1::PER_PAGE]> {
        self.grant_frames
            .get(index as usize)?
            .get()
            .map(|run| run.grant_entries())
    }

    /// Lets the domain run again, its clock freshly anchored now and then, as Xen does.
    pub(crate) fn wake(&self, machine: &Machine) {
        self.sleep.set(None);
        if self.shutdown.get().is_none() {
            machine.wake(self.slot);
        }
        if machine.one_in(8) {
            self.anchor_clock(machine);
        }
    }

    pub(crate) fn id(&self) -> DomId {
        self.id.get()
    }

    pub(crate) fn set_id(&self, id: DomId) {
        self.id.set(id);
    }

    /// The domain's system time at the simulator's.
    pub(crate) fn system_time(&self, now: u64) -> u64 {
        now.wrapping_add(self.host_time.get())
    }

    pub(crate) fn anchor_clock(&self, machine: &Machine) {
        let (time, now) = (&self.info.shared_info().vcpu_info[0].time, machine.now.get());
        self.tsc.get().anchor(time, now, self.system_time(now));
    }

    pub(crate) fn is_pending(&self, port: Port) -> bool {
        if let Some(word) = self.fifo.word(port) {
            return word.load(SeqCst) & PENDING != 0;
        }
        let word = self.info.shared_info().evtchn_pending.get(port.0 as usize / 64);
        word.is_some_and(|word| word.load(SeqCst) & 1 << (port.0 % 64) != 0)
    }
}

/// A handle to a simulated domain: what drivers take for the machine they run on.
///
/// Clones are the same domain. The handle keeps the domain's memory alive.
#[derive(Clone)]
pub struct Domain {
    pub(crate) machine: Rc<Machine>,
    pub(crate) state: Rc<DomainState>,
}

impl Domain {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> DomId {
        self.state.id()
    }

    /// The name from its configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.config.name
    }

    /// The plan of what shall fail.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    /// System time, which is virtual, and the same in every domain that was not restored.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime(self.state.system_time(self.machine.now.get()))
    }

    /// Why the domain has shut down, once it has.
    #[must_use]
    pub fn shutdown_reason(&self) -> Option<ShutdownReason> {
        self.state.shutdown.get()
    }

    /// What it wrote to Xen's log with `console_io`.
    #[must_use]
    pub fn hypervisor_log(&self) -> Vec<u8> {
        self.state.hypervisor_log.borrow().clone()
    }

    /// Pages allocated at this moment.
    #[must_use]
    pub fn pages_used(&self) -> usize {
        self.state.memory.borrow().used()
    }

    /// Pages that it can allocate at this moment.
    #[must_use]
    pub fn pages_free(&self) -> usize {
        self.state.memory.borrow().free_pages()
    }

    /// Pages of its own that the hypervisor has at this moment.
    #[must_use]
    pub fn pages_ballooned(&self) -> usize {
        self.state.memory.borrow().ballooned()
    }

    /// `XENMEM_decrease_reservation`: gives up to `count` free pages to the hypervisor, and says how many. They cannot be allocated
    /// any more.
    #[must_use = "it may be fewer"]
    pub fn release_pages(&self, count: usize) -> usize {
        match self.state.faults.consult(Call::ReleasePages) {
            Some(_) => 0,
            None => self.state.memory.borrow_mut().release(count),
        }
    }

    /// `XENMEM_populate_physmap`: gets up to `count` of them back, and says how many.
    #[must_use = "it may be fewer"]
    pub fn populate_pages(&self, count: usize) -> usize {
        match self.state.faults.consult(Call::PopulatePages) {
            Some(_) => 0,
            None => self.state.memory.borrow_mut().populate(count),
        }
    }

    /// Whether it is inside `poll`.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.state.sleep.get().is_some()
    }

    /// What is at the other end of a port; `None` if the port is closed.
    #[must_use]
    pub fn port_state(&self, port: Port) -> Option<PortState> {
        self.state.ports.borrow().get(port)
    }

    /// What it did so far.
    #[must_use]
    pub fn activity(&self) -> Activity {
        let counters = &self.state.counters;
        Activity {
            turns: counters.turns.get(),
            polls: counters.polls.get(),
            sends: counters.sends.get(),
            events: counters.events.get(),
        }
    }

    /// `poll` shall return early without a reason once in `n` times; 0 for never. 64 at first.
    pub fn set_spurious_wakes(&self, n: u64) {
        self.state.spurious_wakes.set(n);
    }

    /// `EVTCHNOP_bind_interdomain`, which backends use: connects to a port that `remote` left unbound for us.
    ///
    /// # Errors
    /// `ESRCH` if there is no such domain, `EINVAL` if the port is not unbound for this one.
    pub fn bind_interdomain(&self, remote: DomId, port: Port) -> Result<Port, Errno> {
        self.machine.bind_interdomain(&self.state, remote, port)
    }

    /// Events on this port of dom0 wake that service.
    pub fn own_port(&self, port: Port, waker: &Waker) {
        self.state.port_owners.borrow_mut().insert(port, waker.slot());
        // Binding has set it pending already.
        if self.state.is_pending(port) {
            waker.wake();
        }
    }

    /// Takes the pending bit of a port, in the two-level form: true if it was set.
    pub fn take_pending(&self, port: Port) -> bool {
        let bit = 1 << (port.0 % 64);
        let word = self.state.info.shared_info().evtchn_pending.get(port.0 as usize / 64);
        word.is_some_and(|word| word.fetch_and(!bit, SeqCst) & bit != 0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id(), self.name())
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Domain {
    /// A page of the grant table, for a test that plays a driver by hand. What a driver must keep in mind
    /// ([`Hypervisor::grant_frame`]) the simulator checks.
    ///
    /// # Errors
    /// `EINVAL` beyond the table's limit; what a fault plan says.
    pub fn grant_entries(&self, index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno> {
        let frame = self.state.grant_frames.get(index as usize).ok_or(Errno::EINVAL)?;
        if frame.get().is_none()
            && let Some(errno) = self.state.faults.consult(Call::GrantFrame)
        {
            return Err(errno);
        }
        Ok(frame.get_or_init(|| Run::new(1)).grant_entries())
    }
}

// SAFETY: pages are counted allocations that the simulator keeps until they are freed; the grant table is the one through
// which `map_grant` goes, and lives as long as the domain; mapped pages live as long as their mapping.
unsafe impl Hypervisor for Domain {
    fn alloc_pages(&self, count: usize) -> Option<NonNull<SharedPage>> {
        if self.state.faults.consult(Call::AllocPages).is_some() {
            return None;
        }
        self.state.memory.borrow_mut().alloc(count)
    }

    unsafe fn free_pages(&self, first: NonNull<SharedPage>, count: usize) {
        self.check_free(first, count);
        let freed = self.state.memory.borrow_mut().free(first, count);
        match freed {
            Ok(scribbles) => self.report_scribbles(&scribbles),
            Err(_) => self.machine.violation(format!(
                "{self:?} freed {count} pages at {first:p} that it does not have"
            )),
        }
    }

    fn gfn_of(&self, page: &SharedPage) -> Gfn {
        let gfn = self.state.memory.borrow().gfn_of(page);
        gfn.unwrap_or_else(|| {
            self.machine.violation(format!(
                "{self:?} asked for the frame number of {page:?}, which is not its page"
            ));
            Gfn(0)
        })
    }

    fn console_ring(&self) -> Option<ServiceRing<'_>> {
        self.state.console.get().map(|ring| ServiceRing {
            page: ring.run.page(0),
            port: ring.port.get(),
        })
    }

    fn store_ring(&self) -> Option<ServiceRing<'_>> {
        self.state.store.get().map(|ring| ServiceRing {
            page: ring.run.page(0),
            port: ring.port.get(),
        })
    }

    fn version(&self) -> Option<Version> {
        Some(Version { major: 4, minor: 17 })
    }

    fn shared_info(&self) -> &SharedInfo {
        self.machine.interleave(8);
        self.state.info.shared_info()
    }

    fn tsc(&self) -> u64 {
        self.machine.interleave(8);
        self.state.tsc.get().at(self.machine.now.get())
    }

    fn evtchn_alloc_unbound(&self, remote: DomId) -> Result<Port, Errno> {
        if let Some(errno) = self.state.faults.consult(Call::EvtchnAlloc) {
            return Err(errno);
        }
        let remote = if remote == DomId::SELF { self.id() } else { remote };
        let state = PortState::Unbound { remote };
        let port = self.state.ports.borrow_mut().open(state, &self.state.fifo)?;
        self.machine.note(0xa, u64::from(port.0));
        Ok(port)
    }

    fn evtchn_bind_interdomain(&self, remote: DomId, remote_port: Port) -> Result<Port, Errno> {
        if let Some(errno) = self.state.faults.consult(Call::EvtchnBind) {
            return Err(errno);
        }
        self.bind_interdomain(remote, remote_port)
    }

    fn evtchn_use_fifo(&self, pages: usize) -> Result<(), Errno> {
        if let Some(errno) = self.state.faults.consult(Call::EvtchnFifo) {
            return Err(errno);
        }
        self.state.use_fifo(pages)
    }

    fn evtchn_control(&self) -> Option<&ControlBlock> {
        self.state.fifo.control()
    }

    fn evtchn_words(&self, index: usize) -> Option<&EventWords> {
        self.state.fifo.words(index)
    }

    fn evtchn_close(&self, port: Port) -> Result<(), Errno> {
        if let Some(errno) = self.state.faults.consult(Call::EvtchnClose) {
            return Err(errno);
        }
        self.machine.close(&self.state, port)
    }

    fn evtchn_send(&self, port: Port) -> Result<(), Errno> {
        if let Some(errno) = self.state.faults.consult(Call::EvtchnSend) {
            return Err(errno);
        }
        count(&self.state.counters.sends);
        let result = self.machine.send(&self.state, port);
        if result.is_err() {
            self.machine
                .violation(format!("{self:?} sent on port {port}, which is not open"));
        }
        self.machine.interleave(2);
        result
    }

    fn evtchn_is_connected(&self, port: Port) -> Result<bool, Errno> {
        let state = self.port_state(port).ok_or(Errno::EINVAL)?;
        Ok(matches!(state, PortState::Interdomain { .. }))
    }

    /// Cannot block a thread that all domains share: it records that the domain sleeps, and the simulator does not
    /// give it a turn before something wakes it.
    fn poll(&self, ports: &[Port], deadline: Option<SystemTime>) {
        count(&self.state.counters.polls);
        // On metal there would be nobody any more to call this.
        if self.state.shutdown.get().is_some() {
            return;
        }
        let ports = &ports[..ports.len().min(POLL_MAX_PORTS)];
        // Xen's time is signed: a huge deadline has passed long ago.
        let deadline = deadline.map(|deadline| {
            if deadline.0 > i64::MAX as u64 {
                SystemTime(1)
            } else {
                deadline
            }
        });
        let now = self.now().0;
        // do_poll: blocked first, then a look at the listed ports, pending or not masked or not.
        if ports.iter().any(|&port| self.state.is_pending(port))
            || deadline.is_some_and(|deadline| deadline.0 != 0 && deadline.0 <= now)
            || self.machine.one_in(self.state.spurious_wakes.get())
        {
            return;
        }
        let only = if let [only] = ports { Some(*only) } else { None };
        self.state.sleep.set(Some(Sleep { only }));
        // A time-out of 0 means none.
        self.machine.sleep(
            self.state.slot,
            deadline
                .filter(|deadline| deadline.0 != 0)
                .map(|deadline| deadline.0.wrapping_sub(self.state.host_time.get())),
        );
    }

    fn shutdown(&self, reason: ShutdownReason) {
        self.machine.note(0x5, reason as u64);
        self.state.shutdown.set(Some(reason));
        self.machine.sleep(self.state.slot, None);
    }

    fn suspend(&self) -> Result<Suspended, Errno> {
        self.stand_still()
    }

    fn grant_max_frames(&self) -> u32 {
        self.state.config.grant_frames
    }

    fn claim_grant_table(&self) -> bool {
        !self.state.grants_claimed.replace(true)
    }

    fn release_grant_table(&self) {
        self.state.grants_claimed.set(false);
    }

    unsafe fn grant_frame(&self, index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno> {
        self.grant_entries(index)
    }

    fn map_grant(&self, granter: DomId, reference: GrantRef) -> Result<ForeignPage, GrantError> {
        self.map_foreign(granter, reference)
    }

    unsafe fn unmap_grant(&self, page: ForeignPage) -> Result<(), GrantError> {
        self.unmap_foreign(page)
    }

    fn console_io(&self, bytes: &[u8]) {
        let mut log = self.state.hypervisor_log.borrow_mut();
        log.extend_from_slice(&bytes[..bytes.len().min(PAGE_SIZE)]);
    }
}
