//! Events on their way: late, twice, or without a cause. Xen never loses one, and neither does the simulator.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fata_hypercall::{DomId, Port};

use crate::domain::{Domain, DomainState};
use crate::machine::Machine;
use crate::sim::Sim;

/// What happens to the events that a domain gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventFaults {
    /// Once in so many times an event comes late; 0: never.
    pub late_one_in: u64,
    /// The most that it is late by.
    pub late_by: Duration,
    /// Once in so many times an event comes again, as late; 0: never.
    pub again_one_in: u64,
}

/// An event that has not arrived.
#[derive(Debug)]
struct Late {
    at: u64,
    domain: DomId,
    port: Port,
}

/// Events that have not arrived, in no order.
#[derive(Debug, Default)]
pub(crate) struct LateEvents(RefCell<Vec<Late>>);

impl LateEvents {
    /// When the next one arrives.
    pub(crate) fn next(&self) -> Option<u64> {
        self.0.borrow().iter().map(|late| late.at).min()
    }

    fn take_due(&self, now: u64) -> Option<Late> {
        let mut late = self.0.borrow_mut();
        let index = late.iter().position(|late| late.at <= now)?;
        Some(late.swap_remove(index))
    }
}

impl Machine {
    /// Brings an event to `to`, by its fault plan.
    pub(crate) fn deliver(&self, to: &Rc<DomainState>, port: Port) {
        let EventFaults {
            late_one_in,
            late_by,
            again_one_in,
        } = to.event_faults.get();
        let postpone = || {
            let at = self.now.get() + 1 + self.below(late_by.as_nanos() as u64);
            let late = Late {
                at,
                domain: to.id(),
                port,
            };
            self.late.0.borrow_mut().push(late);
        };
        if self.one_in(again_one_in) {
            postpone();
        }
        if self.one_in(late_one_in) {
            postpone();
        } else {
            self.raise(to, port);
        }
    }

    /// Lets the events arrive that are due.
    pub(crate) fn deliver_late(&self) {
        while let Some(Late { domain, port, .. }) = self.late.take_due(self.now.get()) {
            // Sent is sent, even if the sender is gone meanwhile; but a closed port hears nothing.
            if let Some(domain) = self.domain(domain)
                && domain.ports.borrow().get(port).is_some()
            {
                self.raise(&domain, port);
            }
        }
    }
}

impl Domain {
    /// From now on the domain's events come by this plan.
    pub fn set_event_faults(&self, faults: EventFaults) {
        self.state.event_faults.set(faults);
    }
}

impl Sim {
    /// Signals every open port of a domain `times` times, without a cause.
    pub fn spurious_events(&self, domain: &Domain, times: u32) {
        let ports: Vec<Port> = domain.state.ports.borrow().open_ports().map(|(port, _)| port).collect();
        for _ in 0..times {
            for &port in &ports {
                self.machine.raise(&domain.state, port);
            }
        }
    }
}
