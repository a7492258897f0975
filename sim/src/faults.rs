//! What shall go wrong in a domain's hypercalls.

use std::cell::RefCell;

use fata_hypercall::Errno;

use crate::rng::Rng;

/// A hypercall that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `alloc_pages`: returns `None`, whatever errno the plan says.
    AllocPages,
    /// [`Domain::release_pages`](crate::Domain::release_pages): none goes.
    ReleasePages,
    /// [`Domain::populate_pages`](crate::Domain::populate_pages): the hypervisor has none.
    PopulatePages,
    /// `evtchn_alloc_unbound`.
    EvtchnAlloc,
    /// `evtchn_bind_interdomain`.
    EvtchnBind,
    /// `evtchn_use_fifo`.
    EvtchnFifo,
    /// `evtchn_close`.
    EvtchnClose,
    /// `evtchn_send`.
    EvtchnSend,
    /// `grant_frame`, for a page that does not exist yet.
    GrantFrame,
    /// `map_grant`: `NoSpace`, whatever errno the plan says.
    MapGrant,
}

/// One entry of the plan.
#[derive(Debug)]
struct Plan {
    call: Call,
    when: When,
    errno: Errno,
}

#[derive(Debug)]
enum When {
    /// After so many calls, and so many times; `None` is for ever.
    Counted { skip: u64, times: Option<u64> },
    /// Once in so many calls.
    OneIn(u64),
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
#[derive(Debug)]
pub struct Faults {
    plans: RefCell<Vec<Plan>>,
    rng: RefCell<Rng>,
}

impl Faults {
    pub(crate) const fn new(rng: Rng) -> Self {
        Self {
            plans: RefCell::new(Vec::new()),
            rng: RefCell::new(rng),
        }
    }

    /// The `nth` call from now on fails with `errno`; 1 is the next one. Other calls are not touched.
    pub fn fail(&self, call: Call, nth: u64, errno: Errno) {
        let (skip, times) = (nth.saturating_sub(1), Some(1));
        self.plan(call, When::Counted { skip, times }, errno);
    }

    /// After `pass` more calls, every one fails with `errno` until [`clear`](Self::clear).
    pub fn fail_after(&self, call: Call, pass: u64, errno: Errno) {
        let (skip, times) = (pass, None);
        self.plan(call, When::Counted { skip, times }, errno);
    }

    /// Once in `n` times the call fails with `errno`, by chance, until [`clear`](Self::clear).
    pub fn fail_one_in(&self, call: Call, n: u64, errno: Errno) {
        self.plan(call, When::OneIn(n), errno);
    }

    /// Forgets every plan.
    pub fn clear(&self) {
        self.plans.borrow_mut().clear();
    }

    fn plan(&self, call: Call, when: When, errno: Errno) {
        self.plans.borrow_mut().push(Plan { call, when, errno });
    }

    /// What `call` shall answer this time; `None`: let it do its work.
    pub(crate) fn consult(&self, call: Call) -> Option<Errno> {
        let mut plans = self.plans.borrow_mut();
        let mut answer = None;
        for plan in plans.iter_mut().filter(|plan| plan.call == call) {
            match &mut plan.when {
                When::Counted { skip: 0, times } if answer.is_none() => {
                    answer = Some(plan.errno);
                    *times = times.map(|times| times - 1);
                }
                When::Counted { skip, .. } => *skip = skip.saturating_sub(1),
                When::OneIn(n) => {
                    if self.rng.borrow_mut().one_in(*n) {
                        answer = answer.or(Some(plan.errno));
                    }
                }
            }
        }
        plans.retain(|plan| !matches!(plan.when, When::Counted { times: Some(0), .. }));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_count_their_own_calls() {
        let faults = Faults::new(Rng::new(1));
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
        faults.fail_one_in(Call::AllocPages, 4, Errno::ENOMEM);
        let failed = (0..1000).filter(|_| faults.consult(Call::AllocPages).is_some()).count();
        assert!((150..350).contains(&failed), "{failed}");
    }
}
