//! Which sockets are to be looked at, now and later.
//!
//! A socket is on the agenda because something has happened to it (it is *ready*), or because its time comes (it has a
//! *timer*), or both. Nobody else is ever looked at: what a packet costs does not depend on how many there are.
//!
//! A timer is a promise to look not later than that. TCP sets a deadline for every segment and moves it away again with
//! every acknowledgement; so a timer that moves away keeps its place in the heap, and is put further back when its first
//! time has come. One that moves nearer gets a second place, and the first counts no more. Timers fire at whole
//! milliseconds, so that those of many busy connections wake the runner together.

use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;

use fata_events::Instant;

use crate::{Error, Result};

/// The number of a socket.
pub(crate) type Id = u32;

/// Timers fire at multiples of this, in nanoseconds.
const TICK: u64 = 1_000_000;

/// Who is ready, and who will be.
#[derive(Default)]
pub(crate) struct Agenda {
    /// Everybody, by number.
    plans: Vec<Plan>,
    /// In turn: who was looked at and is still ready goes to the end.
    ready: VecDeque<Id>,
    timers: BinaryHeap<Reverse<(Instant, Id)>>,
}

#[derive(Clone, Copy, Default)]
struct Plan {
    /// It is in `ready`, where nobody is twice.
    ready: bool,
    /// When to look at it.
    due: Option<Instant>,
    /// Its place in `timers`, not later than `due`. Other places do not count.
    place: Option<Instant>,
}

impl Agenda {
    /// Makes room for sockets with numbers below `count`: from then on nothing here needs memory for them.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<()> {
        let more = count.saturating_sub(self.plans.len());
        let enough = self.plans.try_reserve(more).is_ok()
            && self.ready.try_reserve(count - self.ready.len()).is_ok()
            && self
                .timers
                .try_reserve((2 * count).saturating_sub(self.timers.len()))
                .is_ok();
        if !enough {
            return Err(Error::OutOfMemory);
        }
        self.plans.resize(self.plans.len() + more, Plan::default());
        Ok(())
    }

    /// Something has happened to it.
    pub(crate) fn touch(&mut self, id: Id) {
        if let Some(plan) = self.plans.get_mut(id as usize)
            && !plan.ready
        {
            plan.ready = true;
            self.ready.push_back(id);
        }
    }

    /// How many are ready.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the next one that is ready.
    pub(crate) fn next_ready(&mut self) -> Option<Id> {
        let id = self.ready.pop_front()?;
        if let Some(plan) = self.plans.get_mut(id as usize) {
            plan.ready = false;
        }
        Some(id)
    }

    /// Sets its timer, or none. It fires at the first tick that is not earlier.
    pub(crate) fn set_timer(&mut self, id: Id, due: Option<Instant>) {
        let Some(plan) = self.plans.get_mut(id as usize) else {
            return;
        };
        let due = due.map(|due| Instant::from_nanos(due.as_nanos().checked_next_multiple_of(TICK).unwrap_or(u64::MAX)));
        plan.due = due;
        if let Some(due) = due
            && plan.place.is_none_or(|place| due < place)
        {
            plan.place = Some(due);
            self.push(due, id);
        }
    }

    /// Sets its timer, unless it fires before that anyway.
    pub(crate) fn set_timer_before(&mut self, id: Id, due: Instant) {
        let earlier = self.plans.get(id as usize).and_then(|plan| plan.due);
        self.set_timer(id, earlier.into_iter().chain(Some(due)).min());
    }

    /// When to look at the agenda, even if nothing happens.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one whose time has come.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Id> {
        while self.next_timer().is_some_and(|at| at <= now) {
            let Reverse((at, id)) = self.timers.pop()?;
            let Some(plan) = self.plans.get_mut(id as usize).filter(|plan| plan.place == Some(at)) else {
                continue;
            };
            plan.place = None;
            let due = plan.due.take();
            if due.is_some_and(|due| due <= now) {
                return Some(id);
            }
            self.set_timer(id, due);
        }
        None
    }

    fn push(&mut self, at: Instant, id: Id) {
        if self.timers.len() >= 2 * self.plans.len() {
            // At least half of them do not count.
            let plans = &self.plans;
            self.timers
                .retain(|Reverse((at, id))| plans.get(*id as usize).is_some_and(|plan| plan.place == Some(*at)));
        }
        self.timers.push(Reverse((at, id)));
    }
}

#[cfg(test)]
mod tests;
