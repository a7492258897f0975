//! The simulator: who runs next, and when.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use fata_hypercall::{DomId, SystemTime};

use crate::clock::write_wall_clock;
use crate::domain::{Domain, DomainConfig, DomainState};
use crate::leaks::Leaks;
use crate::machine::{Bodies, Body, Machine, SlotId};
use crate::restore::Moves;
use crate::stalls::Stalls;
use crate::store::Store;
use crate::wire::Switch;

/// Turns between two looks through all grant tables.
const AUDIT_EVERY: u64 = 1024;

/// What a service wants after its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do now.
    Again,
    /// Nothing to do before somebody wakes it.
    Sleep,
    /// Nothing to do before this time, unless somebody wakes it.
    Until(SystemTime),
}

/// Wakes a service.
#[derive(Clone)]
pub struct Waker {
    machine: Rc<Machine>,
    slot: SlotId,
}

impl Waker {
    /// The service's next step comes as soon as the scheduler likes.
    pub fn wake(&self) {
        self.machine.wake(self.slot);
    }

    pub(crate) const fn slot(&self) -> SlotId {
        self.slot
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// Several domains in one thread, with a clock of their own, in an order that a seed decides.
pub struct Sim {
    pub(crate) machine: Rc<Machine>,
    pub(crate) dom0: Domain,
    bodies: Rc<Bodies>,
    pub(crate) store: Store,
    pub(crate) bridges: RefCell<BTreeMap<String, Switch>>,
    pub(crate) stalls: Stalls,
    pub(crate) moves: Moves,
    max_cost: Cell<u64>,
    tolerant: Cell<bool>,
}

impl Sim {
    /// A host with dom0 and xenstored on it. The same seed and the same calls give the same run, to the last bit.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let bodies = Rc::<Bodies>::default();
        let machine = Rc::new(Machine::new(seed, Rc::downgrade(&bodies)));
        let slot = machine.add_slot("dom0", true);
        let config = DomainConfig {
            console: false,
            store: false,
            pages: 1 << 20,
            event_channels: u32::MAX,
            ..DomainConfig::new("dom0")
        };
        let state = Rc::new(DomainState::new(&machine, DomId::DOM0, config, slot));
        machine.add_domain(Rc::clone(&state));
        let dom0 = Domain {
            machine: Rc::clone(&machine),
            state,
        };
        let slot = machine.add_slot("xenstored", false);
        let store = Store::new(Waker {
            machine: Rc::clone(&machine),
            slot,
        });
        let sim = Self {
            dom0: dom0.clone(),
            store: store.clone(),
            bodies,
            bridges: RefCell::default(),
            stalls: Stalls::default(),
            moves: Moves::default(),
            max_cost: Cell::new(1000),
            tolerant: Cell::new(false),
            machine,
        };
        sim.stalls.watch({
            let store = store.clone();
            move || store.due()
        });
        sim.put_body(slot, Box::new(move || Some(store.step(&dom0))));
        sim
    }

    /// xenstored.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The seed that this run replays.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.machine.seed
    }

    /// The domain that the backends and xenstored live in.
    #[must_use]
    pub const fn dom0(&self) -> &Domain {
        &self.dom0
    }

    /// System time now.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime(self.machine.now.get())
    }

    /// Each turn takes a random time below this; 1 microsecond at first. With 0, time stands still while anybody
    /// can run.
    pub fn set_turn_cost(&self, below: Duration) {
        self.max_cost.set(below.as_nanos() as u64);
    }

    /// Sets every domain's wall clock: the time since 1970 that it is now.
    pub fn set_wall_clock(&self, now: Duration) {
        for domain in self.machine.domains() {
            let since_zero = domain.system_time(self.machine.now.get());
            let at_zero = now.saturating_sub(Duration::from_nanos(since_zero));
            write_wall_clock(domain.info.shared_info(), at_zero);
        }
    }

    /// A random number below `bound`, from the seed.
    #[must_use]
    pub fn random(&self, bound: u64) -> u64 {
        self.machine.below(bound)
    }

    /// A hash of everything that happened: equal for two runs that were the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.machine.trace()
    }

    // Who runs

    /// Gives a domain its program: `turn` is called again and again, except while the domain sleeps in `poll`.
    /// For a domain under `fata_events`, it is `move || { xen_loop.turn(); }`.
    pub fn add_guest(&self, domain: &Domain, mut turn: impl FnMut() + 'static) {
        self.machine.wake(domain.state.slot);
        let domain = domain.clone();
        self.put_body(
            domain.state.slot,
            Box::new(move || {
                let state = &domain.state;
                state.counters.turns.set(state.counters.turns.get() + 1);
                turn();
                if state.watched_for_poison.get() {
                    domain.look_for_poison();
                }
                None
            }),
        );
    }

    /// Takes a domain's program away and drops all that it owns, as when the domain is destroyed. The domain's
    /// memory, grants and ports stay for a look.
    pub fn remove_guest(&self, domain: &Domain) {
        self.machine.sleep(domain.state.slot, None);
        self.machine.set_live(domain.state.slot, false);
        let body = self
            .bodies
            .borrow_mut()
            .get_mut(domain.state.slot)
            .and_then(Option::take);
        drop(body);
    }

    /// Adds something that runs in dom0 beside the domains: a backend, a daemon, a host on the network. `make`
    /// gets the service's waker and returns its step. Steps are small, so that others come in between.
    pub fn add_service<F: FnMut() -> Next + 'static>(&self, name: &str, make: impl FnOnce(Waker) -> F) -> Waker {
        let slot = self.machine.add_slot(name, false);
        let waker = Waker {
            machine: Rc::clone(&self.machine),
            slot,
        };
        let mut step = make(waker.clone());
        self.put_body(slot, Box::new(move || Some(step())));
        waker
    }

    pub(crate) fn add_domain_slot(&self, name: &str) -> SlotId {
        let slot = self.machine.add_slot(name, true);
        self.machine.sleep(slot, None);
        slot
    }

    fn put_body(&self, slot: SlotId, body: Body) {
        let mut bodies = self.bodies.borrow_mut();
        if bodies.len() <= slot {
            bodies.resize_with(slot + 1, || None);
        }
        bodies[slot] = Some(body);
        self.machine.set_live(slot, true);
    }

    // Running

    /// Runs until `done`, which is asked before each turn.
    ///
    /// # Panics
    /// When `limit` of virtual time has passed, or everybody sleeps for ever, or somebody broke a rule; the message
    /// says who was waiting for what, and names the seed.
    #[track_caller]
    pub fn run_until(&self, done: impl FnMut() -> bool, limit: Duration) {
        if !self.try_run_until(done, limit) {
            panic!(
                "not done after {limit:?} of virtual time, seed {}\n{}",
                self.seed(),
                self.describe()
            );
        }
    }

    /// As [`run_until`](Self::run_until), but says whether it came to an end in time.
    ///
    /// # Panics
    /// When somebody broke a rule.
    #[track_caller]
    pub fn try_run_until(&self, mut done: impl FnMut() -> bool, limit: Duration) -> bool {
        let end = self.machine.now.get().saturating_add(limit.as_nanos() as u64);
        loop {
            if done() {
                return true;
            }
            if self.machine.now.get() >= end || !self.step_before(end) {
                return false;
            }
        }
    }

    /// Runs for so much virtual time.
    ///
    /// # Panics
    /// When somebody broke a rule.
    #[track_caller]
    pub fn run_for(&self, duration: Duration) {
        let end = self.machine.now.get().saturating_add(duration.as_nanos() as u64);
        while self.machine.now.get() < end && self.step_before(end) {}
        if self.machine.now.get() < end {
            self.machine.now.set(end);
        }
    }

    /// Runs until everybody sleeps, however far the next deadline is. Returns the number of turns.
    ///
    /// # Panics
    /// When somebody broke a rule.
    #[track_caller]
    pub fn run_until_idle(&self) -> u64 {
        let mut turns = 0;
        while self.turn() {
            turns += 1;
        }
        turns
    }

    /// One turn, or a jump to the next deadline. False: everybody sleeps, and nobody wakes before `end`.
    #[track_caller]
    fn step_before(&self, end: u64) -> bool {
        if self.turn() {
            return true;
        }
        let next = self.machine.next_deadline();
        self.look_for_stalls(next.map_or(end, |next| next.min(end)));
        self.check_violations();
        match next {
            Some(deadline) if deadline <= end => {
                self.advance_to(deadline.max(self.machine.now.get()));
                true
            }
            _ => false,
        }
    }

    /// Gives one of those that can run a turn. False if all sleep.
    #[track_caller]
    fn turn(&self) -> bool {
        let Some(slot) = self.machine.choose(false) else {
            return false;
        };
        let turns = self.machine.run(slot);
        self.finish_restores();
        let cost = self.machine.below(self.max_cost.get());
        self.advance_to(self.machine.now.get() + cost);
        if turns.is_multiple_of(AUDIT_EVERY) {
            self.audit();
        }
        self.check_violations();
        true
    }

    fn advance_to(&self, now: u64) {
        self.machine.now.set(now);
        self.machine.deliver_late();
        while let Some((slot, is_domain)) = self.machine.next_due() {
            match self.machine.domains().iter().find(|domain| domain.slot == slot) {
                Some(domain) if is_domain => domain.wake(&self.machine),
                _ => self.machine.wake(slot),
            }
        }
    }

    // Rules

    /// Looks through all grant tables and freed pages for broken rules. Also done now and then while running.
    pub(crate) fn audit(&self) {
        for state in self.machine.domains() {
            Domain {
                machine: Rc::clone(&self.machine),
                state,
            }
            .audit();
        }
    }

    /// From now on a broken rule does not stop the run; the test asks for [`take_violations`](Self::take_violations).
    pub fn expect_violations(&self) {
        self.tolerant.set(true);
    }

    /// The rules that were broken since the last time: grants of freed pages, writes to them, grants taken back
    /// while mapped, events sent on closed ports, packets for which Linux's netback would have disabled the vif.
    #[must_use]
    pub fn take_violations(&self) -> Vec<String> {
        self.audit();
        std::mem::take(&mut *self.machine.violations())
    }

    #[track_caller]
    fn check_violations(&self) {
        if !self.tolerant.get() {
            let mut broken = self.machine.violations();
            if !broken.is_empty() {
                let broken = std::mem::take(&mut *broken);
                panic!("seed {}: {}", self.seed(), broken.join("; "));
            }
        }
    }

    /// What `domain` holds beyond what the toolstack gave it.
    #[must_use]
    pub fn leaks(&self, domain: &Domain) -> Leaks {
        Leaks {
            watches: self.store.watches_of(domain.id()),
            transactions: self.store.transactions_of(domain.id()),
            ..domain.state.leaks()
        }
    }

    /// Nothing is left: no page, no grant, no mapping, no port, no watch, no transaction.
    ///
    /// # Panics
    /// With the name and number of what is left, or of a rule that was broken.
    #[track_caller]
    pub fn assert_no_leaks(&self, domain: &Domain) {
        self.audit();
        self.check_violations();
        let leaks = self.leaks(domain);
        assert!(leaks.is_empty(), "{domain:?} leaked: {leaks}seed {}", self.seed());
    }

    /// Who can run, who sleeps until when; for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("at {} ns:", self.machine.now.get());
        let domains = self.machine.domains();
        self.machine.with_slots(|slots| {
            for (id, slot) in slots.iter().enumerate() {
                let state = match (slot.runnable, slot.deadline) {
                    (true, _) => "can run".to_owned(),
                    (false, Some(at)) => format!("sleeps for {} ns", at.saturating_sub(self.machine.now.get())),
                    (false, None) => "sleeps for ever".to_owned(),
                };
                let _ = write!(text, "\n  {}: {state}, {} turns", slot.name, slot.turns);
                if let Some(domain) = domains.iter().find(|domain| domain.slot == id) {
                    if let Some(reason) = domain.shutdown.get() {
                        let _ = write!(text, ", shut down: {reason:?}");
                    }
                    let _ = write!(text, "; holds: {}", domain.leaks());
                }
            }
        });
        text
    }
}
