//! The loop of a Xen domain.

use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use fata_hypercall::abi::sched::POLL_MAX_PORTS;
use fata_hypercall::{Hypervisor, Port};

use super::{Ports, PvClock};
use crate::{Clock, Executor, Handle, Turn};

/// How long to sleep at most while more ports are awaited than `SCHEDOP_poll` can list.
const PARTIAL_POLL: Duration = Duration::from_millis(10);

/// Executor, clock and event channels of a domain, and the way it sleeps.
pub struct XenLoop<H> {
    hv: H,
    clock: Rc<PvClock<H>>,
    ports: Ports<H>,
    executor: Executor,
}

impl<H: Hypervisor> XenLoop<H> {
    /// A loop without tasks. Its clock begins now; all event channels are masked.
    #[must_use]
    pub fn new(hv: H) -> Self {
        let clock = Rc::new(PvClock::new(hv.clone()));
        let executor = Executor::new(clock.clone());
        let ports = Ports::new(hv.clone());
        Self {
            hv,
            clock,
            ports,
            executor,
        }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Rc<PvClock<H>> {
        &self.clock
    }

    /// The event channels.
    #[must_use]
    pub fn ports(&self) -> &Ports<H> {
        &self.ports
    }

    /// A handle to spawn and sleep with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.executor.handle()
    }

    /// One round: takes events, runs what is ready, and sleeps in `SCHEDOP_poll` if nothing is.
    ///
    /// `true`: there is more to do now. `false`: the domain slept, or, in the simulator, where
    /// [`Hypervisor::poll`] comes back at once, would sleep.
    ///
    /// # Why no wake-up is lost
    ///
    /// The loop calls poll when no task is ready and no bit of an awaited port was pending at the last look. What can
    /// happen between that look and the sleep?
    ///
    /// * A task becomes ready: no. There is one thread and no interrupt, and tasks are woken by tasks, timers and the
    ///   dispatch only.
    /// * An awaited port becomes pending: its bit was clear and it is in poll's list. Xen marks the vCPU as polling
    ///   first and then looks at the listed ports, masked or not, so poll comes back at once.
    /// * A port that is not in the list becomes pending: nobody waits for it. Whoever starts to wait makes it awaited,
    ///   its bit stays set meanwhile, and the dispatch after that finds it.
    /// * A deadline passes: poll returns at once for a deadline in the past.
    /// * A port whose pause is over ([`Channel::served`](super::Channel::served)): that is a deadline, too.
    ///
    /// While the vCPU sleeps, the bit of an awaited port goes from clear to set, which wakes it; with one port in the
    /// list only that port does, with several or none any port does, which costs a turn of the loop and no more.
    ///
    /// # Why it does not spin
    ///
    /// Poll returns at once only for a listed port that is pending, and the next dispatch clears exactly these. In the FIFO
    /// form one may be pending and not linked yet, for the few instructions that Xen has left to do on another processor.
    ///
    /// # More than 128 ports
    ///
    /// Poll takes 128. Of more, each round lists the next 128 in turn. One that is not listed still wakes the sleeping
    /// vCPU; only the gap between the last look and the sleep is open for it, and so the sleep is cut to 10 ms.
    ///
    /// Source: `do_poll` and `evtchn_check_pollers` in Xen's xen/common/sched/core.c and event_channel.c.
    pub fn turn(&mut self) -> bool {
        self.ports.dispatch();
        let deadline = match self.executor.turn() {
            Turn::Ready => return true,
            Turn::Idle { deadline } => deadline,
        };
        // Much may have happened while tasks ran; looking costs less than a hypercall.
        if self.ports.dispatch() {
            return true;
        }
        let mut list = [Port(0); POLL_MAX_PORTS];
        let len = self.ports.wait_list(&mut list);
        let deadline = if self.ports.awaited() > len {
            let soon = self.clock.now() + PARTIAL_POLL;
            Some(deadline.map_or(soon, |deadline| deadline.min(soon)))
        } else {
            deadline
        };
        let deadline = deadline.and_then(|deadline| self.clock.to_system_time(deadline));
        let deadline = deadline.into_iter().chain(self.ports.end_of_pause()).min();
        self.ports.note_sleep();
        self.hv.poll(list.get(..len).unwrap_or(&list), deadline);
        false
    }

    /// Runs for ever. A task ends it by [`Hypervisor::shutdown`], which does not come back on metal.
    pub fn run(&mut self) -> ! {
        loop {
            self.turn();
        }
    }
}

impl<H: Hypervisor> fmt::Debug for XenLoop<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XenLoop")
            .field("executor", &self.executor)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}
