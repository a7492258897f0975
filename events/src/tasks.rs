//! The table of tasks.
#![allow(clippy::indexing_slicing, reason = "no index comes from outside")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::Waker;

use crate::ready::{Header, ReadyQueue, TaskId};
use crate::sync::Arc;

/// A task at rest.
pub(crate) struct Task {
    pub(crate) header: Arc<Header>,
    /// Made once, so that a poll clones nothing.
    pub(crate) waker: Waker,
    pub(crate) future: Pin<Box<dyn Future<Output = ()>>>,
}

/// What is in a place of the table.
enum State {
    /// Nobody; the next vacant place.
    Vacant(Option<u32>),
    /// A task that waits.
    Parked(Task),
    /// A task that is being polled, and is with the loop meanwhile.
    Running,
    /// The same, but it was cancelled meanwhile: the loop drops it when it comes back.
    Doomed,
}

struct Slot {
    generation: u32,
    state: State,
}

/// Tasks by [`TaskId`]. Nothing in here runs or drops a future: both may call back into the table, so the callers
/// do it, with the table no longer borrowed.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: Vec<Slot>,
    vacant: Option<u32>,
    alive: usize,
}

impl Tasks {
    /// How many tasks there are.
    pub(crate) fn alive(&self) -> usize {
        self.alive
    }

    /// Takes a new task in.
    pub(crate) fn insert(
        &mut self,
        queue: &Arc<ReadyQueue>,
        future: Pin<Box<dyn Future<Output = ()>>>,
    ) -> (TaskId, Arc<Header>) {
        let place = self.vacant.unwrap_or(self.slots.len() as u32);
        if self.vacant.is_none() {
            self.slots.push(Slot {
                generation: 0,
                state: State::Vacant(None),
            });
        }
        let slot = &mut self.slots[place as usize];
        if let State::Vacant(next) = slot.state {
            self.vacant = next;
        }
        let id = TaskId {
            slot: place,
            generation: slot.generation,
        };
        let header = Arc::new(Header::new(id, Arc::clone(queue)));
        slot.state = State::Parked(Task {
            header: Arc::clone(&header),
            waker: Waker::from(Arc::clone(&header)),
            future,
        });
        self.alive += 1;
        (id, header)
    }

    /// Takes a task out in order to run it; `None` if it is gone, or running.
    pub(crate) fn start(&mut self, id: TaskId) -> Option<Task> {
        let slot = self.slot(id)?;
        match core::mem::replace(&mut slot.state, State::Running) {
            State::Parked(task) => Some(task),
            other => {
                slot.state = other;
                None
            }
        }
    }

    /// Puts a task back that has more to do. Gives it back to be dropped if it was cancelled while it ran.
    pub(crate) fn park(&mut self, id: TaskId, task: Task) -> Option<Task> {
        match self.slot(id) {
            Some(slot) if matches!(slot.state, State::Running) => {
                slot.state = State::Parked(task);
                None
            }
            _ => {
                self.vacate(id);
                Some(task)
            }
        }
    }

    /// The end of a task that ran to its end.
    pub(crate) fn finish(&mut self, id: TaskId) {
        self.vacate(id);
    }

    /// Cancels a task. The caller drops what it gets; there is nothing to get while the task runs.
    pub(crate) fn cancel(&mut self, id: TaskId) -> Option<Task> {
        let slot = self.slot(id)?;
        match core::mem::replace(&mut slot.state, State::Doomed) {
            State::Parked(task) => {
                self.vacate(id);
                Some(task)
            }
            State::Running | State::Doomed => None,
            vacant @ State::Vacant(_) => {
                slot.state = vacant;
                None
            }
        }
    }

    /// Takes out any one task that waits: for the end of the loop.
    pub(crate) fn cancel_any(&mut self) -> Option<Task> {
        let (place, slot) = self
            .slots
            .iter()
            .enumerate()
            .find(|(_, slot)| matches!(slot.state, State::Parked(_)))?;
        let id = TaskId {
            slot: place as u32,
            generation: slot.generation,
        };
        self.cancel(id)
    }

    fn slot(&mut self, id: TaskId) -> Option<&mut Slot> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|slot| slot.generation == id.generation)
    }

    fn vacate(&mut self, id: TaskId) {
        let vacant = self.vacant;
        if let Some(slot) = self.slot(id) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = State::Vacant(vacant);
            self.vacant = Some(id.slot);
            self.alive -= 1;
        }
    }
}
