//! What all domains have in common: time, chance, who sleeps, who is connected to whom.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering::SeqCst;

use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{DomId, Errno, Port};

use crate::domain::DomainState;
use crate::events::LateEvents;
use crate::ports::PortState;
use crate::rng::{Rng, mix};
use crate::sim::Next;

/// Something that takes turns: a domain or a service.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) runnable: bool,
    /// Wake at this time at the latest, in nanoseconds.
    pub(crate) deadline: Option<u64>,
    pub(crate) turns: u64,
    /// It is a domain, which sleeps when it says so; a service sleeps after each step.
    pub(crate) is_domain: bool,
    /// It has something to run.
    pub(crate) live: bool,
}

/// The number of a slot.
pub(crate) type SlotId = usize;

/// What a slot runs: a service says what it wants next.
pub(crate) type Body = Box<dyn FnMut() -> Option<Next>>;

/// By slot. Taken out while it runs.
pub(crate) type Bodies = RefCell<Vec<Option<Body>>>;

/// The shared state behind every handle.
pub(crate) struct Machine {
    pub(crate) seed: u64,
    pub(crate) now: Cell<u64>,
    pub(crate) rng: RefCell<Rng>,
    trace: Cell<u64>,
    domains: RefCell<Vec<Rc<DomainState>>>,
    last_domain: Cell<DomId>,
    slots: RefCell<Vec<Slot>>,
    pub(crate) late: LateEvents,
    /// What the slots run. It belongs to the simulator, since it holds handles of the machine.
    bodies: Weak<Bodies>,
    /// A guest is in the middle of a turn, and others may get on meanwhile.
    in_guest: Cell<bool>,
    /// The domain that was restored in this turn, and what its number was: the toolstack has not done its part yet.
    restored: Cell<Option<(DomId, DomId)>>,
    violations: RefCell<Vec<String>>,
}

impl Machine {
    pub(crate) fn new(seed: u64, bodies: Weak<Bodies>) -> Self {
        let mut rng = Rng::new(seed);
        // The host has been up for a while: nothing may depend on a clock that starts at 0.
        let now = 1_000_000_000 + rng.below(1_000_000_000_000);
        Self {
            seed,
            now: Cell::new(now),
            rng: RefCell::new(rng),
            trace: Cell::new(seed),
            domains: RefCell::default(),
            last_domain: Cell::new(DomId::DOM0),
            slots: RefCell::default(),
            late: LateEvents::default(),
            bodies,
            in_guest: Cell::new(false),
            restored: Cell::new(None),
            violations: RefCell::default(),
        }
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().below(bound)
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.rng.borrow_mut().one_in(n)
    }

    /// Adds an event to the hash that says whether two runs were the same.
    pub(crate) fn note(&self, what: u64, detail: u64) {
        let step = mix(self.now.get() ^ what.rotate_left(48) ^ detail);
        self.trace.set(mix(self.trace.get() ^ step));
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// Somebody broke a rule. The run stops after the present turn, unless the test wanted it.
    pub(crate) fn violation(&self, message: String) {
        self.violations.borrow_mut().push(message);
    }

    pub(crate) fn violations(&self) -> std::cell::RefMut<'_, Vec<String>> {
        self.violations.borrow_mut()
    }

    // Domains

    pub(crate) fn add_domain(&self, domain: Rc<DomainState>) {
        self.domains.borrow_mut().push(domain);
    }

    pub(crate) fn remove_domain(&self, id: DomId) {
        self.domains.borrow_mut().retain(|domain| domain.id() != id);
    }

    pub(crate) fn domain(&self, id: DomId) -> Option<Rc<DomainState>> {
        self.domains.borrow().iter().find(|domain| domain.id() == id).cloned()
    }

    pub(crate) fn domains(&self) -> Vec<Rc<DomainState>> {
        self.domains.borrow().clone()
    }

    // Who sleeps

    pub(crate) fn add_slot(&self, name: &str, is_domain: bool) -> SlotId {
        let mut slots = self.slots.borrow_mut();
        slots.push(Slot {
            name: name.to_owned(),
            runnable: true,
            deadline: None,
            turns: 0,
            is_domain,
            live: false,
        });
        slots.len() - 1
    }

    /// One of those that can run, by chance.
    pub(crate) fn choose(&self, services_only: bool) -> Option<SlotId> {
        let slots = self.slots.borrow();
        let can_run = |slot: &Slot| slot.runnable && slot.live && !(services_only && slot.is_domain);
        let ready = || slots.iter().enumerate().filter(|(_, slot)| can_run(slot));
        let count = ready().count();
        if count == 0 {
            return None;
        }
        ready().nth(self.below(count as u64) as usize).map(|(id, _)| id)
    }

    /// Gives a slot its turn. Says how many it has had.
    pub(crate) fn run(&self, slot: SlotId) -> u64 {
        // A service sleeps unless it is woken, also by itself, during the step.
        let (turns, is_domain) = self.with_slots(|slots| {
            let slot = &mut slots[slot];
            debug_assert!(slot.deadline.is_none(), "whoever runs has no deadline");
            slot.runnable = slot.is_domain;
            slot.turns += 1;
            (slot.turns, slot.is_domain)
        });
        self.note(0x1, slot as u64);
        let Some(bodies) = self.bodies.upgrade() else {
            return turns;
        };
        let Some(mut body) = bodies.borrow_mut()[slot].take() else {
            return turns;
        };
        if is_domain {
            self.in_guest.set(true);
        }
        let next = body();
        if is_domain {
            self.in_guest.set(false);
        }
        match next {
            Some(Next::Again) => self.wake(slot),
            Some(Next::Until(time)) => self.with_slots(|slots| {
                if !slots[slot].runnable {
                    slots[slot].deadline = Some(time.0);
                }
            }),
            Some(Next::Sleep) | None => {}
        }
        bodies.borrow_mut()[slot].get_or_insert(body);
        turns
    }

    /// Backends and daemons have processors of their own: once in `n` times, some of them get on while a guest is in the
    /// middle of its turn.
    pub(crate) fn interleave(&self, n: u64) {
        if !self.in_guest.get() || !self.one_in(n) {
            return;
        }
        for _ in 0..self.below(8) {
            let Some(service) = self.choose(true) else { return };
            self.run(service);
        }
    }

    /// A domain has a new number. Nobody gets on before the toolstack knows.
    pub(crate) fn note_restored(&self, old: DomId, new: DomId) {
        self.in_guest.set(false);
        self.restored.set(Some((old, new)));
    }

    pub(crate) fn take_restored(&self) -> Option<(DomId, DomId)> {
        self.restored.take()
    }

    /// A number for a new domain.
    pub(crate) fn next_domain(&self) -> DomId {
        let id = DomId(self.last_domain.get().0 + 1);
        self.last_domain.set(id);
        id
    }

    /// Somebody whose deadline has come, and whether it is a domain.
    pub(crate) fn next_due(&self) -> Option<(SlotId, bool)> {
        let (now, slots) = (self.now.get(), self.slots.borrow());
        let due = |(id, slot): (SlotId, &Slot)| (slot.deadline? <= now).then_some((id, slot.is_domain));
        slots.iter().enumerate().find_map(due)
    }

    /// When something happens by itself.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let slots = self.slots.borrow();
        slots
            .iter()
            .filter_map(|slot| slot.deadline)
            .chain(self.late.next())
            .min()
    }

    pub(crate) fn set_live(&self, slot: SlotId, live: bool) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            slot.live = live;
        }
    }

    pub(crate) fn with_slots<T>(&self, f: impl FnOnce(&mut Vec<Slot>) -> T) -> T {
        f(&mut self.slots.borrow_mut())
    }

    pub(crate) fn wake(&self, slot: SlotId) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            slot.runnable = true;
            slot.deadline = None;
        }
    }

    pub(crate) fn sleep(&self, slot: SlotId, deadline: Option<u64>) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(slot) {
            slot.runnable = false;
            slot.deadline = deadline;
        }
    }

    // Event channels

    /// Sets a port pending and wakes whom Xen would wake.
    pub(crate) fn raise(&self, domain: &DomainState, port: Port) {
        self.note(0xe, u64::from(domain.id().0) << 32 | u64::from(port.0));
        let fresh = domain
            .fifo
            .set_pending(port)
            .unwrap_or_else(|| set_pending_two_level(domain.info.shared_info(), port));
        if !fresh {
            return; // It was pending already: no edge, no wake-up.
        }
        domain.counters.events.set(domain.counters.events.get() + 1);
        // evtchn_check_pollers: masked or not, and any port unless exactly one was polled for.
        if domain
            .sleep
            .get()
            .is_some_and(|sleep| sleep.only.is_none_or(|only| only == port))
        {
            domain.wake(self);
        }
        if let Some(&owner) = domain.port_owners.borrow().get(&port) {
            self.wake(owner);
        }
    }

    /// `EVTCHNOP_send`.
    pub(crate) fn send(&self, from: &DomainState, port: Port) -> Result<(), Errno> {
        let state = from.ports.borrow().get(port);
        match state {
            None => Err(Errno::EINVAL),
            Some(PortState::Unbound { .. }) => Ok(()),
            Some(PortState::Interdomain { remote, port }) => {
                if let Some(remote) = self.domain(remote) {
                    self.deliver(&remote, port);
                }
                Ok(())
            }
        }
    }

    /// `EVTCHNOP_bind_interdomain`: returns the local port, which is pending at once, because the other end may
    /// have signalled before there was anybody to hear it.
    pub(crate) fn bind_interdomain(
        &self,
        local: &DomainState,
        remote_id: DomId,
        remote_port: Port,
    ) -> Result<Port, Errno> {
        let remote_id = if remote_id == DomId::SELF {
            local.id()
        } else {
            remote_id
        };
        let remote = self.domain(remote_id).ok_or(Errno::ESRCH)?;
        let state = remote.ports.borrow().get(remote_port);
        if state != Some(PortState::Unbound { remote: local.id() }) {
            return Err(Errno::EINVAL);
        }
        let state = PortState::Interdomain {
            remote: remote_id,
            port: remote_port,
        };
        let port = local.ports.borrow_mut().open(state, &local.fifo)?;
        remote.ports.borrow_mut().set(
            remote_port,
            PortState::Interdomain {
                remote: local.id(),
                port,
            },
        );
        self.raise(local, port);
        Ok(port)
    }

    /// `EVTCHNOP_close`: the other end becomes unbound.
    pub(crate) fn close(&self, domain: &DomainState, port: Port) -> Result<(), Errno> {
        let state = domain.ports.borrow_mut().close(port).ok_or(Errno::EINVAL)?;
        if let PortState::Interdomain { remote, port: peer } = state
            && let Some(remote) = self.domain(remote)
        {
            remote
                .ports
                .borrow_mut()
                .set(peer, PortState::Unbound { remote: domain.id() });
        }
        // Xen clears the pending bit when it frees the port.
        let (word, bit) = (port.0 as usize / 64, 1_u64 << (port.0 % 64));
        if let Some(pending) = domain.info.shared_info().evtchn_pending.get(word) {
            pending.fetch_and(!bit, SeqCst);
        }
        domain.fifo.clear_pending(port);
        domain.port_owners.borrow_mut().remove(&port);
        Ok(())
    }
}

/// Sets a port's bit; whether it was clear (`evtchn_2l_set_pending`).
fn set_pending_two_level(info: &SharedInfo, port: Port) -> bool {
    let (word, bit) = (port.0 as usize / 64, 1_u64 << (port.0 % 64));
    let Some(pending) = info.evtchn_pending.get(word) else {
        return false;
    };
    if pending.fetch_or(bit, SeqCst) & bit != 0 {
        return false;
    }
    let vcpu = &info.vcpu_info[0];
    if info.evtchn_mask[word].load(SeqCst) & bit == 0
        && vcpu.evtchn_pending_sel.fetch_or(1 << word, SeqCst) & 1 << word == 0
    {
        vcpu.evtchn_upcall_pending.store(1, SeqCst);
    }
    true
}
