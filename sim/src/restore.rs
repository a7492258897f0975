//! Saving, restoring, migrating and copying a domain.
//!
//! On Xen a suspended domain is read out of memory and another one is built from it, with new numbers for everything. Here
//! the domain is the same object, from which everything is taken that would have stayed behind: its number, grants, event
//! channels, clock, its connection to xenstored, its backends. Xen's part is done when it suspends itself; the toolstack's
//! at the end of its turn, before anybody else gets on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use std::time::Duration;

use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::{DomId, Errno, GrantRef, Suspended};

use crate::clock::{Tsc, write_wall_clock};
use crate::domain::{Domain, ServiceRun};
use crate::sim::Sim;
use crate::store::{domain_path, is_busy, prepare};
use crate::toolstack::{BOOT_DAY, CONSOLE_GRANT, STORE_GRANT};

/// What follows a domain into its new life.
type Move = Rc<dyn Fn(&Sim)>;

/// Who is to be told when which domain was restored.
#[derive(Default)]
pub(crate) struct Moves(RefCell<Vec<(Domain, Move)>>);

impl Sim {
    /// `xl save` and `xl restore` ([`Suspended::Restored`]), or `xl save -c` ([`Suspended::Cancelled`]): asks the domain to
    /// suspend itself, and does the rest when it does. Backends and console follow it. Nothing, if it has been asked already.
    pub fn suspend(&self, domain: &Domain, outcome: Suspended) {
        if self.is_suspending(domain) {
            return;
        }
        domain.state.suspension.set(Some(outcome));
        let path = format!("{}/control/shutdown", domain_path(domain.id()));
        let _ = self.store.write(&path, "suspend");
    }

    /// The domain was asked to suspend itself, and has not done so yet.
    #[must_use]
    pub fn is_suspending(&self, domain: &Domain) -> bool {
        domain.state.suspension.get().is_some()
    }

    /// The toolstack has waited for long enough: the domain shall not suspend itself any more.
    pub fn give_up_suspend(&self, domain: &Domain) {
        domain.state.suspension.set(None);
    }

    /// How often the domain was restored.
    #[must_use]
    pub fn restores(&self, domain: &Domain) -> u32 {
        domain.state.incarnation.get()
    }

    pub(crate) fn when_restored(&self, domain: &Domain, then: impl Fn(&Self) + 'static) {
        self.moves.0.borrow_mut().push((domain.clone(), Rc::new(then)));
    }

    /// Does the toolstack's part for the domain that was restored in this turn, if one was.
    pub(crate) fn finish_restores(&self) {
        let Some((old, new)) = self.machine.take_restored() else {
            return;
        };
        self.store.release(&self.dom0, old);
        let _ = self.store.remove(&domain_path(old));
        let backends = format!("{}/backend", domain_path(DomId::DOM0));
        for kind in self.store.list(&backends) {
            let _ = self.store.remove(&format!("{backends}/{kind}/{}", old.0));
        }
        let Some(state) = self.machine.domain(new) else { return };
        let domain = Domain {
            machine: Rc::clone(&self.machine),
            state,
        };
        self.write_domain_nodes(&domain);
        if let Some(ring) = domain.state.store.get() {
            let introduced = self.store.introduce(&self.dom0, new, ring.port.get());
            introduced.expect("the toolstack's own grant and port");
        }
        let moves: Vec<Move> = self
            .moves
            .0
            .borrow()
            .iter()
            .filter(|(moved, _)| moved.id() == new)
            .map(|(_, then)| Rc::clone(then))
            .collect();
        for then in moves {
            then(self);
        }
    }
}

impl Domain {
    /// `SHUTDOWN_suspend`.
    pub(crate) fn stand_still(&self) -> Result<Suspended, Errno> {
        self.machine.note(0x50, u64::from(self.id().0));
        if self.state.store.get().is_some_and(|ring| is_busy(ring.run.page(0))) {
            self.machine
                .violation(format!("{self:?} suspended itself with a request in xenstore's ring"));
        }
        if self.state.foreign.borrow().len() > 0 {
            self.machine
                .violation(format!("{self:?} suspended itself with pages of other domains mapped"));
        }
        let Some(outcome) = self.state.suspension.take() else {
            self.machine
                .violation(format!("{self:?} suspended itself, and nobody had asked it to"));
            return Err(Errno::EINVAL);
        };
        if outcome == Suspended::Restored {
            self.begin_anew();
        }
        Ok(outcome)
    }

    /// Takes away what belongs to a domain of Xen's and not to what runs in it.
    fn begin_anew(&self) {
        let (machine, state) = (&self.machine, &self.state);
        let ports: Vec<_> = state.ports.borrow().open_ports().map(|(port, _)| port).collect();
        for port in ports {
            let _ = machine.close(state, port);
        }
        state.fifo.forget();
        state.incarnation.set(state.incarnation.get() + 1);
        state.pins.borrow_mut().clear();
        for frame in state.grant_frames.iter().filter_map(|frame| frame.get()) {
            for entry in frame.grant_entries() {
                clear(entry);
            }
        }
        let old = self.id();
        state.set_id(machine.next_domain());
        machine.note_restored(old, self.id());

        // Another host, which has been up for longer or less long.
        let info = state.info.shared_info();
        for word in info
            .evtchn_pending
            .iter()
            .chain(&info.evtchn_mask)
            .chain([&info.vcpu_info[0].evtchn_pending_sel])
        {
            word.store(0, SeqCst);
        }
        let wall_clock = BOOT_DAY + Duration::from_nanos(machine.now.get());
        state.tsc.set(Tsc::new(&mut machine.rng.borrow_mut()));
        let up = 1_000_000_000 + machine.below(1_000_000_000_000);
        state.host_time.set(up.wrapping_sub(machine.now.get()));
        state.anchor_clock(machine);
        write_wall_clock(info, wall_clock.saturating_sub(Duration::from_nanos(up)));

        // A PVH domain's rings are emptied; in a PV domain's there is what was there.
        let emptied = machine.one_in(2);
        for (ring, reference) in [(&state.console, CONSOLE_GRANT), (&state.store, STORE_GRANT)] {
            if let Some(ring) = ring.get() {
                self.reopen(ring, reference, emptied);
            }
        }
    }

    fn reopen(&self, ring: &ServiceRun, reference: GrantRef, emptied: bool) {
        let page = ring.run.page(0);
        if emptied {
            page.write(0, &[0; fata_hypercall::PAGE_SIZE]);
            if reference == STORE_GRANT {
                prepare(page, &mut self.machine.rng.borrow_mut());
            }
        }
        let gfn = self.state.memory.borrow().gfn_of(page);
        ring.port
            .set(self.open_service(reference, gfn.expect("the toolstack's own page")));
    }
}

fn clear(entry: &EntryV1) {
    entry.flags.store(0, SeqCst);
    entry.domid.store(0, SeqCst);
    entry.frame.store(0, SeqCst);
}
