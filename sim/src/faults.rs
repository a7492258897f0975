//! What shall go wrong in a domain's hypercalls.

use std::cell::RefCell;

use fata_hypercall::Errno;

/// A hypercall that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `alloc_pages`: returns `None`, whatever errno the plan says.
    AllocPages,
    /// `evtchn_alloc_unbound`.
    EvtchnAlloc,
    /// `evtchn_close`.
    EvtchnClose,
    /// `evtchn_send`.
    EvtchnSend,
    /// `grant_frame`, for a page that does not exist yet.
    GrantFrame,
}

/// One entry of the plan.
#[derive(Debug)]
struct Plan {
    call: Call,
    /// Calls to let pass first.
    skip: u64,
    /// Failures left; `None` is for ever.
    times: Option<u64>,
    errno: Errno,
}

/// The fault plan of one domain. Every hypercall asks it first.
///
/// ```
/// use fata_hypercall::{DomId, Errno, Hypervisor};
/// use fata_sim::{Call, Sim};
/// let sim = Sim::new(1);
/// let domain = sim.domain("guest");
/// domain.faults().fail(Call::EvtchnAlloc, 2, Errno::ENOSPC);
/// assert!(domain.evtchn_alloc_unbound(DomId::DOM0).is_ok());
/// assert_eq!(domain.evtchn_alloc_unbound(DomId::DOM0), Err(Errno::ENOSPC));
/// assert!(domain.evtchn_alloc_unbound(DomId::DOM0).is_ok());
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    plans: RefCell<Vec<Plan>>,
}

impl Faults {
    /// The `nth` call from now on fails with `errno`; 1 is the next one. Other calls are not touched.
    pub fn fail(&self, call: Call, nth: u64, errno: Errno) {
        self.plan(call, nth.saturating_sub(1), Some(1), errno);
    }

    /// After `pass` more calls, every one fails with `errno` until [`clear`](Self::clear).
    pub fn fail_after(&self, call: Call, pass: u64, errno: Errno) {
        self.plan(call, pass, None, errno);
    }

    /// Forgets every plan.
    pub fn clear(&self) {
        self.plans.borrow_mut().clear();
    }

    fn plan(&self, call: Call, skip: u64, times: Option<u64>, errno: Errno) {
        self.plans.borrow_mut().push(Plan {
            call,
            skip,
            times,
            errno,
        });
    }

    /// What `call` shall answer this time; `None`: let it do its work.
    pub(crate) fn consult(&self, call: Call) -> Option<Errno> {
        let mut plans = self.plans.borrow_mut();
        let mut answer = None;
        for plan in plans.iter_mut().filter(|plan| plan.call == call) {
            if plan.skip > 0 {
                plan.skip -= 1;
            } else if answer.is_none() {
                answer = Some(plan.errno);
                plan.times = plan.times.map(|times| times - 1);
            }
        }
        plans.retain(|plan| plan.times != Some(0));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_count_their_own_calls() {
        let faults = Faults::default();
        faults.fail(Call::EvtchnSend, 1, Errno::EINVAL);
        faults.fail_after(Call::AllocPages, 2, Errno::ENOMEM);
        assert_eq!(faults.consult(Call::AllocPages), None);
        assert_eq!(faults.consult(Call::EvtchnSend), Some(Errno::EINVAL));
        assert_eq!(faults.consult(Call::EvtchnSend), None);
        assert_eq!(faults.consult(Call::AllocPages), None);
        assert_eq!(faults.consult(Call::AllocPages), Some(Errno::ENOMEM));
        assert_eq!(faults.consult(Call::AllocPages), Some(Errno::ENOMEM));
        faults.clear();
        assert_eq!(faults.consult(Call::AllocPages), None);
    }
}
